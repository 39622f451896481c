"""`segdistill export`: the deployed network as ONNX, checked before anybody can use it."""

from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from segdistill.build import build_eval_dataset, build_samples
from segdistill.commands.run_folder import RunFolder
from segdistill.data.loading import EvalDataset
from segdistill.data.synthetic import SyntheticStreets
from segdistill.errors import DataError
from segdistill.evaluation.predictors import OnnxPredictor, PlainPredictor
from segdistill.export.onnx import export_onnx
from segdistill.export.parity import Parity, compare, require
from segdistill.export.weights import Deployed, load_deployed

PARITY_IMAGES = 8


def export_run(path: Path, *, out: Path | None, opset: int | None, console: Console) -> None:
    """Make a run's ONNX file again from its `primary.safetensors`.

    Args:
        path: of the run folder.
        out: of the file; by default the run's `primary.onnx`.
        opset: of the ONNX standard; by default the run's.
        console: to print on.
    """
    folder = RunFolder(path)
    config = folder.load_config()
    primary, deployed = load_deployed(folder.primary)
    try:
        samples = build_samples(config, "val", console=console)
    except DataError as error:
        console.print(f"the run's images are not at hand, so the check uses synthetic streets ({error})")
        height, width = deployed.size
        samples = SyntheticStreets(split="val", length=PARITY_IMAGES, height=height, width=width, seed=0)
    export_checked(
        out or folder.onnx,
        primary,
        deployed,
        build_eval_dataset(config, samples, normalisation=deployed.normalisation),
        opset=opset or config.export.opset,
        console=console,
    )


def export_checked(
    path: Path, primary: nn.Module, deployed: Deployed, images: EvalDataset, *, opset: int, console: Console
) -> Parity:
    """Export, compare with torch on real images under ONNX Runtime, and only then let the file stand.

    Raises:
        ExportError: if the export or the comparison fails; no file is left behind.
    """
    candidate = path.with_name(f".unchecked-{path.name}")
    try:
        with console.status("exporting to ONNX (about half a minute)"):
            export_onnx(candidate, primary, deployed, opset=opset)
            reference = PlainPredictor(primary, multiple=deployed.multiple, device=torch.device("cpu"))
            parity = compare(reference, OnnxPredictor(candidate), parity_batches(images))
        require(parity, file=str(path))
        candidate.replace(path)
    finally:
        candidate.unlink(missing_ok=True)
    console.print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, equal to torch on {parity.images} images under ONNX Runtime "
        f"(max |dlogit| {parity.max_logit_difference:.1e}, {parity.equal_argmax:.3%} of pixels the same class)",
        highlight=False,
    )
    return parity


def parity_batches(images: EvalDataset) -> Iterator[Tensor]:
    """Evenly spaced images: two as one batch, one cut to an odd size, the others singly."""
    count = min(PARITY_IMAGES, len(images))
    picked = [images[place * len(images) // count].image.unsqueeze(0) for place in range(count)]
    yield torch.cat(picked[:2])
    yield from picked[2:-1]
    yield picked[-1][..., :-7, :-3]

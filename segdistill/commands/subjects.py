"""What `evaluate` can score: a run's networks, an exported file, or masks that lie in a folder."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from segdistill.build.datasets import worker_count
from segdistill.build.splits import build_splits, build_unlabelled_test, data_hash, names_elsewhere
from segdistill.commands.data_drift import other_images, what_has_changed
from segdistill.commands.protocol import IGNORED, of_view, other_data, run_protocol
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.settings import refuse_what_counts
from segdistill.commands.trained import Weights, load_predictor
from segdistill.commands.wanted_file import SCORED_AT, seen_size
from segdistill.commands.written_masks import MaskFolder
from segdistill.config import Config
from segdistill.config_io import load_config, resolve
from segdistill.console import warn
from segdistill.data.samples import LabelledImage, Samples
from segdistill.errors import EvaluationError
from segdistill.evaluation.evaluator import Labelling
from segdistill.evaluation.looking import View, Viewer, Window
from segdistill.export.onnx_file import OnnxFile
from segdistill.protocol import Protocol


@dataclass(frozen=True)
class Wishes:
    """How the user wants images to be looked at; None leaves it to the network.

    Attributes:
        size: (height, width) in pixels that images are resized to, at scale 1.
        window: (height, width) of a sliding window in pixels.
        stride: (down, right) of the window in pixels; None for half of its size.
        scales: factors of the size.
        flip: also mirrored.
    """

    size: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def view(self, own_size: tuple[int, int]) -> View:
        """
        Args:
            own_size: of the network.

        Raises:
            EvaluationError: if the window would leave pixels out.
        """
        window = None
        if self.window is not None:
            half = (-(-self.window[0] // 2), -(-self.window[1] // 2))
            stride = self.stride or half
            if stride[0] > self.window[0] or stride[1] > self.window[1]:
                raise EvaluationError(
                    f"--stride {_pixels(stride)} is more than --window {_pixels(self.window)}, so pixels would be left "
                    f"out; use at most the window, e.g. its half, {_pixels(half)}"
                )
            window = Window(self.window, stride)
        elif self.stride is not None:
            raise EvaluationError(f"--stride {_pixels(self.stride)} needs the --window HxW that it moves")
        return View(self.size or own_size, window, self.scales, self.flip)

    @property
    def tag(self) -> str:
        """What names of result files say of the wishes, so that one way to look does not overwrite another; empty by
        default.
        """
        parts = {
            "": self.size and _pixels(self.size),
            "window": self.window and _pixels(self.window),
            "stride": self.stride and _pixels(self.stride),
            "scales": self.scales != (1.0,) and "-".join(f"{scale:g}" for scale in self.scales),
            "flip": "" if self.flip else None,
        }
        return "".join(f"_{name}{value}" for name, value in parts.items() if value or value == "")


def _pixels(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


@dataclass(frozen=True)
class Subject:
    """Something that can be scored on a split.

    Attributes:
        samples: of the split.
        label: an image with its index -> what every stream says of it.
        protocol: how the scores come about.
        target: default path of the JSON; the other results are named after it.
        workers: processes that decode images.
    """

    samples: Samples
    label: Callable[[int, LabelledImage], Mapping[str, Labelling]]
    protocol: Protocol
    target: Path
    workers: int


def run_subject(
    path: Path,
    overrides: Sequence[str],
    *,
    split: str,
    submitted: bool,
    weights: Weights,
    wishes: Wishes,
    device: torch.device,
    console: Console,
) -> Subject:
    """A run's networks as something to score.

    Args:
        path: of the run folder.
        overrides: where the run's data lie now, e.g. `data.root=DIR`.
        split: train, val or test.
        submitted: whether predictions are wanted also where there is no label.
        weights: `deployed` is the network of primary.safetensors; `last` and `best` are checkpoints, which
            also hold the branches.
        wishes: how to look at images.
        device: where to run.
        console: to print on.
    """
    folder = RunFolder(path)
    config = folder.load_config(overrides)
    elsewhere = other_data(config, folder.load_config())
    predictor, normalisation, words = load_predictor(folder, config, weights=weights, device=device)
    view = wishes.view(config.data.size)
    samples, split_hash = _samples(config, split, submitted=submitted, console=console)
    changed = what_has_changed(
        folder, samples, config, split=split, split_hash=split_hash, elsewhere=elsewhere
    )
    if changed:
        warn(console, changed)
    return Subject(
        samples=samples,
        label=_looking(Viewer(predictor, view, normalisation=normalisation)),
        protocol=run_protocol(config, split=split, images=len(samples), view=view, weights=words).on(
            elsewhere, split_hash
        ),
        target=path / f"evaluation_{split}_{weights}{wishes.tag}{_tag(elsewhere)}.json",
        workers=worker_count(config, on_gpu=device.type == "cuda"),
    )


def _tag(elsewhere: Path | None) -> str:
    """What names of result files say of other data: their folder's name, and a hash of its path, for folders of the
    same name in different places hold different data."""
    if elsewhere is None:
        return ""
    return f"_on_{elsewhere.name}_{hashlib.sha256(str(elsewhere).encode()).hexdigest()[:8]}"


def file_subject(
    path: Path, overrides: Sequence[str], *, split: str, submitted: bool, wishes: Wishes, console: Console
) -> Subject:
    """An exported file under ONNX Runtime, on the data its metadata names.

    Args:
        path: of the file.
        overrides: where the data lie now, e.g. `data.root=DIR`.
        split: train, val or test.
        submitted: whether predictions are wanted also where there is no label.
        wishes: how to look at images; a file that takes images and gives classes has to be left its own way.
        console: to print on.

    Raises:
        ExportError: if the file was not exported by segdistill.
        EvaluationError: if the file cannot look that way.
    """
    file = OnnxFile(path)
    described = file.description
    refuse_what_counts(overrides, owner=str(path))
    view = _check_view(file, wishes)
    known = {"name": described.stream, "data": {**described.data, "cache": False}}
    config = resolve(known, overrides, source=str(path))
    # A file says nothing of where its data lay, so own to it is where data of the kind lie by default.
    elsewhere = other_data(config, resolve(known, [], source=str(path)))
    samples, split_hash = _samples(config, split, submitted=submitted, console=console)
    own = described.score.protocol
    if others := other_images(own, split, split_hash):
        warn(console, others)
    how = own.but(
        data=config.data.kind,
        split=split,
        images=len(samples),
        **of_view(view),
        scored_at=SCORED_AT[described.input],
        weights=f"{described.precision} {described.input} file under ONNX Runtime",
    )
    if described.input == "image":
        label = _asking(file)
        how = how.but(input_size=seen_size(described, file.fixed_size, trained=described.size))
    else:
        label = _looking(Viewer(file.logits, view, normalisation=described.normalisation))
    return Subject(
        samples=samples,
        label=label,
        protocol=how.on(elsewhere, split_hash),
        target=path.with_name(f"{path.stem}_{split}{wishes.tag}{_tag(elsewhere)}.json"),
        workers=worker_count(config, on_gpu=False),
    )


def _check_view(file: OnnxFile, wishes: Wishes) -> View:
    """How the file will look; raises EvaluationError if it cannot look as it is wished."""
    described, fixed = file.description, file.fixed_size
    if described.input == "image" and wishes != Wishes():
        raise EvaluationError(
            f"{file.path} takes whole images and gives class indexes, not logits, so --size, --window, --stride, "
            "--scales and --flip cannot be had of it; score a file with logits: tools/export.py RUN --input tensor"
        )
    view = wishes.view(fixed or described.size)
    sizes = [view.seen_at(scale) for scale in view.scales]
    if fixed is not None and any(size != fixed for size in sizes):
        raise EvaluationError(
            f"{file.path} takes images of {_pixels(fixed)} alone, not of {', '.join(map(_pixels, sizes))}; let a "
            f"--window {_pixels(fixed)} slide over larger ones, or export it without --size"
        )
    return view


def mask_subject(
    model: Path,
    overrides: Sequence[str],
    *,
    split: str,
    submitted: bool,
    masks: Path,
    label_ids: bool,
    console: Console,
) -> Subject:
    """Masks that somebody predicted and stored, whatever network it was.

    Args:
        model: a configuration or a run folder; only its data count.
        overrides: of the configuration, or where the run's data lie now.
        split: train, val or test.
        submitted: whether they are wanted for Cityscapes' server, also where there is no label.
        masks: folder of PNG files.
        label_ids: whether they hold Cityscapes' label ids instead of class indexes.
        console: to print on.
    """
    load = RunFolder(model).load_config if model.is_dir() else partial(load_config, model)
    config = load(overrides)
    own = load([override for override in overrides if not override.startswith("data.root=")])
    elsewhere = other_data(config, own)
    samples, split_hash = _samples(config, split, submitted=submitted, console=console)
    image_suffix = config.data.folder.image_suffix if config.data.kind == "folder" else ""
    found = MaskFolder.matching(
        masks,
        samples,
        split=split,
        label_ids=label_ids,
        image_suffix=image_suffix,
        elsewhere=names_elsewhere(config, split, console=console),
    )
    if found.unscored:
        console.print(f"{found.unscored} masks in {masks} are of images of other splits, and not scored")
    place = masks.resolve()
    how = Protocol(
        data=config.data.kind,
        split=split,
        images=len(samples),
        input_size=None,
        view=f"masks in {masks}",
        test_time_augmentation=None,
        scored_at="label size",
        ignored=IGNORED,
        weights="unknown",
    )
    return Subject(
        samples=samples,
        label=found.label,
        protocol=how.on(elsewhere, split_hash),
        target=place.parent / f"{place.name}_{split}{_tag(elsewhere)}.json",
        workers=0,
    )


def _samples(config: Config, split: str, *, submitted: bool, console: Console) -> tuple[Samples, str | None]:
    """The images of a split, and their hash (see `data_hash`), which is None of images without labels."""
    if submitted and split == "test" and config.data.kind == "cityscapes":
        return build_unlabelled_test(config), None
    checked = build_splits(config, (split,), console=console)
    return checked[split].samples, data_hash(checked)


def _looking(viewer: Viewer) -> Callable[[int, LabelledImage], Mapping[str, Labelling]]:
    def label(index: int, sample: LabelledImage) -> Mapping[str, Labelling]:
        height, width = sample.mask.shape
        return {name: Labelling.of(logits) for name, logits in viewer(sample.image, height, width)}

    return label


def _asking(file: OnnxFile) -> Callable[[int, LabelledImage], Mapping[str, Labelling]]:
    def label(index: int, sample: LabelledImage) -> Mapping[str, Labelling]:
        classes, confidence = file.predict(sample.image)
        sure = None if confidence is None else torch.from_numpy(confidence)
        return {file.description.stream: Labelling(torch.from_numpy(classes), sure)}

    return label

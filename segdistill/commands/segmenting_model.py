"""What `segdistill predict` asks: a stream of a run, or an exported file."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import torch

from segdistill.build.splits import build_taxonomy
from segdistill.commands.run_folder import RunFolder
from segdistill.commands.trained import load_predictor
from segdistill.data.taxonomy import Taxonomy
from segdistill.errors import ExportError, RunFolderError
from segdistill.evaluation.predictors import MultiBranchPredictor, PlainPredictor
from segdistill.export.onnx_file import OnnxFile
from segdistill.export.segmenter import Segmenter, TorchSegmenter
from segdistill.export.weights import load_deployed
from segdistill.given_model import is_onnx, refuse_no_network
from segdistill.streams import ENSEMBLE, PRIMARY


@dataclass(frozen=True)
class Model:
    """A loaded network: what runs it, what its classes mean, and which stream of which file it is."""

    segmenter: Segmenter
    taxonomy: Taxonomy
    title: str


def load_model(path: Path, *, stream: str | None) -> Model:
    """A stream of a run folder or of an ONNX file; None for the deployed one, or the one that the file holds."""
    refuse_no_network(path)
    if is_onnx(path):
        file = OnnxFile(path)
        held = file.description.stream
        if stream not in (None, held):
            raise ExportError(
                f"{path} holds the stream {held!r} and not {stream!r}; leave --stream out, or name the run's folder"
            )
        return Model(file, file.description.taxonomy, f"{path} ({held})")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    load = _load_deployed if stream in (None, PRIMARY) else _load_from_checkpoint
    return load(RunFolder(path), stream or PRIMARY, device)


def _load_deployed(folder: RunFolder, stream: str, device: torch.device) -> Model:
    if not folder.primary.is_file():
        moved = folder.load_config().run_folder.resolve() != folder.path.resolve()
        where = quote(f"out={folder.path}") if moved else ""
        raise RunFolderError(
            f"{folder.path} has no {folder.primary.name}, which its run makes at its end. Go on with it by "
            f"tools/train.py {quote(str(folder.config))} --resume {where}".rstrip()
        )
    primary, deployed = load_deployed(folder.primary)
    predictor = PlainPredictor(primary, multiple=deployed.multiple, device=device)
    segmenter = TorchSegmenter(
        predictor, stream=stream, size=deployed.size, normalisation=deployed.normalisation
    )
    return Model(segmenter, deployed.taxonomy, f"{folder.path} ({stream})")


def _load_from_checkpoint(folder: RunFolder, stream: str, device: torch.device) -> Model:
    """Load a stream from the checkpoint of the epoch whose weights are deployed."""
    config = folder.load_config()
    predictor, normalisation, weights = load_predictor(
        folder, config, weights=config.export.weights, device=device
    )
    assert isinstance(predictor, MultiBranchPredictor)
    submodels = predictor.net.submodels
    streams = (*submodels, ENSEMBLE) if len(submodels) > 1 else submodels
    if stream not in streams:
        raise RunFolderError(f"{folder.path} has no stream {stream!r}; it has {', '.join(streams)}")
    segmenter = TorchSegmenter(predictor, stream=stream, size=config.data.size, normalisation=normalisation)
    shown = stream if folder.scored else f"{stream}, {weights}"
    return Model(segmenter, build_taxonomy(config), f"{folder.path} ({shown})")

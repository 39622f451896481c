"""The networks that a run has trained, as they are exported, scored and resumed."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from segdistill.build.network import build_net
from segdistill.build.splits import build_taxonomy
from segdistill.commands.protocol import weights_in_words
from segdistill.commands.run_folder import RunFolder
from segdistill.config import Config
from segdistill.errors import RunFolderError
from segdistill.evaluation.predictors import MultiBranchPredictor, PlainPredictor
from segdistill.export.graphs import BranchStream
from segdistill.export.weights import Deployed, load_deployed
from segdistill.models.multi_branch import MultiBranchNet, branch_name
from segdistill.models.primary import input_multiple
from segdistill.normalisation import Normalisation
from segdistill.protocol import Score
from segdistill.run_summary import RunSummary
from segdistill.streams import PRIMARY
from segdistill.training.checkpoint import load_checkpoint
from segdistill.training.state import LEARNER_KEY

ALL = "all"

Weights = Literal["deployed", "last", "best"]


@dataclass(frozen=True)
class Trained:
    """A stream of a run.

    Attributes:
        name: of the stream.
        network: (B, 3, h, w) normalised -> (B, C, h, w) logits, h and w multiples of the stride.
        deployed: how the run's networks are fed.
        config: of the run.
        score: mIoU (0..1) at the end of the training, and its protocol.
    """

    name: str
    network: nn.Module
    deployed: Deployed
    config: Config
    score: Score


def trained_streams(folder: RunFolder, config: Config, stream: str) -> list[Trained]:
    """One stream, or all of them, the primary first.

    Raises:
        RunFolderError: if there is no such stream, or a file of the run is missing or damaged.
    """
    primary, deployed = load_deployed(folder.primary)
    refuse_other_classes(folder, config, deployed)
    taps = config.method.branches.taps if config.method.has_branches else ()
    known = [PRIMARY, *(branch_name(tap) for tap in taps)]
    if stream not in (ALL, *known):
        raise RunFolderError(f"{folder.path} has no stream {stream!r}; it has {', '.join(known)}, or {ALL}")
    chosen = known if stream == ALL else [stream]
    summary = folder.load_summary()

    def trained_as(name: str, network: nn.Module) -> Trained:
        return Trained(name, network, deployed, config, score_in(summary, name))

    trained = [trained_as(PRIMARY, primary)] if PRIMARY in chosen else []
    if branches := [name for name in chosen if name != PRIMARY]:
        net = load_saved_net(folder, config, which=config.export.weights).net.eval()
        net.primary = net.deploy()  # the encoder that branches hang on is the deployed one
        trained += [trained_as(name, BranchStream(net, name)) for name in branches]
    return trained


def score_in(summary: RunSummary, stream: str) -> Score:
    """What the run's summary says of a stream, as it stands in the exported files."""
    how = summary.protocol.on(None, summary.data.splits[summary.protocol.split])
    return Score(miou=summary.miou.of(stream), of="the network in torch", protocol=how)


def refuse_other_classes(folder: RunFolder, config: Config, deployed: Deployed) -> None:
    """Raises RunFolderError if the network was trained for other classes than the run's data have now."""
    if deployed.taxonomy != build_taxonomy(config):
        raise RunFolderError(
            f"the classes of {folder.primary} ({', '.join(deployed.taxonomy.names)}) are not those of {folder.config}; "
            "put the configuration back that the run was made with"
        )


class SavedNet(NamedTuple):
    """The network of a checkpoint."""

    net: MultiBranchNet
    epoch: int  # after which it was saved, from 1
    normalisation: Normalisation  # of its images


def load_saved_net(folder: RunFolder, config: Config, *, which: Literal["last", "best"]) -> SavedNet:
    """Primary and branches of a checkpoint.

    Raises:
        RunFolderError: if it is missing or damaged.
    """
    checkpoints = folder.checkpoints(config)
    content = load_checkpoint(checkpoints.last if which == "last" else checkpoints.best)
    net = build_net(without_first_weights(config))
    net.load_state_dict(scored_weights(content))
    return SavedNet(net, content["state"]["position"]["epoch"], saved_normalisation(content))


class Loaded(NamedTuple):
    """A run's network, ready to look at images."""

    predictor: PlainPredictor | MultiBranchPredictor
    normalisation: Normalisation
    weights: str  # which they are, in words


def load_predictor(folder: RunFolder, config: Config, *, weights: Weights, device: torch.device) -> Loaded:
    """The network whose scores are asked for, and how its images are normalised.

    Raises:
        RunFolderError: if its file is missing or damaged, or the run's classes were changed since.
    """
    if weights == "deployed":
        primary, deployed = load_deployed(folder.primary)
        refuse_other_classes(folder, config, deployed)
        plain = PlainPredictor(primary, multiple=deployed.multiple, device=device)
        return Loaded(
            plain, deployed.normalisation, f"{weights_in_words(config, config.export.weights)} (deployed)"
        )
    if folder.primary.is_file():
        refuse_other_classes(folder, config, load_deployed(folder.primary)[1])
    net, epoch, normalisation = load_saved_net(folder, config, which=weights)
    predictor = MultiBranchPredictor(net, multiple=input_multiple(net.primary), device=device)
    words = weights_in_words(config, weights, so_far=None if folder.scored else epoch)
    return Loaded(predictor, normalisation, words)


def without_first_weights(config: Config) -> Config:
    """The configuration with random first weights, since the checkpoint overwrites them all."""
    bare = config.model.model_copy(update={"encoder_weights": "none", "weights": None})
    return config.model_copy(update={"model": bare})


def saved_normalisation(checkpoint: dict[str, Any]) -> Normalisation:
    """The normalisation of the images that a checkpoint's networks learnt from."""
    return Normalisation(*checkpoint["state"]["position"]["normalisation"])


def as_it_began(config: Config, checkpoint: dict[str, Any]) -> Config:
    """The configuration to resume by: no first weights, normalisation from the checkpoint."""
    found = saved_normalisation(checkpoint)
    fed = config.data.model_copy(update={"mean": found.mean, "std": found.std})
    return without_first_weights(config).model_copy(update={"data": fed})


def scored_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """A checkpoint's network as it is scored and deployed: the running average if there is one."""
    state = checkpoint["state"]
    return state["ema"] or state[LEARNER_KEY]["module"]

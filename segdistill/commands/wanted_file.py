"""What kind of ONNX file is asked for, and the graph and description that follow from it."""

from dataclasses import dataclass
from pathlib import Path

from segdistill.commands.settings import settings_hash
from segdistill.commands.trained import Trained
from segdistill.commands.versions import versions
from segdistill.export.description import (
    Calibration,
    Description,
    Fit,
    Input,
    Layout,
    Precision,
    Quantisation,
)
from segdistill.export.graphs import ImageGraph, TensorGraph
from segdistill.protocol import Protocol

#: Input of a file -> where it is scored, as a protocol has it.
SCORED_AT: dict[Input, str] = {
    "tensor": "label size, logits resized bilinearly",
    "image": "label size, classes as the file gives them",
}


@dataclass(frozen=True)
class Wanted:
    """What kind of file is asked for.

    Attributes:
        input: `tensor`, logits of normalised images, or `image`, class indexes of decoded ones.
        layout: order of the input's axes.
        fit: how an image of any size reaches the network (`image` only).
        confidence: whether classes come with their softmax (`image` only).
        precision: of weights and arithmetic.
        batch: images per call; None for any number.
        size: (height, width) in pixels of the input; None for any.
        opset: of the ONNX standard; None for the run's.
        simplify: let onnxslim fold and merge nodes.
        calibration: how int8 finds the range of a tensor.
        calibration_images: training images it looks at, at most.
        reduce_range: int8 weights of 7 bits instead of 8, for x86 CPUs without VNNI.
    """

    input: Input = "tensor"
    layout: Layout = "nchw"
    fit: Fit = "pad"
    confidence: bool = False
    precision: Precision = "fp32"
    batch: int | None = None
    size: tuple[int, int] | None = None
    opset: int | None = None
    simplify: bool = False
    calibration: Calibration = "minmax"
    calibration_images: int = 64
    reduce_range: bool = False

    def file_name(self, stream: str) -> str:
        """Files of one run that take or give something else have other names; the number of images at a time, opset and
        simplification do not count."""
        image = self.input == "image"
        words = {
            "image": image,
            "pad": image and self.fit == "pad",
            "nchw": image and self.layout == "nchw",
            "confidence": self.confidence,
            self.precision: self.precision != "fp32",
            "x".join(map(str, self.size or ())): self.size is not None,
        }
        return "_".join([stream, *(word for word, counts in words.items() if counts)]) + ".onnx"

    def network_size(self, image: tuple[int, int], *, trained: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels at which the network sees an image, before it is padded to the stride."""
        if self.input == "image" and self.fit == "resize":
            return trained
        return self.size or (trained if self.input == "tensor" else image)


def graph_of(trained: Trained, wanted: Wanted) -> TensorGraph | ImageGraph:
    """The network with what the file does before and after it."""
    deployed = trained.deployed
    if wanted.input == "tensor":
        return TensorGraph(trained.network, stride=deployed.multiple)
    return ImageGraph(
        trained.network,
        normalisation=deployed.normalisation,
        stride=deployed.multiple,
        size=deployed.size,
        fit=wanted.fit,
        layout=wanted.layout,
        confidence=wanted.confidence,
    )


def describe(trained: Trained, wanted: Wanted, *, calibrated_on: int) -> Description:
    """What the file says of itself; the score is the network's, until the file has one of its own.

    Args:
        trained: what the file is made from.
        wanted: kind of file.
        calibrated_on: training images that int8 finds ranges by.
    """
    model, data = trained.config.model, trained.config.data
    quantisation = Quantisation(7 if wanted.reduce_range else 8, wanted.calibration, calibrated_on)
    return Description(
        input=wanted.input,
        layout=wanted.layout,
        fit=wanted.fit,
        confidence=wanted.confidence,
        stream=trained.name,
        precision=wanted.precision,
        taxonomy=trained.deployed.taxonomy,
        normalisation=trained.deployed.normalisation,
        size=trained.deployed.size,
        stride=trained.deployed.multiple,
        network={"arch": model.arch, "encoder": model.encoder},
        score=trained.score,
        data=data.model_copy(update={"root": None}).model_dump(mode="json"),
        config_hash=settings_hash(trained.config),
        versions=versions(),
        licence=f"The rights in these weights follow from the data they were trained on ({data.kind}) and from "
        # Where a file with them lay is nobody's business who gets this one.
        f"the first weights ({model.encoder}, {Path(model.weights or model.encoder_weights).name}).",
        quantisation=quantisation if wanted.precision == "int8" else None,
    )


def seen_size(
    file: Wanted | Description, fixed: tuple[int, int] | None, *, trained: tuple[int, int]
) -> tuple[int, int] | str:
    """The size at which the file's network sees an image, as a protocol has it.

    Args:
        file: what the file is or is to be.
        fixed: (height, width) in pixels of its input; None for any.
        trained: of the network.
    """
    if file.input == "image" and file.fit == "resize":
        return trained
    if file.input == "image":
        return fixed or "its own size"
    return fixed or trained


def protocol_of(trained: Trained, wanted: Wanted, *, images: int) -> Protocol:
    """How the file was scored: on the training's split, but as the file prepares images.

    Args:
        trained: what the file was made from.
        wanted: kind of file.
        images: of the split that are there now.
    """
    return trained.score.protocol.but(
        images=images,
        input_size=seen_size(wanted, wanted.size, trained=trained.deployed.size),
        scored_at=SCORED_AT[wanted.input],
        weights=f"{wanted.precision} {wanted.input} file under ONNX Runtime",
    )

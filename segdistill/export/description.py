"""What an exported file says of itself: enough to feed it, read it, and know where its score comes from."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from segdistill.data.taxonomy import Taxonomy
from segdistill.errors import ExportError
from segdistill.export.feed import from_values, to_values
from segdistill.normalisation import Normalisation
from segdistill.protocol import Score

Input = Literal["tensor", "image"]
Layout = Literal["nchw", "nhwc"]
Fit = Literal["resize", "pad"]
Precision = Literal["fp32", "fp16", "int8"]
Calibration = Literal["minmax", "entropy", "percentile"]

#: Names of the graph's input and outputs.
NORMALIZED_IMAGE, LOGITS = "normalized_image", "logits"
RGB_IMAGE, CLASS_INDEX, CONFIDENCE = "rgb_image", "class_index", "confidence"

_FEED = ("class_names", "class_colours", "ignore_index", "mean", "std")
#: What stands in a file as it is; the rest is JSON.
_TEXTS = ("input", "layout", "fit", "stream", "precision", "config_hash", "licence")
TASK = "semantic segmentation"


@dataclass(frozen=True)
class Quantisation:
    """How int8 was made of fp32.

    Attributes:
        weight_bits: 8, or 7 for x86 CPUs whose sums of products would saturate, see `needs_reduce_range`.
        calibration: how the range of a tensor was found.
        images: of the training split, by which it was found.
    """

    weight_bits: Literal[7, 8]
    calibration: Calibration
    images: int

    @property
    def cpus(self) -> str:
        """That compute with these weights what they should, in words."""
        if self.weight_bits == 8:
            return "ARM and x86 CPUs with VNNI (AVX-VNNI or AVX-512 VNNI)"
        return "x86 CPUs without VNNI, too"

    @property
    def words(self) -> str:
        """For the file's metadata and the terminal."""
        return (
            f"weights of {self.weight_bits} bits, for {self.cpus}; ranges by {self.calibration} over {self.images} "
            "training images"
        )


@dataclass(frozen=True)
class Description:
    """The metadata of an exported file.

    Attributes:
        input: `tensor`, normalised float32 in and logits out, or `image`, uint8 RGB in and class indexes out.
        layout: order of the input's axes.
        fit: how the network gets an image of any size: `resize` to `size` (what it was scored at), with the
            result resized back, or `pad` to a multiple of the stride, with the result cropped. A `tensor`
            graph always pads.
        confidence: whether the graph also gives the softmax of the class it chose.
        stream: `primary`, or the branch that was exported.
        precision: of weights and arithmetic.
        taxonomy: names, colours and ignore index of the classes.
        normalisation: of the RGB image on the 0..1 scale; part of an `image` graph.
        size: (height, width) in pixels at which the network was trained and scored.
        stride: what height and width are padded to, in pixels.
        network: `arch` and `encoder`.
        score: of this file, or of the network in torch that it was made from.
        data: the configuration's section on data, without paths.
        config_hash: SHA-256 of the run's settings, but for names, places and what its kind of training ignores.
        versions: of the packages that made the file.
        licence: a note on the rights in weights and data.
        quantisation: of int8; None of other precisions, and where it is unknown, as of files from before it was noted.
    """

    input: Input
    layout: Layout
    fit: Fit
    confidence: bool
    stream: str
    precision: Precision
    taxonomy: Taxonomy
    normalisation: Normalisation
    size: tuple[int, int]
    stride: int
    network: Mapping[str, str]
    score: Score
    data: Mapping[str, Any]
    config_hash: str
    versions: Mapping[str, str]
    licence: str
    quantisation: Quantisation | None = None

    @property
    def input_name(self) -> str:
        return NORMALIZED_IMAGE if self.input == "tensor" else RGB_IMAGE

    @property
    def output_names(self) -> tuple[str, ...]:
        if self.input == "tensor":
            return (LOGITS,)
        return (CLASS_INDEX, CONFIDENCE) if self.confidence else (CLASS_INDEX,)

    @property
    def inputs_in_words(self) -> str:
        axes = "(batch, 3, height, width)" if self.layout == "nchw" else "(batch, height, width, 3)"
        if self.input == "tensor":
            return f"{NORMALIZED_IMAGE}: float32 {axes}, RGB / 255, minus mean, divided by std"
        return f"{RGB_IMAGE}: uint8 {axes}, RGB as a decoder gives it"

    @property
    def outputs_in_words(self) -> str:
        if self.input == "tensor":
            return f"{LOGITS}: float32 (batch, class, height, width); the class is the argmax over classes"
        words = f"{CLASS_INDEX}: uint8 (batch, height, width), index into class_names"
        return words + (
            f"; {CONFIDENCE}: float32 (batch, height, width), its softmax, 0 to 1" if self.confidence else ""
        )

    def to_metadata(self) -> dict[str, str]:
        """Texts for the file; what is not text is JSON."""
        values = asdict(self) | {
            "task": TASK,
            "input_description": self.inputs_in_words,
            "output_description": self.outputs_in_words,
            **to_values(self.taxonomy, self.normalisation),
            "score": self.score.as_dict(),
        }
        del values["taxonomy"], values["normalisation"]
        if self.quantisation is None:
            del values["quantisation"]
        else:
            values["quantisation_description"] = self.quantisation.words
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}

    @classmethod
    def from_metadata(cls, texts: Mapping[str, str], *, file: str) -> "Description":
        """Raises ExportError if the file was not exported by segdistill."""
        try:
            if texts["task"] != TASK:
                raise ValueError(f"its task is {texts['task']!r}")
            taxonomy, normalisation = from_values({key: json.loads(texts[key]) for key in _FEED})
            values: dict[str, Any] = {"taxonomy": taxonomy, "normalisation": normalisation}
            needed = {one.name for one in fields(cls) if one.default is MISSING}
            for key in (one.name for one in fields(cls) if one.name not in values):
                if key in needed or key in texts:
                    values[key] = texts[key] if key in _TEXTS else json.loads(texts[key])
            return TypeAdapter(cls).validate_python(values)
        except (KeyError, ValueError, TypeError) as error:
            raise ExportError(
                f"{file} was not exported by segdistill, or by another version of it ({_reason(error)}), so nobody "
                "knows its classes and how to feed it; export the run again by tools/export.py"
            ) from None


def _reason(error: Exception) -> str:
    match error:
        case KeyError():
            return f"its metadata has no {error}"
        case ValidationError():
            return ", ".join(
                f"its {'.'.join(map(str, one['loc']))} is {one['input']!r}" for one in error.errors()
            )
        case _:
            return str(error)

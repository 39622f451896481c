"""What exported files say of themselves."""

import json
from dataclasses import replace

import pytest
from networks import described

from segdistill.errors import ExportError
from segdistill.export.description import Description, Quantisation


@pytest.mark.parametrize("confidence", [True, False])
def test_it_survives_the_file(confidence: bool) -> None:
    how = Quantisation(7, "entropy", 64)
    description = described(
        input="image", layout="nhwc", fit="resize", confidence=confidence, precision="int8", quantisation=how
    )
    texts = description.to_metadata()
    assert all(isinstance(text, str) for text in texts.values())
    assert Description.from_metadata(texts, file="a.onnx") == description


def test_it_says_how_to_feed_the_file() -> None:
    tensor = described().to_metadata()
    assert tensor["input_description"].startswith("normalized_image: float32 (batch, 3, height, width)")
    assert tensor["output_description"].startswith("logits: float32 (batch, class, height, width)")
    image = described(input="image", layout="nhwc", confidence=True)
    assert image.input_name == "rgb_image"
    assert image.output_names == ("class_index", "confidence")
    assert "uint8 (batch, height, width, 3)" in image.to_metadata()["input_description"]
    assert "confidence: float32" in image.to_metadata()["output_description"]
    assert "confidence" not in replace(image, confidence=False).outputs_in_words


def test_it_says_how_int8_was_made_and_for_which_cpus() -> None:
    texts = described(precision="int8", quantisation=Quantisation(8, "minmax", 64)).to_metadata()
    assert json.loads(texts["quantisation"]) == {"weight_bits": 8, "calibration": "minmax", "images": 64}
    words = texts["quantisation_description"]
    assert words.startswith("weights of 8 bits, for ARM and x86 CPUs with VNNI (AVX-VNNI or AVX-512 VNNI); ")
    assert words.endswith("ranges by minmax over 64 training images")
    assert "7 bits, for x86 CPUs without VNNI, too" in Quantisation(7, "minmax", 64).words
    assert not [key for key in described().to_metadata() if "quantisation" in key], "fp32 has none"


def test_files_from_before_it_was_noted_are_read() -> None:
    texts = described(precision="int8", quantisation=Quantisation(8, "minmax", 64)).to_metadata()
    del texts["quantisation"], texts["quantisation_description"]
    assert Description.from_metadata(texts, file="a.onnx").quantisation is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": None}, "no 'task'"),
        ({"task": "image classification"}, "its task is 'image classification'"),
        ({"size": None}, "no 'size'"),
        ({"size": "[1, 2, 3]"}, "its size is [1, 2, 3]"),
        ({"stride": '"wide"'}, "its stride is 'wide'"),
        ({"quantisation": '{"weight_bits": 6, "calibration": "minmax", "images": 1}'}, "weight_bits is 6"),
        ({"input": "voice"}, "its input is 'voice'"),
        ({"class_names": "not json"}, "Expecting value"),
        ({"class_names": json.dumps(["one"])}, "1 class names and 11 colours"),
    ],
)
def test_somebody_elses_file_is_told(change: dict[str, str | None], told: str) -> None:
    texts = described().to_metadata() | change
    texts = {key: text for key, text in texts.items() if text is not None}
    with pytest.raises(ExportError, match=r"theirs\.onnx was not exported by segdistill") as caught:
        Description.from_metadata(texts, file="theirs.onnx")
    assert told in str(caught.value)

"""What exported files say of themselves."""

import json
from dataclasses import replace

import pytest
from networks import described

from segdistill.errors import ExportError
from segdistill.export.description import Description


@pytest.mark.parametrize("confidence", [True, False])
def test_it_survives_the_file(confidence: bool) -> None:
    description = described(
        input="image", layout="nhwc", fit="resize", confidence=confidence, precision="int8"
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": None}, "no 'task'"),
        ({"task": "image classification"}, "its task is 'image classification'"),
        ({"size": None}, "no 'size'"),
        ({"size": "[1, 2, 3]"}, "its size is [1, 2, 3]"),
        ({"stride": '"wide"'}, "its stride is 'wide'"),
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

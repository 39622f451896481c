"""The page of errors and the picture of the confusions, by what stands in them."""

import base64
import csv
import io
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdistill.report.confusion import confusion_csv, confusion_picture
from segdistill.report.mistakes import (
    MixedPair,
    Scene,
    WrongImage,
    WrongRegion,
    mistakes_page,
)
from segdistill.report.pictures import boxed, context_of, embedded, error_map

LEGEND = [("sky", (0, 0, 255)), ("a <b> & c", (255, 0, 0))]


def scene(name: str = "street") -> Scene:
    image = np.full((60, 80, 3), 100, np.uint8)
    label, prediction = image * 0, image * 0
    label[..., 2], prediction[..., 0] = 255, 255
    wrong = np.zeros((60, 80), bool)
    wrong[10:20, 30:50] = True
    return Scene(name, image, label, prediction, wrong)


def wrong_image() -> WrongImage:
    regions = (
        WrongRegion((10, 30, 20, 50), "sky taken for a <b> & c", 200, 1.25),
        WrongRegion((0, 0, 5, 5), "a <b> & c taken for sky", 20, 0.5),
    )
    return WrongImage(scene(), 2.5, 0.25, regions)


def page(**changes: object) -> str:
    values = {
        "protocol": "val, 5 images",
        "legend": LEGEND,
        "images": [wrong_image()],
        "regions": [(scene(), wrong_image().regions[0])],
        "pairs": [MixedPair("sky taken for tree", 0.4, 123, ((scene(), (10, 30, 20, 50)),))],
    }
    return mistakes_page("Errors of <primary>", **(values | changes))  # type: ignore[arg-type]


def pictures(text: str) -> list[np.ndarray]:
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(one)))) for one in encoded]


def test_the_page_says_what_was_found_and_is_escaped() -> None:
    text = page()
    for words in (
        "Errors of &lt;primary&gt;",
        "val, 5 images",
        "1. street: 2.500 points of mIoU, 25.0 % of its labelled pixels are wrong",
        "sky taken for a &lt;b&gt; &amp; c",
        "<td>200</td><td>1.250</td>",
        "1. sky taken for tree: 40.0 % of its pixels (123 px)",
        "background:#0000ff",
    ):
        assert words in text, words
    assert "<b>" not in text
    assert len(pictures(text)) == 4 + 3 + 3, "four of the image, three of one region, three of one example"


def test_sections_that_were_not_asked_for_are_not_there() -> None:
    assert "mixed up" not in page(pairs=[])
    only_pairs = page(images=[], regions=[])
    assert "cost the most" not in only_pairs
    assert len(pictures(only_pairs)) == 3


def test_pictures_show_image_label_prediction_and_errors() -> None:
    image, label, prediction, errors = pictures(page())[:4]
    assert image.shape == label.shape == (360, 480, 3), "small images are enlarged"
    far_from_boxes = (330, 400)
    assert np.abs(image[far_from_boxes] - np.array([100, 100, 100.0])).max() < 6
    assert np.abs(label[far_from_boxes] - np.array([40, 40, 193.0])).max() < 6
    assert np.abs(prediction[far_from_boxes] - np.array([193, 40, 40.0])).max() < 6
    inside = errors[90, 240].astype(int)
    assert inside[0] > 200
    assert inside[1:].max() < 60
    assert np.ptp(errors[far_from_boxes].astype(int)) < 6, "what is right is grey"
    # The left side of the box (10, 30, 20, 50) at six times its size, outside of its pixels.
    assert image[90, 179].min() > 200


def test_the_error_map_alone() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0] = 200
    found = error_map(image, np.array([[False, True]]))
    assert found.tolist() == [[[228, 228, 228], [226, 26, 28]]]


def test_context_is_around_the_box_and_inside_the_image() -> None:
    assert context_of((40, 50, 50, 60), (120, 120)) == (35, 45, 56, 66)
    assert context_of((0, 0, 2, 2), (120, 240)) == (0, 0, 12, 22), "small boxes get some surroundings"
    assert context_of((0, 0, 120, 240), (120, 240)) == (0, 0, 120, 240)


def test_the_table_of_confusions_is_row_normalised_and_complete(tmp_path: Path) -> None:
    shares = np.array([[0.75, 0.25], [math.nan, math.nan]])
    confusion_csv(tmp_path / "c.csv", shares, ("a, b", "c"))
    rows = list(csv.reader((tmp_path / "c.csv").open()))
    assert rows == [["true \\ predicted", "a, b", "c"], ["a, b", "0.75", "0.25"], ["c", "", ""]]


def test_the_picture_of_confusions_is_dark_where_the_share_is_large(tmp_path: Path) -> None:
    shares = np.array([[1.0, 0.0], [math.nan, math.nan]])
    confusion_picture(tmp_path / "c.png", shares, ("a", "b"), title="$x")
    grey = np.array(Image.open(tmp_path / "c.png").convert("L")).astype(int)
    dark = (grey < 80).mean()
    # Of four cells one is full; letters add little.
    confusion_picture(tmp_path / "d.png", np.eye(2), ("a", "b"), title="$x")
    twice = (np.array(Image.open(tmp_path / "d.png").convert("L")) < 80).mean()
    assert 0.03 < dark < 0.25
    assert 1.7 < twice / dark < 2.1


@pytest.mark.parametrize(
    "names",
    [("background", "crack"), ("x",), ("n" * 70, "b", "\u8def\u9762", "a" * 37), tuple("abcdefghijk")],
)
def test_the_picture_of_confusions_shows_all_it_says(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Nothing is cut off at a side, and the cells keep their size, whatever the names; no font complains."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion_picture(tmp_path / "c.png", np.eye(len(names)), names, title="primary: mIoU 12.34 %")
    grey = np.array(Image.open(tmp_path / "c.png").convert("L")).astype(int)
    assert np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]).min() == 255
    (dark,) = np.where((grey < 80).sum(0) > 40)  # columns of the full cells
    assert dark.max() - dark.min() > 0.4 * 130 * len(names), "130 dots an inch"


@pytest.mark.parametrize("shape", [(200, 1), (14000, 100), (1, 65501), (40, 30000)])
@pytest.mark.parametrize("height", [None, 220])
def test_a_strip_is_no_longer_than_a_jpeg_can_be(shape: tuple[int, int], height: int | None) -> None:
    rows, columns = shape
    picture = np.zeros((*shape, 3), np.uint8)
    shown = boxed(picture, [(0, 0, rows, columns)], numbered=False, height=height)
    assert max(shown.size) <= 4000
    assert embedded(shown, "a strip").startswith("<img")

"""Stored mask pixels to classes."""

import numpy as np
import pytest

from segdistill.data.mask_code import FOREIGN, MaskCode
from segdistill.data.taxonomy import CAMVID

CODE = MaskCode(
    values={0: 0, 7: 1, 300: 2, 9: 255, 10: 255},
    colours={(0, 0, 0): 0, (255, 0, 1): 1, (1, 2, 3): 255},
    ignore_index=255,
    form="auto",
)


def test_values() -> None:
    stored = np.array([[0, 7, 9], [10, 8, 255]], np.uint8)
    encoded = CODE.encode(stored)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[0, 1, 255], [255, FOREIGN, FOREIGN]]
    assert (
        CODE.foreign(stored, encoded) == "8 (1 px), 255 (1 px); allowed: 0, 7, 300, and 9 to 10 for ignored"
    )


def test_values_of_16_bits() -> None:
    stored = np.array([[0, 300, 44]], np.uint16)  # 300 % 256 == 44
    encoded = CODE.encode(stored)
    assert (encoded.dtype, encoded.tolist()) == (np.uint8, [[0, 2, FOREIGN]])
    assert CODE.foreign(stored, encoded).startswith("44 (1 px); allowed")


def test_colours_are_exact() -> None:
    stored = np.array(
        [[(0, 0, 0), (255, 0, 1), (1, 2, 3)], [(255, 0, 0), (254, 0, 1), (255, 0, 0)]], np.uint8
    )
    encoded = CODE.encode(stored)
    assert (encoded.dtype, encoded.tolist()) == (np.uint8, [[0, 1, 255], [FOREIGN, FOREIGN, FOREIGN]])
    assert CODE.foreign(stored, encoded) == (
        "(254, 0, 1) (1 px), (255, 0, 0) (2 px); allowed: (0, 0, 0), (255, 0, 1), (1, 2, 3)"
    )


def test_of_many_wrong_values_the_frequent_ones_are_named() -> None:
    stored = np.repeat(np.arange(100, 120), np.arange(1, 21)).astype(np.uint8)[None]
    words = CODE.foreign(stored, CODE.encode(stored))
    assert words.startswith("119 (20 px), 118 (19 px), ")
    assert "110 (11 px) ... and 10 more values;" in words


def test_indexes_of_a_taxonomy_stay_what_they_are() -> None:
    stored = np.arange(12, dtype=np.uint8)[None]
    np.testing.assert_array_equal(MaskCode.of(CAMVID).encode(stored), stored)
    assert MaskCode.of(CAMVID).encode(np.array([[12, 255]], np.uint8)).tolist() == [[FOREIGN, FOREIGN]]


@pytest.mark.parametrize("classes", [{}, {5: 0}, {1: 0, 2: 1, 3: 2, 5: 3}])
def test_allowed_values_in_words(classes: dict[int, int]) -> None:
    code = MaskCode(classes, {}, 255, "index")
    stored = np.array([[99]], np.uint8)
    expected = {0: "no value, the classes have none", 1: "5", 4: "1 to 3, 5"}[len(classes)]
    assert code.foreign(stored, code.encode(stored)) == f"99 (1 px); allowed: {expected}"

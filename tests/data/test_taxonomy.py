"""Names, colours and the ignore index."""

import numpy as np
import pytest

from segdistill.data.taxonomy import CAMVID, Taxonomy

COLOURS = ((10, 20, 30), (40, 50, 60), (70, 80, 90))


@pytest.mark.parametrize("ignore_index", [3, 255])
def test_colourise(ignore_index: int) -> None:
    taxonomy = Taxonomy(("a", "b", "c"), COLOURS, ignore_index)
    mask = np.array([[0, 1], [2, ignore_index], [2, 0]], np.uint8)
    painted = taxonomy.colourise(mask)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [
        [[10, 20, 30], [40, 50, 60]],
        [[70, 80, 90], [0, 0, 0]],
        [[70, 80, 90], [10, 20, 30]],
    ]


def test_colourise_accepts_predictions() -> None:
    taxonomy = Taxonomy(("a", "b", "c"), COLOURS, 255)
    assert taxonomy.colourise(np.array([[2]], np.int64)).tolist() == [[[70, 80, 90]]]


def test_allowed_values() -> None:
    taxonomy = Taxonomy(("a", "b", "c"), COLOURS, 255)
    assert taxonomy.num_classes == 3
    assert taxonomy.allowed_values() == (0, 1, 2, 255)


def test_refuses_contradictions() -> None:
    with pytest.raises(AssertionError, match="ignore"):
        Taxonomy(("a", "b", "c"), COLOURS, 2)
    with pytest.raises(AssertionError, match="colour"):
        Taxonomy(("a", "b"), COLOURS, 255)


def test_camvid() -> None:
    assert (CAMVID.num_classes, CAMVID.ignore_index) == (11, 11)
    assert len(set(CAMVID.names)) == len(set(CAMVID.colours)) == 11
    assert (0, 0, 0) not in CAMVID.colours  # black is what is ignored

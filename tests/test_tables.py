"""What the terminal is told of scores."""

from pathlib import Path

import pytest
import torch

from segdistill.commands.tables import better_branch
from segdistill.evaluation.metrics import Scores


def scored(right: int) -> Scores:
    """One class against the rest, `right` of 10 pixels of each right: an IoU of right / (20 - right) in both."""
    wrong = 10 - right
    return Scores(torch.tensor([[right, wrong], [wrong, right]]))


@pytest.mark.parametrize(
    ("primary", "branches", "told"),
    [
        (5, {"branch3": 4, "branch4": 8, "branch5": 6}, "branch4 has 66.67 % here, the primary 33.33 %"),
        (5, {"branch3": 5, "ensemble": 9}, ""),
        (5, {}, ""),
    ],
)
def test_a_branch_that_is_better_than_the_primary_is_told(
    primary: int, branches: dict[str, int], told: str
) -> None:
    scores = {"primary": scored(primary), **{name: scored(right) for name, right in branches.items()}}
    said = better_branch(scores, Path("runs/mine"))
    assert said.startswith(told)
    assert ("tools/export.py runs/mine --stream all" in said) is bool(told)

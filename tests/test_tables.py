"""What the terminal is told of scores."""

import io
from pathlib import Path

import pytest
import torch

from segdistill.commands.export_int8 import sensitivity_table
from segdistill.commands.tables import better_branch, stream_table
from segdistill.console import new_console
from segdistill.evaluation.metrics import Scores
from segdistill.export.sensitivity import Outcome, Sensitivity


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


@pytest.mark.parametrize(("noise", "told"), [((31.0, 28.4), True), ((None, None), False)])
def test_layers_keep_their_whole_names_and_a_measure_that_nothing_has_takes_no_room(
    noise: tuple[float | None, float | None], told: bool
) -> None:
    names = [f"primary.encoder.model.blocks.{place}.0.conv_pwl" for place in (3, 12)]
    found = tuple(
        Sensitivity(name, share, one) for name, share, one in zip(names, (0.91, 0.99), noise, strict=True)
    )
    printed = io.StringIO()
    new_console(file=printed, width=80).print(sensitivity_table(Outcome(0.5, (names[0],), found)))
    head, *rows = [line for line in printed.getvalue().splitlines() if line.startswith(("┃", "│"))]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    assert "".join(row[0] for row in cells) == "".join(names)
    assert ("noise of the" in head) is told
    assert [row[-1] for row in cells if row[1]] == ["stays in float", ""]
    assert {len(row) for row in cells} == {4 if told else 3}


def test_streams_keep_their_whole_names_in_a_narrow_terminal() -> None:
    names = ["primary", "branch2", *(f"branch_decoder_blocks_{place}" for place in (0, 1, 10)), "ensemble"]
    printed = io.StringIO()
    table = stream_table({name: scored(5) for name in names}, ("sky", "sign symbol"))
    new_console(file=printed, width=80).print(table)
    head = [line.strip("┃").split("┃") for line in printed.getvalue().splitlines() if line.startswith("┃")]
    assert ["".join(map(str.strip, parts)) for parts in zip(*head, strict=True)] == ["", *names]

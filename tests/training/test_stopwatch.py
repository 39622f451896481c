"""What counts as time of training."""

import pytest

from segdistill.training import stopwatch
from segdistill.training.stopwatch import Stopwatch


def test_laps_go_on_from_each_other_and_leave_out_what_came_before_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: now)
    watch = Stopwatch()
    assert watch.seconds == 0
    now = 103.0
    assert watch.lap() == 3
    now = 104.0
    assert watch.lap() == 1
    assert watch.seconds == 4
    now = 150.0  # a checkpoint was written
    watch.restart()
    now = 152.0
    assert watch.lap() == 2
    assert watch.seconds == 2

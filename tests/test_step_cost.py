"""What a step of a method costs over a whole training."""

from types import SimpleNamespace
from typing import Any

import pytest

from segdistill.commands.step_cost import _Contender
from segdistill.losses.objective import Objective, Schedule, Term


def test_losses_count_as_long_as_they_have_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second with labels alone, three with a loss that begins at 0.7, five with one more in the last tenth."""

    def term(name: str, *points: tuple[float, float]) -> Term:
        return Term(name, Schedule(1.0, points), loss=lambda maps: maps.labels)

    late, last = ((0.7, 0.0), (0.75, 1.0)), ((0.9, 0.0), (1.0, 2.0))
    objective = Objective((term("primary", (0.0, 1.0)), term("logit", *late), term("feature", *last)))
    state: Any = SimpleNamespace(objective=objective)
    nothing: Any = None
    monkeypatch.setattr(
        _Contender, "_step", lambda self, progress: 1.0 + 2.0 * len(objective.active(progress)[1:])
    )
    cost = _Contender(nothing, state, nothing).mean_step()
    assert cost == pytest.approx(0.7 * 1 + 0.2 * 3 + 0.1 * 5)

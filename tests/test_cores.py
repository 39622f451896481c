"""How many cores and threads a process may use, by its environment."""

import pytest

from segdistill.cores import threads_asked_for


@pytest.mark.parametrize(
    ("told", "threads"), [("2", 2), ("2,1", 2), (" 4 , 2", 4), ("", None), ("many", None)]
)
def test_threads_are_those_of_the_outermost_region(
    told: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads_asked_for() == threads

"""Under pytest-xdist the workers and the programs they start share the cores, and files that take long come first."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Else one worker would be left with the longest file at the end, and the others with nothing."""
    long = {item.path for item in items if item.get_closest_marker("training")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def handled() -> Iterator[Callable[[signal.Signals], Any]]:
    """Gives a signal a handler, which is returned: what started the tests may ignore it, as nohup does."""
    before: dict[signal.Signals, Any] = {}

    def handle(number: signal.Signals) -> Any:
        def handler(*_: object) -> None:
            pytest.fail(f"{number.name} reached nobody")

        before[number] = signal.signal(number, handler)
        return handler

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)

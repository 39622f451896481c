"""A run that is asked to stop does so where it can go on later."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from segdistill.errors import InterruptedRunError
from segdistill.orphans import STOPPING
from segdistill.stop_signals import heeded, leave_terminal

Item = TypeVar("Item")

INTERRUPTED = "interrupted; everything up to here is saved, --resume goes on"


def until(stop: threading.Event, items: Iterable[Item]) -> Iterator[Item]:
    """The items, until the event is set: then InterruptedRunError is raised before the next one."""
    for item in items:
        if stop.is_set():
            raise InterruptedRunError(INTERRUPTED)
        yield item


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, so that a run ends between two steps; a second Ctrl-C or
    SIGTERM kills it."""
    stop = threading.Event()
    previous: dict[signal.Signals, Any] = {}

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()
        STOPPING.set()
        signal.signal(number, previous[signal.Signals(number)])
        leave_terminal(number)

    if threading.current_thread() is threading.main_thread():
        for number in heeded():
            previous[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

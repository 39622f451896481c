"""Loading by workers, processes of their own that leave signals to the one that trains and never outlive it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from segdistill.orphans import end_with_parent
from segdistill.stop_signals import HANGUP, STOP_SIGNALS

Item = TypeVar("Item")


class WorkerLoader(DataLoader[Item]):
    """A DataLoader that ends as it should, however the program ends.

    A signal to all processes of a run, such as a terminal's Ctrl-C, is for the one that trains, which may still want
    a batch before it ends. A worker ends when that one tells it to, by a signal or otherwise, or is gone.
    """

    def __init__(self, dataset: Dataset[Any], *, workers: int, **keywords: Any) -> None:
        """
        Args:
            dataset: what to load.
            workers: processes; 0 loads in this one. On Linux they are forked, which Python does not do by itself any
                more from 3.14 on: decoded images are then in memory once, and not once for each worker.
            keywords: of `DataLoader`.
        """
        if workers:
            context = "fork" if sys.platform == "linux" else None
            keywords |= {"worker_init_fn": _begin, "multiprocessing_context": context}
        super().__init__(dataset, num_workers=workers, **keywords)

    def __iter__(self) -> Any:  # an iterator of torch's own
        with _signals_held():
            return super().__iter__()


@contextmanager
def _signals_held() -> Iterator[None]:
    """What arrives meanwhile is answered afterwards: a worker that has just been started would die of it."""
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(worker: int) -> None:
    end_with_parent()
    ignored = {signal.SIGINT} | HANGUP
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere SIGTERM ends a worker, whoever sends it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)
        threading.Thread(target=_end_when_told, daemon=True, name="end-when-told").start()


def _end_when_told() -> None:
    """SIGTERM, which stays blocked, counts if the parent sends it: that is how Python ends what is left at its exit."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)

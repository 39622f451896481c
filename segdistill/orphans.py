"""Processes that end when the one that started them is gone."""

import os
import signal
import threading
import time
from collections.abc import Callable

#: In the environment of a study's trainings: the process of the study.
STUDY_VARIABLE = "SEGDISTILL_STUDY"
#: Set as soon as this process is asked to stop; to be asked a second time would kill it.
STOPPING = threading.Event()
_WATCH_SECONDS = 1.0


def end_with_parent() -> None:
    """End this process when the one that started it is gone, whatever it is waiting for: a collective call of NCCL's
    would wait for hours, a worker that hands images on for ever."""
    _watch(os.getppid(), then=lambda: os._exit(1))


def stop_with_study() -> None:
    """Ask this training to save its state and end when the study that started it was killed; else the trainings left
    over would keep the machine busy, and the study from going on. Processes that this one starts have it as a parent,
    not the study, and do not watch."""

    def stop() -> None:
        if not STOPPING.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    if study := os.environ.pop(STUDY_VARIABLE, ""):
        _watch(int(study), then=stop)


def _watch(parent: int, *, then: Callable[[], object]) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        then()

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()

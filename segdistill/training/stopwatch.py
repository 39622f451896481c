"""The time that training takes, what it waits for its images included."""

import time


class Stopwatch:
    """Runs from the moment it is made. Who does something else than training restarts it afterwards."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._started = self._lap_began = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, or the restart if that was later."""
        began, self._lap_began = self._lap_began, time.monotonic()
        return self._lap_began - began

    @property
    def seconds(self) -> float:
        """Seconds between the restart and the end of the last lap."""
        return self._lap_began - self._started

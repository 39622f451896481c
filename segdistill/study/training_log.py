"""What the trainings of one run said, in a file beside its folder."""

from dataclasses import dataclass
from pathlib import Path

#: Lines of the log before what each try says, and after it if the try failed.
_STARTED, _ENDED = "---- started", "---- ended: "


@dataclass(frozen=True)
class TrainingLog:
    """The log of all tries, one after the other; only the last one counts."""

    path: Path

    def start(self) -> None:
        """Mark where a try starts; to be called before it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._add(f"{_STARTED}\n")

    def note_failure(self, code: int) -> None:
        """Mark where a try failed. What another process writes there from now on is none of its words.

        Args:
            code: of its exit; negative for a signal.
        """
        self._add(f"\n{_ENDED}{how_it_ended(code)}\n")

    @property
    def last_words(self) -> list[str]:
        """Lines that the last try said."""
        return self._last_try()[0].strip().splitlines()

    @property
    def error(self) -> str:
        """The error that the last try told when it ended, all lines of it; empty if it told none."""
        lines = self.last_words
        for place, line in enumerate(lines):
            if line.startswith("error:"):
                return "\n".join(lines[place:])
            if line.startswith("Traceback "):
                return lines[-1]
        return ""

    @property
    def failure(self) -> str:
        """Why the last try failed, be it that it could not tell an error any more; empty if it did not."""
        return self.error or self._last_try()[1].partition("\n")[0]

    def _last_try(self) -> tuple[str, str]:
        """What it said, and how it ended if it failed."""
        said = self.path.read_text(errors="replace") if self.path.is_file() else ""
        words, _, end = said.rpartition(_STARTED)[2].partition(f"\n{_ENDED}")
        return words, end

    def _add(self, text: str) -> None:
        with self.path.open("a") as log:
            log.write(text)


def how_it_ended(code: int) -> str:
    """How a process ended, by its exit code, which is negative for a signal."""
    if code >= 0:
        return f"ended with code {code}"
    return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")

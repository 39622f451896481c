"""By which program a run was made."""

import importlib.metadata
from pathlib import Path

from segdistill.commands.versions import code_hash, versions


def test_another_working_copy_is_another_version(tmp_path: Path) -> None:
    """A release keeps its number while its code is being worked on."""
    copies = []
    for name, last in (("first", "x = 1\n"), ("same", "x = 1\n"), ("edited", "x = 2\n"), ("moved", "")):
        package = tmp_path / name
        (package / "inner").mkdir(parents=True)
        (package / "a.py").write_text("" if last else "x = 1\n")
        (package / "inner" / "b.py").write_text(last)
        (package / "notes.txt").write_text(name)  # no code
        copies.append(code_hash(package))
    first, same, edited, moved = copies
    assert first == same
    assert len({first, edited, moved}) == 3
    named, code = versions()["segdistill"].split("+code.")
    assert named == importlib.metadata.version("segdistill")
    assert len(code) == 10

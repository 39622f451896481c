"""Checkpoints that cannot be used say what to do."""

from pathlib import Path

import pytest
import torch

from segdistill.errors import RunFolderError
from segdistill.training.checkpoint import load_checkpoint


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no checkpoint .*best.pt: .*--weights deployed"):
        load_checkpoint(tmp_path / "best.pt")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(
        RunFolderError, match=r"last.pt cannot be read \(.+\); start the run anew by --overwrite"
    ):
        load_checkpoint(path)


def test_a_checkpoint_of_another_format(tmp_path: Path) -> None:
    torch.save({"format": -1}, tmp_path / "last.pt")
    with pytest.raises(RunFolderError, match=r"last.pt is not a checkpoint of this version .*--overwrite"):
        load_checkpoint(tmp_path / "last.pt")

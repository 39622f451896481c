"""Starting the program as users do, on tiny data: `tools/*.py` in processes of their own, or, where nothing depends
on that, the same command line in this one, without seconds of importing torch."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segdistill.cli import main

ROOT = Path(__file__).parents[1]
TINY = {
    "name": "tiny",
    "data": {"kind": "synthetic", "size": [64, 96], "synthetic": {"train_images": 14, "val_images": 5}},
    "model": {
        "encoder": "tu-test_efficientnet",
        "encoder_weights": "none",
        "options": {"decoder_channels": [32, 24, 16, 12, 8]},
    },
    "method": {"branches": {"taps": [3, 4], "width": 16}, "adversarial": {"width": 8}},
    "train": {"epochs": 3, "batch_size": 4, "accelerator": "cpu", "log_every": 1},
}


def start(tool: str, *arguments: str | Path, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(tool: str, *arguments: str | Path, cwd: Path, code: int = 0) -> tuple[str, str]:
    """`tools/<tool>.py` in a process of its own: what it prints and what it complains of."""
    process = start(tool, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def run(command: str, *arguments: str | Path, cwd: Path, code: int = 0) -> tuple[str, str]:
    """The same in this process, on one thread as there, so that numbers are the same to the bit.

    Not for `train.devices` and `--devices`, which start this very program again: pytest, here.
    """
    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            contextlib.chdir(cwd),
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setenv("COLUMNS", "200")
            try:
                result = main([command, *map(str, arguments)])
            except SystemExit as stop:  # of argparse
                result = int(stop.code or 0)
    finally:
        torch.set_num_threads(threads)
    assert result == code, f"exit code {result}\n{out.getvalue()}\n{err.getvalue()}"
    return out.getvalue(), err.getvalue()


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(TINY | changes))
    return path

"""Starting the program as users do: `tools/*.py` in processes of their own, on tiny data."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TINY = {
    "name": "tiny",
    "data": {"kind": "synthetic", "size": [64, 96], "synthetic": {"train_images": 14, "val_images": 5}},
    "model": {
        "encoder": "tu-mobilenetv3_small_050",
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


def run(tool: str, *arguments: str | Path, cwd: Path, code: int = 0) -> tuple[str, str]:
    process = start(tool, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(TINY | changes))
    return path

"""A run small enough for tests: real modules, real data files, seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segdistill.config import Config
from segdistill.config_io import validate_config

ALL_ALONG = [[0, 0], [0.1, 1]]


def tiny_values(folder: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "out": str(folder),
        "data": {
            "kind": "synthetic",
            "size": [64, 96],
            "workers": 0,
            "synthetic": {"train_images": 14, "val_images": 5},
        },
        "model": {
            "encoder": "tu-test_efficientnet",
            "encoder_weights": "none",
            "options": {"decoder_channels": [32, 24, 16, 12, 8]},
        },
        "method": {
            "reparam": {"copies": 1},
            "branches": {"taps": [3, 4], "width": 16},
            # From the beginning, not in the last quarter only.
            "logit": {
                "ramp": ALL_ALONG,
                "teacher": "ensemble",
                "students": "all",
                "views": {"weight": 0.5, "ramp": ALL_ALONG},
            },
            "feature": {"ramp": ALL_ALONG},
            "adversarial": {"ramp": ALL_ALONG, "width": 8},
        },
        "train": {"epochs": 3, "batch_size": 4, "accelerator": "cpu", "log_every": 2},
    }


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


@pytest.fixture
def tiny_config(tmp_path: Path) -> Callable[..., Config]:
    """`tiny_config(train={"epochs": 2})`: the tiny run with some keys changed."""

    def make(**changes: Any) -> Config:
        return validate_config(merged(tiny_values(tmp_path / "run"), changes), source="test")

    return make

"""What a finished run says of itself, for tests of those who read it."""

from typing import Any

from networks import PROTOCOL

SUMMARY: dict[str, Any] = {
    "name": "a",
    "method": "baseline",
    "seed": 0,
    "first_weights": None,
    "miou": {"primary": 0.5, "branches": {}, "ensemble": None},
    "frequency_weighted_iou": 0.7,
    "pixel_accuracy": 0.8,
    "mean_accuracy": 0.6,
    "iou": {"sky": 0.5},
    "best": {"epoch": 1, "miou": 0.5},
    "parameters": 1000,
    "macs": 2000,
    "seconds": {"training": 3.0, "per_step": 0.3},
    "memory_bytes": 100,
    "steps": 10,
    "onnx": {},
    "versions": {"segdistill": "0.1.0"},
    "devices": "1 x cpu",
    "data": {"training_images": 2, "hash": "abc", "splits": {"val": "def"}},
    "protocol": PROTOCOL.as_dict(),
}

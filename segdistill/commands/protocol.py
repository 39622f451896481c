"""How scores came about; a number without it cannot be compared."""

from typing import Any

from segdistill.config import Config


def protocol(config: Config, *, split: str, images: int) -> dict[str, Any]:
    """Of the scores that a run's networks get on a split of its data."""
    return {
        "data": config.data.kind,
        "split": split,
        "images": images,
        "input_size": list(config.data.size),
        "scored_at": "label size, logits resized bilinearly",
        "ignored": "void pixels",
        "test_time_augmentation": None,
        "weights": f"{config.export.weights} epoch" + (", running average" if config.train.ema_decay else ""),
        "epochs": config.train.epochs,
    }

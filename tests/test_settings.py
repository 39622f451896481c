"""Which settings count."""

from pathlib import Path
from typing import Any

import pytest

from segdistill.commands.settings import settings_hash, settings_that_count, settings_without_effect
from segdistill.config_io import validate_config

CLASSES = [{"name": "crack"}]


@pytest.mark.parametrize(
    ("method", "idle"),
    [
        (
            {
                "kind": "deep_supervision",
                "reparam": {"copies": 1},
                "logit": {"weight": 2.0, "kind": "channel"},
            },
            {"method.reparam.copies": 1, "method.logit.weight": 2.0, "method.logit.kind": "channel"},
        ),
        (
            {"kind": "baseline", "branches": {"width": 40}, "supervised": {"branch_weight": 0.25}},
            {"method.branches.width": 40, "method.supervised.branch_weight": 0.25},
        ),
        (
            {
                "kind": "self_distill",
                "feature": {"weight": 0, "stride": 4},
                "logit": {"views": {"gain": 0.1}},
            },
            {"method.feature.stride": 4, "method.logit.views.gain": 0.1},
        ),
        ({"kind": "baseline", "logit": {"weight": 0}}, {}),
        ({"kind": "self_distill", "reparam": {"copies": 1}, "logit": {"kind": "channel"}}, {}),
    ],
)
def test_what_is_set_for_nothing_is_known(method: dict[str, Any], idle: dict[str, Any]) -> None:
    config = validate_config({"name": "run", "method": method}, source="test")

    assert settings_without_effect(config) == idle


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        (
            {"train": {"optimizer": {"momentum": 0.5}, "schedule": {"power": 2.0}}},
            {"train.optimizer.momentum", "train.schedule.power"},
        ),
        (
            {
                "train": {
                    "optimizer": {"kind": "sgd", "momentum": 0.5},
                    "schedule": {"kind": "poly", "power": 2.0},
                }
            },
            set(),
        ),
        (
            {"method": {"feature": {"pool": 1}, "adversarial": {"game": "peer", "real_smoothing": 0.2}}},
            {"method.feature.pool", "method.adversarial.real_smoothing"},
        ),
        (
            {"method": {"feature": {"pool": 1, "kind": "affinity"}, "adversarial": {"real_smoothing": 0.2}}},
            set(),
        ),
        (
            {"method": {"grid_stride": 4, "logit": {"weight": 0}, "adversarial": {"weight": 0}}},
            {"method.grid_stride"},
        ),
        ({"data": {"kind": "synthetic", "folder": {"val_share": 0.4}}}, {"data.folder.val_share"}),
        (
            {
                "data": {
                    "kind": "folder",
                    "folder": {
                        "classes": CLASSES,
                        "lists": {"train": "a"},
                        "test_share": 0.4,
                        "split_seed": 2,
                    },
                }
            },
            {"data.folder.test_share", "data.folder.split_seed"},
        ),
        (
            {
                "data": {
                    "kind": "folder",
                    "folder": {
                        "classes": CLASSES,
                        "images": "{split}/i",
                        "masks": "{split}/m",
                        "val_share": 0.4,
                    },
                }
            },
            {"data.folder.val_share"},
        ),
        ({"data": {"kind": "folder", "folder": {"classes": CLASSES, "val_share": 0.4}}}, set()),
        (
            {
                "data": {
                    "augment": {"blur": 0.5, "custom": [{"name": "RandomCrop", "height": 96, "width": 96}]}
                }
            },
            {"data.augment.blur"},
        ),
    ],
)
def test_what_another_key_switches_off_does_not_count(values: dict[str, Any], idle: set[str]) -> None:
    config = validate_config({"name": "run"} | values, source="test")

    assert settings_without_effect(config).keys() == idle
    assert not idle & settings_that_count(config).keys()


def test_a_path_in_full_is_the_same_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's own configuration has its paths in full: files that it makes at its end and later are of one hash."""

    def hash_of(path: object) -> str:
        values = {"name": "run", "model": {"weights": str(path)}}
        return settings_hash(validate_config(values, source="test"))

    monkeypatch.chdir(tmp_path)
    assert hash_of("own.pth") == hash_of(tmp_path / "own.pth")
    assert hash_of("own.pth") == hash_of(tmp_path / "of another machine" / "own.pth")
    assert hash_of("own.pth") != hash_of("other.pth")

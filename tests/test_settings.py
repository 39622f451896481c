"""Which settings count."""

from typing import Any

import pytest

from segdistill.commands.settings import settings_without_effect
from segdistill.config_io import validate_config


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

"""The ladder's settings, and rungs that users write."""

from pathlib import Path

import pytest

from segdistill.config import Config
from segdistill.config_io import load_config
from segdistill.errors import ConfigError
from segdistill.study.rungs import LADDER, Rung, parse_rung

REPARAM = ["method.reparam.copies=1"]  # off by default
CAMVID = Path(__file__).parents[2] / "configs" / "camvid_unet.yaml"


def weights(config: Config) -> dict[str, bool]:
    method = config.method
    return {
        "reparam": method.copies > 0,
        "logit": method.distils and method.logit.weight > 0,
        "feature": method.distils and method.feature.weight > 0,
        "adversarial": method.distils and method.adversarial.weight > 0,
    }


@pytest.mark.parametrize(
    ("name", "branches", "terms"),
    [
        ("baseline", False, set()),
        ("reparam", False, {"reparam"}),
        ("deep_supervision", True, set()),
        ("+logit", True, {"logit"}),
        ("+feature", True, {"feature"}),
        ("+adversarial", True, {"adversarial"}),
        ("self_distill", True, {"reparam", "logit", "feature", "adversarial"}),
    ],
)
def test_each_rung_of_the_ladder_has_the_terms_of_its_name(
    name: str, branches: bool, terms: set[str]
) -> None:
    rung = next(rung for rung in LADDER if rung.name == name)
    config = load_config(CAMVID, [*REPARAM, *rung.overrides])
    assert config.method.has_branches == branches
    assert {term for term, on in weights(config).items() if on} == terms


def test_rungs_differ_from_the_configuration_in_the_method_alone() -> None:
    base = load_config(CAMVID)
    for rung in LADDER:
        changed = load_config(CAMVID, [*REPARAM, *rung.overrides])
        assert changed.model_copy(update={"method": base.method}) == base


@pytest.mark.parametrize(
    ("text", "rung"),
    [
        ("wide:method.branches.width=96", Rung("wide", ("method.branches.width=96",))),
        ("small:x=[96,128],y.z=3", Rung("small", ("x=[96,128]", "y.z=3"))),
        ("a.b+c:x={k: [1, 2]}, y=[[0,1],[1,0]]", Rung("a.b+c", ("x={k: [1, 2]}", "y=[[0,1],[1,0]]"))),
    ],
)
def test_a_rung_of_ones_own(text: str, rung: Rung) -> None:
    assert parse_rung(text) == rung


@pytest.mark.parametrize("text", ["wide", "wide:", ":a=1", "wide:a=1,", "wide:a=1,,b=2"])
def test_a_malformed_rung_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--rung .* is not of the form name:key=value"):
        parse_rung(text)


@pytest.mark.parametrize("name", ["../x", "a b", "w,b", "b [x]"])
def test_a_rung_whose_name_is_none_for_a_folder_is_told_what_names_are(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot be the name of a rung .* use letters \(a to z\), digits and"
    ):
        parse_rung(f"{name}:a=1")


@pytest.mark.parametrize("name", ["rungs.json", "comparison.html"])
def test_a_rung_is_no_file_of_the_study(name: str) -> None:
    with pytest.raises(ConfigError, match=f"a rung has a folder.*{name}"):
        parse_rung(f"{name}:method.kind=baseline")


def test_the_ladders_names_are_taken() -> None:
    with pytest.raises(ConfigError, match="'baseline' is a rung of the ladder"):
        parse_rung("baseline:seed=1")

"""The rungs of the ladder: which settings each of the compared methods changes."""

import re
from dataclasses import dataclass

from segdistill.errors import ConfigError

BASELINE, REPARAM = "baseline", "reparam"
DEEP_SUPERVISION, SELF_DISTILL = "deep_supervision", "self_distill"
_TERMS = ("logit", "feature", "adversarial")
#: What rungs of the ladder add to the one below them, as keys of the configuration: 0 is nothing.
ADDED = {REPARAM: "method.reparam.copies"} | {f"+{term}": f"method.{term}.weight" for term in _TERMS}


@dataclass(frozen=True)
class Rung:
    """One of the compared methods.

    Attributes:
        name: of its folder and in tables.
        overrides: `key.sub=value` on top of the study's configuration.
    """

    name: str
    overrides: tuple[str, ...]


def _deep_supervision_plus(term: str) -> Rung:
    name = f"+{term}"
    others = tuple(f"{key}=0" for other, key in ADDED.items() if other != name)
    return Rung(name, (f"method.kind={SELF_DISTILL}", *others))


#: From plain training to all there is; each `+term` is alone on top of deep supervision.
LADDER = (
    Rung(BASELINE, (f"method.kind={BASELINE}",)),
    Rung(REPARAM, (f"method.kind={REPARAM}",)),
    Rung(DEEP_SUPERVISION, (f"method.kind={DEEP_SUPERVISION}",)),
    *(_deep_supervision_plus(term) for term in _TERMS),
    Rung(SELF_DISTILL, (f"method.kind={SELF_DISTILL}",)),
)


def parse_rung(text: str) -> Rung:
    """`name:key=value,key=value`; a comma inside brackets belongs to the value.

    Raises:
        ConfigError: if it is not of that form, or the name is one of the ladder's.
    """
    name, colon, settings = text.partition(":")
    overrides = split_outside_brackets(settings)
    if not colon or not name or not all(overrides):
        raise ConfigError(
            f"--rung {text!r} is not of the form name:key=value,key=value, e.g. "
            "wide:method.kind=self_distill,method.branches.width=96"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise ConfigError(
            f"--rung {text!r}: {name!r} cannot be the name of a rung and of its folder; use letters (a to z), digits "
            "and ._+-, a letter or digit first"
        )
    if name.endswith((".json", ".html")):
        raise ConfigError(
            f"--rung {text!r}: a rung has a folder, and the study's results are files like {name!r}"
        )
    if name in {rung.name for rung in LADDER}:
        raise ConfigError(f"--rung {text!r}: {name!r} is a rung of the ladder; choose another name")
    return Rung(name, tuple(overrides))


def split_outside_brackets(text: str) -> list[str]:
    """`a=[1,2],b=3` -> [`a=[1,2]`, `b=3`]."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]

"""YAML files and `key.sub=value` overrides to a `Config`, or one `ConfigError` that lists every problem."""

import difflib
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from segdistill.config import Config
from segdistill.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """YAML without its surprises: equal keys are refused, 1e-3 is a number, only true and false are booleans."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(
                    f"{node.start_mark.name}, line {line}: key {key!r} was already given in line {seen[key]}; "
                    "keep one of the two"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


_OWN_RESOLVERS = {"tag:yaml.org,2002:float", "tag:yaml.org,2002:bool"}
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OWN_RESOLVERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides in order, validate.

    Args:
        path: a complete configuration.
        overrides: `key.sub=value`, the value in YAML syntax.

    Raises:
        ConfigError: listing every problem with its key, value and remedy.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the configuration {path} is not a text file") from None
    values = parse_yaml(text, source=str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no keys; see configs/ for complete examples")
    for override in overrides:
        _apply(override, values)
    return validate_config(values, source=str(path))


def parse_yaml(text: str, *, source: str) -> Any:
    """Parse YAML strictly; `source` names it in errors."""
    loader = _StrictLoader(text)
    loader.name = source
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from None
    finally:
        loader.dispose()


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)


def _apply(override: str, values: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {override!r} is not of the form key.sub=value, e.g. train.epochs=40")
    *parents, leaf = key.split(".")
    node = values
    for depth, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(
                f"override {override!r}: {'.'.join(parents[: depth + 1])} is {child!r}, not a section with keys"
            )
        node = child
    node[leaf] = parse_yaml(text, source=f"override {override!r}")


def validate_config(values: dict[str, Any], *, source: str) -> Config:
    """Plain values to a `Config`; `source` names them in the ConfigError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = dict.fromkeys(_explain(dict(one)) for one in error.errors())
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError("\n  ".join([f"{count} in the configuration {source}:", *problems])) from None


def _explain(error: dict[str, Any]) -> str:
    """One line: key, value, what is wrong, remedy."""
    # Union members and validators put their own words into the path; keys and indexes are what users know.
    path = _known_path(error["loc"])
    key = ".".join(map(str, path)) or "configuration"
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            section = _section_at(path[:-1])
            names = list(section.model_fields) if section else []
            return f"{key}: unknown key{_did_you_mean(str(path[-1]), names)} (keys here: {', '.join(names)})"
        case "missing":
            return f"{key}: this key is required"
        case "literal_error":
            expected = [word.strip("'") for word in re.split(r", | or ", context["expected"])]
            close = _did_you_mean(str(error["input"]), expected)
            return f"{key} = {error['input']!r}: not one of {', '.join(expected)}{close}"
        case "value_error":
            message = str(context["error"])
            return message if not path else f"{key} = {error['input']!r}: {message}"
        case "model_type" | "model_attributes_type":
            return f"{key} = {error['input']!r}: should be a section with keys"
        case _:
            return f"{key} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _did_you_mean(word: str, names: list[str]) -> str:
    close = difflib.get_close_matches(word, names, 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _section_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    section: type[BaseModel] = Config
    for key in path:
        field = section.model_fields.get(str(key))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return None
        section = field.annotation
    return section


def _known_path(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """Strip what pydantic adds below a field for the members of a union."""
    path: list[str | int] = []
    section: type[BaseModel] | None = Config
    for part in loc:
        if section is None and isinstance(part, str):
            continue
        path.append(part)
        if section is not None:
            section = _section_at(path)
    return tuple(path)

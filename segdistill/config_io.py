"""YAML files and `key.sub=value` overrides to a `Config`, or one `ConfigError` that lists every problem."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segdistill.config import Config
from segdistill.config_problems import a_section, did_you_mean, problems_in_words
from segdistill.config_yaml import dump_yaml, parse_yaml
from segdistill.console import counted
from segdistill.errors import ConfigError
from segdistill.files import expanded, read_text


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides in order, validate.

    Args:
        path: a complete configuration.
        overrides: `key.sub=value`, the value in YAML syntax.

    Raises:
        ConfigError: listing every problem with its key, value and remedy.
    """
    if path.is_dir():  # Windows tells of no permission to read it
        its_own = f"; a run has its own, {path / 'config.yaml'}" if (path / "config.yaml").is_file() else ""
        raise ConfigError(f"{path} is a folder; name a configuration, a YAML file{its_own}")
    try:
        text = read_text(path)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeError as error:
        raise ConfigError(f"the configuration {path} is {error}") from None
    values = parse_yaml(text, source=str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no keys; see configs/ for complete examples")
    return resolve(values, overrides, source=str(path))


def resolve(values: dict[str, Any], overrides: Sequence[str], *, source: str) -> Config:
    """Plain values with `key.sub=value` overrides, validated."""
    values = copy.deepcopy(values)
    for override in overrides:
        _apply(override, values)
    _inline_class_table(values)
    return validate_config(values, source=source)


def validate_config(values: dict[str, Any], *, source: str) -> Config:
    """Plain values to a `Config`; `source` names them in the ConfigError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = problems_in_words(error)
        raise ConfigError(
            "\n  ".join([f"{counted(len(lines), 'problem')} in the configuration {source}:", *lines])
        ) from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal object."""
    return dump_yaml(config.model_dump(mode="json"))


def _apply(override: str, values: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {override!r} is not of the form key.sub=value, e.g. train.epochs=40")
    *parents, leaf = key.split(".")
    node = values
    for depth, parent in enumerate(parents):
        child = node.get(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(
                f"override {override!r}: {'.'.join(parents[: depth + 1])} is {child!r}, not {a_section(child)}"
            )
        node[parent] = child = {**child}  # other keys may hold the same section by a YAML alias
        node = child
    node[leaf] = parse_yaml(text, source=f"override {override!r}")


def _inline_class_table(values: dict[str, Any]) -> None:
    """Replace a `data.folder.classes` that is a path by what is in the file, so that a run's own configuration
    tells its classes even when that file has changed."""
    data = values.get("data")
    folder = data.get("folder") if isinstance(data, dict) else None
    if (
        not isinstance(data, dict)
        or not isinstance(folder, dict)
        or not isinstance(folder.get("classes"), str)
    ):
        return
    path = expanded(Path(str(data.get("root") or "."))) / folder["classes"]
    try:
        table = parse_yaml(read_text(path), source=str(path))
    except (OSError, ValueError) as error:  # no text, or a path with a null byte
        raise ConfigError(
            f"data.folder.classes = {folder['classes']!r}: cannot read {path} (relative to data.root): {error}"
        ) from None
    table = table if isinstance(table, dict) else {"classes": table}
    known = ("classes", "ignore_values", "ignore_colours")
    if strangers := [str(key) for key in table if key not in known]:
        raise ConfigError(
            f"{path}: unknown key {strangers[0]}{did_you_mean(strangers[0], list(known))} (a class table has "
            f"{', '.join(known)}, or is the list of classes)"
        )
    data["folder"] = table | {key: value for key, value in folder.items() if key != "classes"}

"""YAML files and `key.sub=value` overrides to a `Config`, or one `ConfigError` that lists every problem."""

import copy
import difflib
import math
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from yaml.constructor import ConstructorError

from segdistill.config import Config
from segdistill.errors import ConfigError
from segdistill.files import expanded, read_text

_SHOWN = 40  # signs of a value in a message
#: pydantic's error for a value that should be a number or boolean -> what YAML may call one (`_unquoted`).
_PLAIN = {"int_type": ("int",), "float_type": ("int", "float"), "bool_type": ("bool",)}


class _StrictLoader(yaml.SafeLoader):
    """YAML without its surprises: equal keys are refused, 1e-3 is a number, 010 and 1:30 are none, only true
    and false are booleans, and a run may be named 2024-01-31."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"{node.start_mark.name}, line {line}: keys are plain words; lists, sections and '<<' "
                    "cannot be keys"
                )
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(
                    f"{node.start_mark.name}, line {line}: key {key!r} was already given in line {seen[key]}; "
                    "keep one of the two"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value that is not what its tag says, e.g. `!!int abc`, is told with its place like all other mistakes:
        PyYAML lets Python's own errors through."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, IndexError):
            value = node.value if len(node.value) <= _SHOWN else f"{node.value[:_SHOWN]}..."
            raise ConstructorError(
                None, None, f"{value!r} cannot be read as {node.tag.rpartition(':')[2]}", node.start_mark
            ) from None


_OWN_RESOLVERS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "timestamp")}
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OWN_RESOLVERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789")
)
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


class _StrictDumper(yaml.SafeDumper):
    """Quotes whatever `_StrictLoader` would not read as text, e.g. a run named 1e-3."""


for _first, _resolvers in _StrictLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _StrictDumper.add_implicit_resolver(_tag, _pattern, [_first])


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides in order, validate.

    Args:
        path: a complete configuration.
        overrides: `key.sub=value`, the value in YAML syntax.

    Raises:
        ConfigError: listing every problem with its key, value and remedy.
    """
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


def parse_yaml(text: str, *, source: str) -> Any:
    """Parse YAML strictly; `source` names it in errors."""
    try:
        loader = _StrictLoader(text)
    except yaml.YAMLError as error:  # a control character
        raise ConfigError(f"{source} is not a text file: {error}") from None
    loader.name = source
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply; no key needs more than a few levels") from None
    finally:
        loader.dispose()


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal object."""
    return yaml.dump(
        config.model_dump(mode="json"),
        Dumper=_StrictDumper,
        sort_keys=False,
        default_flow_style=None,
        width=100,
    )


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
                f"override {override!r}: {'.'.join(parents[: depth + 1])} is {child!r}, not {_a_section(child)}"
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
            f"{path}: unknown key {strangers[0]}{_did_you_mean(strangers[0], list(known))} (a class table has "
            f"{', '.join(known)}, or is the list of classes)"
        )
    data["folder"] = table | {key: value for key, value in folder.items() if key != "classes"}


def validate_config(values: dict[str, Any], *, source: str) -> Config:
    """Plain values to a `Config`; `source` names them in the ConfigError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        # A field that may be of several types gives an error for each of them: one line says what would do.
        problems: dict[str, list[str]] = {}
        for one in error.errors():
            subject, problem = _explain(dict(one))
            problems.setdefault(subject, [])
            if problem not in problems[subject]:
                problems[subject].append(problem)
        lines = [
            subject + " or ".join(found).replace(" or should be ", " or ")
            for subject, found in problems.items()
        ]
        count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
        raise ConfigError("\n  ".join([f"{count} in the configuration {source}:", *lines])) from None


def unknown_key(key: str) -> str:
    """What to say of a key `a.b.c` that no configuration has; empty if there is such a key."""
    path = key.split(".")
    for depth, part in enumerate(path):
        section = _section_at(path[:depth])
        if section is not None and part not in section.model_fields:
            return f"{'.'.join(path[: depth + 1])}: {_unknown(part, section)}"
    return ""


def _unknown(part: str | int, section: type[BaseModel] | None) -> str:
    names = list(section.model_fields) if section else []
    elsewhere = " or ".join(map(repr, _keys_called(str(part), Config)))
    meant = f"; did you mean {elsewhere}?" if elsewhere else _did_you_mean(str(part), names)
    return f"unknown key{meant} (keys here: {', '.join(names)})"


def _keys_called(name: str, section: type[BaseModel], above: str = "") -> Iterator[str]:
    """The whole `a.b.name` of every key and section of that name, `section` and what lies in it being searched."""
    for key, field in section.model_fields.items():
        if key == name:
            yield above + key
        if _is_section(field.annotation):
            yield from _keys_called(name, field.annotation, f"{above}{key}.")


def _explain(error: dict[str, Any]) -> tuple[str, str]:
    """The key with its value, and what is wrong with it and what would be right."""
    # Union members and validators put their own words into the path; keys and indexes are what users know.
    path = _known_path(error["loc"])
    key = ".".join(map(str, path))
    value = error["input"]
    subject = f"{key} = {value!r}: "
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden" | "invalid_key":
            return f"{key}: ", _unknown(path[-1], _section_at(path[:-1]))
        case "missing" if isinstance(path[-1], int):
            return f"{key}: ", "this list is too short"
        case "missing":
            return f"{key}: ", "this key is required"
        case "literal_error":
            return subject, _one_of(value, context["expected"])
        case "value_error" if isinstance(value, dict):
            # A check of a whole section names the keys that do not go together; its value would be all of them.
            return str(context["error"]), ""
        case "value_error":
            return subject, str(context["error"])
        case "model_type" | "model_attributes_type":
            return subject, f"should be {_a_section(value)}{_such_as(path)}"
        case "string_type":
            none = ", '' for none, which a shell wants in further quotes" if value is None else ""
            return subject, f"should be text (in quotes if it looks like a number{none})"
        case "tuple_type":
            return subject, f"should be {_a_list(path, value)}"
        case "dict_type":
            return subject, f"should be a section of key: value lines{_such_as(path)}"
        case "int_type" if isinstance(value, float) and value.is_integer():
            return subject, f"should be a valid integer (write {value:.0f})"
        case ("int_type" | "float_type" | "bool_type") as kind if _unquoted(value) in _PLAIN[kind]:
            return subject, error["msg"].removeprefix("Input ") + " (without quotes)"
        case "path_type":
            return subject, "should be a path"
        case "too_long":
            return subject, f"should be a list of {context['max_length']}"
        case "string_pattern_mismatch":
            return subject, f"should match {context['pattern']}"
        case _:
            return subject, error["msg"].removeprefix("Input ")


def _a_section(instead: Any) -> str:
    """What should stand there `instead`. An empty section is no default: null could as well mean none of it."""
    return "a section with keys" + ("; leave it out for its defaults" if instead is None else "")


def _a_list(path: Sequence[str | int], value: object) -> str:
    """What should stand there, with the user's own numbers if a text such as 360x480 holds as many as the example."""
    field, below = _field_around(path)
    example = _example_at(path)
    what = f" of {field.description}" if field.description and not below else ""
    numbers = re.findall(r"\d+(?:\.\d+)?", value) if isinstance(value, str) else []
    own = len(numbers) == len(example) > 1 and isinstance(example[0], int | float)
    written = f"[{', '.join(numbers)}]" if own else _in_brackets(example)
    return f"a list{what}, e.g. {written}"


def _such_as(path: Sequence[str | int]) -> str:
    """An example of a section of no known keys, or of one in a list; empty for a section that has its defaults."""
    example = _example_at(path)
    return f", e.g. {_in_brackets(example)}" if isinstance(example, dict) else ""


def _in_brackets(example: Any) -> str:
    """A list or section as it is written in one line."""
    return yaml.dump(
        example, Dumper=_StrictDumper, sort_keys=False, default_flow_style=True, width=math.inf
    ).strip()


def _example_at(path: Sequence[str | int]) -> Any:
    """What could stand at this path: what the field there has for an example, or what lies in that."""
    field, below = _field_around(path)
    example = field.examples[0] if field.examples else field.default
    for _ in range(below):
        example = example[0]
    return example


def _field_around(path: Sequence[str | int]) -> tuple[FieldInfo, int]:
    """The innermost field on this path, and how many levels of lists the path leads into it."""
    for end in range(len(path), 0, -1):
        section = _section_at(path[: end - 1])
        if section is not None and (field := section.model_fields.get(str(path[end - 1]))):
            return field, len(path) - end
    raise AssertionError(f"{path} begins with a key")


def _unquoted(value: object) -> str:
    """What a text would be without quotes, in YAML's words: int, float, bool, str; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    return _StrictLoader("").resolve(yaml.ScalarNode, value, (True, False)).rpartition(":")[2]


def _one_of(value: Any, expected: str) -> str:
    """`expected` is pydantic's list of the allowed values: "'a', 'b' or 'c'"."""
    words = [word.strip("'") for word in re.split(r", | or ", expected)]
    what = f"should be one of {', '.join(words)}" if len(words) > 1 else f"should be {words[0]}"
    if isinstance(value, str) and value in words:
        return f"{what}, without quotes"
    return what + _did_you_mean(str(value), words)


def _did_you_mean(word: str, names: list[str]) -> str:
    close = difflib.get_close_matches(word, names, 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _section_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    """The section at this path, `a.list.0` being one of a list of sections."""
    kind: Any = Config
    for key in path:
        if isinstance(key, int):
            kind = next(iter(get_args(kind)), None)
        else:
            field = kind.model_fields.get(key) if _is_section(kind) else None
            kind = field.annotation if field else None
    return kind if _is_section(kind) else None


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _known_path(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """Strip what pydantic adds below a field for the members of a union."""
    path: list[str | int] = []
    section: type[BaseModel] | None = Config
    for part in loc:
        if section is None and isinstance(part, str):
            continue
        path.append(part)
        section = _section_at(path)
    return tuple(path)

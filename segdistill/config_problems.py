"""What is wrong with a configuration, in words: the key, its value, and what would be right."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from segdistill.config import Config
from segdistill.config_yaml import in_one_line, kind_without_quotes

#: pydantic's error for a value that should be a number or boolean -> what YAML may call one without its quotes.
_PLAIN = {"int_type": ("int",), "float_type": ("int", "float"), "bool_type": ("bool",)}


def problems_in_words(error: ValidationError) -> list[str]:
    """A line for every key that is wrong: the key, its value and what would be right."""
    # A field that may be of several types gives an error for each of them: one line says what would do.
    problems: dict[str, list[str]] = {}
    for one in error.errors():
        subject, problem = _explain(dict(one))
        problems.setdefault(subject, [])
        if problem not in problems[subject]:
            problems[subject].append(problem)
    return [
        subject + " or ".join(found).replace(" or should be ", " or ") for subject, found in problems.items()
    ]


def unknown_key(key: str) -> str:
    """What to say of a key `a.b.c` that no configuration has; empty if there is such a key."""
    path = key.split(".")
    for depth, part in enumerate(path):
        section = _section_at(path[:depth])
        if section is not None and part not in section.model_fields:
            return f"{'.'.join(path[: depth + 1])}: {_unknown(part, section)}"
    return ""


def did_you_mean(word: str, names: list[str]) -> str:
    """What to put behind a wrong word; empty if none of the right ones is close to it."""
    close = difflib.get_close_matches(word, names, 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def a_section(instead: Any) -> str:
    """What should stand there `instead`. An empty section is no default: null could as well mean none of it."""
    return "a section with keys" + ("; leave it out for its defaults" if instead is None else "")


def _unknown(part: str | int, section: type[BaseModel] | None) -> str:
    names = list(section.model_fields) if section else []
    elsewhere = " or ".join(map(repr, _keys_called(str(part), Config)))
    meant = f"; did you mean {elsewhere}?" if elsewhere else did_you_mean(str(part), names)
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
            return subject, f"should be {a_section(value)}{_such_as(path)}"
        case "string_type":
            none = ", '' for none, which a shell wants in further quotes" if value is None else ""
            return subject, f"should be text (in quotes if it looks like a number{none})"
        case "tuple_type":
            return subject, f"should be {_a_list(path, value)}"
        case "dict_type":
            return subject, f"should be a section of key: value lines{_such_as(path)}"
        case "int_type" if isinstance(value, float) and value.is_integer():
            return subject, f"should be a valid integer (write {value:.0f})"
        case ("int_type" | "float_type" | "bool_type") as kind if (
            isinstance(value, str) and kind_without_quotes(value) in _PLAIN[kind]
        ):
            return subject, error["msg"].removeprefix("Input ") + " (without quotes)"
        case "path_type":
            return subject, "should be a path"
        case "too_long":
            return subject, f"should be a list of {context['max_length']}"
        case "string_pattern_mismatch":
            return subject, f"should match {context['pattern']}"
        case _:
            return subject, error["msg"].removeprefix("Input ")


def _a_list(path: Sequence[str | int], value: object) -> str:
    """What should stand there, with the user's own numbers if a text such as 360x480 holds as many as the example."""
    field, below = _field_around(path)
    example = _example_at(path)
    what = f" of {field.description}" if field.description and not below else ""
    numbers = re.findall(r"\d+(?:\.\d+)?", value) if isinstance(value, str) else []
    own = len(numbers) == len(example) > 1 and isinstance(example[0], int | float)
    written = f"[{', '.join(numbers)}]" if own else in_one_line(example)
    return f"a list{what}, e.g. {written}"


def _such_as(path: Sequence[str | int]) -> str:
    """An example of a section of no known keys, or of one in a list; empty for a section that has its defaults."""
    example = _example_at(path)
    return f", e.g. {in_one_line(example)}" if isinstance(example, dict) else ""


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


def _one_of(value: Any, expected: str) -> str:
    """`expected` is pydantic's list of the allowed values: "'a', 'b' or 'c'"."""
    words = [word.strip("'") for word in re.split(r", | or ", expected)]
    what = f"should be one of {', '.join(words)}" if len(words) > 1 else f"should be {words[0]}"
    if isinstance(value, str) and value in words:
        return f"{what}, without quotes"
    return what + did_you_mean(str(value), words)


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

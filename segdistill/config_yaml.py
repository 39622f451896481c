"""The YAML that configurations are written in: stricter than PyYAML's, and with fewer surprises."""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from segdistill.errors import ConfigError

_SHOWN = 40  # signs of a value in a message


def parse_yaml(text: str, *, source: str) -> Any:
    """Parse YAML strictly.

    Args:
        text: one document.
        source: names it in errors.

    Raises:
        ConfigError: with the line, if the text is not valid or gives a key twice.
    """
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


def dump_yaml(value: Any) -> str:
    """YAML that `parse_yaml` reads back to equal values; short lists and sections stand in one line."""
    return yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, default_flow_style=None, width=100)


def in_one_line(value: Any) -> str:
    """A list or section as it is written in one line."""
    return yaml.dump(
        value, Dumper=_StrictDumper, sort_keys=False, default_flow_style=True, width=math.inf
    ).strip()


def kind_without_quotes(text: str) -> str:
    """What a text would be without quotes, in YAML's words: int, float, bool, str."""
    return _StrictLoader("").resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]


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

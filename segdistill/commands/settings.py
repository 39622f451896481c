"""Which settings a run's numbers depend on, and which may change or have no effect."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segdistill.build.training import trains_on_cpu
from segdistill.config import Config
from segdistill.config_problems import unknown_key
from segdistill.errors import ConfigError
from segdistill.files import expanded

#: Changing these between start and resume does not change a number. (Nor may a key that is new to the program, with
#: its default: an older run lacks it, and is compared and resumed as if it had been started with that.)
_FREE_KEYS = frozenset(
    {
        "out",
        "name",
        "data.root",
        "data.cache",
        "data.workers",
        "train.resume",
        "train.log_every",
        "train.diagnose_every",
        "train.checkpoint_minutes",
        "train.keep_epochs",
    }
)
#: Where a run's data lie and how they are read: all that may be said anew of a finished run.
_ABOUT_DATA = frozenset({"data.root", "data.cache", "data.workers"})


def refuse_what_counts(overrides: Sequence[str], *, owner: str) -> None:
    """Raises ConfigError for an override that would make something else of what `owner` holds."""
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise ConfigError(
                f"{override!r} is no override of the form key.sub=value; give one run or file at a time"
            )
        if key not in _ABOUT_DATA:
            if unknown := unknown_key(key):
                raise ConfigError(f"{override}: {unknown}")
            raise ConfigError(
                f"{override}: {key} is a setting that {owner} was made with, and stays; where the data lie now may be "
                "said by data.root=DIR"
            )


def with_whole_paths(config: Config) -> Config:
    """The configuration with paths that hold from whichever folder it is read again.

    Raises:
        PathError: if one begins with the home folder of nobody.
    """
    root, model = config.data.root, config.model
    data = config.data.model_copy(update={"root": root and expanded(root).absolute()})
    files = {key: str(expanded(Path(path)).absolute()) for key, path in model.files.items()}
    return config.model_copy(update={"data": data, "model": model.model_copy(update=files)})


def settings_that_count(config: Config) -> dict[str, Any]:
    """Key -> value of the settings that a run's numbers depend on, wherever it and its data lie; files with weights are
    named by their whole path."""
    flat = _flatten(with_whole_paths(config).model_dump(mode="json"))
    return {
        key: value
        for key, value in sorted(flat.items())
        if key not in _FREE_KEYS and not _is_unused(key, config)
    }


def changes_that_count(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Key -> its value before and now, of the settings that count in one of the two and differ; by another name for the
    CPU of this machine, or for a file, they do not."""
    values_before, values_now = (_flatten(config.model_dump(mode="json")) for config in (before, now))
    counting = settings_that_count(before).keys() | settings_that_count(now).keys()
    if trains_on_cpu(before.train) and trains_on_cpu(now.train):
        counting -= {"train.accelerator"}
    files = (before.model.files, now.model.files)
    counting -= {
        f"model.{key}" for key in files[0].keys() & files[1].keys() if _alike(files[0][key], files[1][key])
    }
    pairs = {key: (values_before.get(key), values_now.get(key)) for key in sorted(counting)}
    return {key: (one, other) for key, (one, other) in pairs.items() if one != other}


def _alike(one: str, other: str) -> bool:
    """Whether two paths may name one file. A relative one may be meant from another folder than this one: the one that
    the run was started in, or its like on another machine. Then a whole one has to end in it."""
    paths = [expanded(Path(path)) for path in (one, other)]
    if paths[0].resolve() == paths[1].resolve():
        return True
    relative, whole = sorted(paths, key=Path.is_absolute)
    if relative.is_absolute() or not whole.is_absolute():
        return False
    return whole.parts[-len(relative.parts) :] == relative.parts


def settings_hash(config: Config) -> str:
    """SHA-256 of `settings_that_count`, wherever files with weights lie."""
    named = {f"model.{key}": Path(path).name for key, path in config.model.files.items()}
    values = settings_that_count(config)
    values |= {key: name for key, name in named.items() if key in values}
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def settings_without_effect(config: Config) -> dict[str, Any]:
    """Key -> value of what was set and changes nothing, as other settings switch it off.

    A weight of 0 is no such setting: it asks for nothing and gets it.
    """
    given, default = (_flatten(one.model_dump(mode="json")) for one in (config, Config(name=config.name)))
    return {
        key: value
        for key, value in given.items()
        if _is_unused(key, config) and value != default[key] and not (key.endswith(".weight") and not value)
    }


def _is_unused(key: str, config: Config) -> bool:
    return f"{key}.".startswith(tuple(f"{one}." for one in config.all_unused()))


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

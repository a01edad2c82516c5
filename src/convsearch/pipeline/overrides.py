"""`--set grpo.total_steps=40`: one setting of a nested, frozen dataclass, checked by its type."""

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args, get_origin, get_type_hints

from convsearch.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def apply_overrides(config: C, assignments: Sequence[str]) -> C:
    """The config with each `key=value` applied, the last one winning; keys are dotted.

    Raises ConfigError for an assignment without `=`, an unknown key (names the nearest ones), a
    value of the wrong type, or a value that the settings themselves refuse.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"--set {assignment}: expected key=value, as in grpo.total_steps=40")
        keys = list(setting_keys(config))
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(keys)}"
            raise ConfigError(f"--set {assignment}: there is no setting {key!r}; {hint}")
        config = _replace(config, key.split("."), text.strip(), f"--set {assignment}")
    return config


def setting_keys(config: "DataclassInstance", prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings that can be given.

    Not among them: paths, seed and style of a section, which follow from the run.
    """
    kinds = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if _is_settings(value):
            yield from setting_keys(value, f"{prefix}{field.name}.")
        elif not prefix or not _follows_from_run(field.name, kinds[field.name]):
            yield prefix + field.name


def _follows_from_run(name: str, kind: object) -> bool:
    return name in ("seed", "style") or Path in (kind, *get_args(kind))


def _is_settings(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _replace(config: C, path: list[str], text: str, where: str) -> C:
    name, rest = path[0], path[1:]
    if rest:
        value = _replace(getattr(config, name), rest, text, where)
    else:
        value = _parse(text, get_type_hints(type(config))[name], where)
    try:
        return dataclasses.replace(config, **{name: value})
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _parse(text: str, kind: object, where: str) -> object:
    kinds = get_args(kind)
    if get_origin(kind) is Literal:
        if text not in kinds:
            raise ConfigError(f"{where}: must be one of {', '.join(map(str, kinds))}")
        return text
    if type(None) in kinds:  # X | None
        if text.lower() == "none":
            return None
        return _parse(text, next(k for k in kinds if k is not type(None)), where)
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ConfigError(f"{where}: must be true or false, found {text!r}")
        return _BOOLEANS[text.lower()]
    if kind in (int, float):
        try:
            return int(text) if kind is int else float(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{where}: must be {word}, found {text!r}") from None
    if kind is Path:
        return Path(text)
    if kind is str:
        return text
    raise ConfigError(f"{where}: this setting cannot be given on the command line")

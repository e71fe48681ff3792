"""Read settings as users write them: dotted names, text for any type, TOML; suggest a name for a misspelt one."""

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from scfusionttt.errors import InputFileError, SettingError, require

T = TypeVar("T")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d*)?)\s*([kmgt]i?)?b?", re.IGNORECASE)


def parse_size(size: str | int) -> int:
    """Return bytes of ``6GiB``, ``4GB``, ``500M`` or a number of bytes.

    Raises
    ------
    SettingError
        For anything else.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or not float(match[1]):
        raise SettingError(f"memory must be a size like 6GiB, 4GB or a number of bytes, not {size!r}")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def updated(config: T, settings: Mapping[str, Any]) -> T:
    """Return a copy of a dataclass of sections with some settings replaced; see `Config.with_settings`."""
    return _replaced(config, config, _nest(settings))


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Raises
    ------
    InputFileError
        The file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror}); give an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: is not TOML ({error})") from error


def _nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"section.key": value}`` into ``{"section": {"key": value}}``; later ones win."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        head, _, rest = name.partition(".")
        value = {rest: value} if rest else value
        if isinstance(value, Mapping):
            before = nested.get(head)
            nested[head] = _nest({**before, **_nest(value)} if isinstance(before, dict) else value)
        else:
            nested[head] = value
    return nested


def _replaced(root: Any, owner: Any, settings: Mapping[str, Any], *, prefix: str = "") -> Any:
    """Replace settings of a section all at once, so that only the final values have to be consistent."""
    types = get_type_hints(type(owner))
    hints = {item.name: types[item.name] for item in fields(owner)}
    changed: dict[str, Any] = {}
    for key, value in settings.items():
        name = prefix + key
        if key not in hints:
            leaf = _leaf(name, value)
            raise SettingError(f"there is no setting {leaf!r}; {_closest(leaf, key, hints, root)}")
        current = getattr(owner, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                keys = ", ".join(item.name for item in fields(current))
                raise SettingError(f"{name!r} is a section; set one of its keys: {keys}")
            changed[key] = _replaced(root, current, value, prefix=f"{name}.")
        elif isinstance(value, Mapping):
            raise SettingError(f"there is no setting {_leaf(name, value)!r}; {name!r} is not a section")
        else:
            changed[key] = _convert(name, hints[key], value)
    return replace(owner, **changed)


def _names(section: Any) -> set[str]:
    return {item.name for item in fields(section)}


def _leaf(name: str, value: Any) -> str:
    """Return the full name of the first setting under a name."""
    while isinstance(value, Mapping) and value:
        key, value = next(iter(value.items()))
        name = f"{name}.{key}"
    return name


def _closest(name: str, key: str, keys: Iterable[str], root: Any) -> str:
    """Suggest a setting that is spelt alike, else one of that name in another section."""
    alike = [name.replace(key, close, 1) for close in difflib.get_close_matches(key, keys, n=1)]
    last = name.rpartition(".")[2]
    sections = [section.name for section in fields(root) if is_dataclass(getattr(root, section.name))]
    alike += [f"{section}.{last}" for section in sections if last in _names(getattr(root, section))]
    return f"did you mean {alike[0]!r}?" if alike else f"choose one of {', '.join(keys)}"


def _convert(name: str, kind: Any, value: Any) -> Any:
    """Turn text (or a TOML or Python value) into the setting's type."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
    if value in choices:
        return value
    if NoneType in options and (value is None or str(value).lower() in {"none", "all"}):
        return None
    target = next((option for option in options if isinstance(option, type) and option is not NoneType), None)
    if target is None:
        raise SettingError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    if target is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        require(str(value).lower() in words, f"{name} must be true or false, not {value!r}")
        return words[str(value).lower()]
    try:
        number = float(value) if target in (int, float) else value
        if target is float:
            require(math.isfinite(number), f"{name} must be a finite number, not {value!r}")
        if target is int:
            require(number == int(number), f"{name} must be a whole number, not {value!r}")
        return target(number)
    except (TypeError, ValueError, OverflowError) as error:
        kinds = " or ".join([target.__name__, *choices])
        raise SettingError(f"{name} must be of type {kinds}, not {value!r}") from error

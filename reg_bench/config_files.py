"""What is read from YAML: mappings with known keys, and messages that help where they do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reg_bench.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: missing, not YAML (with the line), or not a mapping.
    """
    import yaml

    try:
        # The parser in C is ten times as fast; looking for one member reads the files of all.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(content).__name__}")
    return content


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where something similar is known, else the list of what is known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def check_keys(content: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Nothing, where every key of `content` is among `known`.

    Raises:
        ConfigError: an unknown key; names it after `where` and tells the nearest known one.
    """
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")


def mapping(value: Any, where: str) -> dict[str, Any]:
    """`value` as a dictionary, an empty one for `None`.

    Raises:
        ConfigError: something else than a mapping of keys.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping of keys, got {value!r}")
    return dict(value)


def method_settings(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of a method in YAML: `init_args`, and `checkpoint` where it stands beside them."""
    beside = {"checkpoint": content["checkpoint"]} if "checkpoint" in content else {}
    return mapping(content.get("init_args"), f"{where}: init_args") | beside

"""Reads what a class says about itself from its source, without importing it (so `list` never pays for torch)."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from reg_bench.errors import ConfigError

# The bases of `reg_bench` whose class attributes are the defaults of every member.
_CORE_FILES = ("method.py", "datamodule.py", "metrics/base.py")


@dataclass(frozen=True)
class ScannedClass:
    """A class as its source shows it: literal class attributes (own ones only), bases, first docstring line."""

    name: str
    attributes: Mapping[str, Any]
    bases: tuple[str, ...]
    summary: str
    source: Path


def scan_file(path: Path) -> list[ScannedClass]:
    """The classes at the top level of a Python file.

    Raises:
        ConfigError: the file cannot be parsed; names the file and the line.
    """
    return list(_scan(path, path.stat().st_mtime_ns))


@functools.lru_cache(maxsize=1024)
def _scan(path: Path, _mtime: int) -> tuple[ScannedClass, ...]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else str(path)
        raise ConfigError(f"{where}: not valid Python: {getattr(error, 'msg', error)}") from error
    return tuple(_scanned(node, path) for node in tree.body if isinstance(node, ast.ClassDef))


def _scanned(node: ast.ClassDef, path: Path) -> ScannedClass:
    attributes: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        try:
            literal = ast.literal_eval(value)
        except ValueError:
            continue
        attributes.update({t.id: literal for t in targets if isinstance(t, ast.Name)})
    doc = (ast.get_docstring(node) or "").strip().splitlines()
    bases = tuple(filter(None, (_last_name(base) for base in node.bases)))
    return ScannedClass(node.name, attributes, bases, doc[0].strip() if doc else "", path)


def _last_name(base: ast.expr) -> str:
    """`Metric` of `Metric`, `base.Metric` and `Metric[T]`."""
    if isinstance(base, ast.Subscript):
        base = base.value
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def core_classes() -> dict[str, ScannedClass]:
    """The abstract bases of `reg_bench` by class name."""
    here = Path(__file__).parent
    return {c.name: c for f in _CORE_FILES if (here / f).is_file() for c in scan_file(here / f)}


def inherited(found: ScannedClass, known: Mapping[str, ScannedClass]) -> dict[str, Any]:
    """Literal attributes of `found` with those of its bases, as far as they are among `known`."""
    merged: dict[str, Any] = {}
    for base in reversed(found.bases):
        if base in known and base != found.name:
            merged.update(inherited(known[base], known))
    return merged | dict(found.attributes)


def entry_point_source(point: EntryPoint) -> Path | None:
    """The source file behind an entry point `package.module:Class`, found without running any of it."""
    top, *rest = point.module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder).joinpath(*rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None

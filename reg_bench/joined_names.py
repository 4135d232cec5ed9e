"""Names of methods joined by `+`: which class runs one method after another, and what a name falls into.

A class joins two methods if it says so by a literal, `joins = ("first", "then")`: the arguments of its constructor that
take them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from reg_bench.errors import ConfigError


class _Scanned(Protocol):
    """What a class says about itself in its source."""

    @property
    def accepts(self) -> Mapping[str, Any]: ...

    @property
    def source(self) -> Path: ...


C = TypeVar("C", bound=_Scanned)


def last_two(name: str, source: str = "") -> tuple[str, str]:
    """The names before and after the last `+`: `("a+b", "c")` of `a+b+c`.

    The methods run from left to right, so `a+b` comes first, as one method whose fields are already composed.

    Raises:
        ConfigError: nothing before or after a `+`.
    """
    parts = [part.strip() for part in name.split("+")]
    if len(parts) < 2 or not all(parts):
        where = f"{source}: " if source else ""
        raise ConfigError(f"{where}method {name!r}: expected the names of methods on both sides of every +")
    return "+".join(parts[:-1]), parts[-1]


def joining_class(classes: Iterable[C]) -> C:
    """The one of `classes` that runs one method after another.

    Raises:
        ConfigError: none, several, or one whose `joins` does not name two arguments.
    """
    found = [c for c in classes if c.accepts.get("joins")]
    if len(found) != 1:
        what = ", ".join(str(c.source) for c in found) or "none"
        raise ConfigError(f"names joined by + need one class with a literal `joins`; found: {what}")
    joins = found[0].accepts["joins"]
    if not (isinstance(joins, tuple | list) and len(joins) == 2 and all(isinstance(j, str) for j in joins)):
        raise ConfigError(f"{found[0].source}: joins must name two arguments, got {joins!r}")
    return found[0]

"""What a file is at the moment, so that nothing kept of it outlives a change."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Headers whose voxels lie in a file beside them, of the same name.
_HEADERS = (".mhd", ".nhdr", ".hdr")


def file_state(path: str | Path) -> list[Any] | None:
    """Full path, size and times of change of an existing file, else `None`.

    The second time is that of the system (ctime), which no program that copies files can set back. The voxels of
    `.mhd`, `.nhdr` and `.hdr` lie in files beside them, whose state follows.
    """
    try:
        if not os.path.isfile(path):
            return None
        state = os.stat(path)
        found = [os.path.abspath(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        return found + _beside(Path(path))
    except (OSError, ValueError):
        return None


def _beside(header: Path) -> list[Any]:
    if header.suffix.lower() not in _HEADERS:
        return []
    others = sorted(p for p in header.parent.glob(f"{header.stem}.*") if p.suffix != header.suffix and p.is_file())
    return [[p.name, (state := p.stat()).st_size, state.st_mtime_ns, state.st_ctime_ns] for p in others]


def kept_while_unchanged(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`functools.lru_cache` for functions that read files: a result counts as long as those files stay as they are.

    Args:
        maxsize: results that are kept. Arguments are hashable and given by position; files are named by their paths.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.lru_cache(maxsize)
        def kept(state: tuple[Any, ...], *args: Hashable) -> T:
            return function(*args)  # type: ignore[call-arg,arg-type]

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if kwargs:
                raise TypeError(f"{function.__name__}: expected arguments by position, got {', '.join(kwargs)}")
            named = [a for a in args if isinstance(a, str | Path)]
            return kept(tuple(repr(file_state(a)) for a in named), *args)

        return call

    return decorate

"""Figures as the papers and the challenge published them: shown beside ours, never ranked with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from reg_bench.discovery import nearest
from reg_bench.errors import ConfigError


@cache
def published() -> tuple[Mapping[str, Any], ...]:
    """The tables of `published.yaml`, each with `id, title, source, note, columns, rows`."""
    import yaml

    package = Path(__file__).parent
    for path in (package / "_benchmarks" / "published.yaml", package.parent / "leaderboards" / "published.yaml"):
        if path.is_file():
            return tuple(yaml.safe_load(path.read_text(encoding="utf-8"))["tables"])
    return ()


def published_tables(ids: Sequence[str]) -> list[Mapping[str, Any]]:
    """The tables called `ids`, in that order.

    Raises:
        ConfigError: an unknown id; names the nearest known one.
    """
    known = {str(table["id"]): table for table in published()}
    for name in ids:
        if name not in known:
            raise ConfigError(f"published: no table {name!r} in published.yaml{nearest(name, list(known))}")
    return [known[name] for name in ids]

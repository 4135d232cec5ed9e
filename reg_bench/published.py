"""Figures as the papers and the challenge published them: shown beside ours, never ranked with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from reg_bench.discovery import find, nearest, read_yaml
from reg_bench.errors import ConfigError


@cache
def published() -> tuple[Mapping[str, Any], ...]:
    """The tables of `published.yaml`, each with `id, title, source, note, columns, rows`, and `texts`.

    These are the cells of the rows as they were printed, with their zeros at the end.
    """
    import yaml

    package = Path(__file__).parent
    for path in (package / "_benchmarks" / "published.yaml", package.parent / "leaderboards" / "published.yaml"):
        if path.is_file():
            content = path.read_text(encoding="utf-8")
            known = yaml.safe_load(content)["tables"]
            printed = yaml.load(content, yaml.BaseLoader)["tables"]
            both = zip(known, printed, strict=True)
            return tuple({**table, "texts": _texts(as_text["rows"])} for table, as_text in both)
    return ()


def _texts(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [["–" if cell == "null" else cell for cell in row] for row in rows]


def published_beside(suite: str, version: str, manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tables that stand beside the results of a suite: those that the run was told, else the shipped suite.

    Raises:
        ConfigError: see `published_tables`.
    """
    named = list((manifest.get("suite") or {}).get("published") or ())
    if not named:
        try:
            shipped = read_yaml(find("suites", suite).source)
        except ConfigError:
            shipped = {}
        if str(shipped.get("version", "")) == version:
            named = list(shipped.get("published") or ())
    return published_tables(named)


def published_markdown(tables: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown, under a heading that says what they are; empty where there are none."""
    if not tables:
        return ""
    lines = [
        "",
        "## As published",
        "",
        "Figures of others: not measured here and not ranked with the methods above.",
        "",
    ]
    for table in tables:
        heads = [str(c) for c in table["columns"]]
        lines += [f"### {table['title']}", "", f"Source: {table['source']}. {table.get('note') or ''}".rstrip(), ""]
        lines += [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
        lines += [f"| {' | '.join(row)} |" for row in table["texts"]]
        lines.append("")
    return "\n".join(lines)


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

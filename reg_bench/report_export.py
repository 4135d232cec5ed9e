"""Tables as files: Markdown and LaTeX to be read, CSV and Parquet with every number unrounded."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_bench.errors import ConfigError
from reg_bench.report_tables import Table, all_tables

if TYPE_CHECKING:
    import polars as pl

    from reg_bench.report import Content

FOLDER = "tables"
SUFFIXES = {"markdown": ".md", "csv": ".csv", "latex": ".tex", "parquet": ".parquet"}
#: Columns of words even where nothing is in them.
WORDS = frozenset({"role", "reason", "checkpoint", "condition"})
_OTHER_NAMES = {"md": "markdown", "tex": "latex"}


def formats_of(words: str) -> tuple[str, ...]:
    """The formats in a text with commas between them; `all` stands for each.

    Raises:
        ConfigError: an unknown one.
    """
    from reg_bench.discovery import nearest

    chosen: list[str] = []
    for word in filter(None, (w.strip().lower() for w in words.split(","))):
        name = _OTHER_NAMES.get(word, word)
        if name != "all" and name not in SUFFIXES:
            known = [*SUFFIXES, "all"]
            raise ConfigError(f"--export: unknown format {word!r}{nearest(word, known)}; known are {', '.join(known)}")
        chosen += SUFFIXES if name == "all" else [name]
    if not chosen:
        raise ConfigError(f"--export: expected formats with commas between them: {', '.join(SUFFIXES)} or all")
    return tuple(dict.fromkeys(chosen))


def export(content: Content, formats: Sequence[str]) -> list[Path]:
    """Writes every table of `content` into `tables/` below its folder; the same rows give the same bytes.

    Tables of single cases are written as CSV and Parquet alone: nobody reads them.
    """
    folder = content.folder / FOLDER
    folder.mkdir(exist_ok=True)
    written = []
    for table in all_tables(content):
        for name in formats:
            if name in ("markdown", "latex") and not table.lines:
                continue
            path = folder / f"{table.name}{SUFFIXES[name]}"
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(WRITERS[name](table))
            temporary.replace(path)
            written.append(path)
    return written


def to_markdown(table: Table) -> bytes:
    """GitHub-flavoured, the best values bold."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rule = ["---" if i in table.left else "---:" for i in range(len(table.heads))]
    lines = [f"**{_markdown(table.title)}**", "", line([_markdown(h) for h in table.heads]), line(rule)]
    for i, cells in enumerate(table.lines):
        lines.append(line([f"**{c}**" if (i, j) in table.best else _markdown(c) for j, c in enumerate(cells)]))
    return ("\n".join(lines) + "\n").encode()


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def to_latex(table: Table) -> bytes:
    """A `table` float with rules of the package `booktabs`, the best values bold."""
    layout = "".join("l" if i in table.left else "r" for i in range(len(table.heads)))
    body = []
    for i, cells in enumerate(table.lines):
        made = [rf"\textbf{{{_latex(c)}}}" if (i, j) in table.best else _latex(c) for j, c in enumerate(cells)]
        body.append(" & ".join(made) + r" \\")
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        " & ".join(map(_latex, table.heads)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return ("\n".join(lines) + "\n").encode()


_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def to_csv(table: Table) -> bytes:
    """Numbers with nine digits, nothing for what is not there."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.data)
    writer.writerows([_cell(v) for v in line] for line in zip(*table.data.values(), strict=True))
    return out.getvalue().encode()


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


def frame(table: Table) -> pl.DataFrame:
    """The data of a table as polars has it: whole numbers, numbers or words by column."""
    import polars as pl

    return pl.DataFrame([pl.Series(name, *_typed(name, values)) for name, values in table.data.items()])


def _typed(name: str, values: Sequence[Any]) -> tuple[list[Any], Any]:
    import polars as pl

    known = [v for v in values if v is not None]
    if name in WORDS or any(isinstance(v, str) for v in known):
        return [None if v is None else str(v) for v in values], pl.String
    if known and all(isinstance(v, int) for v in known):
        return list(values), pl.Int64
    return [None if v is None else float(v) for v in values], pl.Float64


def to_parquet(table: Table) -> bytes:
    """As `frame` has it, the title among the metadata."""
    out = io.BytesIO()
    frame(table).write_parquet(out, metadata={"title": table.title})
    return out.getvalue()


WRITERS: Mapping[str, Callable[[Table], bytes]] = {
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
    "parquet": to_parquet,
}

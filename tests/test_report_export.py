"""Tables as files, read back by other programs."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import polars as pl
import pytest

from reg_bench import command_report, report
from reg_bench.errors import ConfigError
from reg_bench.report_export import export, formats_of, to_latex, to_markdown
from reg_bench.report_tables import Table, all_tables
from tests.report_runs import run_folder


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> report.Content:
    return report.read(run_folder(tmp_path_factory.mktemp("export") / "run"))


@pytest.fixture(scope="module")
def files(content: report.Content) -> dict[str, Path]:
    return {p.name: p for p in export(content, formats_of("all"))}


def test_every_table_in_every_format(content: report.Content, files: dict[str, Path]) -> None:
    names = {t.name for t in all_tables(content)}
    assert {"one.strict", "one.learn2reg", "two.strict", "one.strict.significance", "one.strict.labels"} <= names
    assert "published.paper-2-learn2reg-2020" in names
    assert {"one.strict.cases", "one.learn2reg.cases"} <= names
    for name in names:
        suffixes = {".csv", ".parquet"} if name.endswith(".cases") else {".csv", ".parquet", ".md", ".tex"}
        assert all(f"{name}{s}" in files for s in suffixes)


def test_csv_and_parquet_hold_the_statistics_of_the_board(content: report.Content, files: dict[str, Path]) -> None:
    board = content.boards[0]
    frame = pl.read_parquet(files["one.strict.parquet"])
    with files["one.strict.csv"].open() as file:
        lines = list(csv.DictReader(file))
    assert frame["method"].to_list() == [line["method"] for line in lines] == [e.name for e in board.entries]
    assert frame.schema["rank"] == pl.Int64
    assert frame.schema["dice_mean"] == pl.Float64
    for entry, line, mean in zip(board.entries, lines, frame["dice_mean"], strict=True):
        assert mean == entry.cells["dice"].mean
        assert line["dice_mean"] == ("" if mean is None else f"{mean:.9g}")
        assert line["rank"] == ("" if entry.rank is None else str(entry.rank))


def test_cases_hold_every_value_as_it_came(content: report.Content, files: dict[str, Path]) -> None:
    frame = pl.read_parquet(files["one.strict.cases.parquet"])
    assert frame.height == 6 * 12
    failed = frame.filter(pl.col("status") == "failed")
    assert failed["reason"].to_list() == ["RuntimeError: <b>diverged</b>"]
    assert failed["dice"].to_list() == [None], "a failure has no value; it counts as the worst in tables only"
    means = frame.filter(pl.col("status") == "ok").group_by("method").agg(pl.col("dice").mean())
    board = content.boards[0]
    expected = {e.name: e.cells["dice"].mean for e in board.entries if e.ok and not e.failed}
    found = dict(means.iter_rows())
    assert {n: found[n] for n in expected} == pytest.approx(expected)


def test_significance_and_labels(files: dict[str, Path]) -> None:
    frame = pl.read_parquet(files["one.strict.significance.parquet"])
    assert frame.filter(pl.col("better") == "affine+demons")["than identity"][0] < 0.05
    assert frame.filter(pl.col("better") == "identity")["than affine+demons"][0] == pytest.approx(1.0)
    labels = pl.read_parquet(files["one.strict.labels.parquet"])
    assert {"dice#1", "dice#2", "dice#3"} <= set(labels.columns)


def test_equal_bytes_for_equal_rows(content: report.Content, files: dict[str, Path]) -> None:
    before = {name: path.read_bytes() for name, path in files.items()}
    again = export(report.read(content.folder), formats_of("all"))
    assert before == {p.name: p.read_bytes() for p in again}


HARD = Table(
    "t",
    "50 % & more | <b>",
    {"a_b": [1.5]},
    ("a_b", "x|y"),
    (("1 ± 2", "c\\d <e>"),),
    frozenset({0}),
    frozenset({(0, 0)}),
)


def test_latex_and_markdown_escape_what_they_must() -> None:
    latex = to_latex(HARD).decode()
    assert r"\caption{50 \% \& more | $<$b$>$}" in latex
    assert r"a\_b & x|y \\" in latex
    assert r"\textbf{1 $\pm$ 2} & c\textbackslash{}d $<$e$>$ \\" in latex
    assert latex.count("{lr}") == 1
    markdown = to_markdown(HARD).decode()
    assert "| a_b | x\\|y |" in markdown
    assert "| --- | ---: |" in markdown
    assert "| **1 ± 2** | c\\d &lt;e> |" in markdown


def test_formats_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    assert formats_of("md, csv") == ("markdown", "csv")
    assert formats_of("all") == ("markdown", "csv", "latex", "parquet")
    parser = argparse.ArgumentParser()
    command_report.add_arguments(parser)
    with pytest.raises(ConfigError, match="unknown format 'latx'; did you mean 'latex'"):
        command_report.run(parser.parse_args([str(tmp_path / "absent"), "--export", "latx"]))
    with pytest.raises(ConfigError, match="expected formats"):
        formats_of(" , ")


def test_command_writes_below_the_run_folder(content: report.Content, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command_report.add_arguments(parser)
    assert command_report.run(parser.parse_args([str(content.folder), "--export", "latex"])) == 0
    assert "files of tables in" in capsys.readouterr().out
    assert (content.folder / "tables" / "one.strict.tex").is_file()

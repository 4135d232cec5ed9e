"""The files of `reg-bench report`: same bytes for the same rows, nothing from the network, no torch."""

from __future__ import annotations

import argparse
import html.parser
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reg_bench import command_report, report
from reg_bench.errors import ConfigError, DataError
from tests.report_rows import dice_rows, row, value, write

FILES = ("leaderboard.md", "leaderboard.csv", "index.html")


def example() -> list[dict[str, Any]]:
    """Three methods on ten cases of two tasks, with a failure, a skip and pictures."""
    rng = random.Random(0)
    cases = [f"p{i}/{t}" for i in range(5) for t in range(2)]
    rows: list[dict[str, Any]] = []
    for task in ("one", "two"):
        for method in ("identity", "a", "b"):
            for i, case in enumerate(cases):
                values = [value("dice", rng.random()), value("hd95", 5 * rng.random(), unit="mm")]
                rows.append(row(method, case, values, task=task, panel=f"panels/{method}{i}.webp"))
        rows += dice_rows("c<script>", dict.fromkeys(cases), task=task)
        rows += [row("peer", c, task=task, status="skipped", reason="pip install 'x[peer]'") for c in cases]
    return rows


def build(folder: Path, *groups: list[dict[str, Any]]) -> dict[str, bytes]:
    """The files that `report.build` writes for `groups` of rows, one file each."""
    folder.mkdir(exist_ok=True)
    (folder / "panels").mkdir()
    for r in example():
        if r["panel"] and not r["panel"].endswith("9.webp"):
            (folder / r["panel"]).write_bytes(b"picture")
    for i, group in enumerate(groups):
        write(folder, group, f"rows.rank{i}.jsonl")
    report.build(folder)
    return {name: (folder / name).read_bytes() for name in FILES}


def test_equal_bytes_for_equal_rows_in_any_order_and_any_files(tmp_path: Path) -> None:
    rows = example()
    first = build(tmp_path / "first", rows)
    report.build(tmp_path / "first")
    assert first == {name: (tmp_path / "first" / name).read_bytes() for name in FILES}
    random.Random(1).shuffle(rows)
    assert first == build(tmp_path / "second", rows[:17], rows[17:40], rows[40:])


class Links(html.parser.HTMLParser):
    """Collects every reference and tag of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and v]


def test_the_page_stands_alone_and_links_only_pictures_that_exist(tmp_path: Path) -> None:
    page = build(tmp_path / "run", example())["index.html"].decode()
    links = Links()
    links.feed(page)
    local = {r for r in links.references if not r.startswith("#")} - {"leaderboard.csv"}
    assert local
    assert all(r.startswith("panels/") and (tmp_path / "run" / r).is_file() for r in local)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "@import" not in page
    assert "url(" not in page
    # One script of ours and the data of each task; a method's name is text.
    assert links.tags.count("script") == 1 + 2
    assert page.count('type="application/json"') == 2
    assert "c&lt;script&gt;" in page
    assert "c\\u003cscript>" in page
    assert "prefers-color-scheme: dark" in page
    assert "5th worst case" in page
    assert "median case" in page
    # The protocol in full.
    for name in ("interpolation, strict", "HD95, strict", "units", "threads", "device", "timing", "statistics"):
        assert f"<dt>{name}</dt>" in page


def test_a_page_that_stands_alone_holds_its_pictures(tmp_path: Path) -> None:
    build(tmp_path / "run", example())
    report.build(tmp_path / "run", standalone=True)
    links = Links()
    links.feed((tmp_path / "run" / "index.html").read_text())
    shown = [r for r in links.references if not r.startswith("#")]
    assert sum(r.startswith("data:image/webp;base64,") for r in shown) > 5
    assert not [r for r in shown if r.startswith("panels/")]


def test_pictures_outside_the_folder_are_not_linked(tmp_path: Path) -> None:
    secret = tmp_path / "secret.webp"
    secret.write_bytes(b"x")
    run = tmp_path / "run"
    run.mkdir()
    bad = ("../secret.webp", str(secret), "https://example.org/x.webp", "panels\\..\\x")
    write(run, [row("a", f"p{i}", [value("dice", 0.5)], panel=p) for i, p in enumerate(bad)])
    report.build(run)
    assert "<img" not in (run / "index.html").read_text()


def test_published_figures_only_where_the_suite_asks(tmp_path: Path) -> None:
    write(tmp_path, dice_rows("a", {"p0": 0.5, "p1": 0.6}))
    report.build(tmp_path)
    assert "As published" not in (tmp_path / "index.html").read_text()
    assert "As published" not in (tmp_path / "leaderboard.md").read_text()
    manifest = {"suite": {"name": "s", "published": ["paper-1-cardiac-mri", "paper-2-learn2reg-2020"]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    report.build(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "ECO + TPS" in page
    assert "not measured here and not ranked" in page
    assert "ECO" not in (tmp_path / "leaderboard.csv").read_text()
    # As printed, with the zeros at the end.
    assert "| task 2 pyramid | 9.00 | 12.22 | – |" in (tmp_path / "leaderboard.md").read_text()
    manifest["suite"]["published"] = ["paper-1-cardiac-mir"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"no table 'paper-1-cardiac-mir'.*did you mean 'paper-1-cardiac-mri'"):
        report.build(tmp_path)


def test_runs_before_a_suite_named_published_tables_show_them(tmp_path: Path) -> None:
    write(tmp_path, dice_rows("a", {"p0": 0.5}, suite="york"))
    report.build(tmp_path)
    assert "ECO + TPS" in (tmp_path / "index.html").read_text()
    write(tmp_path, dice_rows("a", {"p0": 0.5}, suite="york", suite_version="0"), "rows.rank1.jsonl")
    (tmp_path / "rows.rank0.jsonl").unlink()
    report.build(tmp_path)
    assert "ECO + TPS" not in (tmp_path / "index.html").read_text()


def test_published_tables_are_well_formed() -> None:
    tables = report.published()
    assert len({t["id"] for t in tables}) == len(tables) >= 7
    for table in tables:
        for row_, words in zip(table["rows"], table["texts"], strict=True):
            expected = ["–" if cell is None else str(cell).rstrip("0") for cell in row_]
            assert [word.rstrip("0") for word in words] == expected
        assert table["source"]
        assert all(len(line) == len(table["columns"]) for line in table["rows"])


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        report.build(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no results; expected rows\*\.jsonl"):
        report.build(tmp_path)
    write(tmp_path, dice_rows("a", {"p0": 0.5}))
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(DataError, match=r"manifest\.json: expected a JSON object, got list"):
        report.build(tmp_path)


def test_terminal_text_fits_and_says_what_failed(tmp_path: Path) -> None:
    write(tmp_path, example())
    words = report.build(tmp_path)
    assert max(map(len, words.splitlines())) <= 110
    assert "floor" in words
    assert "c<script> failed on 10 cases" in words
    assert "\x1b[" not in words
    assert "\x1b[" in report.build(tmp_path, colour=True)


def test_command_prints_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, dice_rows("a", {"p0": 0.5, "p1": 0.75}))
    parser = argparse.ArgumentParser()
    command_report.add_arguments(parser)
    assert command_report.run(parser.parse_args([str(tmp_path)])) == 0
    assert "0.625 ± 0.177" in capsys.readouterr().out


def test_report_imports_neither_torch_nor_its_company(tmp_path: Path) -> None:
    write(tmp_path, example())
    code = (
        "import sys; from reg_bench import command_report; from reg_bench.report import build; build(sys.argv[1]);"
        "print([m for m in ('torch', 'monai', 'pytorch_lightning', 'SimpleITK', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The data inside a page: every value of every case, and the command that computes it again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reg_bench import report, results
from reg_bench.discovery import resolve
from reg_bench.report_cases import ALPHABET, payload, weights_names
from reg_bench.report_page import suite_source
from tests.report_rows import row, value, write
from tests.report_runs import run_folder


def test_values_labels_and_reasons_are_those_of_the_rows(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    boards = [b for b in report.read(folder).boards if b.task == "one"]
    data = json.loads(payload(boards, "command"))
    place = {m["name"]: i for i, m in enumerate(data["methods"])}
    column = {case: i for i, case in enumerate(data["cases"])}
    checked = 0
    for r in results.read_rows(folder):
        if r["key"]["task"] != "one":
            continue
        m, c = place[r["key"]["method"]], column[r["key"]["case"]]
        assert ["missing", "ok", "failed", "skipped"][int(data["methods"][m]["status"][c])] == r["status"]
        if r["status"] != "ok":
            assert data["reasons"][data["reason_of"][m][str(c)]] == r["reason"]
            continue
        assert data["panel_head"] + data["panels"][m][c] + data["panel_tail"] == r["panel"]
        for v in r["values"]:
            source = f"{v['profile']}/{v['metric']}"
            if v["label"] == "all":
                assert data["values"][source][m][c] == pytest.approx(v["value"], rel=6e-4)
                checked += 1
            elif v["profile"] == "strict":
                pack = data["labels"][source]
                a, b, d = (ALPHABET.index(x) for x in pack["data"][v["label"]][m][3 * c : 3 * c + 3])
                assert pack["low"] + pack["step"] * (4096 * a + 64 * b + d) == pytest.approx(v["value"], abs=1e-5)
                checked += 1
    assert checked > 300


def test_forecasts_are_values_of_their_own(tmp_path: Path) -> None:
    told = [value("dice", 0.9), value("dice", 0.7, horizon_s=0.2), value("dice", None, horizon_s=0.5)]
    write(tmp_path, [row("a", "p0", told), row("a", "p1", [value("dice", 0.8), value("dice", 0.6, horizon_s=0.2)])])
    (board,) = report.read(tmp_path).boards
    assert board.entries[0].cells["dice"].mean == pytest.approx(0.85)
    data = json.loads(payload([board], ""))
    assert data["values"]["strict/dice>0.2"] == [[0.7, 0.6]]
    assert data["values"]["strict/dice>0.5"] == [None]
    assert {m["key"]: m["title"] for m in data["metrics"]}["strict/dice>0.2"] == "Dice, forecast 200 ms"


def test_what_is_not_there_is_null(tmp_path: Path) -> None:
    write(tmp_path, [row("a", "p0", [value("dice", None)]), row("a", "p1", [value("dice", 0.5)]), row("b", "p1")])
    data = json.loads(payload(report.read(tmp_path).boards, ""))
    place = {m["name"]: i for i, m in enumerate(data["methods"])}
    assert data["values"]["strict/dice"][place["a"]] == [None, 0.5]
    assert data["values"]["strict/dice"][place["b"]] is None
    assert data["methods"][place["b"]]["status"] == "01"


def test_weights_are_called_as_the_run_called_them(tmp_path: Path) -> None:
    nested = {"first": {"class_path": "a.A"}, "then": {"class_path": "a.B", "init_args": {"checkpoint": "lean.pt"}}}
    methods = [
        {"name": "net", "checkpoint": "c1", "init_args": nested},
        {"name": "two", "checkpoint": "c2", "init_args": {"a": {"checkpoint": "x"}, "b": {"checkpoint": "y"}}},
        {"name": "plain", "checkpoint": None, "init_args": {}},
    ]
    files = weights_names({"methods": methods})
    assert files == {"c1": "lean.pt"}
    write(tmp_path, [row("net", "p0", checkpoint="c1"), row("two", "p0", checkpoint="c2"), row("plain", "p0")])
    data = json.loads(payload(report.read(tmp_path).boards, "", files))
    named = {m["name"]: (m["weights"], m["file"]) for m in data["methods"]}
    assert named == {"net": ("c1", "lean.pt"), "two": ("c2", ""), "plain": ("", "")}


def test_nothing_in_the_data_ends_its_element(tmp_path: Path) -> None:
    write(tmp_path, [row("</script><b>", "p0", [value("dice", 0.5)]), row("a", "p0", status="failed", reason="<!--")])
    text = payload(report.read(tmp_path).boards, "")
    assert "<" not in text
    assert "</script><b>" in {m["name"] for m in json.loads(text)["methods"]}


def test_many_labels_are_left_out_rather_than_the_page_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boards = report.read(run_folder(tmp_path / "run")).boards
    boards = tuple(b for b in boards if b.task == "one")
    assert json.loads(payload(boards, ""))["labels"]
    monkeypatch.setattr("reg_bench.report_cases.MOST_LABEL_VALUES", 10)
    assert json.loads(payload(boards, ""))["labels"] == {}


def test_the_suite_of_a_case_is_one_that_can_be_run(tmp_path: Path) -> None:
    write(tmp_path, [row("demons", "p0", [value("dice", 0.5)], suite="quick")])
    boards = report.read(tmp_path).boards

    def source(*methods: str, version: str = "1") -> str:
        known = [resolve("methods", m.partition("@")[0]) for m in methods]
        listed = [{"name": m, "class_path": s.class_path, "init_args": {}} for m, s in zip(methods, known, strict=True)]
        board = replace(boards[0], suite_version=version)
        return suite_source({"suite": {"name": "quick", "methods": listed}}, [board])

    assert source("demons", "identity") == "quick"
    assert source("eco-nconv") == "quick", "a method of the package, though not of the suite"
    assert source("demons@0.5") == "reproduce.yaml", "one of a sweep"
    assert source("demons", version="0") == "reproduce.yaml", "an older version"


SUITE = """\
name: fake
version: 7
protocol: {panels: false}
tasks:
  - {name: squares, dataset: fake_members.Squares, init_args: {cases: 3}}
methods:
  - {name: noise, class_path: fake_members.Noise}
"""


@pytest.mark.slow
def test_the_command_of_a_case_computes_it_again(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    paths = [str(here.parent), str(here), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def run(*words: str, folder: Path) -> None:
        command = [sys.executable, "-m", "reg_bench.cli", *words]
        subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True)

    (tmp_path / "mine.yaml").write_text(SUITE)
    run("run", "mine.yaml", "--out", "out", "--seed", "5", folder=tmp_path)
    out = tmp_path / "out"
    (tmp_path / "mine.yaml").unlink()
    page = (out / "index.html").read_text()
    data = json.loads(page.split('id="data-0">')[1].split("</script>")[0])
    m = next(i for i, method in enumerate(data["methods"]) if method["name"] == "noise")
    # As the page fills it in.
    command = data["command"].replace("{method}", "noise").replace("{case}", data["cases"][1])
    words = shlex.split(command.replace("{weights}", "").replace("{seed}", data["methods"][m]["seed"]))
    assert words[:3] == ["reg-bench", "run", "reproduce.yaml"]
    run(*words[1:], folder=out)
    (again,) = results.read_rows(out / "reproduced")
    (first,) = [r for r in results.read_rows(out) if r["key"] == again["key"]]
    assert again["values"] == first["values"]
    assert np.isfinite([v["value"] for v in first["values"] if v["value"] is not None]).all()

"""`reg-bench run` as users run it: in processes that are shared, killed, stopped and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reg_bench import cli, results
from reg_bench.supervisor import run_lock

HERE = Path(__file__).resolve().parent
TIMING = {"wall_s", "cpu_s", "load_s", "score_s", "peak_mb", "time", "timing"}

SUITE = """\
name: fake
version: 1
summary: Small methods on small squares.
protocol: {{time_limit_s: {limit}, panels: false}}
tasks:
  - {{name: squares, dataset: fake_members.Squares, init_args: {{cases: {cases}}}, inverse_consistency: true}}
methods:
{methods}
"""
NOISE = "  - {name: noise, class_path: fake_members.Noise}\n"
OPTIMISED = "  - {name: optimised, class_path: fake_members.Optimised}\n"


def _suite(folder: Path, methods: str, cases: int = 3, limit: float = 30) -> Path:
    path = folder / "suite.yaml"
    path.write_text(SUITE.format(methods=methods, cases=cases, limit=limit))
    return path


def _slow(journal: Path, sleep_s: float = 0.3) -> str:
    return (
        f"  - {{name: slow, class_path: fake_members.Noise, init_args: {{sleep_s: {sleep_s}, journal: {journal}}}}}\n"
    )


def _bad(how: str, extra: str = "") -> str:
    return f"  - {{name: {how}, class_path: fake_members.Misbehaves, init_args: {{how: {how}{extra}}}}}\n"


def _start(*arguments: object) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE), environment.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "reg_bench.cli", "run", *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _run(*arguments: object, status: int = 0) -> str:
    process = _start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, out + err
    return out + err


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The results without what differs from run to run, in order of the key."""
    rows = [{k: v for k, v in row.items() if k not in TIMING} for row in results.read_rows(folder)]
    return sorted(rows, key=lambda r: json.dumps(r["key"]))


def _wait_for(what: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _finished(folder: Path) -> int:
    return len(results.read_rows(folder))


def _workers(supervisor: int) -> list[int]:
    """Processes whose parent is `supervisor`."""
    return [int(p.name) for p in Path("/proc").glob("[0-9]*") if _stat(int(p.name))[1:2] == [str(supervisor)]]


def _stat(pid: int) -> list[str]:
    """State, parent and so on of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _alive(pid: int) -> bool:
    return bool(_stat(pid)) and _stat(pid)[0] != "Z"


def test_two_processes_give_the_rows_of_one(tmp_path: Path) -> None:
    """An odd number of cases, more methods than one: each case once, every value bit-equal."""
    suite = _suite(tmp_path, NOISE + OPTIMISED + _bad("raise"))
    text = _run(suite, "--out", tmp_path / "one", status=1)
    assert "8 ok, 1 failed" in text
    _run(suite, "--out", tmp_path / "two", "--devices", 2, status=1)
    assert _rows(tmp_path / "one") == _rows(tmp_path / "two")
    assert len(_rows(tmp_path / "one")) == 9
    starts = [e["key"]["case"] for e in results.read_events(tmp_path / "two") if e["event"] == "started"]
    assert len(starts) == 9, "each case is seen exactly once"
    assert {"rows.rank0.jsonl", "rows.rank1.jsonl"} <= {p.name for p in results.row_files(tmp_path / "two")}
    for name in ("manifest.json", "leaderboard.md", "leaderboard.csv", "index.html"):
        assert (tmp_path / "two" / name).stat().st_size > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_run_goes_on_where_it_was(tmp_path: Path, devices: int) -> None:
    journal = tmp_path / "journal"
    suite = _suite(tmp_path, _slow(journal) + NOISE, cases=5)
    out = tmp_path / "killed"
    process = _start(suite, "--out", out, "--devices", devices)
    _wait_for(lambda: _finished(out) >= 3)
    workers = _workers(process.pid)
    assert len(workers) == devices
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _wait_for(lambda: not any(map(_alive, workers)), seconds=10)
    finished = {r["key"]["case"] for r in results.read_rows(out) if r["key"]["method"] == "slow"}
    for path in results.row_files(out):
        with path.open("ab") as file:
            file.write(b'{"event":"result","key":{"sui')
    before = len(journal.read_text().splitlines())
    _run(suite, "--out", out, "--devices", devices)
    calls = [line.split()[1] for line in journal.read_text().splitlines()[before:]]
    # On each process the first call is the warm-up on the case that follows; backward runs double the rest.
    assert not finished & set(calls), "a finished case was computed again"
    rows = _rows(out)
    assert len(rows) == 10
    assert {r["status"] for r in rows} == {"ok"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_run_says_how_to_go_on_and_its_starts_do_not_count_as_crashes(
    tmp_path: Path, how: signal.Signals, status: int
) -> None:
    suite = _suite(tmp_path, _slow(tmp_path / "journal", 60))
    process = _start(suite, "--out", tmp_path / "out")
    _wait_for(lambda: results.state(tmp_path / "out").unfinished)
    workers = _workers(process.pid)
    second = _start(suite, "--out", tmp_path / "out")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 2, "two runs must not share a folder"
    assert f"another run is at work in this folder (process {process.pid})" in err
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == status, out + err
    assert "The same command goes on from there" in err
    assert not any(map(_alive, workers))
    assert not results.state(tmp_path / "out").unfinished


@pytest.mark.slow
def test_crashes_and_hangs_fail_their_case_alone(tmp_path: Path) -> None:
    methods = NOISE + _bad("segfault") + _bad("hang")
    for devices in (1, 2):
        out = tmp_path / f"out{devices}"
        text = _run(_suite(tmp_path, methods, limit=1), "--out", out, "--devices", devices, status=1)
        assert "segfault, case s/001: the process died (SIGSEGV); the run goes on" in text
        failed = {(r["key"]["method"], r["key"]["case"]): r["reason"] for r in _rows(out) if r["status"] == "failed"}
        assert set(failed) == {("segfault", "s/001"), ("hang", "s/001")}
        assert failed["segfault", "s/001"].startswith("killed")
        assert failed["hang", "s/001"] == "time limit: register took longer than 1 s and was stopped"
        assert len(_rows(out)) == 9
    assert _rows(tmp_path / "out1") == _rows(tmp_path / "out2")


@pytest.mark.slow
def test_crash_that_does_not_come_again_costs_nothing(tmp_path: Path) -> None:
    once = tmp_path / "once"
    _run(_suite(tmp_path, _bad("segfault", f", once: {once}")), "--out", tmp_path / "out")
    assert {r["status"] for r in _rows(tmp_path / "out")} == {"ok"}


@pytest.mark.slow
def test_more_processes_than_cases(tmp_path: Path) -> None:
    suite = _suite(tmp_path, NOISE)
    _run(suite, "--out", tmp_path / "out", "--devices", 3, "--limit", 1)
    assert [r["key"]["case"] for r in _rows(tmp_path / "out")] == ["s/000"]
    text = _run(suite, "--out", tmp_path / "out", "--devices", 2, "--limit", 1)
    assert "1 results to make, 1 done before" in text


@pytest.mark.slow
def test_worker_finds_bad_settings_before_any_work(tmp_path: Path) -> None:
    suite = _suite(tmp_path, NOISE + _bad("raise", ", hwo: 1"))
    text = _run(suite, "--out", tmp_path / "out", status=2)
    assert re.search(r"error: .*suite\.yaml.*raise: init_args: unknown key 'hwo'; did you mean 'how'\?", text)
    assert not _rows(tmp_path / "out")


def _error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["run", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_bad_input_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    suite = _suite(tmp_path, NOISE)
    assert "unknown suite 'quikc'; did you mean 'quick'?" in _error(capsys, "quikc", "--out", out)
    assert "nosuch.yaml: no such file" in _error(capsys, "nosuch.yaml", "--out", out)
    message = _error(capsys, suite, "--out", out, "--methods", "noise,demonz")
    assert "--methods: unknown method 'demonz'; did you mean 'demons'?" in message
    assert "--methods: expected names" in _error(capsys, suite, "--out", out, "--methods", ",")
    missing = tmp_path / "nodata"
    assert f"the folder {missing} does not exist" in _error(capsys, suite, "--out", out, "--data.root", missing)
    message = _error(capsys, "york", "--out", out, "--data.root", missing)
    assert "cse.yorku.ca" in message
    assert "manual_seg_32points_pat<N>.mat" in message
    assert "is a file, expected a folder" in _error(capsys, suite, "--out", suite)
    suite.write_text(suite.read_text().replace("panels", "pannels"))
    message = _error(capsys, suite, "--out", out)
    assert "suite.yaml: unknown key 'protocol.pannels'; did you mean 'panels'?" in message
    assert not out.exists(), "nothing is begun"


def test_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_lock(tmp_path):
        message = _error(capsys, _suite(tmp_path, NOISE), "--out", tmp_path)
    assert f"another run is at work in this folder (process {os.getpid()})" in message
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    "arguments", [["--limit", "0"], ["--devices", "x"], ["--retry-failed", "--overwrite"], ["--limt", "1"]]
)
def test_options_are_checked(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["run", str(_suite(tmp_path, NOISE)), "--out", str(tmp_path / "out"), *arguments])
    assert error.value.code == 2


def test_a_root_that_no_dataset_reads_from_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    error = _error(capsys, "phantom-cine", "--out", out, "--data.root", str(tmp_path), "--limit", "1")
    assert "--data.root: suite phantom-cine reads no files" in error

"""A peer in a run: skipped where it is missing, ended at the time limit and warmed up again after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reg_bench import results

HERE = Path(__file__).resolve().parent

SUITE = """\
name: fake
version: 1
protocol: {{time_limit_s: 8, panels: false}}
tasks:
  - {{name: squares, dataset: fake_members.Squares, init_args: {{cases: 2}}}}
methods:
  - name: hangs-once
    class_path: fake_peer_method.OnFakePeer
    init_args: {{function: hangs_once, interpreter: {python}, journal: {journal}}}
  - name: missing
    class_path: fake_peer_method.OnFakePeer
    init_args: {{function: hangs_once, interpreter: /nowhere/python}}
"""


@pytest.mark.slow
def test_a_run_with_a_peer_that_hangs_and_one_that_is_missing(tmp_path: Path) -> None:
    journal, out = tmp_path / "journal.txt", tmp_path / "out"
    (tmp_path / "suite.yaml").write_text(SUITE.format(python=sys.executable, journal=journal))
    command = [sys.executable, "-m", "reg_bench.cli", "run", str(tmp_path / "suite.yaml"), "--out", str(out)]
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    rows = {(r["key"]["method"], r["key"]["case"]): r for r in results.read_rows(out)}
    assert len(rows) == 4, done.stdout + done.stderr
    hung, fine = (rows["hangs-once", f"s/00{i}"] for i in range(2))
    assert (hung["status"], hung["reason"]) == ("failed", "time limit: register took longer than 8 s")
    assert fine["status"] == "ok"
    # Warm-up and the call that hangs in one process, then a new one that is warm again before it is timed.
    first, second, third, fourth = journal.read_text().split()
    assert first == second != third == fourth
    for case in ("s/000", "s/001"):
        assert rows["missing", case]["status"] == "skipped"
        assert "/nowhere/python -m pip install numpy" in rows["missing", case]["reason"]
    software = {m["name"]: m["software"] for m in json.loads((out / "manifest.json").read_text())["methods"]}
    assert software["hangs-once"].keys() == {"python", "numpy"}
    assert software["missing"] == {}

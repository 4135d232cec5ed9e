"""Trainings in processes of their own: two that share a batch, and one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from reg_bench.cli import main
from tests.training_recipes import recipe

ROOT = Path(__file__).resolve().parents[1]
# Sums of floating point numbers in another order, over a few steps of Adam, which divides by small numbers.
TOLERANCE = 1e-5


def start(*words: str) -> subprocess.Popen[str]:
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "reg_bench.cli", "fit", *words]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def state(out: Path) -> dict[str, Any]:
    return dict(torch.load(out / "checkpoints" / "last.ckpt", weights_only=True))


@pytest.mark.filterwarnings("ignore")
def test_two_processes_with_half_the_batch_each_learn_what_one_learns_with_all(tmp_path: Path) -> None:
    """gloo on CPU: same weights after six steps up to `TOLERANCE`, same validation."""
    augmented = {"class_path": "reg_bench.augmentation.Augmentation", "init_args": {"flip_axes": [0]}}
    path = recipe(tmp_path, network={"velocity": True, "steps": 3}, data={"augmentation": augmented, "epoch_pairs": 12})
    outs = {name: tmp_path / name for name in ("one", "two")}
    # Forked processes need not import anything again.
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork", "--data.init_args.batch_size", "2"]
    process = start(str(path), "--out", str(outs["two"]), *two)
    assert main(["fit", str(path), "--out", str(outs["one"]), "--data.init_args.batch_size", "4"]) == 0
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    one, both = (state(out) for out in outs.values())
    assert one["global_step"] == both["global_step"] == 6
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(both["state_dict"][name], value, rtol=0, atol=TOLERANCE)
    assert one["state_dict"].keys() == both["state_dict"].keys()
    logs = [(out / "log" / "version_0" / "metrics.csv").read_text().splitlines() for out in outs.values()]
    last = [dict(zip(log[0].split(","), log[-1].split(","), strict=True)) for log in logs]
    for name in ("val/dice", "val/tre_landmarks", "val/loss"):
        assert float(last[0][name]) == pytest.approx(float(last[1][name]), abs=1e-3)


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_and_ends_where_it_would_have(tmp_path: Path) -> None:
    path = recipe(tmp_path, trainer={"max_epochs": 40}, network={"velocity": True, "probabilistic": True, "steps": 3})
    words = {name: [str(path), "--out", str(tmp_path / name), "--ckpt_path", "last"] for name in ("whole", "killed")}
    assert main(["fit", *words["whole"]]) == 0
    process = start(*words["killed"])
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    while not last.is_file():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stopped = state(tmp_path / "killed")["epoch"]
    assert stopped < 39
    again = start(*words["killed"])
    printed, _ = again.communicate(timeout=300)
    assert again.returncode == 0, printed
    whole, killed = (state(tmp_path / name) for name in words)
    assert killed["epoch"] == 39
    assert all(torch.equal(v, killed["state_dict"][k]) for k, v in whole["state_dict"].items())

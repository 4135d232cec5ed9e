"""Training recipes on twins in the original layout: fit, resume, predict as a submission, check, score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from reg_bench.cli import main
from reg_bench.discovery import find
from tests.learn2reg_twins import write_task_2020

# As small as the pyramid gets; what the recipe says of training and data stays.
TINY = {"filters": [2, 2], "blocks": 1, "growth": [2], "carried": 2}
QUICK = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
PAIRS = {2: "fixed,moving\n1,1\n2,2\n", 3: "fixed,moving\n1,2\n", 4: "fixed,moving\n1,2\n"}


def fitted(name: str, root: Path, folder: Path, epochs: int = 1) -> Path:
    """A recipe on the twin, two batches an epoch; goes on from `last` where it was before. Its checkpoint."""
    recipe: dict[str, Any] = yaml.safe_load(find("recipes", name).source.read_text(encoding="utf-8"))
    network = recipe["model"]["init_args"]["network"]
    network["init_args"] = {**network.get("init_args", {}), **TINY}
    recipe["data"]["init_args"] |= {"root": str(root), "size": [8, 8, 8]}
    recipe["trainer"] = {**QUICK, "max_epochs": epochs, "limit_train_batches": 2, "limit_val_batches": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    again = ["--ckpt_path", "last"] if (folder / "out" / "checkpoints").is_dir() else []
    assert main(["fit", str(folder / "recipe.yaml"), "--out", str(folder / "out"), *again]) == 0
    return folder / "out" / "checkpoints" / "last.ckpt"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("number", [2, 3, 4])
def test_from_the_recipe_to_the_score(number: int, tmp_path: Path, capsys: Any) -> None:
    write_task_2020(tmp_path / "data", number, subjects=6, pairs=PAIRS[number])
    suite: dict[str, Any] = yaml.safe_load(find("suites", f"learn2reg-2020-task{number}").source.read_text())
    # The network sees what it was trained on; the field is brought back to full resolution.
    suite["tasks"][0]["init_args"]["size"] = [8, 8, 8]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    fitted(f"pyramid-task{number}", tmp_path / "data", tmp_path)
    checkpoint = fitted(f"pyramid-task{number}", tmp_path / "data", tmp_path, epochs=2)
    assert checkpoint.is_file()
    command = ["submit", "--suite", str(tmp_path / "suite.yaml"), "--method", "learned", "--checkpoint"]
    command += [str(checkpoint), "--profile", "learn2reg-2020", "--data.root", str(tmp_path / "data")]
    assert main([*command, "--out", str(tmp_path / "s")]) == 0
    given = [str(tmp_path / "s" / "submission.zip"), "--dataset", str(tmp_path / "data")]
    capsys.readouterr()
    # A network of two batches may match worse than no motion: its form is what has to be right.
    assert main(["submit", "check", *given, "--no-images"]) == 0, capsys.readouterr().out
    assert main(["submit", "score", *given, "--out", str(tmp_path / "metrics.json")]) == 0
    (task,) = json.loads((tmp_path / "metrics.json").read_text()).values()
    assert len(task["case"]["LogJacDetStd"]) == PAIRS[number].count("\n") - 1
    assert task["aggregates"]["LogJacDetStd"]["mean"] >= 0

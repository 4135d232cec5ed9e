"""`reg-bench fit` and its sisters: a tiny training, going on from a checkpoint, and what cannot work."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from reg_bench.cli import main
from reg_bench.command_fit import SUMMARIES
from reg_bench.discovery import find, members
from reg_bench.field import warp
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


class Line(LightningModule):
    """Fits a line by gradient descent; its loss is not a number from step `bad` on."""

    def __init__(self, rate: float = 0.1, bad: int | None = None) -> None:
        super().__init__()
        self.layer, self.rate, self.bad = nn.Linear(1, 1), rate, bad

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = (self.layer(batch[0]) - batch[1]).square().mean()
        return loss * torch.nan if self.bad is not None and self.global_step >= self.bad else loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", (self.layer(batch[0]) - batch[1]).square().mean())

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/loss", (self.layer(batch[0]) - batch[1]).square().mean())

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.layer(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.rate)


class Shift(RegistrationModule):
    """A displacement that is the same for every voxel of every pair: the least that can be learned of a dataset."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def register(self, pair: RegistrationPair) -> DisplacementField:
        u = self.shift.reshape(1, 2, 1, 1).expand(pair.batch_size, 2, *pair.spatial_shape)
        return DisplacementField.for_pair(u, pair)

    def training_step(self, batch: RegistrationPair, batch_idx: int) -> Tensor:
        return (warp(batch.moving, self(batch).u) - batch.fixed).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.1)


class Points(LightningDataModule):
    """Points of the line 2 x + 1."""

    def __init__(self, count: int = 16) -> None:
        super().__init__()
        self.count = count

    def _loader(self, shuffle: bool = False) -> DataLoader[Any]:
        x = torch.linspace(-1, 1, self.count)[:, None]
        return DataLoader(TensorDataset(x, 2 * x + 1), batch_size=8, shuffle=shuffle)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader()

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def recipe(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "name": "line",
        "summary": "A line.",
        "trainer": {**QUIET, "max_epochs": 3, "log_every_n_steps": 1},
        "model": {"class_path": "tests.test_command_fit.Line", "init_args": {"rate": 0.05}},
        "data": {"class_path": "tests.test_command_fit.Points"},
    }
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def weights(out: Path) -> dict[str, Tensor]:
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    return dict(checkpoint["state_dict"])


def test_a_recipe_is_trained_and_everything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["fit", str(recipe(tmp_path)), "--out", str(out), "--model.init_args.rate", "0.2"]) == 0
    written = yaml.safe_load((out / "config.yaml").read_text())
    assert written["model"]["init_args"]["rate"] == 0.2
    assert written["seed_everything"] == 0
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    assert yaml.safe_load(checkpoint["config"])["model"]["init_args"]["rate"] == 0.2
    losses = [
        float(row["val/loss"])
        for row in csv.DictReader((out / "log" / "version_0" / "metrics.csv").open())
        if row["val/loss"]
    ]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    # The sisters take the same recipe and the checkpoint.
    for command in ("validate", "test", "predict"):
        words = [command, "--config", str(tmp_path / "line.yaml"), "--out", str(tmp_path / command)]
        assert main([*words, "--ckpt_path", str(out / "checkpoints" / "last.ckpt")]) == 0
    (row,) = csv.DictReader((tmp_path / "validate" / "log" / "version_0" / "metrics.csv").open())
    assert float(row["val/loss"]) == pytest.approx(losses[-1])
    assert SUMMARIES.keys() == {"fit", "validate", "test", "predict"}


def test_a_registration_module_learns_from_a_dataset_by_its_name(tmp_path: Path) -> None:
    path = recipe(
        tmp_path,
        model={"class_path": "tests.test_command_fit.Shift"},
        data={
            "class_path": "phantom-cine",
            "init_args": {"sequences": 1, "frames": 2, "size": [48, 48], "batch_size": 2},
        },
    )
    out = tmp_path / "out"
    assert main(["fit", str(path), "--out", str(out)]) == 0
    assert weights(out)["shift"].abs().min() > 0
    (*_, last) = csv.DictReader((out / "log" / "version_0" / "metrics.csv").open())
    assert 0 < float(last["val/dice"]) <= 1
    # `last` is the newest checkpoint of the folder.
    words = ["--trainer.max_epochs", "4", "--ckpt_path", "last"]
    assert main(["fit", str(path), "--out", str(out), *words]) == 0
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert (out / "log" / "version_0" / "metrics.csv").is_file()
    assert (out / "log" / "version_1" / "metrics.csv").is_file()
    predicted = ["predict", str(path), "--out", str(tmp_path / "p"), "--return_predictions", "false"]
    assert main(predicted) == 0


def test_same_seed_same_weights_and_a_run_goes_on_from_where_it_was(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    runs = {name: tmp_path / name for name in ("whole", "again", "other", "half")}
    assert main(["fit", str(path), "--out", str(runs["whole"])]) == 0
    assert main(["fit", "--config", str(path), "--out", str(runs["again"])]) == 0
    assert main(["fit", str(path), "--out", str(runs["other"]), "--seed_everything", "1"]) == 0
    first = weights(runs["whole"])
    for name, same in (("again", True), ("other", False)):
        assert all(torch.equal(v, first[k]) for k, v in weights(runs[name]).items()) == same
    assert main(["fit", str(path), "--out", str(runs["half"]), "--trainer.max_epochs", "1"]) == 0
    checkpoint = runs["half"] / "checkpoints" / "last.ckpt"
    before = torch.load(checkpoint, weights_only=True)
    assert before["global_step"] == 2
    assert main(["fit", str(path), "--out", str(runs["half"]), "--ckpt_path", str(checkpoint)]) == 0
    after = torch.load(checkpoint, weights_only=True)
    assert after["global_step"] == 6
    assert not torch.equal(after["state_dict"]["layer.weight"], before["state_dict"]["layer.weight"])


def test_the_shipped_recipe_trains_and_goes_on_exactly(tmp_path: Path) -> None:
    """Batches of `RandomFields` depend on the step alone: a run in two parts ends where a run in one does."""
    small = [
        "--data.init_args.shape",
        "[48, 40]",
        "--data.init_args.crop",
        "[24, 24]",
        "--data.init_args.std",
        "[9, 12]",
    ]
    small += ["--data.init_args.distance", "[1, 3]", "--data.init_args.validation_fields", "2"]
    small += ["--data.init_args.batch_size", "2", "--data.init_args.steps", "2", "--model.init_args.anneal", "false"]
    small += [f"--trainer.{key}={value}" for key, value in QUIET.items()]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["fit", "nconv", "--out", str(one), "--trainer.max_epochs", "4", *small]) == 0
    assert main(["fit", "nconv", "--out", str(two), "--trainer.max_epochs", "2", *small]) == 0
    half = weights(two)
    last = str(two / "checkpoints" / "last.ckpt")
    assert main(["fit", "nconv", "--out", str(two), "--trainer.max_epochs", "4", "--ckpt_path", last, *small]) == 0
    whole = weights(one)
    assert any(not torch.equal(v, whole[k]) for k, v in half.items())
    for key, value in weights(two).items():
        torch.testing.assert_close(value, whole[key])


def test_nan_stops_the_training_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["fit", str(recipe(tmp_path)), "--out", str(out), "--model.init_args.bad", "3"]) == 2
    message = capsys.readouterr().err
    assert "reg-bench fit: error: the loss is nan in step 3 (epoch 1)" in message
    assert "Traceback" not in message
    assert all(v.isfinite().all() for v in weights(out).values())
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"class_path": "tests.test_command_fit.Lime"}}, "no class 'Lime'.*did you mean 'Line'"),
        ({"data": {"class_path": "phantom-cime"}}, "unknown dataset 'phantom-cime'; did you mean 'phantom-cine'"),
        (
            {"model": {"class_path": "tests.test_command_fit.Line", "init_args": {"rat": 1}}},
            r"line.yaml: model.init_args: unknown key 'rat'; did you mean 'rate'",
        ),
        (
            {"model": {"class_path": "tests.test_command_fit.Line", "init_args": {"rate": "fast"}}},
            "rate.*Expected a <class 'float'>",
        ),
        ({"trainer": {"max_epoch": 3}}, "max_epoch"),
        ({"modle": {"class_path": "x"}}, "modle"),
    ],
)
def test_wrong_recipes_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(recipe(tmp_path, **changes)), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("reg-bench fit: error: ")
    assert re.search(message, printed), printed
    assert not (tmp_path / "out").exists()


def test_wrong_words_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["fit"], "expected a RECIPE"),
        (["fit", "nconf"], "unknown recipe 'nconf'; did you mean 'nconv'?"),
        (["fit", str(tmp_path / "none.yaml")], "none.yaml: no such file"),
        (["fit", "--config"], "--config: expected a recipe"),
        (["predict", "nconv", "--out", str(tmp_path / "out")], "`Trainer.predict` requires"),
        (["validate", str(recipe(tmp_path)), "--ckpt_path", str(tmp_path / "no.ckpt")], "no.ckpt"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_recipes_are_listed_and_can_be_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "recipes"]) == 0
    printed = capsys.readouterr().out
    assert "nconv" in printed
    for member in members("recipes"):
        assert find("recipes", member.name).source.stem == member.name
        assert 20 < len(member.summary) < 140
        with pytest.raises(SystemExit) as stopped:
            main(["fit", member.name, "--print_config"])
        assert stopped.value.code == 0
        content = yaml.safe_load(capsys.readouterr().out)
        assert content["model"]["class_path"].startswith("lightning_modules.")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom reg_bench.cli import main\n"
        "try:\n    main(['fit', '--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--ckpt_path" in done.stdout

"""What watches a training: numbers that are none, silent failures, time left, pictures, loggers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_modules.learned import LearnedRegistration
from reg_bench import training_panels
from reg_bench.cli import main
from reg_bench.errors import ConfigError, RegBenchError, TrainingError
from reg_bench.registration_loss import LossTerm, RegistrationLoss
from reg_bench.registration_network import NetworkOutput, RegistrationNetwork
from reg_bench.score_sums import ScoreSums
from reg_bench.synthesis_shapes import ShapesConfig, shapes_pair
from reg_bench.training_alarms import Alarms
from reg_bench.training_callbacks import SeededSteps, StopOnNaN
from reg_bench.training_panels import SamplePanels, make_loggers, show_picture
from reg_bench.training_progress import TimeLeft
from reg_bench.types import RegistrationPair, collate_pairs
from tests.training_recipes import recipe


class Field(RegistrationNetwork):
    """A field that is the same for every pair, and that can be given."""

    def __init__(self, start: Tensor | None = None) -> None:
        super().__init__()
        self.dimension = 2
        self.u = nn.Parameter(torch.zeros(1, 2, 16, 16) if start is None else start)

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        return NetworkOutput(self.u.expand(len(fixed), -1, -1, -1))


class Nothing(LossTerm):
    """A loss that asks for nothing; `bad` cases make it NaN, or its gradient alone."""

    def __init__(self, bad: str = "none", gradient: bool = False) -> None:
        super().__init__()
        self.bad, self.gradient = bad, gradient

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor:
        if self.bad not in pair.case_ids:
            return output.u.sum() * 0
        # The root has no slope at zero.
        return (output.u.abs().sum() * 0).sqrt() if self.gradient else output.u.sum() * torch.nan


class Shapes(LightningDataModule):
    """Three small pairs."""

    def pairs(self) -> list[RegistrationPair]:
        config = ShapesConfig(size=(16, 16), shapes=(2, 3), landmarks=5)
        return [shapes_pair(config, i, case_id=f"case{i}") for i in range(3)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pairs(), batch_size=1, collate_fn=collate_pairs)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pairs(), batch_size=2, collate_fn=collate_pairs)  # type: ignore[arg-type]


def method(start: Tensor | None = None, **terms: LossTerm) -> LearnedRegistration:
    return LearnedRegistration(Field(start), RegistrationLoss(terms or {"nothing": Nothing()}))


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": False, "max_epochs": 1}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**quiet, **options})


def test_a_loss_that_is_not_a_number_names_the_case_and_the_term(tmp_path: Path) -> None:
    model = method(fine=Nothing(), broken=Nothing("case1"))
    message = r"the loss is nan in step 1 \(epoch 0, case case1\) \(terms: broken nan\): look for"
    with pytest.raises(TrainingError, match=message):
        trainer(tmp_path, StopOnNaN()).fit(model, Shapes())
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_gradient_that_is_not_a_number_names_the_parameter(tmp_path: Path) -> None:
    model = method(root=Nothing("case2", gradient=True))
    message = r"the gradient of network\.u is not finite in step 2 \(epoch 0, case case2\), though the loss is"
    with pytest.raises(TrainingError, match=message):
        trainer(tmp_path, StopOnNaN()).fit(model, Shapes())
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_the_command_line_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terms = {"broken": {"class_path": "tests.training_recipes.Broken", "init_args": {"case": "train002"}}}
    loss = {"class_path": "reg_bench.registration_loss.RegistrationLoss", "init_args": {"terms": terms}}
    path = recipe(tmp_path, model={"loss": loss})
    assert main(["fit", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "case train002, train003) (terms: broken nan)" in capsys.readouterr().err


def test_a_zero_field_and_no_gain_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alarms = Alarms(validations=2)
    run = trainer(tmp_path, alarms, max_epochs=4)
    run.fit(method(), Shapes())
    assert set(alarms.told) == {"zero_field", "no_gain"}
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in told if line.startswith("alarm")] == [
        " zero field",
        " no gain over doing nothing after 2 validations",
    ]
    # Two of seven: the sanity check is no validation, and the first says nothing.
    again = Alarms(validations=2)
    again.load_state_dict(alarms.state_dict())
    assert again.state_dict() == alarms.state_dict()
    assert alarms.state_dict()["seen"] == 4


def test_folding_ends_the_training_if_asked_for(tmp_path: Path) -> None:
    folded = torch.zeros(1, 2, 16, 16)
    folded[:, 0, 4:8] = torch.tensor([3.0, 1.0, -1.0, -3.0])[:, None]
    logger = CSVLogger(tmp_path)
    run = trainer(tmp_path, Alarms(folding_percent=2, stop=True), logger=logger, num_sanity_val_steps=0)
    with pytest.raises(TrainingError, match=r"folding: \d+ % of the voxels are folded, more than 2 %"):
        run.fit(method(folded), Shapes())
    logger.save()
    assert "alarm/folding" in (Path(logger.log_dir) / "metrics.csv").read_text()


def test_a_field_that_gains_raises_no_alarm(tmp_path: Path) -> None:
    (pair, *_) = Shapes().pairs()
    assert pair.true_displacement is not None
    alarms = Alarms(validations=1)
    run = trainer(tmp_path, alarms, limit_val_batches=1, num_sanity_val_steps=0)
    run.fit(method(pair.true_displacement), type("One", (Shapes,), {"pairs": lambda self: [pair]})())
    assert alarms.told == {}
    assert float(run.callback_metrics["val/tre_landmarks"]) < 1e-3


class Clock:
    """Seconds that pass by ten at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 10
        return self.now


def test_the_time_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("reg_bench.training_progress.time", Clock())
    trainer(tmp_path, TimeLeft(every_s=0, stream=stream), max_epochs=2, num_sanity_val_steps=1).fit(method(), Shapes())
    lines = stream.getvalue().splitlines()
    assert lines[0] == "epoch 1/2, batch 2/6, 0:40 left, loss 0"
    assert lines[1] == "epoch 1/2, batch 3/6, 0:30 left, loss 0"
    assert lines[2].startswith("epoch 1: validation: ")
    for name in ("dice 0.", "tre_landmarks ", "nonpositive_fraction 0", "loss 0"):
        assert name in lines[2]
    assert lines[-2] == "epoch 2/2, batch 6/6, 0:00 left, loss 0"


def test_every_step_is_seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Drawn(Callback):
        def __init__(self) -> None:
            self.values: list[float] = []

        def on_before_backward(self, *_: Any) -> None:
            self.values.append(float(torch.rand(())))

    drawn = [Drawn(), Drawn(), Drawn()]
    for witness, seed in zip(drawn, ("3", "3", "4"), strict=True):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        trainer(tmp_path, SeededSteps(), witness).fit(method(), Shapes())
        torch.rand(5)
    assert drawn[0].values == drawn[1].values
    assert len({*drawn[0].values, *drawn[2].values}) == 6


def test_sample_panels_are_drawn_every_few_epochs(tmp_path: Path) -> None:
    run = trainer(tmp_path, SamplePanels(every_n_epochs=2, cases=2), max_epochs=4)
    run.fit(method(), Shapes())
    names = sorted(p.name for p in (tmp_path / "panels").iterdir())
    assert names == [f"case{i}-epoch000{n}.webp" for i in range(2) for n in (1, 3)]
    with pytest.raises(ValueError, match="at least 1, got 0 and 2"):
        SamplePanels(0)


def test_pictures_go_to_loggers_that_take_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    path = tmp_path / "some.webp"
    Image.new("RGB", (8, 4)).save(path)
    given: list[Any] = []

    class Wandb:
        def log_image(self, key: str, images: list[Any]) -> None:
            given.append((key, images[0].size))

    class Board:
        experiment = property(lambda self: self)

        def add_image(self, tag: str, image: Any, step: int, dataformats: str) -> None:
            given.append((tag, image.shape, step, dataformats))

    monkeypatch.setattr(training_panels, "WandbLogger", Wandb)
    monkeypatch.setattr(training_panels, "TensorBoardLogger", Board)
    for logger in (Wandb(), Board(), CSVLogger(tmp_path)):
        show_picture(logger, "panels/a", path, 7)  # type: ignore[arg-type]
    assert given == [("panels/a", (8, 4)), ("panels/a", (4, 8, 3), 7, "HWC")]


def test_loggers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (only,) = make_loggers(["csv", "csv"], tmp_path)
    assert isinstance(only, CSVLogger)
    with pytest.raises(ConfigError, match="unknown logger 'wanb': expected some of csv, wandb, tensorboard"):
        make_loggers(["wanb"], tmp_path)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(training_panels, "WandbLogger", lambda **options: made.append(options))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    make_loggers(["wandb"], tmp_path)
    monkeypatch.setenv("WANDB_MODE", "online")
    make_loggers(["wandb"], tmp_path)
    assert [options["offline"] for options in made] == [True, False]

    def absent(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("no such package")

    for name, cls in (("wandb", "WandbLogger"), ("tensorboard", "TensorBoardLogger")):
        monkeypatch.setattr(training_panels, cls, absent)
        with pytest.raises(RegBenchError, match=f"--log {name}: {name} is not installed: pip install {name}"):
            make_loggers([name], tmp_path)


def test_a_training_stops_early_by_a_metric_of_validation(tmp_path: Path) -> None:
    stopping = {
        "class_path": "EarlyStopping",
        "init_args": {"monitor": "val/dice", "mode": "max", "patience": 1, "min_delta": 0.9},
    }
    best = {
        "class_path": "ModelCheckpoint",
        "init_args": {"monitor": "val/tre_landmarks", "dirpath": str(tmp_path / "best"), "filename": "best"},
    }
    path = recipe(tmp_path, trainer={"max_epochs": 9, "callbacks": [stopping, best]})
    assert main(["fit", str(path), "--out", str(tmp_path / "out")]) == 0
    checkpoint = torch.load(tmp_path / "best" / "best.ckpt", weights_only=True)
    assert checkpoint["epoch"] <= 1
    rows = (tmp_path / "out" / "log" / "version_0" / "metrics.csv").read_text()
    assert rows.count("\n1,") + rows.count(",1,") > 0
    assert not [line for line in rows.splitlines()[1:] if line.startswith("2,")]


def test_means_are_of_the_cases_that_have_a_value() -> None:
    sums = ScoreSums()
    for name, value, weight in (("b", 2.0, 1), ("a", 1.0, 3), ("b", 4.0, 3)):
        sums.add(name, value, weight)
    assert sums.means() == {"a": 1.0, "b": 3.5}
    assert ScoreSums().means() == {}

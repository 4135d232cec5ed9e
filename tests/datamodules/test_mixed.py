"""Several datasets as one: exact shares, the same list in every process, tasks told in each case."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from datamodules.mixed import Mixed, shares
from reg_bench import cli
from reg_bench.caching import PairTransform
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.inspection import inspect
from reg_bench.results import read_rows
from reg_bench.splits import Split
from reg_bench.survey import Record
from reg_bench.synthesis_noise import torch_generator
from reg_bench.types import RegistrationPair


class Tiny(RegistrationDataModule):
    """Random pairs, made at once."""

    name = "tiny"

    def __init__(self, *, cases: int = 2, side: int = 12, **options: Any) -> None:
        super().__init__(**options)
        self.cases, self.side = cases, side

    def records(self, split: Split) -> list[dict[str, Any]]:
        return [{"case_id": f"{split}{n:03d}"} for n in range(self.cases)]

    def load(self, record: Record) -> RegistrationPair:
        fixed, moving = images(self.side, str(record["case_id"]))
        return RegistrationPair((str(record["case_id"]),), fixed, moving)


def images(side: int, case: str) -> torch.Tensor:
    return torch.rand(2, 1, 1, side, 10, generator=torch_generator("tiny", case))


def member(task: str, cases: int, *, weight: float = 1.0, **init_args: Any) -> dict[str, Any]:
    return {
        "class_path": f"{__name__}.Tiny",
        "task": task,
        "weight": weight,
        "init_args": {"cases": cases, **init_args},
    }


THREE = [member("lung", 4, weight=3), member("abdomen", 2, weight=2), member("brain", 7, weight=1)]


def epoch(loader: DataLoader[Any]) -> list[str]:
    return [case for pair in loader for case in pair.case_ids]


def task_of(case: str) -> str:
    return case.partition(":")[0]


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, [1, 1], [5, 5]),
        (12, [3, 2, 1], [6, 4, 2]),
        (10, [1, 1, 1], [4, 3, 3]),
        (10, [0.5, 0.3, 0.2], [5, 3, 2]),
        (7, [0.6, 0.4], [4, 3]),
        (1, [1, 9], [0, 1]),
        (0, [1, 2], [0, 0]),
    ],
)
def test_shares(total: int, weights: list[float], expected: list[int]) -> None:
    assert shares(total, weights) == expected


def test_every_epoch_has_exactly_the_shares_of_the_weights() -> None:
    loader = Mixed(THREE, epoch_cases=12).train_dataloader()
    assert len(loader) == 12
    seen: Counter[str] = Counter()
    orders = []
    for _ in range(7):
        cases = epoch(loader)
        orders.append(cases)
        assert Counter(map(task_of, cases)) == {"lung": 6, "abdomen": 4, "brain": 2}
        # Neither task comes in one block.
        assert sum(task_of(a) != task_of(b) for a, b in itertools.pairwise(cases)) > 2
        seen.update(cases)
    assert len({tuple(cases) for cases in orders}) == 7
    # Within a task every case comes equally often: 42, 28 and 14 draws of 4, 2 and 7 cases.
    assert sorted(n for c, n in seen.items() if task_of(c) == "lung") == [10, 10, 11, 11]
    assert [n for c, n in seen.items() if task_of(c) == "abdomen"] == [14, 14]
    assert [n for c, n in seen.items() if task_of(c) == "brain"] == [2] * 7


def test_all_cases_of_equal_weights_and_sizes_come_once() -> None:
    data = Mixed([member("a", 3), member("b", 3)])
    for _ in range(2):
        assert sorted(epoch(data.train_dataloader())) == sorted(data.case_ids("train"))


def test_draws_follow_the_seed_and_nothing_else() -> None:
    first, again, other = (Mixed(THREE, seed=s).train_dataloader() for s in (0, 0, 1))
    one, two = ([epoch(loader) for _ in range(3)] for loader in (first, again))
    assert one == two
    assert [epoch(other) for _ in range(3)] != one


@pytest.mark.parametrize("workers", [1, 2])
def test_loading_processes_that_persist_see_the_next_epoch(workers: int) -> None:
    entries = [member("a", 3, weight=2), member("b", 2)]
    alone = Mixed(entries, epoch_cases=6).train_dataloader()
    helped = Mixed(entries, epoch_cases=6, num_workers=workers).train_dataloader()
    assert helped.persistent_workers
    for _ in range(3):
        assert epoch(helped) == epoch(alone)


class Process:
    """What a loader asks of the trainer of one process of two that has not begun."""

    world_size, training = 2, False

    def __init__(self, rank: int) -> None:
        self.global_rank = rank


@pytest.mark.parametrize("cases", [12, 7])
def test_the_processes_of_a_distributed_training_divide_the_list(cases: int) -> None:
    whole = Mixed(THREE, epoch_cases=cases).train_dataloader()
    parts = []
    for rank in range(2):
        data = Mixed(THREE, epoch_cases=cases)
        data.trainer = Process(rank)  # type: ignore[assignment]
        parts.append(data.train_dataloader())
    for _ in range(3):
        expected = epoch(whole)
        # An odd list is filled up from its beginning.
        padded = expected + expected[: cases % 2]
        assert [epoch(part) for part in parts] == [padded[0::2], padded[1::2]]


class Witness(LightningModule):
    """Trains nothing and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[str]] = {}

    def training_step(self, batch: RegistrationPair, index: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(batch.case_ids)
        return self.weight * batch.fixed.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, epochs: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_with_a_new_list_in_each_epoch_also_after_a_checkpoint(tmp_path: Path) -> None:
    loader = Mixed(THREE, epoch_cases=6).train_dataloader()
    expected = {number: epoch(loader) for number in range(4)}
    first = Witness()
    run = trainer(tmp_path, 2)
    run.fit(first, datamodule=Mixed(THREE, epoch_cases=6))
    assert first.seen == {n: expected[n] for n in (0, 1)}
    run.save_checkpoint(tmp_path / "half.ckpt")
    second = Witness()
    resumed = trainer(tmp_path, 4)
    resumed.fit(second, datamodule=Mixed(THREE, epoch_cases=6), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert second.seen == {n: expected[n] for n in (2, 3)}


def test_cases_tell_their_task_and_are_those_of_the_members() -> None:
    data = Mixed(THREE)
    assert data.case_ids("test") == [f"{e['task']}:test{i:03d}" for e in THREE for i in range(e["init_args"]["cases"])]
    pair, own = data.case("abdomen:test001"), Tiny(cases=2).case("test001")
    assert pair.tasks == ("abdomen",)
    assert torch.equal(pair.fixed, own.fixed)
    assert torch.equal(pair.moving, own.moving)
    assert {p.tasks for p in data.val_dataloader()} == {("lung",), ("abdomen",), ("brain",)}
    # Validation and test come in order, never drawn.
    assert epoch(data.test_dataloader()) == data.case_ids("test")
    assert all(s.startswith("lung:") for r in data.records("train")[:4] for s in r["subjects"])


def test_batches_hold_several_cases_only_where_all_tasks_fit() -> None:
    loader = Mixed([member("a", 3), member("b", 3)], batch_size=2).train_dataloader()
    batches = list(loader)
    assert [b.batch_size for b in batches] == [2, 2, 2]
    assert {t for b in batches for t in b.tasks or ()} == {"a", "b"}
    unequal = Mixed([member("a", 3), member("b", 3, side=14)], batch_size=2)
    for loader in (unequal.train_dataloader(), unequal.val_dataloader()):
        assert [b.batch_size for b in loader] == [1] * 6


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cached(cache: Any, tmp_path: Path) -> None:
    loader = Mixed(THREE, epoch_cases=6, cache=cache, cache_dir=str(tmp_path)).train_dataloader()
    plain = Mixed(THREE, epoch_cases=6).train_dataloader()
    for _ in range(2):
        for ours, theirs in zip(loader, plain, strict=True):
            assert ours.case_ids == theirs.case_ids
            assert ours.tasks == theirs.tasks
            assert torch.equal(ours.fixed, theirs.fixed)


class Raised(PairTransform):
    """Adds to the images; `test_each_task_has_its_augmentation` tells by how much who was called."""

    def __init__(self, by: float = 1000) -> None:
        self.by = by

    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        return replace(pair, fixed=pair.fixed + self.by)


def test_each_task_has_its_augmentation_in_training_only() -> None:
    own = {"class_path": f"{__name__}.Raised", "init_args": {"by": 1000}}
    data = Mixed([member("a", 2, augmentation=own), member("b", 2)])
    low = {str((p.tasks or ("",))[0]): float(p.fixed.min()) for p in data.train_dataloader()}
    assert low["a"] >= 1000
    assert low["b"] < 10
    assert all(float(p.fixed.min()) < 10 for p in data.val_dataloader())
    both = Mixed([member("a", 2, augmentation=own), member("b", 2)], augmentation=Raised(5000))
    low = {str((p.tasks or ("",))[0]): float(p.fixed.min()) for p in both.train_dataloader()}
    assert low["a"] >= 6000
    assert 5000 <= low["b"] < 5100


def test_a_task_of_weight_zero_is_not_trained_on() -> None:
    data = Mixed([member("a", 3), member("b", 2, weight=0)])
    assert {task_of(c) for c in epoch(data.train_dataloader())} == {"a"}
    assert len(epoch(data.train_dataloader())) == 3
    assert {task_of(c) for c in data.case_ids("test")} == {"a", "b"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "datasets is empty"),
        ([{"name": "phantom-3"}], r"datasets\[0\]: .*unknown dataset 'phantom-3'; did you mean 'phantom-3d'"),
        ([member("a", 1), {"nam": "pairs"}], r"datasets\[1\]: unknown key 'nam'; did you mean 'name'"),
        ([{"weight": 1}], "expected the name of a dataset"),
        ([member("a", 1, weight=-1)], "weight must be a number from 0 up, got -1"),
        ([member("a", 1, weight=float("nan"))], "weight must be a number from 0 up"),
        ([member("a", 1, weight=0)], "every weight is 0"),
        ([member("a", 1), member("a", 1)], "the task 'a' occurs twice"),
        ([member("a:b", 1)], "holds a colon"),
        ([member("a", 1, sise=3)], r"datasets\[0\]: .*unknown key 'sise'; did you mean 'side'"),
    ],
)
def test_wrong_settings(entries: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Mixed(entries)
    with pytest.raises(ConfigError, match="epoch_cases must be at least 1"):
        Mixed(THREE, epoch_cases=0)


def write(path: Path, seed: int) -> None:
    array = np.random.default_rng(seed).uniform(0, 100, (6, 7, 8)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images and two tables of pairs."""
    for number in range(6):
        write(tmp_path / f"{number}.nii.gz", number)
    (tmp_path / "one.csv").write_text("fixed,moving,split\n0.nii.gz,1.nii.gz,train\n2.nii.gz,3.nii.gz,test\n")
    (tmp_path / "two.csv").write_text("fixed,moving,split\n4.nii.gz,5.nii.gz,test\n")
    return tmp_path


def tables(folder: Path, weight: float = 1) -> list[dict[str, Any]]:
    root = {"root": str(folder)}
    return [
        {"name": "pairs", "task": "one", "init_args": {"csv": "one.csv", **root}},
        {"name": "pairs", "task": "two", "init_args": {"csv": "two.csv", **root}, "weight": weight},
    ]


def test_datasets_of_files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = Mixed(tables(folder, weight=0))
    assert data.case_ids("test") == ["one:2--3", "two:4--5"]
    assert epoch(data.train_dataloader()) == ["one:0--1"]
    assert not inspect(data).faults
    with pytest.raises(DataError, match="task 'two' has a weight but no training cases"):
        Mixed(tables(folder)).train_dataloader()
    # The checksum follows the data, not the folder.
    before = data.checksum()
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    folder.rename(moved)
    assert Mixed(tables(moved, weight=0)).checksum() == before
    write(moved / "4.nii.gz", 77)
    (moved / "two.csv").write_text("fixed,moving\n4.nii.gz,3.nii.gz\n")
    assert Mixed(tables(moved, weight=0)).checksum() != before


def test_the_faults_of_all_members_are_listed(folder: Path) -> None:
    (folder / "3.nii.gz").unlink()
    (folder / "5.nii.gz").write_bytes(b"no image at all" * 30)
    found = [str(f) for f in inspect(Mixed(tables(folder))).faults]
    assert any("one" in f and "3.nii.gz" in f and "no such file" in f for f in found), found
    assert any("two" in f and "5.nii.gz" in f and "unreadable" in f for f in found), found


def test_files_that_no_case_of_a_member_needs_are_opened(folder: Path) -> None:
    (folder / "g" / "images").mkdir(parents=True)
    for number in range(3):
        write(folder / "g" / "images" / f"{number}.mha", number)
    (folder / "g" / "images" / "2.mha").write_bytes((folder / "g" / "images" / "2.mha").read_bytes()[:-40])
    groups = {"name": "groups", "init_args": {"root": str(folder / "g"), "pairs": [["0", "1"]]}}
    (found,) = inspect(Mixed([groups, {**tables(folder)[0], "weight": 0}])).faults
    assert found.file.endswith("g/images/2.mha")


def test_a_missing_folder_is_named_with_its_task(folder: Path) -> None:
    entries = [*tables(folder), {"name": "hippocampus", "init_args": {"root": str(folder / "nowhere")}}]
    found = [str(f) for f in inspect(Mixed(entries)).faults]
    assert any(f.startswith("hippocampus: ") and "nowhere" in f and "does not exist" in f for f in found), found


def test_a_file_in_train_of_one_task_and_test_of_another_is_a_fault(folder: Path) -> None:
    (folder / "two.csv").write_text("fixed,moving\n0.nii.gz,5.nii.gz\n")
    found = [str(f) for f in inspect(Mixed(tables(folder))).faults]
    assert any("0.nii.gz: is in train of task 'one' and in test of task 'two'" in f for f in found), found


@pytest.mark.usefixtures("in_this_process")
def test_runs_from_a_suite(tmp_path: Path) -> None:
    suite = tmp_path / "mixed.yaml"
    suite.write_text(
        "name: two-tasks\nversion: 1\ntasks:\n  - name: mixed\n    dataset: mixed\n    init_args:\n      datasets:\n"
        "        - {name: phantom-3d, task: a, weight: 2, init_args: {cases: 1, size: [12, 12, 12], landmarks: 3}}\n"
        "        - {name: phantom-3d, task: b, init_args: {cases: 1, size: [14, 12, 12], landmarks: 3}}\n"
        "methods: [identity, demons-symmetric]\n"
    )
    assert cli.main(["run", str(suite), "--out", str(tmp_path / "run")]) == 0
    rows = read_rows(tmp_path / "run")
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert {row["key"]["case"] for row in rows} == {"a:test000", "b:test000"}

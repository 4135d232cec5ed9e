"""MONAI's caches keep and give back whole pairs, and tell apart what must not be mixed."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from reg_bench.augmentation import Augmentation
from reg_bench.caching import PairTransform, pack, unpack
from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.discovery import build_datamodule
from reg_bench.errors import ConfigError, DataError
from reg_bench.types import PointPairs, RegistrationPair


def full_pair(case_id: str, value: float, shape: tuple[int, ...] = (5, 6, 7)) -> RegistrationPair:
    """A pair with every field set."""
    dims = len(shape)
    image = torch.arange(float(np.prod(shape))).reshape(1, 1, *shape) + value
    return RegistrationPair(
        case_ids=(case_id,),
        fixed=image,
        moving=image + 1,
        fixed_spacing_mm=torch.tensor([[1.0, 2.0, 3.0][:dims]]),
        moving_spacing_mm=torch.tensor([[1.0, 2.0, 3.0][:dims]]),
        fixed_affine=torch.eye(dims + 1, dtype=torch.float64)[None],
        moving_affine=torch.eye(dims + 1, dtype=torch.float64)[None] * 2,
        fixed_labels=torch.ones(1, 1, *shape, dtype=torch.uint8),
        moving_labels=torch.ones(1, 1, *shape, dtype=torch.int32),
        label_names={1: "one", 7: "seven"},
        points={"landmarks": PointPairs((torch.ones(3, dims),), (torch.zeros(3, dims),))},
        mask=torch.ones(1, 1, *shape, dtype=torch.bool),
        true_displacement=torch.zeros(1, dims, *shape),
        frames=(3,),
    )


def assert_equal(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, RegistrationPair | PointPairs):
        for f in fields(a):
            assert_equal(getattr(a, f.name), getattr(b, f.name))
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


class Counted(RegistrationDataModule):
    """Cases whose loading leaves a mark in a file."""

    name: ClassVar[str] = "counted"

    def __init__(self, *, log: str, brightness: float = 0.0, files: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self._log, self.brightness, self.files = log, brightness, files

    def records(self, split: Split) -> Sequence[Record]:
        extra = {"file": self.files[0]} if self.files else {}
        return [{"case_id": f"case{i}", "index": i, **extra} for i in range(3)]

    def load(self, record: Record) -> RegistrationPair:
        if record["index"] == 2 and self.brightness < 0:
            raise DataError("case2.nii: a constant image")
        with open(Path(self._log) / "loads", "a", encoding="utf-8") as log:
            log.write(f"{record['case_id']}\n")
        return full_pair(str(record["case_id"]), float(record["index"]) + self.brightness)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.mkdir()
    (path / "loads").touch()
    return path


def loads(log: Path) -> int:
    return len((log / "loads").read_text(encoding="utf-8").split())


def test_packed_pair_comes_back_whole() -> None:
    pair = full_pair("a", 0.0)
    assert_equal(unpack(pack(pair)), pair)
    bare = RegistrationPair(("b",), pair.fixed, pair.moving)
    assert set(pack(bare)) == {"case_ids", "fixed", "moving"}
    assert_equal(unpack(pack(bare)), bare)


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_cached_pairs_equal_loaded_ones(cache: str, log: Path, tmp_path: Path) -> None:
    data = Counted(log=str(log), cache=cache, cache_dir=str(tmp_path / "cache"))
    dataset = data.dataset("test")
    for _ in range(2):
        for i in range(3):
            assert_equal(dataset[i], full_pair(f"case{i}", float(i)))
    assert loads(log) == {"none": 6, "memory": 3, "disk": 3}[cache]


def test_memory_cache_loads_only_what_is_asked_for_and_is_not_changed_by_its_users(log: Path) -> None:
    dataset = Counted(log=str(log), cache="memory").dataset("test")
    assert loads(log) == 0
    dataset[1].fixed.zero_()
    assert_equal(dataset[1], full_pair("case1", 1.0))
    assert loads(log) == 1


def test_disk_cache_outlives_the_datamodule(log: Path, tmp_path: Path) -> None:
    for _ in range(2):
        data = Counted(log=str(log), cache="disk", cache_dir=str(tmp_path / "cache"))
        assert [p.case_ids[0] for p in data.test_dataloader()] == ["case0", "case1", "case2"]
    assert loads(log) == 3
    assert all(path.suffix == ".pt" for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize("change", [{"brightness": 1.0}, {"seed": 1}])
def test_disk_cache_knows_the_configuration(change: dict[str, Any], log: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"log": str(log), "cache": "disk", "cache_dir": str(tmp_path / "cache")}
    Counted(**options).dataset("test")[0]
    pair = Counted(**options, **change).dataset("test")[0]
    assert loads(log) == 2
    assert float(pair.fixed.flatten()[0]) == change.get("brightness", 0.0)


def test_disk_cache_knows_the_dataset_of_the_same_folder(log: Path, tmp_path: Path) -> None:
    class Other(Counted):
        name: ClassVar[str] = "other"

    for cls in (Counted, Other):
        cls(log=str(log), cache="disk", cache_dir=str(tmp_path / "cache")).dataset("test")[0]
    assert loads(log) == 2


def test_disk_cache_notices_that_a_file_has_changed(log: Path, tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.write_bytes(b"abc")
    options: dict[str, Any] = {"log": str(log), "cache": "disk", "cache_dir": str(tmp_path / "cache")}
    Counted(**options, files=(str(source),)).dataset("test")[0]
    Counted(**options, files=(str(source),)).dataset("test")[0]
    assert loads(log) == 1
    state = source.stat()
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    Counted(**options, files=(str(source),)).dataset("test")[0]
    assert loads(log) == 2
    source.write_bytes(b"abcd")
    Counted(**options, files=(str(source),)).dataset("test")[0]
    assert loads(log) == 3


@pytest.mark.parametrize("damage", [b"", b"not a cache file", None])
def test_damaged_cache_file_is_computed_again(damage: bytes | None, log: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"log": str(log), "cache": "disk", "cache_dir": str(tmp_path / "cache")}
    Counted(**options).dataset("test")[0]
    (path,) = (tmp_path / "cache").glob("*.pt")
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.warns(UserWarning, match="computed again"):
        pair = Counted(**options).dataset("test")[0]
    assert_equal(pair, full_pair("case0", 0.0))
    assert_equal(Counted(**options).dataset("test")[0], pair)
    assert loads(log) == 2


def _read_all(log: str, cache_dir: str, answers: Any) -> None:
    data = Counted(log=log, cache="disk", cache_dir=cache_dir)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        total = sum(float(pair.fixed.double().sum()) for pair in data.test_dataloader())
    answers.put((total, [str(w.message) for w in caught if "computed again" in str(w.message)]))


def test_processes_share_a_disk_cache(log: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    work = [context.Process(target=_read_all, args=(str(log), str(tmp_path / "cache"), answers)) for _ in range(4)]
    for process in work:
        process.start()
    results = [answers.get(timeout=120) for _ in work]
    for process in work:
        process.join()
    expected = sum(float(full_pair("", float(i)).fixed.double().sum()) for i in range(3))
    assert results == [(expected, [])] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_faulty_case_fails_alone_and_says_why(cache: str, log: Path, tmp_path: Path) -> None:
    data = Counted(log=str(log), brightness=-1.0, cache=cache, cache_dir=str(tmp_path / "cache"))
    dataset = data.dataset("test")
    assert dataset[0].case_ids == ("case0",)
    with pytest.raises(DataError, match=r"case2\.nii: a constant image"):
        dataset[2]


class Brighter(PairTransform):
    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        return RegistrationPair(pair.case_ids, pair.fixed + 1000, pair.moving)


def test_settings_name_an_augmentation() -> None:
    augmentation = {"class_path": "reg_bench.augmentation.Augmentation", "init_args": {"noise": 0.1}}
    module = build_datamodule({"class_path": "echo-real", "init_args": {"augmentation": augmentation}})
    assert isinstance(module.augmentation, Augmentation)
    assert module.augmentation.noise == 0.1


def test_augmentation_reaches_training_batches_only(log: Path, tmp_path: Path) -> None:
    data = Counted(log=str(log), cache="disk", cache_dir=str(tmp_path / "cache"), augmentation=Brighter())
    for _ in range(2):
        assert all(float(pair.fixed.min()) >= 1000 for pair in data.train_dataloader())
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert all(float(pair.fixed.min()) < 1000 for pair in loader)
    # What is cached is the pair before augmentation.
    assert loads(log) == 3


def test_loading_processes_use_the_cache(log: Path, tmp_path: Path) -> None:
    data = Counted(log=str(log), cache="disk", cache_dir=str(tmp_path / "cache"), num_workers=2)
    loader = data.test_dataloader()
    assert [p.case_ids[0] for p in loader] == [p.case_ids[0] for p in loader] == ["case0", "case1", "case2"]
    assert loads(log) == 3


def test_checksum_depends_on_the_options_that_decide_the_cases(log: Path, tmp_path: Path) -> None:
    base = Counted(log=str(log)).checksum()
    assert Counted(log=str(log), cache="disk", cache_dir=str(tmp_path), batch_size=3).checksum() == base
    assert Counted(log=str(log), brightness=1.0).checksum() != base


def test_an_argument_that_is_not_kept_is_named() -> None:
    class Forgetful(Counted):
        name: ClassVar[str] = "forgetful"

        def __init__(self, *, lost: int = 0, **options: Any) -> None:
            super().__init__(**options)

    with pytest.raises(ConfigError, match=r"must keep its argument 'lost' as self\.lost"):
        Forgetful(log="").configuration()


def test_disk_cache_needs_a_folder() -> None:
    with pytest.raises(DataError, match="cache_dir"):
        Counted(log="", cache="disk")

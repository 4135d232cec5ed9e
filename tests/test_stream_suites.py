"""The shipped suites of sequences on small twins of their datasets: what is streamed and what is scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.acdc import ACDC
from datamodules.york import York
from reg_bench import report
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.discovery import load_class, members, read_yaml
from reg_bench.suite import load_suite
from reg_bench.types import ImageSequence
from tests.datamodules.test_acdc import patient
from tests.datamodules.test_york import save_v5, subject
from tests.stream_runs import numbers, run_task


def york(root: Path) -> RegistrationDataModule:
    save_v5(root, 1, *subject(1))
    return York(root=root)


def acdc(root: Path) -> RegistrationDataModule:
    for number in (1, 2, 3):
        patient(root, "training", number)
    patient(root, "testing", 101)
    return ACDC(root=root)


@pytest.mark.parametrize(("name", "twin"), [("york", york), ("acdc", acdc)])
def test_twins_are_streamed_round_the_beat(
    name: str, twin: Callable[[Path], RegistrationDataModule], tmp_path: Path
) -> None:
    """Dice of no motion by plain counts, at the labelled frames alone; the beat closes with the reference."""
    data = twin(tmp_path / "data")
    (case,) = data.sequence_ids("test")[:1]
    sequence = data.sequence_case(case)
    rows = run_task(name, "stream", tmp_path / "run", tmp_path / "data")
    assert {r["key"]["condition"] for r in rows} == {None, "every-2nd", "every-3rd"}
    for row in rows:
        assert row["key"]["case"] == case
        expected = {t: overlap(sequence, t) for t in sequence.labelled_frames or () if t != sequence.reference}
        assert numbers(row, "dice") == pytest.approx(expected)
        assert numbers(row, "closure_error") == {sequence.reference: 0.0}
        every = int((row["key"]["condition"] or "every-1st")[6])
        latencies = len([f for f in numbers(row, "latency") if f is not None])
        assert latencies == (sequence.length - 1) // every


def overlap(sequence: ImageSequence, frame: int) -> float:
    one, other = (sequence.labels_of(t) for t in (sequence.reference, frame))
    assert one is not None
    assert other is not None
    found = []
    for label in sequence.label_names or {}:
        a, b = one == label, other == label
        if bool(a.any() | b.any()):
            found.append(2 * int((a & b).sum()) / int(a.sum() + b.sum()))
    return float(np.mean(found))


def test_streams_of_shipped_suites_are_of_datasets_with_sequences() -> None:
    streamed = {}
    for member in members("suites"):
        for task in read_yaml(member.source)["tasks"]:
            if task.get("kind") == "sequence":
                streamed[member.name] = load_class(task["dataset"], "datasets")
    assert set(streamed) == {
        "cine",
        "echo-phantom",
        "cine-breathing",
        "cine-sax",
        "york",
        "acdc",
        "echonet",
        "echo-real",
    }
    for cls in streamed.values():
        assert issubclass(cls, RegistrationDataModule)
        assert cls.sequence is not RegistrationDataModule.sequence


def test_published_tables_that_suites_show_exist() -> None:
    known = {table["id"] for table in report.published()}
    shown = {key for m in members("suites") for key in read_yaml(m.source).get("published", ())}
    assert {"paper-1-cardiac-mri", "paper-3-echonet"} <= shown <= known
    assert load_suite("york").as_dict()["published"] == ("paper-1-cardiac-mri",)

"""Tasks of sequences in the runner and on the command line: rows, conditions, failures, processes, resumption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reg_bench import manifest, plan, results, runner, worker
from reg_bench.discovery import Spec
from reg_bench.errors import ConfigError, DataError
from reg_bench.protocol import Protocol
from reg_bench.results import CaseKey
from reg_bench.stream_options import Streaming
from reg_bench.stream_scores import TIMED
from reg_bench.suite import Suite, Task, check_task_names, load_suite, with_budget
from tests.test_run_command import _run as run_command

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _as_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import signal

    monkeypatch.syspath_prepend(str(HERE))
    worker._quiet()
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def suite_of(
    *methods: tuple[str, dict[str, Any]], protocol: dict[str, Any] | None = None, data: Any = None, **stream: Any
) -> Suite:
    specs = tuple(Spec(name, "fake_streams.FollowsCentre", args) for name, args in methods)
    specs += (Spec("truth", "lightning_modules.truth.Truth"),)
    options = {"panels": False, "time_limit_s": 20.0, **(protocol or {})}
    task = Task(
        "squares",
        "fake_streams.SlidingSquares",
        data or {},
        primary="end_point_error",
        kind="sequence",
        stream=Streaming(**stream),
    )
    return Suite("fake", "1", (task,), specs, profiles=("strict",), protocol=Protocol(**options), source="fake.yaml")


def made_plan(suite: Suite) -> plan.Plan:
    return plan.Plan(suite, 0, plan.plan_tasks(suite, None, None), plan.plan_methods(suite, 0))


def run(suite: Suite, folder: Path) -> list[dict[str, Any]]:
    """Runs as a worker does, without the processes around it; returns the events."""
    folder.mkdir(exist_ok=True)
    events: list[dict[str, Any]] = []
    settings = {"out": str(folder), "mode": "only-missing", "since": "9999", "devices": 1}
    made = made_plan(suite)
    trainer = runner.make_trainer("cpu", 1, folder)
    runner.run(made, folder, trainer, lambda: worker._list_jobs(made, settings, "cpu", events.append), events.append)
    return events


def rows_of(folder: Path, method: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    keys = [(r["key"], r) for r in results.read_rows(folder)]
    return {(k["case"], k["condition"]): r for k, r in keys if k["method"] == method}


def steady(row: dict[str, Any]) -> list[Any]:
    """The values of a row without those of the clock."""
    return [v for v in row["values"] if v["metric"] not in TIMED]


def test_a_row_holds_a_whole_sequence(tmp_path: Path) -> None:
    run(suite_of(("follows", {"sleep_s": 0.01}), every=(1, 2), horizons_s=(0.2,), target="square"), tmp_path)
    rows = rows_of(tmp_path, "follows")
    assert set(rows) == {(c, n) for c in ("sq0", "sq1") for n in (None, "every-2nd")}
    for (_, condition), row in rows.items():
        assert (row["status"], row["timing"], row["device"]) == ("ok", "exclusive", "cpu")
        assert {v["frame"] for v in row["values"] if v["metric"] == "dice"} == {None, 1, 2, 3, 4, 5} - (
            {None} if condition else set()
        )
        latencies = [v["value"] for v in row["values"] if v["metric"] == "latency"]
        assert len(latencies) == (2 if condition else 5)
        assert all(ms >= 10 for ms in latencies)
        assert row["wall_s"] >= sum(latencies) / 1e3
        assert {v["horizon_s"] for v in row["values"]} == ({None} if condition else {None, 0.2})
    assert "gate_right" in {v["metric"] for v in rows["sq0", None]["values"]}


def test_conditions_of_dynamics_and_calibration(tmp_path: Path) -> None:
    suite = suite_of(("plain", {}), every=(1,), hidden=(2,), imputed=(1, 2), horizons_s=(0.2,), calibration=True)
    doubts = Spec("doubts", "fake_streams.Doubts", {})
    run(replace(suite, methods=(*suite.methods, doubts)), tmp_path)
    rows = {condition: row for (case, condition), row in rows_of(tmp_path, "doubts").items() if case == "sq0"}
    assert set(rows) == {None, "last-2-hidden", "smoothed", "imputed-2nd"}
    assert {row["status"] for row in rows.values()} == {"ok"}
    scored = {c: {v["frame"] for v in r["values"] if v["metric"] == "end_point_error"} for c, r in rows.items()}
    assert scored["last-2-hidden"] == {4, 5}
    assert scored["smoothed"] == scored["imputed-2nd"] == {1, 2, 3, 4, 5}
    told = {(v["metric"], v["horizon_s"]) for v in rows[None]["values"]}
    # After five steps it is asked; what it foretells then, lies beyond the sequence.
    assert ("coverage_95", None) in told
    assert ("coverage_95", 0.2) not in told
    latent = {c: [v["value"] for v in r["values"] if v["metric"] == "latent_coverage_95"] for c, r in rows.items()}
    assert latent == {None: [1.0], "last-2-hidden": [1.0], "smoothed": [], "imputed-2nd": [1.0]}
    for condition in ("smoothed", "imputed-2nd"):
        assert not any(v["metric"].startswith("latency") for v in rows[condition]["values"])
        assert rows[condition]["wall_s"] > 0
    plain = rows_of(tmp_path, "plain")["sq0", None]["values"]
    assert "contour_error" in {v["metric"] for v in plain}
    assert not any("coverage" in v["metric"] for v in plain)


def test_what_a_method_does_wrong_on_a_frame_fails_its_row_alone(tmp_path: Path) -> None:
    bad = [(how, {"how": how}) for how in ("raise", "nan", "sleep")]
    run(suite_of(*bad, ("good", {}), protocol={"time_limit_s": 0.3}), tmp_path)
    reasons = {
        "raise": "RuntimeError: lost the square",
        "nan": "sq0/003: the field holds 960 NaN",
        "sleep": "time limit: a single frame took longer than 0.3 s",
    }
    for how, reason in reasons.items():
        for (case, _), row in rows_of(tmp_path, how).items():
            assert row["status"] == "failed"
            assert reason.replace("sq0", case) in row["reason"]
    assert {r["status"] for r in rows_of(tmp_path, "good").values()} == {"ok"}


def test_a_method_that_writes_into_the_frames_harms_nobody(tmp_path: Path) -> None:
    run(suite_of(("write", {"how": "write"}), ("after", {})), tmp_path / "both")
    run(suite_of(("after", {})), tmp_path / "alone")
    for name in ("after", "truth"):
        both, alone = rows_of(tmp_path / "both", name), rows_of(tmp_path / "alone", name)
        assert {k: steady(r) for k, r in both.items()} == {k: steady(r) for k, r in alone.items()}


def test_each_method_is_warmed_up_once_on_a_few_frames(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    run(suite_of(("follows", {"journal": str(journal)})), tmp_path / "out")
    stream = ["start mask=48", *(f"step {t / 10:.1f}" for t in range(1, 6))]
    assert journal.read_text().splitlines() == stream[:4] + stream + stream
    journal.unlink()
    run(suite_of(("follows", {"journal": str(journal)}), protocol={"warm_up": "none"}), tmp_path / "cold")
    assert journal.read_text().splitlines() == stream + stream


def test_methods_that_cannot_follow_are_skipped_with_their_reason(tmp_path: Path) -> None:
    suite = suite_of()
    run(replace(suite, methods=(Spec("needs", "fake_streams.Needs3D"), *suite.methods)), tmp_path)
    assert {r["reason"] for r in rows_of(tmp_path, "needs").values()} == {"Needs3D registers 3-D, not 2-D"}


def test_finished_streams_are_not_run_again(tmp_path: Path) -> None:
    suite = suite_of(("follows", {}), every=(1, 2))
    run(suite, tmp_path)
    assert not [e for e in run(suite, tmp_path) if e["event"] == "started"]
    more = replace(suite, tasks=(replace(suite.tasks[0], stream=Streaming(every=(1, 2, 3))),))
    events = run(more, tmp_path)
    assert {e["key"]["condition"] for e in events if e["event"] == "started"} == {"every-3rd"}
    written = manifest.read(tmp_path)
    assert written is not None
    assert written["tasks"][0]["conditions"] == [None, "every-2nd", "every-3rd"]
    assert {CaseKey.from_row(r) for r in results.read_rows(tmp_path)} == set(manifest.expected_keys(written))


def test_what_values_depend_on_is_part_of_the_checksum() -> None:
    def checksum(**stream: Any) -> str:
        return made_plan(suite_of(**stream)).tasks[0].checksum

    assert checksum() == checksum(budget_ms=50.0, every=(1, 2), pictures=2)
    assert len({checksum(), checksum(labels="linear"), checksum(periodic=True), checksum(horizons_s=(0.1,))}) == 4


def test_pairs_of_the_same_dataset_keep_their_checksum() -> None:
    from reg_bench.plan import digest

    suite = suite_of()
    pairs = replace(suite, tasks=(Task("pairs", "fake_streams.SlidingSquares"),))
    (planned,) = plan.plan_tasks(pairs, None, None)
    content = {"sequences": 2, "back": False, "seed": 0, "augmentation": None}
    assert planned.data is not None
    assert planned.checksum == digest(planned.data.checksum(), content, "test")
    assert planned.cases[0] == "sq0/001"


def test_methods_of_sequences_run_in_tasks_of_pairs(tmp_path: Path) -> None:
    suite = suite_of(("follows", {}))
    run(replace(suite, tasks=(Task("pairs", "fake_streams.SlidingSquares", limit=3),)), tmp_path)
    rows = rows_of(tmp_path, "follows")
    assert [c for c, _ in sorted(rows)] == ["sq0/001", "sq0/002", "sq0/003"]
    for row in rows.values():
        (error,) = [v["value"] for v in row["values"] if v["metric"] == "end_point_error" and v["label"] == "all"]
        assert error == pytest.approx(0, abs=1e-4)


def test_data_without_sequences_is_found_before_any_work() -> None:
    suite = suite_of()
    task = replace(suite.tasks[0], dataset="fake_members.Squares")
    with pytest.raises(DataError, match="holds pairs, not sequences"):
        plan.plan_tasks(replace(suite, tasks=(task,)), None, None)


YAML = """\
name: fake
version: 1
profiles: [strict]
protocol: {panels: true, time_limit_s: 30}
tasks:
  - name: squares
    dataset: fake_streams.SlidingSquares
    init_args: {sequences: 3}
    kind: sequence
    primary: end_point_error
    stream: {every: [1, 2], horizons_s: [0.1], target: square, periodic: true}
  - {name: pairs, dataset: fake_streams.SlidingSquares, init_args: {sequences: 1}}
methods:
  - no-motion
  - truth
  - {name: follows, class_path: fake_streams.FollowsCentre}
"""


def written(folder: Path, text: str = YAML) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text)
    return path


def test_suites_are_read_with_their_streams(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path))
    assert suite.tasks[0].stream == Streaming((1, 2), (0.1,), target="square", periodic=True)
    assert suite.tasks[0].conditions == (None, "every-2nd")
    assert suite.tasks[1].conditions == (None,)
    assert with_budget(suite, 50.0).tasks[0].stream.budget_ms == 50.0
    assert with_budget(suite, 50.0).tasks[1] == suite.tasks[1]
    with pytest.raises(ConfigError, match=r"--budget-ms: suite quick has no task of sequences"):
        with_budget(load_suite("quick"), 50.0)
    with pytest.raises(ConfigError, match=r"has no task 'sqaures'; did you mean 'squares'\?"):
        check_task_names(suite, ["sqaures"])
    with pytest.raises(ConfigError, match="'pairs' occurs twice"):
        check_task_names(suite, ["pairs", "pairs"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("periodic: true", "periodik: true", r"unknown key 'tasks\[0\]\.stream\.periodik'; did you mean 'periodic'\?"),
        ("every: [1, 2]", "every: [0]", r"stream\.every must be different numbers from 1, got \[0\]"),
        ("kind: sequence", "kind: pairs", r"tasks\[0\]\.stream is for tasks of kind sequence"),
        ("kind: sequence", "kind: sequence\n    inverse_consistency: true", "inverse_consistency is for tasks of kind"),
        ("kind: sequence", "kind: seqence", r"tasks\[0\]\.kind: expected one of pairs, sequence"),
        (
            "kind: sequence",
            "kind: sequence\n    primary_profile: learn2reg",
            r"tasks\[0\]\.primary_profile: sequences are scored in the profile strict alone",
        ),
    ],
)
def test_streams_that_cannot_be_are_named_with_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = YAML.replace(old, new, 1)
    path = written(tmp_path, text.replace("[strict]", "[strict, learn2reg]"))
    with pytest.raises(ConfigError, match=rf"suite\.yaml: .*{message}"):
        load_suite(path)


def all_steady(folder: Path) -> dict[CaseKey, Any]:
    return {CaseKey.from_row(r): (r["status"], steady(r), r["panel"]) for r in results.read_rows(folder)}


def test_two_processes_give_the_values_of_one_and_only_what_is_missing_is_made(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path))
    run(replace(suite, tasks=suite.tasks[:1]), tmp_path / "one")
    first = suite.tasks[0]
    run(replace(suite, tasks=(replace(first, limit=1),)), tmp_path / "two")
    options = ("--tasks", "squares", "--devices", 2, "--budget-ms", "0.000001")
    text = run_command(written(tmp_path), "--out", tmp_path / "two", *options)
    assert "18 results to make, 6 done before" in text
    one = all_steady(tmp_path / "one")
    assert all_steady(tmp_path / "two") == one
    assert len(one) == 3 * 2 * 3
    started = [e for e in results.read_events(tmp_path / "two") if e["event"] == "started"]
    assert len(started) == 18, "each once, over both runs"
    for row in results.read_rows(tmp_path / "two"):
        (share,) = [v["value"] for v in row["values"] if v["metric"] == "within_budget"]
        assert (share == 0.0) == (row["key"]["case"] != "sq0"), "nothing is there within a nanosecond"
        picture = tmp_path / "two" / row["panel"]
        assert 0 < picture.stat().st_size <= 60_000
    both = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert [t["name"] for t in both["tasks"]] == ["squares"]


def test_tasks_of_an_earlier_run_stay_in_the_manifest(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path))
    suite = replace(suite, protocol=replace(suite.protocol, panels=False))
    chosen = replace(suite, tasks=suite.tasks[:1])
    run(chosen, tmp_path / "out")
    run(replace(suite, tasks=suite.tasks[1:]), tmp_path / "out")
    found = manifest.read(tmp_path / "out")
    assert found is not None
    assert [t["name"] for t in found["tasks"]] == ["pairs", "squares"]

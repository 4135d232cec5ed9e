"""The runner in this process: what a row holds, what a method may do, what is computed and what is not."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reg_bench import clock, manifest, plan, results, runner, worker
from reg_bench.discovery import Spec
from reg_bench.errors import ConfigError, DataError
from reg_bench.plan import Job, PlannedMethod
from reg_bench.protocol import Protocol, case_seed
from reg_bench.results import CaseKey, CaseResult, RowWriter
from reg_bench.suite import Suite, Task
from reg_bench.warm_up import central_crop

HERE = Path(__file__).resolve().parent
EPOCH = "9999"


@pytest.fixture(autouse=True)
def _as_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import signal

    monkeypatch.syspath_prepend(str(HERE))
    worker._quiet()
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def _suite(*methods: Any, protocol: dict[str, Any] | None = None, **task: Any) -> Suite:
    specs = tuple(Spec(n, f"fake_members.{c}", a) for n, c, a in methods)
    options = {"panels": False, "time_limit_s": 20.0, **(protocol or {})}
    made = Task(**{"name": "squares", "dataset": "fake_members.Squares", "init_args": {"cases": 3}, **task})
    return Suite("fake", "1", (made,), specs, protocol=Protocol(**options), source="fake.yaml")


def _plan(suite: Suite, limit: int | None = None, seed: int = 0) -> plan.Plan:
    return plan.Plan(suite, seed, plan.plan_tasks(suite, None, limit), plan.plan_methods(suite, seed))


def _run(
    suite: Suite, folder: Path, mode: plan.Mode = "only-missing", since: str = EPOCH, limit: int | None = None
) -> list[dict[str, Any]]:
    """Runs as a worker does, without the processes around it; returns the events."""
    folder.mkdir(exist_ok=True)
    events: list[dict[str, Any]] = []
    settings = {"out": str(folder), "mode": mode, "since": since, "devices": 1}
    made = _plan(suite, limit)
    trainer = runner.make_trainer("cpu", 1, folder)
    runner.run(made, folder, trainer, lambda: worker._list_jobs(made, settings, "cpu", events.append), events.append)
    return events


def _rows(folder: Path, method: str | None = None) -> dict[str, dict[str, Any]]:
    rows = results.read_rows(folder)
    return {r["key"]["case"]: r for r in rows if method in (None, r["key"]["method"])}


def _metric(row: dict[str, Any], name: str) -> float:
    (value,) = [v["value"] for v in row["values"] if (v["metric"], v["profile"], v["label"]) == (name, "strict", "all")]
    return float(value)


NOISE = ("noise", "Noise", {})
GOOD = ("good", "Misbehaves", {"how": "none"})


def _bad(how: str, **options: Any) -> tuple[str, str, dict[str, Any]]:
    return (how, "Misbehaves", {"how": how, **options})


def test_a_row_holds_what_was_measured(tmp_path: Path) -> None:
    _run(_suite(("slow", "Noise", {"sleep_s": 0.05}), inverse_consistency=True), tmp_path)
    rows = _rows(tmp_path)
    assert sorted(rows) == ["s/000", "s/001", "s/002"]
    for row in rows.values():
        assert (row["status"], row["reason"], row["timing"], row["threads"], row["device"]) == (
            ("ok", None, "exclusive", 1, "cpu")
        )
        assert row["wall_s"] >= 0.05 > row["cpu_s"] >= 0, "sleeping takes wall time, no CPU time"
        assert row["load_s"] >= 0
        assert row["score_s"] > 0
        assert row["peak_mb"] >= 0
        assert {v["profile"] for v in row["values"]} == {"learn2reg", "strict"}
        assert _metric(row, "inverse_consistency") > 0
        assert _metric(row, "end_point_error") == pytest.approx(1.0, abs=0.2)


def test_known_answer_goes_through_the_whole_runner(tmp_path: Path) -> None:
    """A zero field on squares that moved by one of eight pixels: Dice 7/8 by hand."""
    _run(_suite(GOOD), tmp_path)
    for row in _rows(tmp_path).values():
        assert _metric(row, "dice") == pytest.approx(7 / 8)
        assert _metric(row, "end_point_error") == pytest.approx(1.0)


def test_methods_that_optimise_can(tmp_path: Path) -> None:
    _run(_suite(("optimised", "Optimised", {})), tmp_path)
    for row in _rows(tmp_path).values():
        assert row["status"] == "ok", row["reason"]
        assert _metric(row, "end_point_error") < 0.5


def test_what_a_method_does_wrong_fails_its_case_alone(tmp_path: Path) -> None:
    bad = ("raise", "nan", "shape", "exit", "sleep", "swallow")
    _run(_suite(*map(_bad, bad), GOOD, protocol={"time_limit_s": 1.0}), tmp_path)
    reasons = {
        "raise": "RuntimeError: no convergence",
        "nan": "the field holds 960 NaN",
        "shape": "the field has shape (1, 2, 24, 19), expected",
        "exit": "SystemExit: 3",
        "sleep": "time limit: register took longer than 1 s",
        "swallow": "time limit: register took longer than 1 s",
    }
    for how, reason in reasons.items():
        rows = _rows(tmp_path, how)
        assert {c: r["status"] for c, r in rows.items()} == {"s/000": "ok", "s/001": "failed", "s/002": "ok"}, how
        assert reason in rows["s/001"]["reason"]
        assert rows["s/001"]["values"] == []
    assert {r["status"] for r in _rows(tmp_path, "good").values()} == {"ok"}


def test_method_that_writes_into_the_images_harms_nobody(tmp_path: Path) -> None:
    _run(_suite(_bad("write"), GOOD), tmp_path / "after")
    _run(_suite(GOOD), tmp_path / "alone")
    alone = _rows(tmp_path / "alone")
    for name in ("write", "good"):
        after = _rows(tmp_path / "after", name)
        assert [after[c]["values"] for c in sorted(after)] == [alone[c]["values"] for c in sorted(alone)]


def test_a_case_that_a_method_does_not_take_is_skipped_with_its_reason(tmp_path: Path) -> None:
    _run(_suite(_bad("skip")), tmp_path)
    rows = _rows(tmp_path)
    assert (rows["s/001"]["status"], rows["s/001"]["reason"]) == ("skipped", "this one is not for me")
    assert rows["s/000"]["status"] == "ok"


def test_missing_package_skips_the_task_with_the_command_and_is_looked_at_again(tmp_path: Path) -> None:
    suite = _suite(NOISE, init_args={"needs_extra": True})
    both = replace(suite, tasks=(*suite.tasks, Task("there", "fake_members.Squares", {"cases": 2})))
    _run(both, tmp_path)
    rows = results.read_rows(tmp_path)
    assert sorted(r["status"] for r in rows) == ["ok", "ok", "skipped"]
    (skipped,) = [r for r in rows if r["status"] == "skipped"]
    assert "pip install 'regbench-suite[demo]'" in skipped["reason"]
    events = _run(both, tmp_path)
    assert [e["task"] for e in events if e["event"] == "started"] == ["squares"]


def test_finished_cases_are_not_computed_again(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    suite = _suite(("noise", "Noise", {"journal": str(journal)}), _bad("raise"), protocol={"warm_up": "none"})
    _run(suite, tmp_path, limit=2)
    _run(suite, tmp_path)
    assert [line.split()[1] for line in journal.read_text().splitlines()] == ["s/000", "s/001", "s/002"]
    events = _run(suite, tmp_path, mode="retry-failed")
    assert [(e["method"], e["case"]) for e in events if e["event"] == "started"] == [("raise", "s/001")]
    events = _run(suite, tmp_path, mode="overwrite")
    assert sum(e["event"] == "started" for e in events) == 6
    events = _run(suite, tmp_path, mode="overwrite", since="2000")
    assert sum(e["event"] == "started" for e in events) == 0, "results of this very run count"
    assert len(results.read_rows(tmp_path)) == 6


def test_rows_of_other_settings_are_left_alone_and_told(tmp_path: Path) -> None:
    _run(_suite(NOISE), tmp_path)
    for other in (
        _suite(("noise", "Noise", {"scale": 0.2})),
        replace(_suite(NOISE), version="2"),
        _suite(NOISE, init_args={"cases": 2}),
    ):
        events = _run(other, tmp_path)
        (told,) = [e for e in events if e["event"] == "plan"]
        assert told["done"] == 0
        assert told["foreign"] >= 3
    assert len(results.read_rows(tmp_path)) == 3 + 3 + 3 + 2


def test_settings_spelt_out_are_those_left_at_their_default(tmp_path: Path) -> None:
    a, b = (_plan(_suite(("noise", "Noise", args))) for args in ({}, {"scale": 0.1, "sleep_s": 0}))
    assert a.methods[0].config_hash == b.methods[0].config_hash


def test_folder_of_data_and_cache_do_not_change_the_checksum() -> None:
    a, b, c = (
        _plan(_suite(NOISE, init_args=args)).tasks[0].checksum
        for args in ({"cases": 3}, {"cases": 3, "cache": "memory"}, {"cases": 3, "seed": 5})
    )
    assert a == b != c


def test_case_that_killed_its_process_twice_is_given_up(tmp_path: Path) -> None:
    suite = _suite(NOISE)
    keys = [_plan(suite).key(job) for job in _plan(suite).jobs()]
    writer = RowWriter(tmp_path / "rows.rank0.jsonl")
    for times, key in enumerate(keys):
        for _ in range(times):
            writer.started(key)
    _run(suite, tmp_path)
    rows = _rows(tmp_path)
    assert [rows[k.case]["status"] for k in keys] == ["ok", "ok", "failed"]
    assert rows[keys[2].case]["reason"].startswith("killed")
    _run(suite, tmp_path, mode="retry-failed")
    assert _rows(tmp_path)[keys[2].case]["status"] == "ok"


def test_case_is_loaded_once_for_all_methods(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    _run(_suite(NOISE, GOOD, init_args={"cases": 3, "journal": str(journal)}), tmp_path)
    assert journal.read_text().splitlines() == [f"load s/{i:03d}" for i in range(3)]


@pytest.mark.parametrize(("warm_up", "first"), [("crop", 16), ("case", 24), ("none", None)])
def test_each_method_is_warmed_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_up: str, first: int | None
) -> None:
    monkeypatch.setattr("reg_bench.warm_up._LARGEST", {2: 16, 3: 16})
    journal = tmp_path / "journal"
    _run(_suite(("noise", "Noise", {"journal": str(journal)}), protocol={"warm_up": warm_up}), tmp_path)
    sizes = [int(line.split()[2]) for line in journal.read_text().splitlines()]
    assert sizes == [24] * 3 if first is None else sizes == [first, 24, 24, 24]


def test_results_do_not_depend_on_order_warm_up_or_limit(tmp_path: Path) -> None:
    _run(_suite(NOISE, GOOD), tmp_path / "a")
    _run(_suite(GOOD, NOISE, protocol={"warm_up": "none"}), tmp_path / "b", limit=1)
    _run(_suite(GOOD, NOISE, protocol={"warm_up": "none"}), tmp_path / "b")
    a, b = (_rows(tmp_path / x, "noise") for x in "ab")
    assert {c: r["values"] for c, r in a.items()} == {c: r["values"] for c, r in b.items()}
    assert len({_metric(r, "end_point_error") for r in a.values()}) == 3, "each case has a seed of its own"
    assert case_seed(0, "s/000") != case_seed(1, "s/000")


def test_manifest_says_which_rows_belong_to_the_run(tmp_path: Path) -> None:
    _run(_suite(NOISE), tmp_path, limit=2)
    first = manifest.read(tmp_path)
    _run(_suite(GOOD), tmp_path)
    both = manifest.read(tmp_path)
    assert first is not None
    assert both is not None
    assert [m["name"] for m in both["methods"]] == ["good", "noise"], "its rows are still there"
    assert both["tasks"][0]["cases"] == ["s/000", "s/001", "s/002"]
    rows = {CaseKey.from_row(r) for r in results.read_rows(tmp_path)}
    assert rows < set(manifest.expected_keys(both))
    assert both["versions"]["torch"] == torch.__version__
    assert both["hardware"]["cores"] >= 1
    assert (both["threads"], both["seed"], both["device"]) == (1, 0, "cpu")
    _run(_suite(GOOD), tmp_path)
    assert manifest.read(tmp_path) == both, "the same command gives the same manifest"


def test_bad_input_is_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REG_BENCH_DATA", raising=False)
    rooted = replace(_suite(NOISE), tasks=(Task("files", "fake_members.Rooted"),))
    with pytest.raises(DataError, match=r"give --data\.root DIR, or set REG_BENCH_DATA"):
        _plan(rooted)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="split 'test' is empty"):
        plan.plan_tasks(rooted, tmp_path / "empty", None)
    with pytest.raises(ConfigError, match=r"fake\.yaml: task squares.*unknown key 'casez'; did you mean 'cases'\?"):
        _plan(_suite(NOISE, init_args={"casez": 1}))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_jobs_are_shared_fairly_and_never_fewer_than_processes(processes: int) -> None:
    jobs = [Job(0, m, f"c{c}") for c in range(4) for m in range(6)]
    ordered = plan.spread(jobs, processes)
    assert sorted(ordered, key=str) == sorted(jobs, key=str)
    if processes == 2:
        for method in range(6):
            shares = [sum(j.method == method for j in ordered[rank::2]) for rank in range(2)]
            assert shares == [2, 2], "a slow method must not fall to one process alone"
    few = plan.spread(jobs[:2], processes)
    assert len(few) == max(2, processes)
    assert [j for j in few if not j.idle] == jobs[:2]


def test_central_crop_keeps_fields_on_their_grids() -> None:
    from fake_members import Squares

    pair = Squares().case("s/001")
    wide = replace(pair, **{n: torch.cat([getattr(pair, n)] * 5, dim=2) for n in _GRIDS}, points=None)
    crop = central_crop(wide)
    assert crop.spatial_shape == (64, 20)
    assert torch.equal(crop.fixed, wide.fixed[:, :, 28:92])
    assert crop.true_displacement is not None
    assert crop.true_displacement.shape == (1, 2, 64, 20)


_GRIDS = ("fixed", "moving", "fixed_labels", "moving_labels", "true_displacement")


def test_clock_sees_memory_that_was_freed_again() -> None:
    def needs_40_mb() -> int:
        return int(torch.ones(10_000_000).sum())

    for _ in range(2):
        measured = clock.measure(needs_40_mb, torch.device("cpu"))
        assert measured.value == 10_000_000
        assert measured.peak_mb == pytest.approx(40, abs=8)


def test_lock_of_the_run_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    import threading

    spans: list[tuple[float, float]] = []

    def hold() -> None:
        with clock.TimingLock(tmp_path / "lock").held() as exclusive:
            assert exclusive
            begin = time.monotonic()
            time.sleep(0.02)
            spans.append((begin, time.monotonic()))

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans.sort()
    assert len(spans) == 4
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    with clock.TimingLock(None).held() as exclusive:
        assert not exclusive


def test_limit_leaves_no_alarm_behind(tmp_path: Path) -> None:
    dog = clock.Watchdog(tmp_path / "dog")
    with contextlib.suppress(ValueError), dog.limit(0.05):
        raise ValueError
    time.sleep(0.08)
    with pytest.raises(clock.TimeLimitExceeded), dog.limit(0.05):
        time.sleep(5)


def test_method_whose_package_is_missing_is_skipped(tmp_path: Path) -> None:
    made = _plan(_suite(NOISE))
    gone = PlannedMethod(made.methods[0].spec, "1", "MIT", "hash", {}, None, "noise needs x: pip install x")
    made = replace(made, methods=(gone,))
    trainer = runner.make_trainer("cpu", 1, tmp_path)
    runner.run(made, tmp_path, trainer, made.jobs, lambda _event: None)
    assert {r["reason"] for r in results.read_rows(tmp_path)} == {"noise needs x: pip install x"}


def test_result_of_a_timed_case_is_not_mixed_with_shared_ones(tmp_path: Path) -> None:
    _run(_suite(NOISE, protocol={"timing": "shared"}), tmp_path)
    assert {r["timing"] for r in results.read_rows(tmp_path)} == {"shared"}


def test_counts_tell_failed_skipped_and_missing(tmp_path: Path) -> None:
    from reg_bench.command_run import _counts

    _run(_suite(_bad("raise"), _bad("skip")), tmp_path)
    made = manifest.read(tmp_path)
    assert made is not None
    made["tasks"][0]["cases"].append("s/003")
    assert _counts(tmp_path, made) == {"ok": 4, "failed": 1, "skipped": 1, "missing": 2}


def test_report_of_a_result_is_written_before_it_is_told(tmp_path: Path) -> None:
    """A supervisor that hears `done` may rely on the row."""
    suite = _suite(NOISE)
    made = _plan(suite)
    seen: list[int] = []

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            seen.append(len(results.read_rows(tmp_path)))

    runner.run(made, tmp_path, runner.make_trainer("cpu", 1, tmp_path), made.jobs, report)  # type: ignore[arg-type]
    assert seen == [1, 2, 3]


def test_writer_of_rows_is_what_the_runner_uses(tmp_path: Path) -> None:
    key = _plan(_suite(NOISE)).key(Job(0, 0, "s/000"))
    RowWriter(tmp_path / "rows.rank0.jsonl").result(CaseResult(key, "failed", "before"))
    _run(_suite(NOISE), tmp_path)
    assert _rows(tmp_path)["s/000"]["reason"] == "before"


def test_only_the_chosen_cases_are_planned(tmp_path: Path) -> None:
    suite = _suite(NOISE)
    (whole,) = plan.plan_tasks(suite, None, None)
    (part,) = plan.plan_tasks(suite, None, None, chosen=whole.cases[1:2])
    assert part.cases == whole.cases[1:2]
    assert part.checksum == whole.checksum, "its result has the key that it has in the whole run"
    with pytest.raises(ConfigError, match="--cases: no task has a case 'nobody'"):
        plan.plan_tasks(suite, None, None, chosen=["nobody"])

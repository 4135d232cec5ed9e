"""Boards from rows: order, roles, failures, incompleteness, and what must never be mixed."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from reg_bench import leaderboard_rows, results
from reg_bench import leaderboard_text as text
from reg_bench.leaderboard import Board, Entry, tables
from reg_bench.leaderboard_files import markdown, to_csv
from reg_bench.leaderboard_protocol import protocol
from tests.report_rows import dice_rows, row, value, write

CASES = [f"p{i}/{t}" for i in range(5) for t in range(2)]


def scores(mean: float) -> dict[str, float | None]:
    """Dice around `mean`, hardest on the first cases."""
    return {c: round(mean + 0.01 * i, 3) for i, c in enumerate(CASES)}


def board(rows: list[dict[str, Any]], manifest: dict[str, Any] | None = None) -> Board:
    """The first board of `rows`."""
    return tables(leaderboard_rows.from_rows(rows), manifest or {})[0]


def entry(of: Board, name: str) -> Entry:
    """The entry called `name`."""
    return next(e for e in of.entries if e.name == name)


def test_order_ranks_and_reference_rows() -> None:
    rows = [r for m, s in (("identity", 0.5), ("b", 0.7), ("truth", 0.9), ("a", 0.8)) for r in dice_rows(m, scores(s))]
    made = board(rows)
    assert [(e.name, e.rank, e.role) for e in made.entries] == [
        ("truth", None, "ceiling"),
        ("a", 1, ""),
        ("b", 2, ""),
        ("identity", None, "floor"),
    ]
    assert (made.subjects, len(made.cases)) == (5, 10)
    assert entry(made, "a").cells["dice"].mean == pytest.approx(0.845)
    low, high = entry(made, "a").interval or (0, 0)
    assert low < 0.845 < high


def test_errors_order_the_other_way_and_equal_means_share_a_rank() -> None:
    rows = [row(m, c, [value("tre_landmarks", e, unit="mm")]) for c in CASES for m, e in (("a", 3), ("b", 1), ("c", 1))]
    made = board(rows)
    assert [(e.name, e.rank) for e in made.entries] == [("b", 1), ("c", 1), ("a", 3)]
    assert made.primary == "tre_landmarks"
    assert made.units["tre_landmarks"] == "mm"


def test_failing_never_helps() -> None:
    good = dice_rows("good", scores(0.7))
    hard = dict(scores(0.8))
    hard[CASES[0]] = None
    made = board([*good, *dice_rows("fails", hard)])
    cell = entry(made, "fails").cells["dice"]
    assert (cell.n, cell.substituted) == (10, 1)
    assert cell.mean == pytest.approx((sum(v for v in hard.values() if v) + 0.0) / 10)
    (trouble,) = made.troubles
    assert text.trouble_text(trouble) == f"fails failed on 1 case ({CASES[0]}): RuntimeError: diverged"


def test_incomplete_and_skipped_methods_come_last_without_rank() -> None:
    some = dict(list(scores(0.99).items())[:7])
    skipped = [row("peer", c, status="skipped", reason="pip install peer", timing=None) for c in CASES]
    made = board([*dice_rows("whole", scores(0.6)), *dice_rows("part", some), *skipped])
    assert [(e.name, e.state, e.rank) for e in made.entries] == [
        ("whole", "complete", 1),
        ("part", "incomplete", None),
        ("peer", "skipped", None),
    ]
    assert text.name_text(made.entries[1]) == "part (incomplete, 7 of 10 cases)"
    assert made.troubles[0].reason == "pip install peer"


def test_the_manifest_says_what_is_still_missing() -> None:
    manifest = {
        "suite_name": "s",
        "suite_version": "1",
        "seed": 0,
        "tasks": [{"name": "t", "dataset_checksum": "c0", "cases": [*CASES, "p9/0"]}],
        "methods": [{"name": m, "version": "1", "config_hash": f"hash-of-{m}"} for m in ("a", "later")],
    }
    made = board(dice_rows("a", scores(0.8)), manifest)
    assert [(e.name, e.state, e.missing) for e in made.entries] == [("a", "incomplete", 1), ("later", "incomplete", 11)]


def test_hardest_cases_follow_identity_or_else_the_mean_over_methods() -> None:
    reverse = dict(zip(CASES, reversed(list(scores(0.8).values())), strict=True))
    made = board([*dice_rows("identity", scores(0.4)), *dice_rows("a", reverse)])
    assert made.hardest_by == "the value of `identity`"
    assert made.hardest_n == 3
    assert entry(made, "a").cells["dice"].hardest == pytest.approx(0.88)
    alone = board(dice_rows("a", reverse))
    assert alone.hardest_by == "the mean over the methods"
    assert alone.entries[0].cells["dice"].hardest == pytest.approx(0.81)


def test_a_metric_that_a_method_never_gives_is_a_dash_but_the_primary_is_owed() -> None:
    rows = dice_rows("a", scores(0.8))
    for c in CASES:
        rows.append(row("b", c, [value("dice", 0.7), value("inverse_consistency", 1.0, unit="mm")]))
        rows.append(row("c", c, [value("inverse_consistency", 3.0, unit="mm")]))
    made = board(rows)
    assert entry(made, "a").cells["inverse_consistency"].mean is None
    assert entry(made, "c").cells["dice"].mean == 0.0


def test_timing_comes_from_exclusive_rows_only() -> None:
    rows = dice_rows("a", scores(0.8))
    rows[0] |= {"wall_s": 100.0, "timing": "shared"}
    rows[1] |= {"wall_s": 3.0}
    made = board(rows).entries[0]
    assert (made.timed, made.wall_s, made.cpu_s) == (9, 1.0, 2.0)
    shared = board([{**r, "timing": "shared"} for r in rows])
    assert shared.entries[0].wall_s is None
    assert all(c.title != "time [s]" for c in text.columns(shared))


def test_versions_data_and_configurations_never_mix() -> None:
    rows = dice_rows("a", scores(0.8)) + dice_rows("a", scores(0.9), suite_version="2")
    boards = tables(leaderboard_rows.from_rows(rows), {})
    assert [(b.suite_version, b.entries[0].cells["dice"].n) for b in boards] == [("1", 10), ("2", 10)]
    assert "2 versions of suite s" in boards[0].warnings[0]
    rows = dice_rows("a", scores(0.8)) + dice_rows("a", scores(0.9), dataset_checksum="c1")
    assert len(tables(leaderboard_rows.from_rows(rows), {})) == 2
    rows = dice_rows("a", scores(0.8)) + dice_rows("a", scores(0.9), config_hash="another")
    made = board(rows)
    assert [e.name for e in made.entries] == ["a (#another)", "a (#hash-of-)"]
    assert "2 configurations" in made.warnings[0]


def test_units_and_settings_that_differ_are_said() -> None:
    rows = [
        row("a", c, [value("hd95", 1.0, unit="mm" if i else "voxel")], threads=1 + i % 2) for i, c in enumerate(CASES)
    ]
    made = board(rows)
    assert any("hd95 is in mm and in voxel" in w for w in made.warnings)
    assert any("different thread counts (1, 2)" in w for w in made.warnings)


def test_both_profiles_with_the_other_rank_and_the_main_one_first() -> None:
    def both(method: str, strict: float, official: float) -> list[dict[str, Any]]:
        return [row(method, c, [value("dice", strict), value("dice", official, profile="learn2reg")]) for c in CASES]

    boards = tables(leaderboard_rows.from_rows([*both("a", 0.9, 0.7), *both("b", 0.8, 0.75)]), {})
    assert [(b.profile, b.main) for b in boards] == [("strict", True), ("learn2reg", False)]
    assert boards[0].other_ranks == {"learn2reg": {"b": 1, "a": 2}}
    manifest = {"suite": {"tasks": [{"name": "t", "primary": "dice", "primary_profile": "learn2reg"}]}}
    assert tables(leaderboard_rows.from_rows(both("a", 0.9, 0.7)), manifest)[0].profile == "learn2reg"


def test_the_suite_names_the_primary_metric() -> None:
    rows = [row("a", c, [value("dice", 0.5), value("ncc", 0.9)]) for c in CASES]
    manifest = {"suite": {"name": "s", "tasks": [{"name": "t", "primary": "ncc", "primary_profile": "strict"}]}}
    assert board(rows, manifest).primary == "ncc"
    assert board(rows).primary == "dice"


def test_p_values_compare_subjects_with_the_best() -> None:
    cases = [f"p{i}" for i in range(12)]
    best = {c: 0.9 + 0.001 * i for i, c in enumerate(cases)}
    worse = {c: 0.8 + 0.002 * i for i, c in enumerate(cases)}
    made = board([*dice_rows("best", best), *dice_rows("worse", worse), *dice_rows("truth", dict.fromkeys(cases, 1.0))])
    assert entry(made, "best").p_value is None
    assert entry(made, "truth").p_value is None
    # All 12 differences have one sign: exactly 2 / 2**12.
    assert entry(made, "worse").p_value == pytest.approx(2 / 2**12)


def test_a_task_whose_cases_could_not_be_listed_is_shown_until_they_are() -> None:
    lost = row("a", "*", status="failed", reason="DataError: no such folder", dataset_checksum="")
    made = board([lost])
    assert text.trouble_text(made.troubles[0]) == "a: the cases could not be listed: DataError: no such folder"
    assert len(tables(leaderboard_rows.from_rows([lost, *dice_rows("a", scores(0.8))]), {})) == 1


def test_sequences_average_their_frames_and_leave_out_forecasts() -> None:
    values = [value("dice", 0.5, frame=1), value("dice", 0.7, frame=2), value("dice", 0.1, frame=2, horizon_s=0.4)]
    other = [value("dice", 0.5, frame=1), value("dice", None, frame=2)]
    made = board([row("a", "p0", values), row("b", "p0", other)])
    assert entry(made, "a").cells["dice"].mean == pytest.approx(0.6)
    assert entry(made, "b").cells["dice"].mean == 0.0


def test_csv_and_markdown_carry_the_numbers() -> None:
    boards = tables(
        leaderboard_rows.from_rows([*dice_rows("identity", scores(0.4)), *dice_rows("a|b", scores(0.8))]), {}
    )
    lines = list(csv.DictReader(io.StringIO(to_csv(boards))))
    assert [(line["method"], line["rank"], line["dice_mean"]) for line in lines] == [
        ("a|b", "1", "0.845"),
        ("identity", "", "0.445"),
    ]
    assert float(lines[0]["dice_hardest30"]) == pytest.approx(0.81)
    page = markdown(boards, {})
    assert "| 1 | a\\|b | 10 |" in page
    assert "hardest 30 % of the cases by the value of `identity`" in page
    widths = {line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_protocol_names_what_the_numbers_depend_on() -> None:
    boards = tables(leaderboard_rows.from_rows([row("a", c, [value("hd95", 1.0, unit="mm")]) for c in CASES]), {})
    lines = dict(protocol(boards, {"versions": {"torch": "2.13"}, "hardware": {"processor": "P"}}))
    assert {"profile strict", "interpolation, strict", "HD95, strict", "units", "threads", "device", "timing"} <= set(
        lines
    )
    assert lines["versions"] == "torch 2.13"
    assert lines["timing"].startswith("10 of 10 cases timed exclusively")


def test_rows_are_read_as_the_results_module_reads_them(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = [
        row(
            m,
            c,
            [
                value("dice", rng.random(), unit="1"),
                value("dice", rng.random(), label="3"),
                value("hd95", None),
                value("tre_landmarks", rng.random(), label="17"),
            ],
        )
        for m in ("a", "b")
        for c in CASES
    ]
    rows.append({**rows[0], "values": [value("dice", 0.123)], "time": "2026-01-02T00:00:00"})
    rows.append(row("c", 'quote " } ] \\ "values":[', [value("dice", 0.5)], reason='a "values":[{"label":"all"}] ]'))
    write(tmp_path, rows)
    with (tmp_path / "rows.rank1.jsonl").open("w") as out:
        out.write(
            "not json\n" + json.dumps(rows[1], indent=None, separators=(",", ":")) + "\n" + '{"event":"result","key'
        )
    ours = {
        r.key: [(k.metric, k.label, None if math.isnan(v) else v) for k, v in r.values]
        for r in leaderboard_rows.read(tmp_path)
    }
    theirs = {
        leaderboard_rows.from_rows([r])[0].key: [
            (v["metric"], v["label"], v["value"]) for v in r["values"] if v["metric"] != "tre_landmarks"
        ]
        for r in results.read_rows(tmp_path)
    }
    assert ours == theirs
    assert any(label == "3" for values in ours.values() for _, label, _ in values)
    assert len(ours) == 21

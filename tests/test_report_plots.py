"""The drawings of a report, against positions and tests done another way."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from reg_bench import report
from reg_bench.leaderboard import Board
from reg_bench.leaderboard_text import columns
from reg_bench.report_firmness import firmness
from reg_bench.report_fronts import fronts, place_labels
from reg_bench.report_pictures import Pictures, chosen_cases, worst_shown
from reg_bench.report_plots import distribution, label_order, label_plots
from reg_bench.report_significance import heat_map
from tests.report_rows import dice_rows, row, value, write
from tests.report_runs import run_folder


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return report.read(run_folder(tmp_path_factory.mktemp("plots") / "run")).boards[0]


def board_of(folder: Path, rows: list[dict[str, object]]) -> Board:
    write(folder, rows)
    return report.read(folder).boards[0]


def test_dots_are_cases_and_lie_where_their_value_is(board: Board) -> None:
    plot = distribution(board)
    assert plot is not None
    (low, _), (high, _) = plot.ticks[0], plot.ticks[-1]
    scale = [float(t[1]) for t in plot.ticks]
    by_name = {e.name: e for e in board.entries}
    for line in plot.lines:
        entry = by_name[line.name]
        assert sorted(c for _, c in line.dots) == list(range(len(board.cases)))
        for x, case in line.dots:
            expected = low + (high - low) * (entry.values[case] - scale[0]) / (scale[-1] - scale[0])
            assert x == pytest.approx(expected, abs=0.06)
    failed = next(line for line in plot.lines if line.name == "bspline")
    assert min(failed.dots)[0] == pytest.approx(low, abs=0.1), "the failure counts as Dice 0"


def test_many_cases_are_thinned_evenly_and_keep_both_ends(tmp_path: Path) -> None:
    scores = {f"p{i:04d}": i / 3000 for i in range(3000)}
    plot = distribution(board_of(tmp_path, dice_rows("a", scores)))
    assert plot is not None
    cases = [c for _, c in plot.lines[0].dots]
    assert len(cases) <= 2400
    assert {0, 2999} <= set(cases)
    assert max(np.diff(cases)) <= 2


def test_boxes_of_labels_are_tukeys(tmp_path: Path) -> None:
    numbers = [0.5, 0.52, 0.54, 0.55, 0.56, 0.58, 0.6, 0.95]
    rows = [
        row("a", f"p{i}", [value("dice", v), value("dice", v, label="2"), value("dice", 0.5, label="10")])
        for i, v in enumerate(numbers)
    ]
    plots = label_plots(board_of(tmp_path, rows), "dice")
    assert [p.label for p in plots] == ["2", "10"]
    (box,) = plots[0].boxes
    ends = [float(t[1]) for t in plots[0].ticks]

    def back(x: float) -> float:
        places = [t[0] for t in plots[0].ticks]
        return float(np.interp(x, places, ends))

    quartiles = np.percentile(numbers, [25, 50, 75])
    assert [back(x) for x in box.box] == pytest.approx(quartiles, abs=1e-3)
    assert [back(x) for x in box.whiskers] == pytest.approx([0.5, 0.6], abs=1e-3)
    assert [c for _, c in box.outliers] == [7]
    assert sorted(["10", "9", "myocardium", "1"], key=label_order) == ["1", "9", "10", "myocardium"]


def test_fronts_are_drawn_against_time_and_roughness(board: Board) -> None:
    against_time, rough = fronts(board)
    assert {m.name for m in rough.marks if m.front} >= {"affine+demons"}
    assert not any(m.front for m in rough.marks if m.role)
    # Doing nothing takes no time worth a place on the axis: it is a height.
    assert "identity" not in {m.name for m in against_time.marks}
    assert against_time.levels[0][1:] == ("floor", "identity")
    faster = sorted(against_time.marks, key=lambda m: m.x)
    walls = {e.name: e.wall_s or 0.0 for e in board.entries}
    assert [m.name for m in faster] == sorted((m.name for m in faster), key=lambda n: walls[n])


def test_a_sweep_is_one_curve_in_order_of_its_values(tmp_path: Path) -> None:
    rows = []
    for name, dice, rough in (("m@10", 0.6, 0.1), ("m@1", 0.8, 0.2), ("m@3", 0.75, 0.15), ("other@x", 0.5, 0.3)):
        values = [value("dice", dice), value("sdlogj", rough)]
        rows += [row(name, f"p{i}", values, wall_s=rough) for i in range(3)]
    for front in fronts(board_of(tmp_path, rows)):
        places = {m.name: f"{m.x},{m.y}" for m in front.marks}
        assert front.traces == (("m", f"M{places['m@1']}L{places['m@3']}L{places['m@10']}"),)


def test_names_in_a_front_never_cover_each_other() -> None:
    rng = np.random.default_rng(1)
    points = [(float(x), float(y)) for x, y in zip(rng.uniform(80, 520, 30), rng.uniform(30, 320, 30), strict=True)]
    names = [f"method-{i}" for i in range(30)]
    placed = place_labels(points, names, [i < 3 for i in range(30)])
    boxes = []
    for spot, name in zip(placed, names, strict=True):
        if spot is not None:
            width = 6.1 * len(name)
            left = spot[0] - {"start": 0.0, "middle": width / 2, "end": width}[spot[2]]
            boxes.append((left, spot[1] - 10, left + width, spot[1] + 2))
    assert len(boxes) > 15
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] + 0.2 or b[2] <= a[0] + 0.2 or a[3] <= b[1] + 0.2 or b[3] <= a[1] + 0.2


def test_the_map_says_who_is_better(board: Board) -> None:
    heat = heat_map(board)
    assert heat is not None
    at = {name: i for i, name in enumerate(heat.names)}
    cell = heat.cells[at["affine+demons"]][at["identity"]]
    back = heat.cells[at["identity"]][at["affine+demons"]]
    assert cell is not None
    assert back is not None
    assert cell.kind == back.kind.replace("loss", "win") == "win2"
    assert "mean better by" in cell.words
    assert "mean worse by" in back.words
    assert heat.tests == 5 * 4


def test_firm_ranks_lead_in_every_draw(board: Board) -> None:
    plot = firmness(board)
    assert plot is not None
    by_name = {r.name: r for r in plot.ranks}
    found = board.ranking
    assert found is not None
    order = sorted((rank, name) for rank, name in zip(found.rank, found.names, strict=True) if rank)
    assert [r.name for r in plot.ranks] == [name for _, name in order]
    for i, name in enumerate(found.names):
        if name in by_name:
            share = round(100 * found.first[i])
            assert by_name[name].first == (f"{share} %" if share else "")
            assert by_name[name].interval[0] <= by_name[name].place <= by_name[name].interval[1]
            assert (by_name[name].interval[0] == by_name[name].interval[1]) == (found.low[i] == found.high[i])


def test_a_method_that_does_nothing_does_not_pass_the_gate(tmp_path: Path) -> None:
    good = {f"p{i}": 0.8 + 0.001 * i for i in range(12)}
    idle = {f"p{i}": 0.5 + 0.001 * i for i in range(12)}
    rows = dice_rows("good", good) + dice_rows("idle", idle) + dice_rows("identity", idle)
    board = board_of(tmp_path, rows)
    plot = firmness(board)
    assert plot is not None
    assert plot.gated
    assert {r.name: r.passed for r in plot.ranks} == {"good": True, "idle": False}
    (column,) = (c for c in columns(board) if c.title == "ranks 95 %")
    texts = dict(zip((e.name for e in board.entries), column.texts, strict=True))
    assert texts == {"good": "1", "idle": "2 *", "identity": "–"}


def test_three_subjects_cannot_tell_who_passes_the_gate(tmp_path: Path) -> None:
    scores = {"good": 0.8, "idle": 0.5, "identity": 0.5}
    rows = [r for name, s in scores.items() for r in dice_rows(name, {f"p{i}": s + 0.01 * i for i in range(3)})]
    plot = firmness(board_of(tmp_path, rows))
    assert plot is not None
    assert all(r.passed for r in plot.ranks)


def test_one_subject_cannot_be_tested(tmp_path: Path) -> None:
    rows = dice_rows("a", {"p/1": 0.5, "p/2": 0.6}) + dice_rows("b", {"p/1": 0.6, "p/2": 0.7})
    board = board_of(tmp_path, rows)
    assert heat_map(board) is None
    assert firmness(board) is None


def test_pages_that_stand_alone_show_what_fits(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(tmp_path / "run")
    size = (tmp_path / "run" / "panels" / "dem0.webp").stat().st_size
    for room, expected in ((1000, 5), (5 * 5, 3), (1, 1)):
        monkeypatch.setattr("reg_bench.report_pictures.MOST_BYTES", room * size)
        assert worst_shown([board], tmp_path / "run") == expected


def test_median_and_worst_five_with_failures_first(board: Board, tmp_path: Path) -> None:
    for name in {p for e in board.entries for p in e.panels.values()}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    by_name = {e.name: cases for e, cases in chosen_cases(board, Pictures(tmp_path))}
    cases = by_name["bspline"]
    assert [c.what for c in cases] == [
        "median case",
        "worst case",
        *(f"{n} worst case" for n in ("2nd", "3rd", "4th", "5th")),
    ]
    assert cases[1].reason == "RuntimeError: <b>diverged</b>"
    assert cases[1].source == ""
    entry = next(e for e in board.entries if e.name == "bspline")
    order = np.argsort(entry.values, kind="stable")
    assert [c.case for c in cases[1:]] == order[:5].tolist()
    assert cases[0].case == order[len(order) // 2]
    assert [len(c) for _, c in chosen_cases(board, Pictures(tmp_path), 1)] == [2] * len(by_name)
    # A picture that is not there is not linked.
    assert not chosen_cases(board, Pictures(tmp_path / "elsewhere"))

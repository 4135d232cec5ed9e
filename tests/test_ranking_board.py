"""Rankings of boards: equal to the table where they must be, the challenge's instances, and `reg-bench rank`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reg_bench import cli, leaderboard_rows
from reg_bench.leaderboard import Board, tables
from reg_bench.ranking_board import rank_board
from reg_bench.ranking_challenge import rank_as_challenge
from reg_bench.ranking_learn2reg import Quirks
from tests.report_rows import row, value, write

CASES = [f"p{i:02d}" for i in range(12)]
DIFFICULTY = np.linspace(0, 0.3, len(CASES))
GAIN = {"identity": 0.0, "a": 0.3, "b": 0.2, "c": 0.19, "worse": -0.1}


def rows_of(profile: str = "strict") -> list[dict[str, Any]]:
    """Dice of two labels, folds; `failing` fails on one case, `smooth` is like c but folds less."""
    made = []
    for method, gain in {**GAIN, "failing": 0.25, "smooth": 0.19}.items():
        for i, case in enumerate(CASES):
            if method == "failing" and i == 0:
                made.append(row(method, case, status="failed", reason="RuntimeError: diverged"))
                continue
            dice = 0.6 - DIFFICULTY[i] + gain + 0.001 * ((i * 7) % 5)
            rough = {"identity": 0.0, "smooth": 0.1}.get(method, 0.2 + 0.001 * i)
            values = [value("dice", dice, profile=profile), value("sdlogj", rough, profile=profile)]
            labels = ((dice - 0.05, "1"), (dice + 0.05, "2"), (None, "3"))
            values += [value("dice", number, profile=profile, label=label) for number, label in labels]
            made.append(row(method, case, values, wall_s=0.001 if method == "identity" else 1.0 + gain))
    return made


def board(rows: list[dict[str, Any]]) -> Board:
    return tables(leaderboard_rows.from_rows(rows), {})[0]


def test_ranks_are_those_of_the_table_but_for_the_gate() -> None:
    made = board(rows_of())
    found = rank_board(made, draws=200)
    assert found is not None
    ranks = dict(zip(found.names, found.rank.tolist(), strict=True))
    table = {e.name: e.rank or 0 for e in made.entries}
    # `worse` is last in the table as well: its mean is below that of no motion.
    assert ranks == table
    assert ranks["a"] == 1
    assert ranks["identity"] == 0
    passed = dict(zip(found.names, found.passed.tolist(), strict=True))
    assert not passed["worse"]
    assert all(passed[name] for name in ("a", "b", "c"))


def test_a_failed_case_costs_places() -> None:
    """Without the failure it would be second; with a Dice of 0 on one of twelve cases it is behind b and c."""
    found = rank_board(board(rows_of()), draws=0)
    assert found is not None
    assert found.names[:5] == ("a", "b", "failing", "c", "smooth") or found.names[:2] == ("a", "b")
    ranks = dict(zip(found.names, found.rank.tolist(), strict=True))
    assert ranks["failing"] > ranks["b"]


def test_weights() -> None:
    made = board(rows_of())
    found = rank_board(made, {"dice": 1, "sdlogj": 3}, draws=0)
    assert found is not None
    assert found.names[int(np.flatnonzero(found.rank == 1)[0])] == "smooth"
    with pytest.raises(ValueError, match="no metric 'ncc', expected one of dice, sdlogj"):
        rank_board(made, {"ncc": 1})
    assert rank_board(board([r for r in rows_of() if r["key"]["method"] == "identity"])) is None


def test_the_challenge_ranks_instances() -> None:
    """Three labels of twelve cases, one of them nowhere: it counts as 0, so it fills the hardest instances."""
    made = board(rows_of("learn2reg"))
    table = rank_as_challenge(made)
    assert table is not None
    assert list(table.means) == ["DSC", "DSC30", "SDlogJ", "time"]
    i, identity = table.names.index("a"), table.names.index("identity")
    dice = 0.6 - DIFFICULTY + 0.3 + 0.001 * ((np.arange(12) * 7) % 5)
    # round(0.3 * 36) = 11 of the 12 missing instances are the hardest.
    assert table.means["DSC"][i] == pytest.approx(dice.mean() * 2 / 3)
    assert table.means["DSC30"][i] == 0
    # "Initial" gets 5 and 5000 s, though it is perfectly smooth and costs nothing.
    assert (table.means["SDlogJ"][identity], table.means["time"][identity]) == (5, 5000)
    measured = rank_as_challenge(made, Quirks(initial="measured"), time=False)
    assert measured is not None
    assert list(measured.means) == ["DSC", "DSC30", "SDlogJ"]
    assert measured.means["SDlogJ"][identity] == 0
    assert measured.ranking.scores["SDlogJ"][identity] == 1.0


def test_the_challenge_ranks_points() -> None:
    rows = []
    for method, error in (("identity", 9.0), ("a", 2.0), ("b", 4.0)):
        for i, case in enumerate(CASES):
            points = [value("tre_landmarks", error + i + p, label=str(p), profile="learn2reg") for p in range(10)]
            mean = value("tre_landmarks", error + i + 4.5, profile="learn2reg")
            rows.append(row(method, case, [mean, *points, value("sdlogj", 0.1, profile="learn2reg")]))
    table = rank_as_challenge(board(rows), rows=rows)
    assert table is not None
    assert list(table.means) == ["TRE", "TRE30", "SDlogJ", "time"]
    i = table.names.index("a")
    assert table.means["TRE"][i] == pytest.approx(2 + 5.5 + 4.5)
    # In each case the three points that were farthest apart.
    assert table.means["TRE30"][i] == pytest.approx(2 + 5.5 + 8)
    easy = rank_as_challenge(board(rows), Quirks(hardest="easy"), rows=rows)
    assert easy is not None
    assert easy.means["TRE30"][i] == pytest.approx(2 + 5.5 + 1)
    # Without single points the cases stand for them: round(0.3 * 12) = 4 of them.
    cases = rank_as_challenge(board(rows))
    assert cases is not None
    assert cases.means["TRE30"][i] == pytest.approx(2 + 9.5 + 4.5)
    # TRE counts twice in the geometric mean.
    scores = table.ranking.scores
    product = scores["TRE"][i] ** 2 * scores["TRE30"][i] * scores["SDlogJ"][i] * scores["time"][i]
    assert table.ranking.score[i] == pytest.approx(product**0.2)


def test_rank_command(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path, rows_of())
    assert cli.main(["rank", str(tmp_path), "--draws", "50"]) == 0
    told = capsys.readouterr().out
    assert " 1 a " in told
    assert "stability" in told
    content = json.loads((tmp_path / "ranking.json").read_text())
    (entry,) = content["boards"]
    assert entry["methods"]["a"]["rank"] == 1
    assert entry["methods"]["a"]["low"] <= 1 <= entry["methods"]["a"]["high"]
    assert entry["draws"] == 50
    assert cli.main(["rank", str(tmp_path), "--as", "challenge", "--profile", "strict", "--test", "signed-rank"]) == 0
    content = json.loads((tmp_path / "ranking.json").read_text())
    assert content["boards"][0]["quirks"]["test"] == "signed-rank"
    assert content["boards"][0]["methods"]["a"]["scores"]["DSC"] == 1
    for words, message in (
        (["--task", "x"], "no task 'x' in this run, expected one of t"),
        (["--weights", "ncc=1"], "no metric 'ncc'"),
        (["--weights", "dice=much"], "expected metric=share"),
        (["--draws", "-1"], "must not be negative"),
    ):
        assert cli.main(["rank", str(tmp_path), *words]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["rank", str(tmp_path / "absent")]) == 2

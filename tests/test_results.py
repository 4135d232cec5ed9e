"""Rows: nothing finished is lost, nothing torn is believed, and the fast reader says what the plain one says."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from reg_bench.results import CaseKey, CaseResult, RowWriter, read_frame, read_rows, row_files, state


def _key(case: str = "c1", **changes: Any) -> CaseKey:
    key = CaseKey("suite", "1", "task", "data", "sum", "method", "1", "hash", None, 0, case)
    return dataclasses.replace(key, **changes)


def _value(value: float | None, label: str = "all", **changes: Any) -> dict[str, Any]:
    base = {"metric": "dice", "profile": "strict", "label": label, "frame": None, "horizon_s": None, "unit": "1"}
    return {**base, "value": value, **changes}


def test_result_comes_back_as_written(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows.rank0.jsonl")
    result = CaseResult(
        _key(), "ok", values=(_value(0.5), _value(1.0, "2", frame=3)), wall_s=1.5, threads=1, panel="p.webp"
    )
    writer.started(result.key)
    writer.result(result)
    (row,) = read_rows(tmp_path)
    assert CaseKey.from_row(row) == result.key
    expected = json.loads(json.dumps(dataclasses.asdict(result)))
    assert {k: row[k] for k in expected} == expected


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    values = tuple(_value(v) for v in (math.nan, math.inf, -math.inf, 0.0))
    RowWriter(tmp_path / "rows.rank0.jsonl").result(CaseResult(_key(), "ok", values=values, wall_s=math.nan))
    (row,) = read_rows(tmp_path)
    assert [v["value"] for v in row["values"]] == [None, None, None, 0.0]
    assert row["wall_s"] is None


def test_a_line_is_in_the_file_when_the_call_returns(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows.rank0.jsonl")
    writer.started(_key())
    assert state(tmp_path).unfinished == {_key(): 1}
    writer.result(CaseResult(_key(), "ok"))
    assert state(tmp_path).unfinished == {}


def test_file_cut_at_any_byte_keeps_every_whole_line_and_can_be_written_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.rank0.jsonl"
    writer = RowWriter(path)
    for case in ("c1", "c2"):
        writer.started(_key(case))
        writer.result(CaseResult(_key(case), "ok", values=(_value(0.5),)))
    writer.close()
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        results = sum(e <= cut + 1 for e in (ends[1], ends[3]))
        lines = len(read_rows(tmp_path))
        # A line that lacks only its end of line is whole as JSON: believing it or not are both right.
        assert results - 1 <= lines <= results
        RowWriter(path).result(CaseResult(_key("c9"), "ok"))
        assert path.read_bytes().startswith(whole[: max([0, *(e for e in ends if e <= cut)])])
        assert "c9" in {r["key"]["case"] for r in read_rows(tmp_path)}
        assert "c9" in read_frame(tmp_path)["case"].to_list()


def test_torn_and_foreign_lines_in_the_middle_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.rank0.jsonl"
    RowWriter(path).result(CaseResult(_key("c1"), "ok", values=(_value(0.25),)))
    torn = b'{"event":"result","key":{"suite":"s"}\n{"a":1}\nnot json at all\n\xff\xfe\n[1]\n'
    path.write_bytes(path.read_bytes() + torn)
    RowWriter(path).result(CaseResult(_key("c2"), "failed", "why"))
    assert [r["key"]["case"] for r in read_rows(tmp_path)] == ["c1", "c2"]
    assert read_frame(tmp_path)["case"].to_list() == ["c1", "c2"]
    assert len(state(tmp_path).results) == 2


def test_last_result_of_a_key_counts_across_files(tmp_path: Path) -> None:
    second = RowWriter(tmp_path / "rows.rank1.jsonl")
    first = RowWriter(tmp_path / "rows.rank0.jsonl")
    second.result(CaseResult(_key(), "failed", "old"))
    first.result(CaseResult(_key(), "ok", values=(_value(1.0),)))
    first.result(CaseResult(_key(seed=1), "ok"))
    assert len(row_files(tmp_path)) == 2
    assert [r["status"] for r in read_rows(tmp_path)] == ["ok", "ok"]
    assert read_frame(tmp_path).select("seed", "status", "value").rows() == [(0, "ok", 1.0), (1, "ok", None)]


def test_starts_without_an_end_are_counted_and_interruptions_forgiven(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows.rank0.jsonl")
    other = RowWriter(tmp_path / "rows.supervisor.jsonl")
    for _ in range(2):
        writer.started(_key("crashes"))
        writer.started(_key("stopped"))
        other.interrupted(_key("stopped"))
    writer.started(_key("done"))
    writer.result(CaseResult(_key("done"), "ok"))
    other.interrupted(_key("done"))
    found = state(tmp_path)
    assert found.unfinished == {_key("crashes"): 2}
    assert set(found.results) == {_key("done")}


def test_frame_says_what_the_rows_say(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows.rank0.jsonl")
    for i in range(20):
        values = tuple(_value(i / (j + 1), str(j), horizon_s=0.2 if j else None) for j in range(i % 4))
        status = "ok" if i % 3 else "failed"
        writer.started(_key(f"c{i:02d}"))
        writer.result(CaseResult(_key(f"c{i:02d}"), status, values=values, wall_s=i / 7, cpu_s=i))
    plain = [
        (r["key"]["case"], r["status"], r["wall_s"], r["cpu_s"], v.get("label"), v.get("horizon_s"), v.get("value"))
        for r in sorted(read_rows(tmp_path), key=lambda r: r["key"]["case"])
        for v in (r["values"] or [{}])
    ]
    frame = read_frame(tmp_path)
    columns = ["case", "status", "wall_s", "cpu_s", "label", "horizon_s", "value"]
    assert frame.select(columns).rows() == plain
    assert frame.schema["value"].is_float()
    assert frame.schema["frame"].is_integer()


def test_empty_folder_has_the_columns_and_no_rows(tmp_path: Path) -> None:
    frame = read_frame(tmp_path)
    assert frame.height == 0
    assert {"suite", "case", "status", "metric", "value"} <= set(frame.columns)
    assert read_rows(tmp_path) == []


def test_digest_tells_keys_apart() -> None:
    keys = [_key(), _key("c2"), _key(seed=1), _key(condition="x"), _key(checkpoint="x"), _key(config_hash="x")]
    assert len({k.digest() for k in keys}) == len(keys)
    assert _key().digest() == _key().digest()


@pytest.mark.parametrize("size", [65536, 65537, 200_000])
def test_long_torn_tail_is_cut_off(tmp_path: Path, size: int) -> None:
    path = tmp_path / "rows.rank0.jsonl"
    RowWriter(path).started(_key())
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * size)
    RowWriter(path)
    assert path.read_bytes() == whole

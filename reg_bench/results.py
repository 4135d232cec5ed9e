"""The rows: one JSON line per event, appended by each process to a file of its own, never rewritten.

Everything else (tables, pages) is derived from them. Events are `started`, `result` and `interrupted` (the work
was stopped on purpose, so it does not count as a crash). A torn line, as a `kill -9` leaves it, is ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl

Status = Literal["ok", "skipped", "failed"]


@dataclass(frozen=True)
class CaseKey:
    """What a result belongs to. Results with different keys are never mixed.

    Attributes:
        config_hash: of the method's class path and all its settings, defaults included.
        checkpoint: checksum of the weights, `None` where there are none.
        case: identifier of the case, `*` where the cases of a task could not even be listed.
        condition: such as dropped frames, `None` for the plain task.
    """

    suite: str
    suite_version: str
    task: str
    dataset: str
    dataset_checksum: str
    method: str
    method_version: str
    config_hash: str
    checkpoint: str | None
    seed: int
    case: str
    condition: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> CaseKey:
        """The key of a parsed line."""
        return cls(**{name: row["key"].get(name) for name in KEY_FIELDS})

    def digest(self) -> str:
        """A short name for files that belong to the key."""
        text = json.dumps([getattr(self, name) for name in KEY_FIELDS])
        return hashlib.sha256(text.encode()).hexdigest()[:20]


KEY_FIELDS = tuple(f.name for f in fields(CaseKey))


@dataclass(frozen=True)
class CaseResult:
    """The outcome of one case.

    Attributes:
        values: dicts of `metric, profile, label, frame, horizon_s, value, unit`; `value` is a number or `None`.
        wall_s, cpu_s: of `register` alone; `None` where it did not finish.
        load_s, score_s: of loading and of scoring the case.
        peak_mb: peak resident (CPU) or allocated (GPU) memory during `register` above what was held before.
        timing: `exclusive` when no other process of the run was timing at the same moment.
        panel: picture of the case, relative to the run folder.
    """

    key: CaseKey
    status: Status
    reason: str | None = None
    values: tuple[Mapping[str, Any], ...] = ()
    wall_s: float | None = None
    cpu_s: float | None = None
    load_s: float | None = None
    score_s: float | None = None
    peak_mb: float | None = None
    timing: Literal["exclusive", "shared"] | None = None
    threads: int | None = None
    device: str | None = None
    panel: str | None = None


def value_entry(
    metric: str,
    value: float | None,
    unit: str,
    *,
    profile: str = "strict",
    label: str = "all",
    frame: int | None = None,
    horizon_s: float | None = None,
) -> dict[str, Any]:
    """One entry of `CaseResult.values`."""
    head = {"metric": metric, "profile": profile, "label": label, "frame": frame, "horizon_s": horizon_s}
    return {**head, "value": value, "unit": unit}


class RowWriter:
    """Appends events to one file. A line is on its way to the disk when the call returns.

    A tail without end of line, left by a killed process, is cut off first: the next line stays readable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        _cut_torn_tail(self._descriptor)

    def started(self, key: CaseKey) -> None:
        """The work on `key` begins."""
        self._write({"event": "started", "key": asdict(key), "time": now()})

    def interrupted(self, key: CaseKey) -> None:
        """The work on `key` was stopped on purpose; its start does not count as a crash."""
        self._write({"event": "interrupted", "key": asdict(key), "time": now()})

    def result(self, result: CaseResult) -> None:
        """The work on `result.key` is done; survives a loss of power."""
        self._write({"event": "result", **asdict(result), "time": now()})
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, event: Mapping[str, Any]) -> None:
        line = json.dumps(_finite(event), allow_nan=False, separators=(",", ":")) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self._descriptor, data) :]


def _cut_torn_tail(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        begin = max(0, end - 65536)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end < size:
        os.ftruncate(descriptor, end)


def _finite(value: Any) -> Any:
    """`value` for JSON: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def now() -> str:
    """The time as ISO 8601 UTC with microseconds; strings compare as times do."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="microseconds")


def row_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of rows in a run folder, in order of name."""
    return sorted(Path(folder).glob("rows*.jsonl"))


def read_events(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """All readable events of a run folder in order of time; torn or foreign lines are left out."""
    events = []
    for path in row_files(folder):
        for line in path.read_bytes().splitlines():
            event = _parsed(line)
            if event is not None:
                events.append(event)
    events.sort(key=lambda e: str(e["time"]))
    yield from events


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(event, dict) and {"event", "key", "time"} <= event.keys() and isinstance(event["key"], dict)
    return event if whole else None


def read_rows(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The results of a run folder as dicts; of several with one key the last one by time."""
    last: dict[CaseKey, dict[str, Any]] = {}
    for event in read_events(folder):
        if event["event"] == "result":
            last[CaseKey.from_row(event)] = event
    return list(last.values())


@dataclass(frozen=True)
class RunState:
    """What a run folder holds: the last result per key, and how often work began since then without an end."""

    results: Mapping[CaseKey, Mapping[str, Any]]
    unfinished: Mapping[CaseKey, int]


def state(folder: str | os.PathLike[str]) -> RunState:
    """What is finished and what was begun in a run folder."""
    results: dict[CaseKey, Mapping[str, Any]] = {}
    unfinished: dict[CaseKey, int] = {}
    for event in read_events(folder):
        key = CaseKey.from_row(event)
        if event["event"] == "result":
            results[key] = event
            unfinished.pop(key, None)
        elif event["event"] == "started":
            unfinished[key] = unfinished.get(key, 0) + 1
        elif event["event"] == "interrupted" and key in unfinished:
            unfinished[key] -= 1
            if not unfinished[key]:
                del unfinished[key]
    return RunState(results, unfinished)


def read_frame(folder: str | os.PathLike[str]) -> pl.DataFrame:
    """The results of a run folder, one line per value, last result per key, in order of the key.

    Columns: those of the key, `status, reason, wall_s, cpu_s, load_s, score_s, peak_mb, timing, threads,
    device, panel, time`, and `metric, profile, label, frame, horizon_s, value, unit`, which are null in the
    single line of a result without values.
    """
    import polars as pl

    columns = [pl.col("key").struct.field(name) for name in KEY_FIELDS]
    rest = [n for n in _row_schema() if n not in ("event", "key", "values")]
    frame = (
        _result_lines(folder)
        .filter(pl.col("event") == "result")
        .select(*columns, *rest, "values")
        .sort("time", maintain_order=True)
        .unique(subset=list(KEY_FIELDS), keep="last", maintain_order=True)
        .sort(list(KEY_FIELDS), nulls_last=True)
    )
    return frame.explode("values", empty_as_null=True, keep_nulls=True).unnest("values")


def _row_schema() -> dict[str, Any]:
    import polars as pl

    text, number, whole = pl.String, pl.Float64, pl.Int64
    key: dict[str, Any] = dict.fromkeys(KEY_FIELDS, text) | {"seed": whole}
    value: dict[str, Any] = {
        "metric": text,
        "profile": text,
        "label": text,
        "frame": whole,
        "horizon_s": number,
        "value": number,
        "unit": text,
    }
    return {
        "event": text,
        "key": pl.Struct(key),
        "status": text,
        "reason": text,
        "values": pl.List(pl.Struct(value)),
        **dict.fromkeys(("wall_s", "cpu_s", "load_s", "score_s", "peak_mb"), number),
        "timing": text,
        "threads": whole,
        "device": text,
        "panel": text,
        "time": text,
    }


def _result_lines(folder: str | os.PathLike[str]) -> pl.DataFrame:
    """Every result of the folder, parsed at once; only where that fails are the lines checked one by one."""
    import polars as pl

    schema = _row_schema()
    frames = [pl.DataFrame(schema=schema)]
    for path in row_files(folder):
        # Other events are two in three lines; looking at the first bytes spares parsing them.
        lines = [x for x in path.read_bytes().split(b"\n") if b'result"' in x[:30] and x.endswith(b"}")]
        try:
            frames.append(pl.read_ndjson(b"\n".join(lines), schema=schema) if lines else frames[0])
        except pl.exceptions.PolarsError:
            lines = [x for x in lines if _parsed(x) is not None]
            frames.append(pl.read_ndjson(b"\n".join(lines), schema=schema) if lines else frames[0])
    return pl.concat(frames)

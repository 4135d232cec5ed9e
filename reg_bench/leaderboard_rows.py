"""Reads the rows of a run for the tables: what they need of each result, quickly and in a fixed order.

`results.read_frame` gives everything as a polars frame for analysis; here a hundred thousand rows are reduced
while they are parsed, without a data frame and without torch.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from math import nan
from typing import Any

from reg_bench.results import KEY_FIELDS, row_files


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What a value is: of a case (label `all`) or of one of its labels, as it stands or foretold over `horizon_s`.
    Shared by the rows of a file, and compared by identity, which is what makes a million of them quick to sort."""

    profile: str
    metric: str
    unit: str
    frame: int
    label: str = "all"
    horizon_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What the tables use of one result row: `key` in the order of `results.KEY_FIELDS`, all as text; `values` with
    NaN for null."""

    key: tuple[str, ...]
    time: str
    status: str
    reason: str
    values: tuple[tuple[Kind, float], ...]
    wall_s: float | None
    cpu_s: float | None
    peak_mb: float | None
    timing: str
    threads: str
    device: str
    panel: str

    @property
    def case(self) -> str:
        return self.key[_CASE]


#: Metrics whose values of single labels are shown: there may be hundreds of landmarks.
LABEL_METRICS = frozenset({"dice", "hd95"})

_MOST_LAYOUTS = 20_000
_CASE = KEY_FIELDS.index("case")


def read(folder: str | os.PathLike[str]) -> list[Result]:
    """The results in all row files of `folder`, the last one per key, sorted by key.

    The same rows in another order or split over other files give the same list. Torn and foreign lines are
    left out.
    """
    return _last_results(_parsed_lines(folder))


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Result]:
    """The same from rows as `results.read_rows` gives them."""
    parse = _LineParser()
    return _last_results(parse(json.dumps(row).encode()) for row in rows)


def _last_results(rows: Iterable[Mapping[str, Any]]) -> list[Result]:
    last: dict[tuple[str, ...], Result] = {}
    for row in rows:
        if row["event"] != "result":
            continue
        result = _result(row)
        known = last.get(result.key)
        if known is None or (known.time, repr(known)) < (result.time, repr(result)):
            last[result.key] = result
    return [last[key] for key in sorted(last)]


def _parsed_lines(folder: str | os.PathLike[str]) -> Iterator[Mapping[str, Any]]:
    parse = _LineParser()
    for path in row_files(folder):
        with path.open("rb") as lines:
            for line in lines:
                # Half of the lines say only that work began: not worth parsing.
                if b'"started"' in line[:24]:
                    continue
                row = parse(line)
                if isinstance(row, dict) and {"event", "key"} <= row.keys() and isinstance(row["key"], dict):
                    yield row


class _LineParser:
    """JSON lines whose `values` repeat the same few objects, but for the number in them.

    Most of a row is its list of values. It is cut around the numbers; what remains is parsed once and remembered,
    which takes a fifth of the time of parsing all. A line that cannot be cut so is parsed whole.
    """

    def __init__(self) -> None:
        self._decode = json.JSONDecoder().decode
        self._kinds: dict[tuple[Any, ...], Kind] = {}
        self._layouts: dict[str, list[tuple[int, Kind]]] = {}

    def __call__(self, line: bytes) -> Any:
        try:
            text = line.decode()
            head, _, rest = text.partition('"values":')
            body, closed, tail = rest.partition("]")
            if closed and body.lstrip()[:1] == "[":
                try:
                    values = self._values(body)
                    row = self._decode(head + '"values":null' + tail)
                except (ValueError, KeyError, TypeError):
                    pass
                else:
                    return {**row, "values": values}
            row = self._decode(text)
            if isinstance(row, dict):
                row["values"] = [(kind, v["value"]) for v in row.get("values") or () if (kind := _kind(v)) is not None]
            return row
        except (ValueError, KeyError, TypeError):
            return None

    def _values(self, body: str) -> list[tuple[Kind, float]]:
        """Cuts `body` at every number; the text between the numbers is the same for thousands of rows."""
        first, *pieces = body.split('"value":')
        numbers, between = [], [first]
        for piece in pieces:
            number, comma, rest = piece.partition(",")
            if not comma or "}" in number:
                raise ValueError("a number that is not followed by the unit")
            numbers.append(number)
            between.append(rest)
        key = "\n".join(between)
        wanted = self._layouts.get(key)
        if wanted is None:
            if len(self._layouts) > _MOST_LAYOUTS:
                self._layouts.clear()
            wanted = self._layouts[key] = self._layout(between)
        return [(kind, nan if (number := numbers[i].strip()) == "null" else float(number)) for i, kind in wanted]

    def _layout(self, between: list[str]) -> list[tuple[int, Kind]]:
        """Which of the numbers are wanted, and what they are."""
        objects = self._decode('"value":null,'.join(between) + "]")
        if len(objects) != len(between) - 1:
            raise ValueError("not one number per object")
        kinds = [_kind(item) for item in objects]
        shared = [k and self._kinds.setdefault(astuple(k), k) for k in kinds]
        return [(i, kind) for i, kind in enumerate(shared) if kind is not None]


def _kind(value: Mapping[str, Any]) -> Kind | None:
    """What a parsed value is, or None for what the tables do not use: single labels but for overlap and Hausdorff
    distance as they stand."""
    label, metric, horizon_s = str(value["label"]), str(value["metric"]), float(value.get("horizon_s") or 0.0)
    if label != "all" and (metric not in LABEL_METRICS or horizon_s):
        return None
    frame = int(value.get("frame") or 0)
    return Kind(str(value["profile"]), metric, value.get("unit") or "", frame, label, horizon_s)


def _result(row: Mapping[str, Any]) -> Result:
    key, get = row["key"], row.get
    return Result(
        key=tuple([_text(key.get(name)) for name in KEY_FIELDS]),
        time=_text(get("time")),
        status=_text(get("status")),
        reason=_text(get("reason")),
        values=tuple(get("values") or ()),
        wall_s=get("wall_s"),
        cpu_s=get("cpu_s"),
        peak_mb=get("peak_mb"),
        timing=_text(get("timing")),
        threads=_text(get("threads")),
        device=_text(get("device")),
        panel=_text(get("panel")),
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


@contextmanager
def no_collection() -> Iterator[None]:
    """Without the cyclic garbage collector, which would walk millions of small objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

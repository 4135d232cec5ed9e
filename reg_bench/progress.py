"""Shows how far a run is: a bar with method, case and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import IO, Any

_LINE_EVERY_S = 5.0
_Part = tuple[str, str]


class TimeLeft:
    """Estimates what remains from what each method took on each task so far."""

    def __init__(self) -> None:
        self.missing: Counter[_Part] = Counter()
        self._seconds: defaultdict[_Part, float] = defaultdict(float)
        self._done: Counter[_Part] = Counter()

    def add(self, part: _Part, seconds: float) -> None:
        """One case of `part` (task, method) is done."""
        self.missing[part] -= 1
        self._seconds[part] += seconds
        self._done[part] += 1

    def seconds(self, processes: int) -> float | None:
        """Expected seconds until the end; methods not seen yet count as the mean of those seen."""
        done = sum(self._done.values())
        if not done:
            return None
        mean = sum(self._seconds.values()) / done
        left = sum(
            n * (self._seconds[part] / self._done[part] if self._done[part] else mean)
            for part, n in self.missing.items()
            if n > 0
        )
        return left / processes


def clock_text(seconds: float | None) -> str:
    """`1:02:03`, `2:03`, or dashes where unknown."""
    if seconds is None:
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Progress:
    """Listens to the processes of a run and shows what they do on `stream`."""

    def __init__(self, processes: int, stream: IO[str] | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._processes = processes
        self._left = TimeLeft()
        self._total = self._finished = self._failed = 0
        self._begun: dict[int, float] = {}
        self._last_line = 0.0
        self._bar: Any = None
        self._terminal = self._stream.isatty()

    def __enter__(self) -> Progress:
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]} left  {task.description}"))
            self._bar = Bar(*columns, console=Console(file=self._stream), transient=True)
            self._bar.start()
            self._bar_task = self._bar.add_task("starting", total=None, left="-:--")
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, rank: int, event: Mapping[str, Any]) -> None:
        """Shows one event of one process."""
        if event["event"] == "plan":
            self._plan(event)
        elif event["event"] == "started":
            self._begun[rank] = time.monotonic()
            self._show(f"{event['task']}: {event['method']}, {event['case']}")
        elif event["event"] == "done":
            self._done(rank, event)

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def _plan(self, event: Mapping[str, Any]) -> None:
        first = self._total == 0
        self._left.missing = Counter({(task, method): n for task, method, n in event["missing"]})
        self._finished = event["done"]
        self._total = self._finished + sum(self._left.missing.values())
        if first:
            already = f", {self._finished} done before" if self._finished else ""
            self.note(f"{self._total} results to make{already}")
        if first and event["foreign"]:
            self.note(
                f"{event['foreign']} results in this folder belong to other versions, settings or data: left alone"
            )

    def _done(self, rank: int, event: Mapping[str, Any]) -> None:
        seconds = time.monotonic() - self._begun.pop(rank, time.monotonic())
        self._left.add((event["task"], event["method"]), seconds)
        self._finished += 1
        self._failed += event["status"] == "failed"
        if self._finished == self._total:
            self._show("finishing", always=True)

    def _show(self, text: str, always: bool = False) -> None:
        left = clock_text(self._left.seconds(self._processes))
        failed = f", {self._failed} failed" if self._failed else ""
        if self._bar is not None:
            self._bar.update(
                self._bar_task, total=self._total, completed=self._finished, left=left, description=text + failed
            )
        elif always or time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.note(f"{self._finished}/{self._total}, {left} left{failed}: {text}")

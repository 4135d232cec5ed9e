"""Measures one call: wall and CPU seconds, peak memory, never two at a time in a run, never past its limit."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Generic, TypeVar

import torch

from reg_bench import processes

T = TypeVar("T")


class TimeLimitExceeded(BaseException):
    """The call ran past its limit. Not an `Exception`: a method's own `except Exception` must not swallow it."""


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What a call returned and what it took; see `CaseResult` for the units."""

    value: T
    wall_s: float
    cpu_s: float
    peak_mb: float | None


def measure(call: Callable[[], T], device: torch.device) -> Measured[T]:
    """Runs `call` once between two synchronisations of `device`.

    CPU seconds are those of all threads of this process, of child processes that ended meanwhile and, on Linux, of
    the descendants that are alive, such as the interpreter of a peer. On a CPU the peak memory of those that live to
    the end is added to this process' own; where the two do not coincide in time the sum is above the true peak.
    """
    base, below = _reset_peak(device), processes.reset_peaks()
    _synchronise(device)
    # The look at other processes takes milliseconds: outside both clocks of this one.
    cpu_below, cpu, wall = processes.cpu_seconds(), _cpu_seconds(), time.perf_counter()
    value = call()
    _synchronise(device)
    wall, cpu, cpu_below = time.perf_counter() - wall, _cpu_seconds() - cpu, processes.cpu_seconds() - cpu_below
    peak = _peak_above(base, device)
    if peak is not None and device.type != "cuda":
        peak += processes.peaks_above(below) / 1e6
    # A grandchild that ended without being waited for takes its seconds with it.
    return Measured(value, wall, max(cpu + cpu_below, 0.0), peak)


def lap(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What `call` returned and the wall seconds it took between two synchronisations of `device`.

    For calls of milliseconds, which the look at memory and at other processes in `measure` would disturb.
    """
    _synchronise(device)
    begin = time.perf_counter()
    value = call()
    _synchronise(device)
    return value, time.perf_counter() - begin


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> float:
    """Resets the high-water mark; returns what is held now, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    # What earlier cases freed but the allocator kept would hide this case's need.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        return processes.reset_peak(os.getpid())
    except OSError:
        return _ru_maxrss()


def _peak_above(base: float, device: torch.device) -> float | None:
    if device.type == "cuda":
        return (torch.cuda.max_memory_allocated(device) - base) / 1e6
    try:
        peak = processes.peak_bytes(os.getpid())
    except OSError:
        peak = _ru_maxrss()
    return max(0.0, peak - base) / 1e6


def _ru_maxrss() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


class TimingLock:
    """A lock of the run folder that a process holds while it times; the kernel frees it when the process dies."""

    def __init__(self, path: Path | None) -> None:
        self._file: IO[bytes] | None = None if path is None else path.open("ab")

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Waits for its turn; gives whether the timing is exclusive (not where files cannot be locked)."""
        if self._file is None:
            yield False
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


class Watchdog:
    """Ends what runs past a time limit.

    First an alarm raises `TimeLimitExceeded` between two Python instructions. Where compiled code never comes
    back to Python, a thread without need of the interpreter ends the process a little later and leaves the
    traceback in `path`; whoever started the process reads there that it was the limit.
    """

    MARK = "Timeout ("

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")

    @contextlib.contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Raises `TimeLimitExceeded` when the body takes longer than `seconds`, also where it swallowed the alarm."""
        begin = time.monotonic()
        faulthandler.dump_traceback_later(seconds + max(1.0, 0.05 * seconds), exit=True, file=self._file)
        previous = signal.signal(signal.SIGALRM, _raise_time_limit)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - begin > seconds:
            raise TimeLimitExceeded


def _raise_time_limit(_signum: int, _frame: FrameType | None) -> None:
    raise TimeLimitExceeded

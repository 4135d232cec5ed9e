"""What the descendants of this process take: CPU time and peak memory, read from `/proc`; nothing elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")


def descendants() -> list[int]:
    """Process ids of all living descendants of this process (and of those that ended but were not waited for)."""
    children: dict[int, list[int]] = {}
    for pid in _process_ids():
        with contextlib.suppress(OSError, IndexError):
            children.setdefault(int(_stat(pid)[1]), []).append(pid)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def cpu_seconds() -> float:
    """CPU seconds of all living descendants since they began, their own ended children included."""
    return sum(_cpu_seconds_of(pid) for pid in descendants())


def reset_peaks() -> dict[int, float]:
    """Resets the high-water mark of every descendant; returns what each holds now, in bytes."""
    found = {}
    for pid in descendants():
        with contextlib.suppress(OSError):
            found[pid] = reset_peak(pid)
    return found


def peaks_above(base: Mapping[int, float]) -> float:
    """Bytes that the descendants held at most, summed, above what they held in `base`; new ones held nothing."""
    total = 0.0
    for pid in descendants():
        with contextlib.suppress(OSError):
            total += max(0.0, peak_bytes(pid) - base.get(pid, 0.0))
    return total


def reset_peak(pid: int) -> float:
    """Resets the high-water mark of a process; returns what it holds now, in bytes.

    Raises:
        OSError: no such process, not ours, or no `/proc`.
    """
    (_PROC / str(pid) / "clear_refs").write_text("5")
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> float:
    """The high-water mark of a process.

    Raises:
        OSError: no such process, ended, or no `/proc`.
    """
    return _status_bytes(pid, "VmHWM")


def memory_mb(key: str) -> float:
    """`VmHWM` (highest so far) or `VmRSS` (now) of this process; the highest so far where there is no `/proc`."""
    try:
        return _status_bytes(os.getpid(), key) / 2**20
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _process_ids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the third on: state, parent, …; the name before may hold blanks."""
    return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _cpu_seconds_of(pid: int) -> float:
    try:
        fields = _stat(pid)
        user, system, children_user, children_system = (int(n) / os.sysconf("SC_CLK_TCK") for n in fields[11:15])
    except (OSError, IndexError, ValueError):
        return 0.0
    own = user + system
    with contextlib.suppress(OSError):
        # The CPU clock of another process, as clock_getcpuclockid gives it: nanoseconds instead of hundredths.
        own = time.clock_gettime((~pid << 3) | 2)
    return own + children_user + children_system


def _status_bytes(pid: int, name: str) -> float:
    for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
        if line.startswith(name):
            return float(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/{pid}/status")

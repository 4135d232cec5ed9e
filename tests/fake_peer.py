"""Stands in for the functions of a peer in the tests of `reg_bench.peer`; imports NumPy only, as those do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np

CALLS = []


def register(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_spacing: np.ndarray,
    moving_spacing: np.ndarray,
    *,
    voxels: list[float],
    threads: int,
) -> np.ndarray:
    """A shift by `voxels` of the fixed grid, in the unit of the spacing."""
    shift = np.asarray(voxels) * fixed_spacing
    return np.broadcast_to(shift.reshape(-1, *(1,) * fixed.ndim), (fixed.ndim, *fixed.shape))


def wrong_shape(fixed: np.ndarray, **_: object) -> np.ndarray:
    return fixed


def double(x: np.ndarray, threads: int = 0) -> np.ndarray:
    CALLS.append(x.shape)
    return 2 * x


def calls(threads: int = 0) -> np.ndarray:
    return np.array([len(CALLS), os.getpid()])


def environment(name: str) -> np.ndarray:
    return np.frombuffer(os.environ.get(name, "").encode(), np.uint8)


def modules() -> np.ndarray:
    """Which of these are the standard library's, and whether anything of ours was imported."""
    import types

    import numpy

    ours = [m for m in sys.modules if m.split(".")[0] in ("reg_bench", "lightning_modules", "torch")]
    return np.array([len(ours), hasattr(types, "ModuleType"), hasattr(numpy, "ndarray"), sys.path[0] == ""])


def folder() -> np.ndarray:
    """Leaves a file behind in the working folder and names that folder."""
    with open("left_behind.txt", "w") as file:
        file.write("x")
    return np.frombuffer(os.getcwd().encode(), np.uint8)


def noisy(x: np.ndarray) -> np.ndarray:
    """Prints what looks like an answer, from Python, from C and from a child."""
    print('{"ok": false, "type": "Fake", "message": "not an answer"}')
    os.write(1, b'{"ok": true}\n' * 3)
    os.write(2, b"x" * 200_000)
    subprocess.run(["sh", "-c", "echo from a child; cat"], check=True)
    return x + 1


def fails() -> np.ndarray:
    raise ValueError("the images do not overlap")


def leaves() -> np.ndarray:
    sys.exit("no licence")


def crashes() -> np.ndarray:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
    return np.zeros(1)


def returns_nothing() -> None:
    return None


def sleeps(seconds: float, child: bool = False) -> np.ndarray:
    if child:
        subprocess.run(["sleep", str(seconds)], check=True)
    time.sleep(seconds)
    return np.zeros(1)


def burns(seconds: float) -> np.ndarray:
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass
    return np.zeros(1)


def fails_with_threads(threads: int) -> np.ndarray:
    raise ValueError("the images do not overlap")


def hangs_once(fixed: np.ndarray, journal: str, threads: int, **_: object) -> np.ndarray:
    """No motion; hangs in its second call. Every call leaves a line with its process in `journal`."""
    with open(journal, "a+") as file:
        file.write(f"{os.getpid()}\n")
        file.seek(0)
        if len(file.readlines()) == 2:
            time.sleep(60)
    return np.zeros((fixed.ndim, *fixed.shape))

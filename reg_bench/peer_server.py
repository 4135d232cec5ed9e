"""Runs in the interpreter of a peer and answers the calls of `reg_bench.peer_process`; imports NumPy and the peer only.

It is started as a script by an interpreter that knows nothing of `reg_bench`, so it must run on Python 3.8 as well.
One JSON object per line on a socket in either direction; arrays lie in `.npy` files that the lines name. What the
peer prints goes to the log, which is standard output and standard error of this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_PR_SET_PDEATHSIG = 1


def main(descriptor: int, parent: int, script: str) -> None:
    """Serves until the other end of the socket `descriptor` is closed or the process `parent` has died."""
    _die_with(parent)
    os.set_inheritable(descriptor, False)
    channel = socket.socket(fileno=descriptor)
    with channel, channel.makefile("r", encoding="utf-8") as requests:
        try:
            functions = load(script)
        except (Exception, SystemExit) as error:
            _send(channel, _failure(error))
            return
        _send(channel, {"ok": True})
        for line in requests:
            _send(channel, _answer(functions, json.loads(line)))
            _give_back_memory()


def load(script: str) -> ModuleType:
    """The functions in the file `script`, whose folder is not put on the path: its neighbours shadow nothing."""
    spec = importlib.util.spec_from_file_location("reg_bench_peer_functions", script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def versions(module: str, distributions: Sequence[str]) -> dict[str, str] | None:
    """Versions of this Python and of those of `distributions` that it has; `None` where it has no `module`."""
    if importlib.util.find_spec(module) is None:
        return None
    found = {"python": platform.python_version()}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _answer(functions: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    try:
        arrays = {name: np.load(path, allow_pickle=False) for name, path in request["arrays"].items()}
        result = getattr(functions, request["function"])(**arrays, **request["settings"])
        np.save(request["result"], np.ascontiguousarray(result), allow_pickle=False)
    except (Exception, SystemExit) as error:
        return _failure(error)
    return {"ok": True}


def _failure(error: BaseException) -> dict[str, Any]:
    return {
        "ok": False,
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    sys.stdout.flush()
    channel.sendall((json.dumps(reply) + "\n").encode())


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when `parent` dies, also in the middle of a call (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _give_back_memory() -> None:
    """Returns freed pages to the system, so that one case does not hide the peak memory of the next."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    if sys.argv[1] == "versions":
        print(json.dumps(versions(sys.argv[2], sys.argv[3:])))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

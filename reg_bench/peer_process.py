"""Calls the functions of a peer in another Python interpreter, which is started once and answers many calls.

The pins of registration packages exclude one another, so each may live in an environment of its own. The other
side is `peer_server.py`, a script without imports from this package. Both sides speak JSON lines on a socket pair;
arrays travel in `.npy` files. Nothing that the peer prints can disturb them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from reg_bench.errors import RegBenchError

_SERVER = Path(__file__).with_name("peer_server.py")
# The folder of a script becomes the first entry of the path, where `reg_bench/types.py` would hide a module that
# every library needs. Code given on the command line puts the working folder there instead.
_START = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
# Settings of this process' Python that would misguide another one.
_OWN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH", "VIRTUAL_ENV")
_LAST_WORDS = 1500
_GRACE_S = 2.0
_VERSIONS_S = 120.0


class PeerError(RegBenchError, RuntimeError):
    """A peer in another process raised or died; the text holds its own message."""


@dataclass(frozen=True)
class _Running:
    """One started interpreter and what belongs to it."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    replies: IO[str]
    log: IO[bytes]
    folder: Path
    owner: int

    def alive(self) -> bool:
        return self.process.poll() is None


class PeerProcess:
    """A peer's functions in the interpreter at `interpreter`.

    The interpreter starts with the first call. It ends with this object, with this process (even if that is
    killed, on Linux), and when a call is given up: an exception that interrupts the waiting, such as the time
    limit, kills it. The next call starts it anew.

    Args:
        interpreter: a Python that has NumPy and the peer.
        script: file with the peer's functions; it may import NumPy and the peer, nothing of ours.
        environment: variables that are set for the peer, e.g. its number of threads.
    """

    def __init__(self, interpreter: Path, script: Path, environment: Mapping[str, str]) -> None:
        self.interpreter, self.script, self.environment = interpreter, script, dict(environment)
        self._running: _Running | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running interpreter."""
        return self._running.process.pid if self._running is not None and self._running.alive() else None

    def call(self, function: str, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> NDArray[Any]:
        """What `function(**arrays, **settings)` returns there: one array.

        Args:
            function: name in the script.
            arrays: arguments that are arrays.
            settings: the others, as plain values.

        Raises:
            PeerError: the function raised (the interpreter lives on), or the interpreter cannot be started or died.
        """
        running = self._started()
        try:
            return _exchange(running, function, arrays, settings)
        except _RaisedThereError as error:
            raise PeerError(str(error)) from error
        except _GoneError as error:
            raise self._buried(running) from error
        except BaseException:
            # Its answer may still come: it must not be taken for that of the next call.
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the interpreter and all that it started, at once."""
        if self._finalizer is not None:
            self._finalizer()
        self._running = None

    def _started(self) -> _Running:
        if self._running is not None and self._running.alive():
            return self._running
        self.stop()
        running = _start(self.interpreter, self.script, self.environment)
        self._running, self._finalizer = running, weakref.finalize(self, _end, running)
        try:
            _read_reply(running)
        except _RaisedThereError as error:
            self.stop()
            raise PeerError(f"{self.interpreter}: {error}") from error
        except _GoneError as error:
            raise self._buried(running) from error
        except BaseException:
            self.stop()
            raise
        return running

    def _buried(self, running: _Running) -> PeerError:
        """Cleans up after an interpreter that has died by itself and tells how it ended and what it said last."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(_GRACE_S)
        words = _last_words(running)
        self.stop()
        return PeerError(f"{self.interpreter}: died ({_how(running.process.returncode)}){words}")


def versions_in(interpreter: Path, module: str, distributions: Sequence[str]) -> dict[str, str] | None:
    """What `peer_server.versions` finds in another interpreter.

    Raises:
        PeerError: no such interpreter, or it does not answer.
    """
    command = [str(interpreter), "-c", _START, str(_SERVER), "versions", module, *distributions]
    try:
        done = subprocess.run(
            command, env=_foreign(), cwd=tempfile.gettempdir(), capture_output=True, timeout=_VERSIONS_S, check=True
        )
        found: dict[str, str] | None = json.loads(done.stdout.splitlines()[-1])
    except OSError as error:
        raise PeerError(f"{interpreter}: cannot be started: {error.strerror}") from error
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise PeerError(f"{interpreter}: does not answer as a Python does") from error
    return found


def _foreign() -> dict[str, str]:
    """This process' environment for another Python."""
    return {k: v for k, v in os.environ.items() if k not in _OWN_VARIABLES}


class _RaisedThereError(Exception):
    """The peer's function raised; the text is `type: message`."""


class _GoneError(Exception):
    """The other end of the socket is closed."""


def _start(interpreter: Path, script: Path, environment: Mapping[str, str]) -> _Running:
    folder = Path(tempfile.mkdtemp(prefix="reg-bench-peer-"))
    log = (folder / "log.txt").open("a+b")
    ours, theirs = socket.socketpair()
    with theirs:
        command = [str(interpreter), "-c", _START, str(_SERVER), str(theirs.fileno()), str(os.getpid()), str(script)]
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_foreign() | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                # A group of its own: it is ended with everything that it started, and Ctrl-C reaches it through us.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            log.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise PeerError(f"{interpreter}: cannot be started: {error.strerror}") from error
    return _Running(process, ours, ours.makefile("r", encoding="utf-8"), log, folder, os.getpid())


def _end(running: _Running) -> None:
    # A forked child inherits this object but not the process.
    if os.getpid() != running.owner:
        return
    with contextlib.suppress(OSError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
    for file in (running.replies, running.channel):
        with contextlib.suppress(OSError):
            file.close()
    running.log.close()
    shutil.rmtree(running.folder, ignore_errors=True)


def _exchange(
    running: _Running, function: str, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
) -> NDArray[Any]:
    # What an earlier call printed is of no interest when this one fails.
    running.log.truncate(0)
    paths = {name: running.folder / f"in_{name}.npy" for name in arrays}
    result = running.folder / "out.npy"
    try:
        for name, path in paths.items():
            np.save(path, np.ascontiguousarray(arrays[name]), allow_pickle=False)
        request = {
            "function": function,
            "arrays": {name: str(path) for name, path in paths.items()},
            "settings": dict(settings),
            "result": str(result),
        }
        _send(running, request)
        _read_reply(running)
        found: NDArray[Any] = np.load(result, allow_pickle=False)
        return found
    finally:
        for path in (*paths.values(), result):
            path.unlink(missing_ok=True)


def _send(running: _Running, request: Mapping[str, Any]) -> None:
    try:
        running.channel.sendall((json.dumps(request) + "\n").encode())
    except ConnectionError as error:
        raise _GoneError from error


def _read_reply(running: _Running) -> None:
    try:
        line = running.replies.readline()
    except ConnectionError as error:
        raise _GoneError from error
    if not line:
        raise _GoneError
    reply = json.loads(line)
    if not reply["ok"]:
        raise _RaisedThereError(f"{reply['type']}: {reply['message']}")


def _how(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"


def _last_words(running: _Running) -> str:
    """The end of what the peer printed, on a line of its own; empty where it printed nothing."""
    running.log.seek(0)
    text = running.log.read().decode(errors="replace").strip()
    return f"\n{text[-_LAST_WORDS:]}" if text else ""

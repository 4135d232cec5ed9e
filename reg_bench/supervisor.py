"""Starts the processes of a run, listens to them, and starts them again when a case has killed one.

Runs in the process of the command line, without torch: what a method does to its process cannot reach it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from reg_bench.errors import ConfigError, RegBenchError
from reg_bench.results import CaseKey, CaseResult, RowWriter, now

_CODE = (
    "import sys, json; settings = json.loads(sys.argv[1]); sys.path[:] = settings['sys_path']; "
    "from reg_bench.worker import main; sys.exit(main(settings))"
)
_GRACE_S = 2.0
_WATCHDOG_MARK = "Timeout ("


class WorkerError(RegBenchError):
    """The processes of a run died for a reason that no case explains."""


class Terminated(BaseException):
    """The run was asked to end by SIGTERM."""


@dataclass(frozen=True)
class Settings:
    """A run as asked for on the command line.

    Attributes:
        suite: shipped name or YAML file.
        out: run folder.
        methods: names to run instead of those of the suite; empty: those of the suite.
        limit: cases per task, `None`: all.
        cases: identifiers of the cases to run; empty: all.
        devices: processes.
        mode: `only-missing`, `retry-failed` or `overwrite`.
        root: folder of the data, `None`: as the datasets find it.
        seed: `None`: that of the suite's protocol.
        panels: whether to draw the cases; `False` overrules the suite's protocol.
        threads: per process, as the suite's protocol says.
        time_limit_s: as the suite's protocol says; for the message.
        tasks: names of the tasks to run; empty: all of the suite.
        budget_ms: milliseconds in which the estimate of a streamed frame has to be there; `None`: as the suite says.
        checkpoints: names of methods, `None` for all that take weights, and files of weights for them.
        submission: folder, profile and tasks of the files of a Learn2Reg submission that the run is to write, see
            `reg_bench.submission_write.FieldFiles`; `None`: none.
    """

    suite: str
    out: str
    methods: tuple[str, ...] = ()
    limit: int | None = None
    cases: tuple[str, ...] = ()
    devices: int = 1
    mode: str = "only-missing"
    root: str | None = None
    seed: int | None = None
    panels: bool = True
    threads: int = 1
    time_limit_s: float = 600.0
    tasks: tuple[str, ...] = ()
    budget_ms: float | None = None
    checkpoints: tuple[tuple[str | None, str], ...] = ()
    submission: Mapping[str, Any] | None = None


class Listener(Protocol):
    """Is told what happens: see `progress`."""

    def event(self, rank: int, event: Mapping[str, Any]) -> None:
        """One event of one process."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds the run folder; it is free again when this process dies, however it dies.

    Raises:
        ConfigError: another run is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".run.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"{folder}: another run is at work in this folder (process {file.read().strip() or 'unknown'}); "
                "wait for it or choose another --out"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class _Rank:
    """One process, its pipe, and the case that it is at."""

    def __init__(self, rank: int, process: subprocess.Popen[bytes], pipe: int) -> None:
        self.rank, self.process, self.pipe = rank, process, pipe
        self.current: CaseKey | None = None
        self.killed_by_us = False
        self._rest = b""

    def read(self) -> list[dict[str, Any]] | None:
        """Events that came; `None` when there are no more: the pipe is closed, or empty for now."""
        try:
            data = os.read(self.pipe, 1 << 20)
        except BlockingIOError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = [json.loads(line) for line in lines]
        for event in events:
            if event["event"] == "started":
                self.current = CaseKey(**event["key"])
            elif event["event"] == "done":
                self.current = None
        return events


class Supervisor:
    """Runs the processes of one run to their end."""

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self.settings, self.listener = settings, listener
        self.folder = Path(settings.out)
        self.manifest: dict[str, Any] | None = None
        self._since = now()
        self._unexplained = 0

    def run(self) -> dict[str, Any]:
        """Runs until every case has a result; returns the manifest of the run.

        Raises:
            ConfigError: bad input, found before any work.
            WorkerError: a process died outside any case, or of an error of its own.
            KeyboardInterrupt, Terminated: after the processes have ended.
        """
        for log in self.folder.glob("log.rank*.txt"):
            log.unlink()
        while not self._round():
            pass
        assert self.manifest is not None
        return self.manifest

    def _round(self) -> bool:
        """Starts all processes and waits for them; whether they are done."""
        with _sigterm_raises():
            ranks = self._launch()
            try:
                self._listen(ranks)
            except BaseException:
                self._stop(ranks)
                raise
        return self._judge(ranks)

    def _launch(self) -> list[_Rank]:
        port = _free_port()
        return [self._start(rank, port) for rank in range(self.settings.devices)]

    def _start(self, rank: int, port: int) -> _Rank:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        (self.folder / f".watchdog.rank{rank}").unlink(missing_ok=True)
        settings = {
            **asdict(self.settings),
            "since": self._since,
            "channel": writing,
            "parent": os.getpid(),
            # What this process can import the worker can; plug-ins beside the user's files as well.
            "sys_path": [*sys.path, os.getcwd()],
        }
        log = (self.folder / f"log.rank{rank}.txt").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, json.dumps(settings)],
                env=self._environment(rank, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                # Ctrl-C at a terminal reaches this process alone, which then ends the others in order.
                start_new_session=True,
            )
        os.close(writing)
        return _Rank(rank, process, reading)

    def _environment(self, rank: int, port: int) -> dict[str, str]:
        threads = str(self.settings.threads)
        found = dict(os.environ) | {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONUNBUFFERED": "1",
        }
        if self.settings.devices > 1:
            # Tells Lightning that its processes exist already, as under torchrun.
            found |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return found

    def _listen(self, ranks: list[_Rank]) -> None:
        """Passes events on until all processes have ended, or one has died: then the others are ended too."""
        with selectors.DefaultSelector() as selector:
            for rank in ranks:
                selector.register(rank.pipe, selectors.EVENT_READ, rank)
            # A pipe that a process left to a child of its own never closes: the end of the process counts.
            while any(r.process.poll() is None for r in ranks) and not any(_died(r) for r in ranks):
                for ready, _ in selector.select(timeout=0.25) if selector.get_map() else ():
                    if not self._pass_on(ready.data):
                        selector.unregister(ready.fileobj)
        if any(_died(r) for r in ranks):
            self._stop(ranks)
        for rank in ranks:
            while self._pass_on(rank):
                pass
            os.close(rank.pipe)
            rank.process.wait()

    def _pass_on(self, rank: _Rank) -> bool:
        events = rank.read()
        for event in events or ():
            if event["event"] == "plan":
                self.manifest = event["manifest"]
            if event["event"] == "error":
                self._raise(rank, event)
            self.listener.event(rank.rank, event)
        return events is not None

    def _raise(self, rank: _Rank, event: Mapping[str, Any]) -> None:
        if event["bad_input"]:
            raise ConfigError(event["message"])
        raise WorkerError(f"{event['message']} (traceback in {self.folder / f'log.rank{rank.rank}.txt'})")

    def _stop(self, ranks: list[_Rank]) -> None:
        """Ends all processes; what they were at did not crash and may be begun again."""
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            running = [r for r in ranks if r.process.poll() is None]
            for rank in running:
                rank.killed_by_us = True
                rank.process.terminate()
            deadline = time.monotonic() + _GRACE_S
            for rank in running:
                try:
                    rank.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    rank.process.kill()
                    rank.process.wait()
            self._note_interrupted(running)
        finally:
            signal.signal(signal.SIGINT, previous)

    def _note_interrupted(self, ranks: list[_Rank]) -> None:
        with contextlib.closing(RowWriter(self.folder / "rows.supervisor.jsonl")) as writer:
            for rank in ranks:
                with contextlib.suppress(OSError, RegBenchError):
                    while rank.read() is not None:
                        pass
                if rank.current is not None:
                    writer.interrupted(rank.current)

    def _judge(self, ranks: list[_Rank]) -> bool:
        """Whether all went to their end; notes what the dead ones died of."""
        dead = [r for r in ranks if r.process.returncode != 0 and not r.killed_by_us]
        for rank in dead:
            how = _how(rank.process.returncode)
            if rank.current is None:
                self._unexplained += 1
                if self._unexplained > 1:
                    tail = _tail(self.folder / f"log.rank{rank.rank}.txt")
                    raise WorkerError(f"process {rank.rank} died outside any case ({how})\n{tail}")
                continue
            where = f"{rank.current.method}, case {rank.current.case}"
            if self._was_time_limit(rank):
                limit = f"time limit: register took longer than {self.settings.time_limit_s:g} s and was stopped"
                with contextlib.closing(RowWriter(self.folder / "rows.supervisor.jsonl")) as writer:
                    writer.result(CaseResult(rank.current, "failed", limit))
                self.listener.note(f"{where}: stopped at the time limit; the run goes on")
            else:
                self.listener.note(f"{where}: the process died ({how}); the run goes on")
        return not dead

    def _was_time_limit(self, rank: _Rank) -> bool:
        with contextlib.suppress(OSError):
            return _WATCHDOG_MARK in (self.folder / f".watchdog.rank{rank.rank}").read_text(errors="replace")
        return False


def _died(rank: _Rank) -> bool:
    return rank.process.poll() not in (None, 0)


def _how(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    def handler(_signum: int, _frame: Any) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

"""Calls into another interpreter: what comes back, what goes wrong there, and that nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from reg_bench import clock
from reg_bench.peer_process import PeerError, PeerProcess, versions_in

HERE = Path(__file__).resolve().parent
PYTHON = Path(sys.executable)


def made() -> PeerProcess:
    return PeerProcess(PYTHON, HERE / "fake_peer.py", {"FAKE_PEER_VARIABLE": "three"})


@pytest.fixture(scope="module")
def peer() -> Iterator[PeerProcess]:
    started = made()
    yield started
    started.stop()


def text(array: np.ndarray) -> str:
    return array.tobytes().decode()


def gone(pid: int) -> bool:
    """Whether there is no such process, not even one that nobody waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def eventually(pid: int) -> bool:
    """Whether the process ends within ten seconds."""
    for _ in range(200):
        if gone(pid) or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
def test_arrays_go_there_and_back_unchanged(peer: PeerProcess, dtype: type) -> None:
    x = (np.random.default_rng(0).random((3, 0, 5)) if dtype is bool else np.arange(60).reshape(3, 4, 5)).astype(dtype)
    back = peer.call("double", {"x": x.T}, {})
    assert back.dtype == (2 * x).dtype
    np.testing.assert_array_equal(back, 2 * x.T)


def test_large_arrays_pass(peer: PeerProcess) -> None:
    x = np.random.default_rng(1).random((3, 128, 128, 128), np.float32)
    np.testing.assert_array_equal(peer.call("double", {"x": x}, {}), 2 * x)


def test_one_interpreter_serves_many_calls(peer: PeerProcess) -> None:
    before = peer.call("calls", {}, {})
    for n in range(3):
        peer.call("double", {"x": np.full(2, n)}, {})
    after = peer.call("calls", {}, {})
    assert after[0] - before[0] == 3
    assert after[1] == before[1] == peer.pid != os.getpid()


def test_the_other_side_sees_its_own_modules_and_none_of_ours(
    peer: PeerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert peer.call("modules", {}, {}).tolist() == [0, 1, 1, 1]
    other = made()
    assert other.call("modules", {}, {}).tolist() == [0, 1, 1, 1], "our own path and home do not reach it"
    assert text(other.call("environment", {}, {"name": "PYTHONPATH"})) == ""
    assert text(other.call("environment", {}, {"name": "FAKE_PEER_VARIABLE"})) == "three"
    other.stop()


def test_printing_does_not_disturb(peer: PeerProcess) -> None:
    for _ in range(2):
        assert peer.call("noisy", {"x": np.ones(3)}, {}).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", "ValueError: the images do not overlap"),
        ("leaves", "SystemExit: no licence"),
        ("returns_nothing", "allow_pickle"),
        ("nosuch", "AttributeError"),
    ],
)
def test_what_is_raised_there_is_told_here_and_the_peer_lives_on(
    peer: PeerProcess, function: str, message: str
) -> None:
    peer.call("double", {"x": np.ones(1)}, {})
    pid = peer.pid
    with pytest.raises(PeerError, match=message):
        peer.call(function, {}, {})
    assert peer.call("double", {"x": np.ones(1)}, {}) == 2
    assert peer.pid == pid


def test_a_crash_is_told_with_the_last_words_and_the_next_call_starts_anew() -> None:
    peer = made()
    first = peer.call("calls", {}, {})[1]
    with pytest.raises(PeerError, match=r"died \(SIGSEGV\)\nlast words"):
        peer.call("crashes", {}, {})
    assert gone(first)
    assert peer.call("calls", {}, {}).tolist()[0] == 0
    assert peer.pid != first
    peer.stop()


def test_one_that_was_killed_between_two_calls_starts_anew() -> None:
    peer = made()
    first = int(peer.call("calls", {}, {})[1])
    os.kill(first, signal.SIGKILL)
    assert eventually(first)
    assert peer.call("calls", {}, {})[1] != first
    assert gone(first), "no zombie"
    peer.stop()


def test_the_time_limit_ends_the_peer_and_what_it_started(tmp_path: Path) -> None:
    peer = made()
    pid = int(peer.call("calls", {}, {})[1])
    dog = clock.Watchdog(tmp_path / "dog")
    with pytest.raises(clock.TimeLimitExceeded), dog.limit(0.5):
        peer.call("sleeps", {}, {"seconds": 61.125, "child": True})
    assert gone(pid), "no zombie"
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 61.125" not in listed
    assert peer.call("double", {"x": np.ones(1)}, {}) == 2, "the late answer is not taken for this one"
    peer.stop()


def test_stopping_leaves_neither_process_nor_files() -> None:
    peer = made()
    folder = Path(text(peer.call("folder", {}, {})))
    assert (folder / "left_behind.txt").exists()
    assert sorted(p.suffix for p in folder.iterdir()) == [".txt", ".txt"], "arrays are gone after the call"
    pid = peer.pid
    assert pid is not None
    peer.stop()
    peer.stop()
    assert gone(pid)
    assert peer.pid is None
    assert not folder.exists()


def test_it_ends_with_its_object() -> None:
    peer = made()
    pid = int(peer.call("calls", {}, {})[1])
    del peer
    gc.collect()
    assert gone(pid)


CODE = f"""
import os, sys
sys.path.insert(0, {str(HERE.parent)!r})
from pathlib import Path
from reg_bench.peer_process import PeerProcess
peer = PeerProcess(Path({str(PYTHON)!r}), Path({str(HERE / "fake_peer.py")!r}), {{}})
print(int(peer.call("calls", {{}}, {{}})[1]), flush=True)
if sys.argv[1] == "fork":
    if os.fork() == 0:
        sys.exit()
    os.wait()
    print(int(peer.call("calls", {{}}, {{}})[1]), flush=True)
if sys.argv[1] == "busy":
    peer.call("burns", {{}}, {{"seconds": 100}})
"""


def test_it_ends_with_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, "end"], capture_output=True, text=True, check=True)
    assert eventually(int(done.stdout))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux tells it")
def test_it_ends_when_its_process_is_killed_in_the_middle_of_a_call() -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE, "busy"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    time.sleep(0.2)
    assert not gone(pid)
    process.kill()
    process.communicate()
    assert eventually(pid)


def test_a_forked_child_that_ends_does_not_end_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, "fork"], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first == second


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_its_seconds_are_billed(peer: PeerProcess) -> None:
    peer.call("double", {"x": np.ones(1)}, {})
    measured = clock.measure(lambda: peer.call("burns", {}, {"seconds": 0.3}), torch.device("cpu"))
    assert 0.28 < measured.cpu_s < 0.5


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    missing = PeerProcess(tmp_path / "python", HERE / "fake_peer.py", {})
    with pytest.raises(PeerError, match=r"python: cannot be started: No such file"):
        missing.call("calls", {}, {})
    other = PeerProcess(Path("/bin/false"), HERE / "fake_peer.py", {})
    with pytest.raises(PeerError, match=r"/bin/false: died \(exit status 1\)"):
        other.call("calls", {}, {})
    for path, message in ((tmp_path / "python", "cannot be started"), (Path("/bin/true"), "does not answer")):
        with pytest.raises(PeerError, match=message):
            versions_in(path, "numpy", ["numpy"])


def test_functions_that_cannot_be_loaded(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import nosuchmodule\n")
    with pytest.raises(PeerError, match="ModuleNotFoundError: No module named 'nosuchmodule'"):
        PeerProcess(PYTHON, script, {}).call("register", {}, {})


def test_versions_there() -> None:
    found = versions_in(PYTHON, "numpy", ["numpy", "nosuchdistribution"])
    assert found == {"python": sys.version.split()[0], "numpy": np.__version__}
    assert versions_in(PYTHON, "nosuchmodule", ["numpy"]) is None

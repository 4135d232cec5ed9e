"""The clock bills what other processes do for this one, as far as they are its descendants."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from reg_bench import clock, processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

CPU = torch.device("cpu")
# Answers each line: `burn` takes 0.3 CPU seconds, `hold` fills 60 MB and frees them.
WORKER = """
import sys, time
for line in sys.stdin:
    if line.strip() == "burn":
        begin = time.process_time()
        while time.process_time() - begin < 0.3:
            pass
    if line.strip() == "hold":
        held = b"x" * 60_000_000
        del held
    print("done", flush=True)
"""


class Worker:
    """A child that lives through several measurements."""

    def __init__(self, *wrapper: str) -> None:
        command = [*wrapper, sys.executable, "-c", WORKER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("start")

    def ask(self, what: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.end()


def test_seconds_of_a_child_that_lives_on_are_billed(worker: Worker) -> None:
    measured = clock.measure(lambda: worker.ask("burn"), CPU)
    assert 0.28 < measured.cpu_s < 0.5
    idle = clock.measure(lambda: worker.ask("nothing"), CPU)
    assert idle.cpu_s < 0.1, "what a child took before is not billed again"


def test_seconds_of_a_grandchild_are_billed() -> None:
    worker = Worker("sh", "-c", '"$@"; exit 0', "sh")
    try:
        assert len(processes.descendants()) >= 2
        assert 0.28 < clock.measure(lambda: worker.ask("burn"), CPU).cpu_s < 0.5
    finally:
        worker.end()


def test_seconds_of_a_child_that_ended_are_billed_once() -> None:
    measured = clock.measure(lambda: _burning_child(), CPU)
    assert 0.28 < measured.cpu_s < 0.6
    assert clock.measure(lambda: None, CPU).cpu_s < 0.05


def _burning_child() -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_child_that_ends_in_between_is_not_lost() -> None:
    """Its seconds before the measurement are not billed though they move from the living to the ended."""
    worker = Worker()
    worker.ask("burn")
    measured = clock.measure(worker.end, CPU)
    assert measured.cpu_s < 0.2


def test_memory_of_a_child_counts_above_what_it_held(worker: Worker) -> None:
    worker.ask("hold")
    first = clock.measure(lambda: worker.ask("hold"), CPU)
    assert first.peak_mb == pytest.approx(60, abs=8)
    quiet = clock.measure(lambda: worker.ask("nothing"), CPU)
    assert quiet.peak_mb is not None
    assert quiet.peak_mb < 8, "the peak of the call before is forgotten"


def test_seconds_agree_with_what_a_process_says_of_itself() -> None:
    code = "import time, sys\nwhile time.process_time() < 0.25: pass\nprint(time.process_time(), flush=True)"
    code += "\nsys.stdin.read()"
    before = processes.cpu_seconds()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = float(process.stdout.readline())
    time.sleep(0.05)
    seen = processes.cpu_seconds() - before
    process.communicate("")
    assert seen == pytest.approx(said, abs=0.05)


def test_own_process_is_no_descendant_and_a_dead_one_has_no_peak() -> None:
    assert os.getpid() not in processes.descendants()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert child.pid not in processes.descendants()
    with pytest.raises(OSError, match=str(child.pid)):
        processes.peak_bytes(child.pid)

"""Fixtures shared by all tests."""

from __future__ import annotations

import os

# Before torch is imported anywhere: spinning threads cost up to 18 times on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real images; the test is skipped without it."""
    root = os.environ.get("REG_BENCH_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs the real images: set REG_BENCH_DATA to their folder")
    return Path(root)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`reg-bench run` without the process that it starts for the work, which takes longer to import than to work.

    For tests of what is run; the processes themselves are tested by `test_run_command.py`.
    """
    from dataclasses import asdict

    from reg_bench import worker
    from reg_bench.supervisor import Supervisor

    def run(self: Supervisor) -> dict[str, Any]:
        def tell(event: Mapping[str, Any]) -> None:
            if event["event"] == "plan":
                self.manifest = event["manifest"]
            self.listener.event(0, event)

        worker._work({**asdict(self.settings), "since": self._since}, tell)
        assert self.manifest is not None
        return self.manifest

    monkeypatch.setattr(Supervisor, "run", run)

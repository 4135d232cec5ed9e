"""Fixtures shared by all tests."""

from __future__ import annotations

import os

# Before torch is imported anywhere: spinning threads cost up to 18 times on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real images; the test is skipped without it."""
    root = os.environ.get("REG_BENCH_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs the real images: set REG_BENCH_DATA to their folder")
    return Path(root)

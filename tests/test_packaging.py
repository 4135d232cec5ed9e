"""The built wheel works from another directory, YAML included, without the checkout in sight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, cwd: Path, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(out), cwd=out)
    (wheel,) = out.glob("regbench_suite-*.whl")
    target = out / "site"
    run(*pip, "install", "--no-deps", "--target", str(target), str(wheel), cwd=out)
    return target


def test_wheel_lists_what_the_checkout_lists(unpacked_wheel: Path, tmp_path: Path) -> None:
    code = (
        "import reg_bench, sys; from reg_bench.cli import main; "
        f"assert reg_bench.__file__.startswith({str(unpacked_wheel)!r}), reg_bench.__file__; "
        "sys.exit(main(sys.argv[1:]))"
    )
    for kind in ("methods", "suites", "datasets", "metrics", "recipes"):
        wheel = run(sys.executable, "-c", code, "list", kind, cwd=tmp_path, PYTHONPATH=str(unpacked_wheel))
        checkout = run(sys.executable, "-m", "reg_bench.cli", "list", kind, cwd=ROOT)
        assert wheel == checkout
        assert wheel.strip()


def test_wheel_holds_no_tests_and_no_data(unpacked_wheel: Path) -> None:
    top = {p.name for p in unpacked_wheel.iterdir() if not p.name.endswith(".dist-info")} - {
        "bin",
        "__pycache__",
    }
    assert top == {"reg_bench", "lightning_modules", "datamodules"}
    shipped, ours = (root / "lightning_modules" / "weights" for root in (unpacked_wheel, ROOT))
    assert {p.name for p in shipped.iterdir()} == {p.name for p in ours.iterdir()} >= {"nconv.pt", "nconv.json"}
    assert sorted(p.name for p in (unpacked_wheel / "reg_bench" / "_benchmarks").iterdir()) == [
        "methods",
        "published.yaml",
        "suites",
        "training",
    ]

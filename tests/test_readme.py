"""The examples of the README run as they stand: each is written where it says and used through the suite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", README, re.DOTALL)

SUITE = """\
name: example
version: 1
tasks:
  - {name: discs, dataset: discs, init_args: {cases: 2}}
methods: [identity, centre-of-mass]
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the three examples of the README in their places."""
    target = tmp_path_factory.mktemp("checkout")
    for folder in ("reg_bench", "datamodules", "lightning_modules", "benchmarks", "leaderboards"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
    for name, code in EXAMPLES:
        (target / name).write_text(code, encoding="utf-8")
    return target


def reg_bench(checkout: Path, *arguments: str) -> str:
    code = "import sys; from reg_bench.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readme_shows_one_file_of_each_kind() -> None:
    assert [Path(name).parts[0] for name, _ in EXAMPLES] == ["lightning_modules", "datamodules", "reg_bench"]


def test_examples_are_listed_at_once(checkout: Path) -> None:
    assert "centre-of-mass" in reg_bench(checkout, "list", "methods")
    assert "discs" in reg_bench(checkout, "list", "datasets")
    assert "displacement_length" in reg_bench(checkout, "list", "metrics")


def test_examples_make_a_leaderboard(checkout: Path) -> None:
    (checkout / "example.yaml").write_text(SUITE, encoding="utf-8")
    reg_bench(checkout, "run", "example.yaml", "--out", "runs/example")
    table = (checkout / "runs" / "example" / "leaderboard.csv").read_text(encoding="utf-8")
    rows = "".join(p.read_text(encoding="utf-8") for p in (checkout / "runs" / "example").glob("rows*.jsonl"))
    assert "centre-of-mass" in table
    assert '"metric":"displacement_length"' in rows


def test_the_commands_that_readme_names_exist() -> None:
    named = set(re.findall(r"^reg-bench (\w+)", README, re.MULTILINE))
    from reg_bench.cli import COMMANDS

    assert named <= set(COMMANDS)
    assert {"run", "register", "evaluate", "report", "list"} <= named

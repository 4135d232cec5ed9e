"""The imports obey DESIGN.md section 1: who may know whom, and who must answer without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "monai", "pytorch_lightning", "torchio"}
MATHEMATICS = ("discrete", "field", "landmarks", "metrics", "optimization", "regularization", "similarity")
MATHEMATICS += ("sparse_to_dense", "state_space", "tracking", "transformation")
NO_TORCH = ["cli", "discovery", "suite", "results", "statistics", "leaderboard", "report", "errors"]
NO_TORCH += sorted(p.stem for p in (ROOT / "reg_bench").glob("command_*.py"))
NO_TORCH += ["report_page", "report_export", "report_wandb", "ranking_board"]


def imported(path: Path, *, module_level: bool = False) -> set[str]:
    """Full names of the modules that the file imports; with `module_level` only what import time pays for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if module_level:
        nodes = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))]
    else:
        nodes = list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def sources(*folders: str) -> list[Path]:
    files = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    assert files, f"no sources below {folders}"
    return files


def tops(path: Path, **kwargs: bool) -> set[str]:
    return {name.split(".")[0] for name in imported(path, **kwargs)}


@pytest.mark.parametrize("path", sources("datamodules"), ids=lambda p: p.name)
def test_datasets_know_neither_methods_nor_each_other(path: Path) -> None:
    assert not tops(path) & {"lightning_modules", "datamodules"}


@pytest.mark.parametrize("path", sources("lightning_modules"), ids=lambda p: p.name)
def test_methods_know_no_dataset(path: Path) -> None:
    assert "datamodules" not in tops(path)


@pytest.mark.parametrize("path", sources("reg_bench"), ids=lambda p: p.name)
def test_core_knows_no_dataset_and_no_method(path: Path) -> None:
    assert not tops(path) & {"datamodules", "lightning_modules"}


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in sources("reg_bench")
        if p.stem in ("io", "displacement_io", "points_io", "types", "normalized_convolution", "random_diffeomorphisms")
        or p.parent.name in MATHEMATICS
    ],
    ids=lambda p: p.name,
)
def test_mathematics_knows_neither_lightning_nor_monai(path: Path) -> None:
    assert not tops(path) & {"pytorch_lightning", "monai", "torchio"}


def test_only_field_samples_images() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("reg_bench", "lightning_modules", "datamodules")
        if path.parent != ROOT / "reg_bench" / "field"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("grid_sample", "affine_grid", "interpolate")
    ]
    assert not offenders, "use reg_bench.field instead"


@pytest.mark.parametrize("name", NO_TORCH)
def test_import_needs_no_torch(name: str) -> None:
    code = (
        f"import sys, reg_bench.{name}\n"
        f"heavy = {sorted(HEAVY)!r} + ['SimpleITK']\n"
        "sys.exit(', '.join(m for m in heavy if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"reg_bench.{name} imports {done.stderr}"


@pytest.mark.parametrize("arguments", [["--help"], ["list", "methods"], ["list", "suites"], ["list", "datasets"]])
def test_help_and_lists_need_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom reg_bench.cli import main\n"
        "try:\n    status = main(sys.argv[1:])\nexcept SystemExit as e:\n    status = e.code\n"
        "assert status == 0, status\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_class_has_at_most_one_abstract_parent_of_ours() -> None:
    """Concrete classes are final: no method or dataset derives from another."""
    for path in sources("datamodules", "lightning_modules"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                named = [ast.unparse(b) for b in node.bases if ast.unparse(b).endswith("Module")]
                ours = {"RegistrationModule", "SequenceModule", "RegistrationDataModule"}
                allowed = ours | {"nn.Module", "LightningModule", "LightningDataModule"}
                assert set(named) <= allowed, f"{path.name}: {node.name} derives from {named}"

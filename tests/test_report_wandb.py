"""A report as a W&B run, offline, and what was logged read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reg_bench import report
from reg_bench.report_wandb import TAG_LENGTH, log, tags_of
from tests.report_runs import run_folder
from tests.wandb_records import logged, of_kind, read


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> report.Content:
    folder = run_folder(tmp_path_factory.mktemp("wandb") / "run", cases=6, tasks=("one",))
    made = report.read(folder)
    report.write(made)
    return made


@pytest.fixture(scope="module")
def records(content: report.Content, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
            patch.setenv(f"WANDB_{name}", str(tmp_path_factory.mktemp(name)))
        folder = log(content, project="mine", tags=["more"])
    assert folder.parent == content.folder / "wandb"
    assert folder.name.startswith("offline-run-")
    return read(content.folder)


def test_one_run_with_group_tags_and_settings(records: list[Any]) -> None:
    (run,) = of_kind(records, "run")
    assert (run.project, run.run_group, run.job_type) == ("mine", "s-v1", "report")
    assert {"report", "suite:s", "task:one", "method:demons", "more"} <= set(run.tags)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["suite_version"] == "1"
    assert config["threads"] == 1


def test_tables_hold_the_numbers_of_the_board(records: list[Any], content: report.Content) -> None:
    files = logged(records)
    (run_folder,) = (content.folder / "wandb").glob("offline-run-*")
    table = json.loads((run_folder / "files" / files["tables/one.strict/path"]).read_text())
    lines = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    board = content.boards[0]
    assert {line["method"]: line["dice_mean"] for line in lines} == {
        e.name: e.cells["dice"].mean for e in board.entries
    }
    cases = json.loads((run_folder / "files" / files["tables/one.strict.cases/path"]).read_text())
    assert len(cases["data"]) == 6 * 6


def test_plots_and_panels_are_there(records: list[Any], content: report.Content) -> None:
    files = logged(records)
    (run_folder,) = (content.folder / "wandb").glob("offline-run-*")
    for name in ("distribution", "pareto-wall_s", "pareto-sdlogj", "significance", "labels-dice"):
        page = (run_folder / "files" / files[f"plots/one/{name}/path"]).read_text()
        assert "<svg" in page or "heat" in page
        assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    for what in ("median-case", "worst-case"):
        picture = run_folder / "files" / files[f"panels/one/demons/{what}/path"]
        assert picture.read_bytes()[:4] == b"RIFF"
    charts = [k for k in files if k.startswith("charts/one/")]
    assert charts


def test_means_and_ranks_are_in_the_summary(records: list[Any], content: report.Content) -> None:
    found: dict[str, Any] = {}
    for summary in of_kind(records, "summary"):
        for item in summary.update:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    best = next(e for e in content.boards[0].entries if e.rank == 1)
    assert found[f"one/{best.name}/dice"] == pytest.approx(best.cells["dice"].mean)
    assert found[f"one/{best.name}/rank"] == 1


def test_rows_are_an_artifact(records: list[Any], content: report.Content) -> None:
    (artifact,) = (a for a in of_kind(records, "artifact") if a.type == "results")
    assert artifact.name == "s-v1-rows"
    held = {e.path: e.size for e in artifact.manifest.contents}
    assert held["rows.rank0.jsonl"] == (content.folder / "rows.rank0.jsonl").stat().st_size
    assert {"manifest.json", "index.html", "leaderboard.csv"} <= set(held)


def test_long_tags_are_cut(content: report.Content) -> None:
    assert max(map(len, tags_of(content.boards, ["x" * 200]))) == TAG_LENGTH


def test_no_package_of_torch_is_needed(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, reg_bench.report_wandb, reg_bench.report_export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0

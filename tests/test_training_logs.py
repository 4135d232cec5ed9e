"""What W&B and TensorBoard hold of a training, read back: losses, metrics, rates, sample registrations, settings."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reg_bench.cli import main
from tests.training_recipes import recipe
from tests.wandb_records import logged, of_kind, read


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    folder = tmp_path_factory.mktemp("training")
    panels = {"class_path": "reg_bench.training_panels.SamplePanels", "init_args": {"every_n_epochs": 1, "cases": 2}}
    path = recipe(folder, trainer={"max_epochs": 2, "log_every_n_steps": 1, "callbacks": [panels]})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MODE", "RUN_GROUP", "PROJECT"):
            patch.delenv(f"WANDB_{name}", raising=False)
        patch.setenv("WANDB_TAGS", "mine")
        for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
            patch.setenv(f"WANDB_{name}", str(tmp_path_factory.mktemp(name)))
        assert main(["fit", str(path), "--out", str(folder / "out"), "--log", "csv,wandb,tensorboard"]) == 0
        import wandb

        wandb.finish()
    return folder / "out"


@pytest.fixture(scope="module")
def records(out: Path) -> list[Any]:
    return read(out)


def course(records: list[Any], key: str) -> list[float]:
    """All values of a key, in order."""
    found = []
    for history in of_kind(records, "history"):
        for item in history.item:
            if (item.key or "/".join(item.nested_key)) == key:
                found.append(json.loads(item.value_json))
    return found


def of_csv(out: Path, key: str) -> list[float]:
    with (out / "log" / "version_0" / "metrics.csv").open() as file:
        return [float(line[key]) for line in csv.DictReader(file) if line.get(key)]


def test_wandb_has_losses_metrics_and_rates(records: list[Any], out: Path) -> None:
    for key in ("train/loss", "val/dice"):
        known = of_csv(out, key)
        assert known
        assert course(records, key) == pytest.approx(known, rel=1e-5)
    (rate,) = (key for key in logged(records) if key.startswith("lr-"))
    assert course(records, rate) == pytest.approx(of_csv(out, rate))


def test_wandb_has_sample_registrations(records: list[Any], out: Path) -> None:
    (run,) = (out / "wandb").glob("offline-run-*")
    pictures = sorted((run / "files" / "media").rglob("*.png"))
    assert len(pictures) == 2 * 2
    with Image.open(pictures[0]) as picture:
        # Fixed, moving, warped, two differences, grid and Jacobian, side by side.
        assert picture.width == 7 * 168 + 6 * 4
    cases = {key.split("/")[1] for key in logged(records) if key.startswith("panels/")}
    assert len(cases) == 2


def test_wandb_groups_and_tags_and_settings(records: list[Any]) -> None:
    run = of_kind(records, "run")[0]
    assert run.job_type == "training"
    assert run.project == "reg-bench"
    assert run.run_group.startswith("training ")
    assert {"training", "mine"} <= set(run.tags)
    assert any(t.startswith("model:") for t in run.tags)
    assert any(t.startswith("data:") for t in run.tags)
    config = {i.key or i.nested_key[0] for c in of_kind(records, "config") for i in c.update}
    assert {"model", "data", "trainer", "seed_everything"} <= config | {k.split("/")[0] for k in config}


def test_tensorboard_has_the_same(out: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (out / "tensorboard").glob("version_*")
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    for key in ("train/loss", "val/dice"):
        assert [e.value for e in events.Scalars(key)] == pytest.approx(of_csv(out, key), rel=1e-5)
    assert any(t.startswith("lr-") for t in tags["scalars"])
    assert len(tags["images"]) == 2
    first = events.Images(tags["images"][0])[0]
    with Image.open(io.BytesIO(first.encoded_image_string)) as picture:
        assert picture.width == 7 * 168 + 6 * 4

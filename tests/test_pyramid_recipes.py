"""The recipes of the registration pyramid end to end: trained for an epoch on twins of their data, and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reg_bench.cli import main
from reg_bench.discovery import find
from reg_bench.registration_loss import RegistrationLoss
from tests.learn2reg_twins import write, write_task_2020

# As small as the pyramid gets; what the recipes say of training and data stays.
TINY = {"filters": [2, 2], "blocks": 1, "growth": [2], "carried": 2}
QUICK = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
PAPER = ["pyramid-paper", "pyramid-task2", "pyramid-task3", "pyramid-task4"]


def content(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(find("recipes", name).source.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def learn2reg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("learn2reg")
    for task in (2, 3, 4):
        write_task_2020(root, task)
    return root


@pytest.fixture(scope="module")
def hippocampus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hippocampus")
    rows = ["file,split"]
    random = np.random.default_rng(0)
    for number, split in enumerate(["train"] * 3 + ["val"] * 2 + ["test"] * 2):
        name = f"hippocampus_{number:03d}.nii.gz"
        image = random.random((15, 18, 14), dtype=np.float32)
        labels = np.zeros(image.shape, np.uint8)
        labels[4:8, 5 : 11 + number % 3, 4:10], labels[8:11, 5:11, 4:10] = 1, 2
        write(root / "images" / name, image + labels)
        write(root / "labels" / name, labels)
        rows.append(f"{name},{split}")
    (root / "split.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def trained(recipe: dict[str, Any], folder: Path) -> Path:
    """One epoch of two batches of the recipe with a tiny network; the checkpoint."""
    network = recipe["model"]["init_args"]["network"]
    network["init_args"] = {**network.get("init_args", {}), **TINY}
    recipe["trainer"] = {**QUICK, "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert main(["fit", str(folder / "recipe.yaml"), "--out", str(folder / "out")]) == 0
    (checkpoint,) = (folder / "out" / "checkpoints").glob("last.ckpt")
    return checkpoint


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper(name: str, learn2reg: Path, tmp_path: Path) -> None:
    recipe = content(name)
    members = recipe["data"]["init_args"].get("datasets", [recipe["data"]])
    for member in members:
        member["init_args"]["size"] = [8, 8, 8]
    recipe["data"]["init_args"]["root"] = str(learn2reg)
    if name == "pyramid-paper":
        recipe["data"]["init_args"]["epoch_cases"] = 6
    assert trained(recipe, tmp_path).is_file()


@pytest.mark.filterwarnings("ignore")
def test_recipe_of_a_task_goes_on_from_the_weights_of_the_paper(learn2reg: Path, tmp_path: Path) -> None:
    import torch

    recipe = content("pyramid-task4")
    recipe["data"]["init_args"] |= {"root": str(learn2reg), "size": [8, 8, 8]}
    (tmp_path / "first").mkdir()
    checkpoint = trained(recipe, tmp_path / "first")
    recipe["model"]["init_args"] |= {"checkpoint": str(checkpoint), "optimizer": {"rate": 1e-12, "l2": 0.001}}
    (tmp_path / "second").mkdir()
    first, second = (
        torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, trained(recipe, tmp_path / "second"))
    )
    parameters = [key for key in first if "running" not in key and "tracked" not in key]
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in parameters)


@pytest.mark.filterwarnings("ignore")
def test_lean_recipe_and_its_method(hippocampus: Path, tmp_path: Path) -> None:
    recipe = content("pyramid-lean")
    recipe["data"]["init_args"] |= {"root": str(hippocampus), "size": [16, 16, 16], "train_pairs": 4, "val_pairs": 2}
    assert trained(recipe, tmp_path).is_file()
    # The method that is benchmarked is the network that is trained.
    method = yaml.safe_load(find("methods", "pyramid-lean").source.read_text(encoding="utf-8"))
    assert method["init_args"]["network"] == content("pyramid-lean")["model"]["init_args"]["network"]


@pytest.mark.parametrize("name", PAPER)
def test_loss_of_the_recipes_is_equation_1(name: str) -> None:
    terms = content(name)["model"]["init_args"]["loss"]["init_args"]["terms"]
    told = {key: (term["class_path"].rpartition(".")[2], term["init_args"]) for key, term in terms.items()}
    assert content(name)["model"]["init_args"]["loss"]["class_path"].endswith(RegistrationLoss.__name__)
    assert told == {
        "dice": ("LabelDice", {"weight": 5.0}),
        "ncc": ("LevelSimilarity", {"weight": 5.0, "ratio": 0.5, "masked": False}),
        "affine": ("LevelAffine", {"weight": 1.0, "ratio": 2.0}),
        "gradient": ("LevelRegularity", {"weight": pytest.approx(2 / 9), "ratio": 0.5}),
    }

"""The recipes of VoxelMorph and its relatives end to end on twins of their data: fit, go on, predict, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_modules.learned import LearnedRegistration
from reg_bench import results
from reg_bench.cli import main
from reg_bench.discovery import build_datamodule, build_method, find
from tests.learn2reg_twins import write_task

QUICK = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
SMALL = {"channels": [2, 2], "final_channels": [2]}
OASIS = ["voxelmorph", "voxelmorph-diff", "voxelmorph-probabilistic", "voxelmorph-supervised"]
SHAPES = ["voxelmorph-small", "pyramid-small"]


def content(kind: Any, name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(find(kind, name).source.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learn2reg")
    for task in ("OASIS", "AbdomenCTCT"):
        write_task(folder, task)
    return folder


def tiny(name: str, root: Path) -> dict[str, Any]:
    """The recipe with as small a network as there is, on as few cases."""
    recipe = content("recipes", name)
    network, data = recipe["model"]["init_args"]["network"], recipe["data"]["init_args"]
    if name == "cascade":
        first = {"class_path": "lightning_modules.networks.monai_networks.GlobalNet"}
        first["init_args"] = {"size": [8, 8, 8], "first_channels": 2, "depth": 1}  # type: ignore[assignment]
        second = {"class_path": "lightning_modules.networks.voxelmorph.VoxelMorph", "init_args": SMALL}
        network["init_args"]["cascade"] = [first, second]
        data["size"] = [16, 12, 14]
    elif name == "pyramid-small":
        network["init_args"] |= {"filters": [2, 2], "blocks": 1, "growth": [2], "carried": 2}
    else:
        network["init_args"] = {**network.get("init_args", {}), **SMALL}
    if name in SHAPES:
        data |= {"shapes": {"size": [16, 16, 16]}, "epoch_pairs": 4, "cases": 1}
        recipe["trainer"] |= {"max_steps": -1, "val_check_interval": 1.0}
    else:
        data |= {"root": str(root), "train_pairs": 3, "val_pairs": 1, "num_workers": 0}
    recipe["trainer"] |= {**QUICK, "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    return recipe


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*OASIS, "cascade", *SHAPES])
def test_a_recipe_takes_a_step(name: str, root: Path) -> None:
    """Its network, loss and data fit together: every part of the network that can learn gets a gradient."""
    recipe = tiny(name, root)
    method, data = build_method(recipe["model"]), build_datamodule(recipe["data"])
    assert isinstance(method, LearnedRegistration)
    for parameter in method.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    batch = next(iter(data.train_dataloader()))
    pair = method.prepared(batch)
    total, terms = method._loss(method.network(pair.fixed, pair.moving), pair)
    assert terms.keys() == recipe["model"]["init_args"]["loss"]["init_args"]["terms"].keys()
    total.backward()
    assert all(p.grad is not None for p in method.parameters())
    assert sum(bool(p.grad.abs().sum() > 0) for p in method.parameters() if p.grad is not None) > 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*OASIS, "cascade", *SHAPES])
def test_a_recipe_trains_goes_on_and_predicts(name: str, root: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(tiny(name, root)), encoding="utf-8")
    last = out / "checkpoints" / "last.ckpt"
    assert main(["fit", str(path), "--out", str(out)]) == 0
    first = torch.load(last, weights_only=True)
    assert main(["fit", str(path), "--out", str(out), "--ckpt_path", "last", "--trainer.max_epochs", "2"]) == 0
    second = torch.load(last, weights_only=True)
    assert (first["epoch"], second["epoch"]) == (0, 1)
    changed = [k for k, v in first["state_dict"].items() if not torch.equal(v, second["state_dict"][k])]
    assert changed
    words = ["--ckpt_path", str(last), "--out", str(tmp_path / "predicted"), "--return_predictions", "false"]
    assert main(["predict", str(path), *words, "--trainer.limit_predict_batches", "1"]) == 0
    # And it is a method, whose network is that of the checkpoint.
    assert LearnedRegistration(checkpoint=str(last)).trained
    if "callbacks" in tiny(name, root)["trainer"]:
        assert (out / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.filterwarnings("ignore")
def test_what_a_recipe_trained_is_benchmarked_and_optimised_further(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny("voxelmorph-diff", root)), encoding="utf-8")
    assert main(["fit", str(path), "--out", str(tmp_path / "out")]) == 0
    suite = {
        "name": "twin",
        "version": 1,
        "protocol": {"panels": False, "warm_up": "none"},
        "tasks": [{"name": "brain", "dataset": "learn2reg", "init_args": {"task": "OASIS"}, "limit": 1}],
        "methods": ["learned", "learned+instance-optimisation"],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    words = ["run", str(tmp_path / "suite.yaml"), "--out", str(tmp_path / "run"), "--data.root", str(root)]
    assert main([*words, "--checkpoint", str(tmp_path / "out" / "checkpoints" / "last.ckpt")]) == 0
    found = results.state(tmp_path / "run").results
    assert {key.method: row["status"] for key, row in found.items()} == {
        "learned": "ok",
        "learned+instance-optimisation": "ok",
    }
    assert len({key.checkpoint for key in found}) == 1
    ncc = {
        key.method: next(v["value"] for v in row["values"] if v["metric"] == "ncc" and v["profile"] == "strict")
        for key, row in found.items()
    }
    assert ncc["learned+instance-optimisation"] > ncc["learned"]


@pytest.mark.parametrize("name", ["voxelmorph", "voxelmorph-diff", "voxelmorph-probabilistic", "cascade", *SHAPES])
def test_the_method_of_that_name_is_the_network_that_is_trained(name: str) -> None:
    trained, method = (content(kind, name) for kind in ("recipes", "methods"))
    trained = trained["model"]["init_args"]
    assert method["init_args"]["network"] == trained["network"]
    assert method["init_args"].get("percentiles", 0) == trained.get("percentiles", 0)

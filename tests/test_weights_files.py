"""Weights by name: which method gets them, how a result knows them, and what does not fit."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_modules.networks.voxelmorph import VoxelMorph
from reg_bench import results
from reg_bench.cli import main
from reg_bench.discovery import build_method, resolve
from reg_bench.errors import ConfigError
from reg_bench.grid import Grid
from reg_bench.io import write_image
from reg_bench.suite import load_suite
from reg_bench.weights_files import checksum, portable, split_option, weights_of, with_checkpoint, with_checkpoints

NETWORK = {"class_path": "lightning_modules.networks.voxelmorph.VoxelMorph"}
SMALL: dict[str, Any] = {"dimension": 2, "channels": [4, 4], "final_channels": [4]}


def network(**settings: Any) -> dict[str, Any]:
    return {**NETWORK, "init_args": {**SMALL, **settings}}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint of a small 2-D network that moves everything by about a voxel."""
    trained = VoxelMorph(**SMALL)
    torch.nn.init.constant_(trained.mean.bias, 0.8)  # type: ignore[arg-type]
    config = {"model": {"class_path": "learned", "init_args": {"network": network()}}}
    path = tmp_path / "trained.ckpt"
    state = {f"network.{k}": v for k, v in trained.state_dict().items()}
    torch.save({"state_dict": state, "config": yaml.safe_dump(config)}, path)
    return path


def suite(folder: Path, methods: str) -> Path:
    path = folder / "suite.yaml"
    head = """\
        name: small
        version: 1
        protocol: {panels: false, warm_up: none}
        tasks:
          - {name: heart, dataset: phantom-cine, init_args: {sequences: 1, frames: 2, size: [48, 48]}}
        methods:
    """
    path.write_text(textwrap.dedent(head) + methods)
    return path


def test_a_method_gets_its_weights_wherever_they_belong(weights: Path) -> None:
    alone = with_checkpoint(resolve("methods", "learned"), str(weights))
    assert alone.init_args["checkpoint"] == str(weights)
    joined = with_checkpoint(resolve("methods", "affine+learned+instance-optimisation"), str(weights))
    inner = joined.init_args["first"]["init_args"]["then"]
    assert inner["init_args"] == {"checkpoint": str(weights)}
    assert build_method(joined).first.then.trained  # type: ignore[union-attr]
    assert weights_of(joined.init_args) == weights_of(alone.init_args) == checksum(weights)
    assert weights_of({"first": {"checkpoint": "nconv"}, "then": [{"checkpoint": str(weights)}]}) not in (
        None,
        checksum(weights),
        checksum("nconv"),
    )
    assert weights_of({"network": {"steps": 3}}) is None
    assert portable(alone.init_args) == {"checkpoint": "trained.ckpt"}


def test_a_key_of_yaml_is_a_setting(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "class_path": "learned", "checkpoint": str(weights)}))
    assert resolve("methods", str(path)).init_args == {"checkpoint": str(weights)}
    loaded = load_suite(suite(tmp_path, f"  - {{name: mine, class_path: learned, checkpoint: {weights}}}\n"))
    assert loaded.methods[0].init_args == {"checkpoint": str(weights)}


def test_what_does_not_fit_is_named(weights: Path, tmp_path: Path) -> None:
    names = ["identity", "learned"]
    assert split_option(str(weights), names) == (None, str(weights))
    assert split_option(f"learned={weights}", names) == ("learned", str(weights))
    assert split_option("learned=nconv", names) == ("learned", "nconv")
    with pytest.raises(ConfigError, match="--checkpoint: no method 'learnt' in this run; did you mean 'learned'"):
        split_option(f"learnt={weights}", names)
    with pytest.raises(ConfigError, match=r"--checkpoint: neither a file nor a known name: 'gone\.ckpt'"):
        split_option("learned=gone.ckpt", names)
    with pytest.raises(ConfigError, match="the method 'identity' takes no weights"):
        with_checkpoint(resolve("methods", "identity"), str(weights))
    with pytest.raises(ConfigError, match="'learned\\+learned' takes 2 files of weights; name them in a YAML file"):
        with_checkpoint(resolve("methods", "learned+learned"), str(weights))
    with pytest.raises(ConfigError, match="no method of this run takes weights: identity"):
        with_checkpoints(load_suite(suite(tmp_path, "  - identity\n")), [(None, str(weights))])


@pytest.mark.usefixtures("in_this_process")
def test_a_run_knows_results_by_the_content_of_their_weights(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["run", str(suite(tmp_path, "  - identity\n  - learned\n")), "--out", str(out)]
    assert main([*words, "--checkpoint", str(weights)]) == 0
    moved = tmp_path / "elsewhere.ckpt"
    moved.write_bytes(weights.read_bytes())
    assert main([*words, "--checkpoint", f"learned={moved}"]) == 0
    found = {key: row for key, row in results.state(out).results.items() if key.method == "learned"}
    assert {key.checkpoint for key in found} == {checksum(weights)}
    assert all(row["status"] == "ok" for row in found.values())
    assert {key.checkpoint for key in results.state(out).results if key.method == "identity"} == {None}
    manifest = json.loads((out / "manifest.json").read_text())
    (method,) = (m for m in manifest["methods"] if m["name"] == "learned")
    assert method["checkpoint"] == checksum(weights)
    assert method["init_args"]["checkpoint"] == "elsewhere.ckpt"
    # Other content, other results.
    content = torch.load(weights, weights_only=True)
    content["state_dict"]["network.mean.bias"] += 0.5
    torch.save(content, moved)
    assert main([*words, "--checkpoint", str(moved)]) == 0
    keys = {key for key in results.state(out).results if key.method == "learned"}
    assert {key.checkpoint for key in keys} == {checksum(weights), checksum(moved)}
    assert len({key.config_hash for key in keys}) == 1
    capsys.readouterr()


@pytest.mark.usefixtures("in_this_process")
def test_weights_of_another_model_end_a_run_before_any_work(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"name": "mine", "class_path": "learned", "init_args": {"network": network(dimension=3)}}
    path = suite(tmp_path, "  - identity\n  - " + json.dumps(given) + "\n")
    words = ["run", str(path), "--out", str(tmp_path / "run"), "--checkpoint", str(weights)]
    assert main(words) == 2
    assert "holds weights of VoxelMorph (2-D), expected VoxelMorph (3-D)" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("rows.*"))
    # Without weights there is nothing to run, and the row says why.
    given["init_args"] = {"network": network()}
    path = suite(tmp_path, "  - " + json.dumps(given) + "\n")
    assert main(["run", str(path), "--out", str(tmp_path / "none")]) == 0
    for row in results.state(tmp_path / "none").results.values():
        assert row["status"] == "skipped"
        assert "--checkpoint FILE" in row["reason"]
    capsys.readouterr()


def test_two_images_are_registered_and_a_method_is_checked_with_weights(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = torch.rand(1, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    for name in ("fixed", "moving"):
        write_image(tmp_path / f"{name}.nii.gz", image, Grid((24, 20), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)))
    files = [str(tmp_path / "fixed.nii.gz"), str(tmp_path / "moving.nii.gz")]
    words = ["register", *files, "--out", str(tmp_path / "out"), "--method", "learned"]
    assert main(words) == 2
    assert "learned: needs a network, or a checkpoint" in capsys.readouterr().err
    assert main([*words, "--checkpoint", str(weights)]) == 0
    assert (tmp_path / "out" / "displacement.nii.gz").is_file()
    # It moves whatever it sees, so it is no good method, but one that can be asked.
    assert main(["check", "learned", "--dimension", "2", "--checkpoint", str(weights)]) == 1
    printed = capsys.readouterr().out
    assert "zero motion" in printed

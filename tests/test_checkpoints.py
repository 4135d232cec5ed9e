"""Files of weights: read safely, matched with the network, and told apart from those of any other."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_modules.learned import LearnedRegistration
from lightning_modules.networks.cascade import Cascade
from lightning_modules.networks.voxelmorph import VoxelMorph
from reg_bench.checkpoints import read_weights
from reg_bench.errors import ConfigError
from reg_bench.learned_motion import LearnedComponents
from reg_bench.types import RegistrationPair
from reg_bench.weights_files import checksum, weights_folder

CLASS = "lightning_modules.networks.voxelmorph.VoxelMorph"
SMALL: dict[str, Any] = {"dimension": 2, "channels": [4, 4], "final_channels": [4]}


def config(network: dict[str, Any], **more: Any) -> str:
    return yaml.safe_dump({"model": {"class_path": "learned", "init_args": {"network": network, **more}}})


def saved(path: Path, settings: dict[str, Any] = SMALL, text: str | None = None, **more: Any) -> VoxelMorph:
    """A checkpoint as Lightning writes it, of a network with weights of its own."""
    network = VoxelMorph(**settings)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    given = {"class_path": CLASS, "init_args": settings}
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    content = {"state_dict": state, "config": config(given, **more) if text is None else text, "epoch": 2}
    torch.save(content, path)
    return network


def pair() -> RegistrationPair:
    fixed, moving = torch.rand(2, 1, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    return RegistrationPair(("case",), fixed, moving)


def test_weights_come_back_with_and_without_the_network(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    network = saved(path, percentiles=[1.0, 99.0])
    named = LearnedRegistration(VoxelMorph(**SMALL), checkpoint=str(path), percentiles=(1.0, 99.0)).eval()
    alone = LearnedRegistration(checkpoint=str(path)).eval()
    assert alone.percentiles == (1.0, 99.0)
    assert alone.accepts(pair()) is None
    with torch.inference_mode():
        expected = LearnedRegistration(network, percentiles=(1.0, 99.0)).eval()(pair()).u
        assert torch.equal(named(pair()).u, expected)
        assert torch.equal(alone(pair()).u, expected)
    assert float(expected.abs().max()) > 0.01


def test_a_state_alone_needs_a_network(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    network = VoxelMorph(**SMALL)
    torch.save(network.state_dict(), path)
    assert LearnedRegistration(VoxelMorph(**SMALL), checkpoint=str(path)).trained
    with pytest.raises(ConfigError, match=r"state\.pt: does not say of which network"):
        LearnedRegistration(checkpoint=str(path))
    with pytest.raises(ConfigError, match="needs a network, or a checkpoint that names its own"):
        LearnedRegistration()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 3}, r"some\.ckpt: holds weights of VoxelMorph \(2-D\), expected VoxelMorph \(3-D\)"),
        ({"channels": [4, 4, 4, 4]}, r"holds weights of another VoxelMorph \(2-D\): multiple is 2 there and 4 here"),
        # These have the same tensors: only the configuration tells them apart.
        ({"velocity": True}, "velocity is False there and True here"),
        ({"velocity": True, "steps": 3}, "velocity is False there and True here"),
    ],
)
def test_weights_of_another_network_are_told_apart(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = tmp_path / "some.ckpt"
    saved(path)
    with pytest.raises(ConfigError, match=message):
        LearnedRegistration(VoxelMorph(**{**SMALL, **settings}), checkpoint=str(path))


def test_weights_of_another_class_and_scaling_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    saved(path)
    with pytest.raises(ConfigError, match=r"holds weights of VoxelMorph \(2-D\), expected Cascade \(2-D\)"):
        LearnedRegistration(Cascade([VoxelMorph(**SMALL)]), checkpoint=str(path))
    saved(path, percentiles=None)
    with pytest.raises(ConfigError, match="was trained with percentiles None, not"):
        LearnedRegistration(VoxelMorph(**SMALL), checkpoint=str(path))


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "mark"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(ConfigError, match="not a file of weights"):
        read_weights(path)
    torch.save({"state_dict": {"a": Evil()}}, path)
    with pytest.raises(ConfigError, match="not a file of weights"):
        read_weights(path)
    saved(path, text="!!python/object/apply:pathlib.Path.touch [x]")
    with pytest.raises(ConfigError, match="its configuration cannot be read"):
        read_weights(path)
    saved(path, text=config({"class_path": "antigravity.Network"}))
    with pytest.raises(ConfigError, match=r"is of antigravity\.Network, which a file of weights may not import"):
        LearnedRegistration(checkpoint=str(path))
    nested = {"class_path": "lightning_modules.networks.cascade.Cascade"}
    nested["init_args"] = {"cascade": [{"class_path": "this.Network"}]}  # type: ignore[assignment]
    saved(path, text=config(nested))
    with pytest.raises(ConfigError, match=r"is of this\.Network"):
        LearnedRegistration(checkpoint=str(path))
    assert not mark.exists()


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"state_dict": {}}, {"a": 3}])
def test_what_holds_no_weights_is_named(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "some.pt"
    torch.save(content, path)
    with pytest.raises(ConfigError, match=r"some\.pt: not a file of weights: holds"):
        read_weights(path)


def test_a_class_that_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    saved(path, text=config({"class_path": "lightning_modules.networks.voxelmorph.VoxelMorf"}))
    with pytest.raises(ConfigError, match="VoxelMorf cannot be built"):
        LearnedRegistration(checkpoint=str(path))


def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for path, text in zip(paths, ("one", "one", "two"), strict=True):
        path.write_text(text)
    first, second, third = (checksum(path) for path in paths)
    assert first == second != third
    assert first == hashlib.sha256(b"one").hexdigest()[:16]
    with pytest.raises(ConfigError, match="neither a file nor a known name: 'nconf'; did you mean 'nconv'"):
        checksum("nconf")


def test_shipped_weights_have_a_card(tmp_path: Path) -> None:
    paths = sorted(weights_folder().glob("*.pt"))
    assert paths
    for path in paths:
        card = json.loads(path.with_suffix(".json").read_text())
        assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert card.keys() >= {"network", "parameters", "command", "seed", "steps", "versions", "validation"}
        if card["network"] is None:
            # Components of motion are no network.
            assert LearnedComponents.load(path).seconds_per_frame > 0
        else:
            assert read_weights(path.stem).path == path

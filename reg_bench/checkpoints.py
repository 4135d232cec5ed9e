"""Files of weights: found by name or path, read without running anything in them, and checked against a network.

A file is what Lightning saves (`state_dict`, and under `config` the configuration of the training as YAML text), what
is shipped (the same two and nothing else), or a `state_dict` alone.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import reg_bench
from reg_bench.errors import ConfigError
from reg_bench.registration_network import RegistrationNetwork
from reg_bench.weights_files import weights_file

# Modules that a file of weights may have imported; any other has to be imported by the user.
_OURS = ("lightning_modules.", "reg_bench.")


def origin(checkpoint: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """Of `weights` made of a checkpoint of Lightning: seed and steps of the training, versions, and the checksum."""
    return {
        "seed": yaml.safe_load(checkpoint["config"])["seed_everything"],
        "steps": checkpoint["global_step"],
        "versions": {
            "regbench-suite": reg_bench.__version__,
            "torch": torch.__version__,
            "pytorch-lightning": checkpoint["pytorch-lightning_version"],
        },
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        path: of the file; messages name it.
        state: tensors by name.
        config: configuration of the training, empty where the file has none.
    """

    path: Path
    state: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @property
    def model(self) -> Mapping[str, Any]:
        """The settings of the module that was trained, as in its recipe."""
        model = self.config.get("model")
        given = model.get("init_args") if isinstance(model, Mapping) else None
        return given if isinstance(given, Mapping) else {}

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part of the module; those of the file as they are where it holds that part alone."""
        inner = {k.removeprefix(f"{name}."): v for k, v in self.state.items() if k.startswith(f"{name}.")}
        return inner or dict(self.state)


def read_weights(given: str | Path) -> Weights:
    """The content of a file of weights, on the CPU. Nothing in the file is run.

    Raises:
        ConfigError: no such file, or not a file of weights; names it.
    """
    path = weights_file(given)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(f"{path}: not a file of weights: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a file of weights: holds a {type(content).__name__}")
    nested = isinstance(content.get("state_dict"), dict)
    state = content["state_dict"] if nested else content
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path}: not a file of weights: holds no tensors by name")
    return Weights(path, state, _config(path, content.get("config") if nested else None))


def _config(path: Path, text: Any) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: its configuration cannot be read: {' '.join(str(error).split())[:200]}") from error
    return config if isinstance(config, Mapping) else {}


def network_of(weights: Weights) -> RegistrationNetwork:
    """The network that the weights were trained for, built by the configuration of the file, with its first weights.

    Raises:
        ConfigError: the file does not say, or names a class that is not there.
    """
    given = weights.model.get("network")
    if not isinstance(given, Mapping) or not isinstance(given.get("class_path"), str):
        raise ConfigError(f"{weights.path}: does not say of which network its weights are; name the method")
    for class_path in _class_paths(given):
        if not class_path.startswith(_OURS) and class_path.rpartition(".")[0] not in sys.modules:
            raise ConfigError(
                f"{weights.path}: is of {class_path}, which a file of weights may not import; name a method that uses "
                "this network"
            )
    from jsonargparse import ArgumentParser

    parser: Any = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=RegistrationNetwork)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    try:
        network: RegistrationNetwork = instantiate(parser.parse_object({"network": dict(given)})).network
    except Exception as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{weights.path}: its network {given['class_path']} cannot be built: {text[:400]}") from error
    return network


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _class_paths(item)


def load_network(network: RegistrationNetwork, weights: Weights) -> None:
    """Fills `network` with weights that were trained for just such a network.

    Raises:
        ConfigError: of another network; names the file, what it is of, and what was expected.
    """
    expected = f"{type(network).__name__} ({network.dimension}-D)"
    if "network" in weights.model:
        trained = network_of(weights)
        found = f"{type(trained).__name__} ({trained.dimension}-D)"
        if found != expected:
            raise ConfigError(f"{weights.path}: holds weights of {found}, expected {expected}")
        if difference := _difference(_settings(trained), _settings(network)):
            raise ConfigError(f"{weights.path}: holds weights of another {expected}: {difference}")
    load_state(network, weights, "network", expected)


def load_state(module: nn.Module, weights: Weights, part: str, expected: str = "") -> None:
    """Fills `module` with one part of what was saved.

    Raises:
        ConfigError: of another module; names the file.
    """
    try:
        module.load_state_dict(weights.part(part))
    except (RuntimeError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())
        name = expected or type(module).__name__
        raise ConfigError(f"{weights.path}: weights of another network than {name}: {text[:400]}") from error


def _settings(network: nn.Module) -> dict[str, Any]:
    """What makes a network what it is, beside its weights: classes and plain attributes of all its parts."""
    found: dict[str, Any] = {}
    for name, module in network.named_modules():
        found[f"{name}.class" if name else "class"] = type(module).__name__
        for key, value in vars(module).items():
            if not key.startswith("_") and key != "training" and _plain(value):
                found[f"{name}.{key}" if name else key] = list(value) if isinstance(value, tuple) else value
    return found


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    return isinstance(value, bool | int | float | str | None)


def _difference(trained: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first setting in which two networks differ, in words."""
    for key in [*here, *(k for k in trained if k not in here)]:
        then, now = trained.get(key, "nothing"), here.get(key, "nothing")
        if then != now:
            return f"{key} is {then} there and {now} here"
    return ""

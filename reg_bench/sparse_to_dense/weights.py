"""Weights of networks in files: what was saved, for which network, and nothing that could run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from reg_bench.discovery import nearest, package_folder
from reg_bench.errors import ConfigError


def weights_folder() -> Path:
    """Where the weights lie that come with the package."""
    return package_folder("lightning_modules") / "weights"


def weights_file(given: str | Path) -> Path:
    """The file of weights called `given`, a name of the package or a path.

    Raises:
        ConfigError: no such file; tells the nearest known name.
    """
    shipped = {p.stem: p for p in sorted(weights_folder().glob("*.pt"))}
    if str(given) in shipped:
        return shipped[str(given)]
    path = Path(given)
    if not path.is_file():
        raise ConfigError(f"weights: neither a file nor a known name: {str(given)!r}{nearest(str(given), shipped)}")
    return path


def load_weights(network: nn.Module, given: str | Path, part: str = "network.") -> None:
    """Fills `network` with the weights of a file: its `state_dict`, or a checkpoint of Lightning that holds it.

    Args:
        network: changed in place.
        given: see `weights_file`.
        part: what the names of the network's parameters begin with in a checkpoint.

    Raises:
        ConfigError: no such file, not a file of weights, or those of another network; names the file.
    """
    path = weights_file(given)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(f"{path}: not a file of weights: {' '.join(str(error).split())[:200]}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = {k.removeprefix(part): v for k, v in content["state_dict"].items() if k.startswith(part)}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a file of weights: holds a {type(content).__name__}")
    try:
        network.load_state_dict(content)
    except (RuntimeError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: weights of another network than {type(network).__name__}: {text[:400]}") from error

"""Weights of networks that fill in displacements."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from reg_bench.checkpoints import load_state, read_weights


def load_weights(network: nn.Module, given: str | Path, part: str = "network") -> None:
    """Fills `network` with the weights of a file: its `state_dict`, or a checkpoint of Lightning that holds it.

    Args:
        network: changed in place.
        given: see `reg_bench.weights_files.weights_file`.
        part: of the trained module that the network is.

    Raises:
        ConfigError: no such file, not a file of weights, or those of another network; names the file.
    """
    load_state(network, read_weights(given), part)

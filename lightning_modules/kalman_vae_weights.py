"""Weights of Kalman VAEs: of just this network, or an error that says in what they differ."""

from __future__ import annotations

import inspect
from typing import Any

from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.checkpoints import load_state, read_weights
from reg_bench.errors import ConfigError

# What changes what a network computes; the rest is of its training, or is added to its field.
_SETTINGS = (
    "size",
    "latents",
    "states",
    "filters",
    "conditioning",
    "decoder",
    "levels",
    "velocity",
    "target",
    "dynamic",
)


def load_weights(network: KalmanVAENetwork, checkpoint: str) -> None:
    """Fills `network` with weights that were trained for just such a network.

    Args:
        checkpoint: a file, or a name of those that are shipped.

    Raises:
        ConfigError: no such file, or of another network; names the file and the setting.
    """
    weights = read_weights(checkpoint)
    given = weights.model.get("network")
    if isinstance(given, dict):
        defaults = {k: p.default for k, p in inspect.signature(KalmanVAENetwork).parameters.items()}
        trained = {**defaults, **(given.get("init_args") or {})}
        for name in _SETTINGS:
            then, now = _plain(trained[name]), _plain(network.settings[name])
            if then != now:
                raise ConfigError(
                    f"{weights.path}: weights of another Kalman VAE: {name} is {then} there and {now} here"
                )
    load_state(network, weights, "network")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value

"""The latent variables of the Kalman VAE over time: filtered, foretold, smoothed and drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.state_space import (
    LinearGaussianModel,
    forecast,
    kalman_filter,
    kalman_step,
    kalman_update,
    observe,
    rts_smoother,
    sample_prior,
)


@dataclass(frozen=True)
class LatentState:
    """The state of the dynamics at some time.

    Attributes:
        mean: `(B, n)`, of the state z given all observations so far; of a plain VAE `(B, p)`, the last x.
        covariance: `(B, n, n)`; of a plain VAE `(B, p, p)`, zero.
        model: of the dynamics, which begin at the reference; `None` for a plain VAE.
    """

    mean: Tensor
    covariance: Tensor
    model: LinearGaussianModel | None


class Latents:
    """The dynamics of a network, or none: a plain VAE holds the last latent variables.

    Args:
        network: whose dynamics they are.
    """

    def __init__(self, network: KalmanVAENetwork) -> None:
        # Not a module: the network is one already, and would be counted twice.
        self.network = network

    def start(self, reference: Tensor) -> LatentState:
        """The state at the reference, whose latent variables `(B, p)` are the first observation."""
        if self.network.dynamics is None:
            return LatentState(reference, _nothing(reference), None)
        model = self.network.dynamics.model(reference)
        mean, covariance = kalman_update(model, model.mean, model.covariance, reference)
        return LatentState(mean, covariance, model)

    def step(self, state: LatentState, x: Tensor | None, frames: int = 1) -> LatentState:
        """The state `frames` frames later, where `x (B, p)` is observed, or nothing."""
        if state.model is None:
            return state if x is None else replace(state, mean=x)
        mean, covariance = state.mean, state.covariance
        for number in range(1, frames + 1):
            mean, covariance = kalman_step(state.model, mean, covariance, x if number == frames else None)
        return replace(state, mean=mean, covariance=covariance)

    def observed(self, state: LatentState) -> tuple[Tensor, Tensor]:
        """Mean `(B, p)` and covariance `(B, p, p)` of the latent variables x, the noise of their emission included."""
        if state.model is None:
            return state.mean, state.covariance
        return observe(state.model, state.mean, state.covariance)

    def ahead(self, state: LatentState, frames: float) -> tuple[Tensor, Tensor]:
        """As `observed`, `frames` frames later, if nothing more is seen; linear between whole frames."""
        if state.model is None or frames <= 0:
            return self.observed(state)
        whole = math.ceil(frames - 1e-6)
        means, covariances = forecast(state.model, state.mean, state.covariance, whole)
        later = observe(state.model, means[:, -1], covariances[:, -1])
        part = frames - (whole - 1)
        if part >= 1:
            return later
        before = (state.mean, state.covariance) if whole == 1 else (means[:, -2], covariances[:, -2])
        earlier = observe(state.model, *before)
        return torch.lerp(earlier[0], later[0], part), torch.lerp(earlier[1], later[1], part)

    def courses(self, x: Tensor, reference: Tensor, observed: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Means and standard deviations, `(B, T, p)` each, of the latent variables given some of `x (B, T, p)`.

        `filtered`: what `step` finds frame by frame, the first of which is the reference; `smoothed`: given all
        observations, earlier and later ones; `predicted`: given those before. A plain VAE has one for all.

        Args:
            x: what the frames say.
            reference: `(B, p)`, what the reference says.
            observed: `(B, T)` bool, which of them count; all if not given.
        """
        if self.network.dynamics is None:
            held = _held(x, observed)
            return dict.fromkeys(("filtered", "smoothed", "predicted"), (held, torch.zeros_like(held)))
        model = self.network.dynamics.model(reference)
        filtered = kalman_filter(model, x, observed)
        smoothed = rts_smoother(model, filtered)
        found = {
            "filtered": (filtered.mean, filtered.covariance),
            "smoothed": (smoothed.mean, smoothed.covariance),
            "predicted": (filtered.predicted_mean, filtered.predicted_covariance),
        }
        return {kind: _of_latents(model, *state) for kind, state in found.items()}

    def drawn(self, reference: Tensor, count: int, length: int, generator: torch.Generator | None) -> Tensor:
        """Latent variables `(count, B, length, p)` from the prior given the reference's `(B, p)`."""
        if self.network.dynamics is None:
            shape = (count, len(reference), length, reference.shape[1])
            return torch.randn(shape, generator=generator, dtype=reference.dtype, device=reference.device)
        drawn = []
        for one in reference.split(1):
            model = self.network.dynamics.model(one)
            model = replace(model, mean=model.mean[0], covariance=model.covariance[0])
            drawn.append(sample_prior(model, count, length, generator)[1])
        return torch.stack(drawn, dim=1)


def _of_latents(model: LinearGaussianModel, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latent variables of states."""
    seen, spread = observe(model, mean, covariance)
    return seen, spread.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()


def _nothing(x: Tensor) -> Tensor:
    return x.new_zeros(*x.shape, x.shape[-1])


def _held(x: Tensor, observed: Tensor | None) -> Tensor:
    """Every frame's own, the last one's where none was observed; the first has to be."""
    if observed is None:
        return x
    places = torch.where(observed, torch.arange(x.shape[1], device=x.device), 0).cummax(dim=1).values
    return x.gather(1, places[..., None].expand_as(x))

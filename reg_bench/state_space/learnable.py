"""A linear Gaussian state-space model with parameters to learn by gradient."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from reg_bench.state_space.gaussian import factor
from reg_bench.state_space.model import LinearGaussianModel

NAMES = ("A", "C", "Q", "R", "mean", "covariance")
Structure = Literal["diagonal", "full"]


class _Covariance(nn.Module):
    """A positive definite matrix: `L L^T` with the logarithm of `L`'s diagonal as parameter, and what lies below it."""

    def __init__(self, initial: Tensor, structure: Structure, learn: bool) -> None:
        super().__init__()
        if structure == "diagonal":
            diagonal, below = initial.diagonal().sqrt(), None
        else:
            lower = factor(initial)
            diagonal, below = lower.diagonal(), lower.tril(-1)
        self.log_scale = nn.Parameter(diagonal.clamp(min=1e-12).log(), requires_grad=learn)
        self.below = None if below is None else nn.Parameter(below, requires_grad=learn)

    def forward(self) -> Tensor:
        if self.below is None:
            return torch.diag(torch.exp(2 * self.log_scale))
        lower = self.below.tril(-1) + torch.diag(self.log_scale.exp())
        return lower @ lower.mT


class LearnableLinearGaussian(nn.Module):
    """Holds `A, C, Q, R`, mean and covariance of the first state; those named in `learn` have gradients.

    Covariances are positive definite by construction. They begin at `noise^2`, and `A` and `C` at draws of
    `N(0, weight_scale^2)`, as in Paper III; or all begin at `initial`.

    Args:
        observations: `p`.
        states: `n`.
        learn: which of A, C, Q, R, mean and covariance learn.
        noise_structure: `diagonal` covariances Q and R, as in Paper III, or `full` ones.
        initial_structure: the same for the covariance of the first state.
        noise: standard deviation of both noises at the beginning.
        initial_scale: standard deviation of the first state at the beginning.
        weight_scale: of A and C at the beginning.
        initial: a model to begin from; must be common to all sequences.

    Raises:
        ValueError: unknown names, sizes below 1, scales that are not positive, an `initial` of other sizes.
    """

    def __init__(
        self,
        observations: int,
        states: int,
        learn: Collection[str] = NAMES,
        noise_structure: Structure = "diagonal",
        initial_structure: Structure = "diagonal",
        noise: float = 0.1,
        initial_scale: float = 1.0,
        weight_scale: float = 0.05,
        initial: LinearGaussianModel | None = None,
    ) -> None:
        super().__init__()
        if set(learn) - set(NAMES):
            raise ValueError(f"state-space model: learn may name {', '.join(NAMES)}, got {', '.join(sorted(learn))}")
        if min(observations, states) < 1 or not min(noise, initial_scale, weight_scale) > 0:
            raise ValueError(
                "state-space model: observations and states must be at least 1, noise, initial_scale and weight_scale "
                f"positive, got {observations}, {states}, {noise}, {initial_scale} and {weight_scale}"
            )
        if initial is None:
            initial = LinearGaussianModel(
                A=weight_scale * torch.randn(states, states),
                C=weight_scale * torch.randn(observations, states),
                Q=noise**2 * torch.eye(states),
                R=noise**2 * torch.eye(observations),
                mean=torch.zeros(states),
                covariance=initial_scale**2 * torch.eye(states),
            )
        elif (initial.states, initial.observations, initial.sequences) != (states, observations, None):
            raise ValueError(
                f"state-space model: initial must have {states} states, {observations} observations and one first "
                f"state, got {initial.states}, {initial.observations} and {initial.sequences} first states"
            )
        self.learn = tuple(name for name in NAMES if name in learn)
        self.A, self.C, self.mean = (
            nn.Parameter(getattr(initial, name).detach().clone(), requires_grad=name in learn)
            for name in ("A", "C", "mean")
        )
        self.Q = _Covariance(initial.Q.detach(), noise_structure, "Q" in learn)
        self.R = _Covariance(initial.R.detach(), noise_structure, "R" in learn)
        self.covariance = _Covariance(initial.covariance.detach(), initial_structure, "covariance" in learn)

    def model(
        self, initial_mean: Tensor | None = None, initial_covariance: Tensor | None = None
    ) -> LinearGaussianModel:
        """The model as it is now.

        Args:
            initial_mean: `(B, n)`, of the first state of every sequence, in place of the common one.
            initial_covariance: `(n, n)` or `(B, n, n)`. With one per sequence the covariances are computed per
                sequence too.
        """
        return LinearGaussianModel(
            A=self.A,
            C=self.C,
            Q=self.Q(),
            R=self.R(),
            mean=self.mean if initial_mean is None else initial_mean,
            covariance=self.covariance() if initial_covariance is None else initial_covariance,
        )

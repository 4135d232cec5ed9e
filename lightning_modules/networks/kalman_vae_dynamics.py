"""The latent dynamics of the Kalman VAE: a linear Gaussian state-space model that begins at the reference image."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_modules.networks.kalman_vae import InitialState
from lightning_modules.networks.kalman_vae_fields import Draw
from reg_bench.state_space import LinearGaussianModel, Smoothed, kalman_filter, rts_smoother
from reg_bench.state_space.gaussian import factor, log_density
from reg_bench.variational_bound import normal_log_density

Likelihood = Literal["exact", "paper"]

# Variances are never below this, so that covariances stay invertible in float32.
_LEAST_VARIANCE = 1e-6


class LatentDynamics(nn.Module):
    """`z_1 ~ N(mu(x_M), P(x_M))`, `z_t = A z_{t-1} + N(0, Q)`, `x_t = C z_t + N(0, R)`, with Q and R diagonal.

    Args:
        latents: dimensions of x.
        states: dimensions of z.
        likelihood: of the sequence x: `exact` by the Kalman filter (thesis, equation 3.17), or `paper`: one sample of
            each z_t from its own smoothed marginal, as equation 10c writes the posterior. That is a looser bound.
        start: of A and C at the beginning of a training: `paper` draws both from N(0, 0.05^2); `steady` begins with a
            state that stays, A near the identity.
        std: of all noise at the beginning.

    Raises:
        ValueError: an unknown likelihood or start.
    """

    def __init__(
        self,
        latents: int = 16,
        states: int = 32,
        likelihood: Likelihood = "exact",
        start: Literal["paper", "steady"] = "paper",
        std: float = 0.1,
    ) -> None:
        super().__init__()
        if likelihood not in get_args(Likelihood) or start not in ("paper", "steady"):
            raise ValueError(
                "LatentDynamics: likelihood must be exact or paper, start paper or steady, got "
                f"{likelihood!r} and {start!r}"
            )
        self.likelihood = likelihood
        self.transition = nn.Parameter(0.05 * torch.randn(states, states))
        self.emission = nn.Parameter(0.05 * torch.randn(latents, states))
        if start == "steady":
            with torch.no_grad():
                self.transition.mul_(0.2).add_(0.98 * torch.eye(states))
                self.emission.copy_(torch.linalg.qr(torch.randn(states, latents)).Q.T)
        # As logarithms, since the paper's plain numbers may turn negative.
        self.log_state_std = nn.Parameter(torch.full((states,), std).log())
        self.log_latent_std = nn.Parameter(torch.full((latents,), std).log())
        self.first = InitialState(latents, states)

    def model(self, reference: Tensor) -> LinearGaussianModel:
        """The state-space model of sequences whose reference images have the latent variables `(B, latents)`."""
        mean, std = self.first(reference)
        return LinearGaussianModel(
            A=self.transition,
            C=self.emission,
            Q=_diagonal(self.log_state_std.exp()),
            R=_diagonal(self.log_latent_std.exp()),
            mean=mean,
            covariance=_diagonal(std),
        )

    @torch.no_grad()
    def stabilise(self, limit: float) -> None:
        """Brings eigenvalues of A that are larger than `limit` back to it, so that what is generated stays bounded."""
        values, vectors = torch.linalg.eig(self.transition.double())
        sizes = values.abs()
        if bool((sizes > limit).any()):
            shrunk = values * (limit / sizes).clamp(max=1)
            # The eigenvalues come in conjugate pairs and are shrunk in pairs: the product is real.
            self.transition.copy_(torch.linalg.solve(vectors.mT, (vectors * shrunk).mT).mT.real)

    def log_likelihood(
        self, x: Tensor, reference: Tensor, observed: Tensor | None = None, draw: Draw = torch.randn_like
    ) -> Tensor:
        """`log p(x_1 .. x_T)`, `(B,)`, of `x (B, T, latents)`; frames that are not `observed (B, T)` are left out."""
        model = self.model(reference)
        filtered = kalman_filter(model, x, observed)
        if self.likelihood == "exact":
            return filtered.log_likelihood.sum(dim=1)
        return self._by_marginals(model, x, observed, rts_smoother(model, filtered), draw)

    def _by_marginals(
        self, model: LinearGaussianModel, x: Tensor, observed: Tensor | None, smoothed: Smoothed, draw: Draw
    ) -> Tensor:
        """`log p(x, z) - sum_t log p(z_t | x)` with every z_t from its own smoothed marginal, a sample per sequence."""
        mean, lower = smoothed.mean, factor(smoothed.covariance)
        white = draw(mean)
        z = mean + (lower @ white[..., None])[..., 0]
        first = log_density(z[:, 0], model.mean, model.covariance)
        state_std = model.Q.diagonal().sqrt()
        moves = normal_log_density(z[:, 1:], z[:, :-1] @ model.A.mT, state_std).sum(dim=1)
        seen = normal_log_density(x, z @ model.C.mT, model.R.diagonal().sqrt())
        if observed is not None:
            seen = torch.where(observed, seen, torch.zeros_like(seen))
        # log N(z; m, L L^T) of its own sample.
        volume = lower.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        own = normal_log_density(white, torch.zeros_like(white), 1.0) - volume
        return first + moves + seen.sum(dim=1) - own.sum(dim=1)


def _diagonal(std: Tensor) -> Tensor:
    return torch.diag_embed(std.square() + _LEAST_VARIANCE)

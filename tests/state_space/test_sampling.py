"""Draws have the moments of the joint Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.state_space import LinearGaussianModel, kalman_filter, rts_smoother, sample_posterior, sample_prior
from tests.state_space.systems import generator, joint, missing, observations, system

COUNT = 40000


def test_prior_has_the_moments_of_the_joint() -> None:
    model = system(2, 2)
    states, y = sample_prior(model, COUNT, 4, generator(0))
    mean, covariance, _ = joint(model, 4)
    drawn = torch.cat([states.flatten(1), y.flatten(1)], dim=1).numpy()
    deviation = np.sqrt(np.diag(covariance))
    assert np.abs((drawn.mean(axis=0) - mean) / deviation).max() < 5 / np.sqrt(COUNT)
    # The standard error of a covariance of Gaussians is at most sqrt(2 / N) of the product of the deviations.
    assert np.abs((np.cov(drawn.T) - covariance) / np.outer(deviation, deviation)).max() < 5 * np.sqrt(2 / COUNT)


@pytest.mark.parametrize("own", [None, 3])
def test_posterior_has_the_moments_of_the_smoother(own: int | None) -> None:
    model = system(2, 2, batch=own)
    y, observed = observations(model, 3, 5), missing(3, 5, 0.4)
    filtered = kalman_filter(model, y, observed)
    smoothed = rts_smoother(model, filtered)
    drawn = sample_posterior(model, filtered, COUNT, generator(1))
    assert drawn.shape == (COUNT, 3, 5, 2)
    deviation = smoothed.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    off = (drawn - smoothed.mean) / deviation
    assert off.mean(dim=0).abs().max() < 5 / COUNT**0.5
    together = torch.einsum("kbti,kbtj->btij", off, off) / COUNT
    across = torch.einsum("kbti,kbtj->btij", off[:, :, 1:], off[:, :, :-1]) / COUNT
    expected = smoothed.covariance / (deviation[..., None] * deviation[..., None, :])
    expected_across = smoothed.cross_covariance / (deviation[:, 1:, :, None] * deviation[:, :-1, None, :])
    assert (together - expected).abs().max() < 5 * (2 / COUNT) ** 0.5
    assert (across - expected_across).abs().max() < 5 * (2 / COUNT) ** 0.5


def test_seeds_and_shapes() -> None:
    model = system(3, 2, batch=4, dtype=torch.float32)
    states, y = sample_prior(model, 5, 1, generator(2))
    assert states.shape == (5, 4, 1, 3)
    assert y.shape == (5, 4, 1, 2)
    assert torch.equal(states, sample_prior(model, 5, 1, generator(2))[0])
    assert not torch.equal(states, sample_prior(model, 5, 1, generator(3))[0])
    with pytest.raises(ValueError, match="at least 1"):
        sample_prior(model, 0, 3)


def test_draws_without_noise_are_the_model() -> None:
    base = system(3, 2)
    model = LinearGaussianModel(base.A, base.C, 0 * base.Q, 0 * base.R, base.mean, 0 * base.covariance)
    states, y = sample_prior(model, 2, 5, generator(4))
    expected = torch.stack([torch.linalg.matrix_power(base.A, t) @ base.mean for t in range(5)]).expand(2, -1, -1)
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(y, expected @ base.C.mT, rtol=0, atol=1e-12)


def test_draws_are_differentiable() -> None:
    model = system(2, 2)
    y = observations(model, 1, 3)

    def draw(A: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        current = LinearGaussianModel(A, model.C, model.Q, model.R, model.mean, model.covariance)
        prior = sample_prior(current, 2, 3, generator(5))[1]
        return torch.cat([prior, sample_posterior(current, kalman_filter(current, values), 2, generator(6))[:, 0]])

    assert torch.autograd.gradcheck(draw, (model.A.clone().requires_grad_(), y.clone().requires_grad_()))

"""The identities of the thesis' appendix A: against numbers integrated on a grid and against one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from reg_bench.state_space import joint_log_density, kalman_filter, posterior_log_density, sample_posterior
from reg_bench.state_space.gaussian import affine, condition, factor, log_density, marginal, product
from tests.state_space.systems import conditioned, generator, missing, observations, positive, system


def near(found: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def gaussian(n: int, seed: int) -> tuple[Tensor, Tensor]:
    g = generator(seed)
    return torch.randn(n, generator=g, dtype=torch.float64), positive(n, g)


def grid(step: float = 0.05, reach: float = 9.0) -> tuple[Tensor, Tensor]:
    """Points `(N, 2)` of the plane and the area of each."""
    line = torch.arange(-reach, reach, step, dtype=torch.float64)
    return torch.cartesian_prod(line, line), torch.tensor(step**2, dtype=torch.float64)


def test_log_density_is_scipys() -> None:
    mean, covariance = gaussian(3, 0)
    x = torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    expected = multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(x.numpy())
    near(log_density(x, mean, covariance), torch.from_numpy(expected))


def test_density_integrates_to_one_with_its_moments() -> None:
    mean, covariance = gaussian(2, 2)
    points, area = grid()
    weight = log_density(points, mean, covariance).exp() * area
    near(weight.sum(), torch.tensor(1.0, dtype=torch.float64), 1e-8)
    near(weight @ points, mean, 1e-8)
    near((points - mean).mT @ (weight[:, None] * (points - mean)), covariance, 1e-7)


def test_marginal_integrates_the_other_entry_out() -> None:
    mean, covariance = gaussian(2, 3)
    line = torch.arange(-9, 9, 0.02, dtype=torch.float64)
    for x in (-0.7, 0.4):
        points = torch.stack([torch.full_like(line, x), line], dim=1)
        integral = log_density(points, mean, covariance).exp().sum() * 0.02
        kept = marginal(mean, covariance, torch.tensor([0]))
        near(log_density(torch.tensor([x], dtype=torch.float64), *kept).exp(), integral, 1e-8)


def test_conditioning_is_joint_over_marginal() -> None:
    mean, covariance = gaussian(4, 4)
    x = torch.randn(4, generator=generator(5), dtype=torch.float64)
    for given in itertools.permutations(range(4), 2):
        index = torch.tensor(given)
        rest = torch.tensor([k for k in range(4) if k not in given])
        found = condition(mean, covariance, index, x[index])
        joint = log_density(x, mean, covariance)
        near(log_density(x[rest], *found) + log_density(x[index], *marginal(mean, covariance, index)), joint)
        by_hand = conditioned(mean.numpy(), covariance.numpy(), np.array(given), x[index].numpy())
        near(found[0], torch.from_numpy(by_hand[0])[rest])
        near(found[1], torch.from_numpy(by_hand[1])[rest][:, rest])


def test_product_of_two_densities() -> None:
    (a, A), (b, B) = gaussian(3, 6), gaussian(3, 7)
    mean, covariance, log_constant = product(a, A, b, B)
    x = torch.randn(6, 3, generator=generator(8), dtype=torch.float64)
    near(log_density(x, a, A) + log_density(x, b, B), log_constant + log_density(x, mean, covariance))
    inverse = torch.linalg.inv(A) + torch.linalg.inv(B)
    near(torch.linalg.inv(covariance), inverse, 1e-8)
    near(covariance @ (torch.linalg.solve(A, a) + torch.linalg.solve(B, b)), mean)


def test_affine_map_is_the_marginal_of_the_joint() -> None:
    """`y = C x + e`: the law of total expectation and variance, and Bayes' rule from the same joint Gaussian."""
    (mean, P), (_, R) = gaussian(3, 9), gaussian(2, 10)
    C = torch.randn(2, 3, generator=generator(11), dtype=torch.float64)
    moved, S = affine(mean, P, C, R)
    joint_mean = torch.cat([mean, C @ mean])
    joint = torch.cat([torch.cat([P, P @ C.mT], dim=1), torch.cat([C @ P, C @ P @ C.mT + R], dim=1)])
    kept = marginal(joint_mean, joint, torch.tensor([3, 4]))
    near(moved, kept[0])
    near(S, kept[1])
    y, x = torch.randn(2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    posterior = condition(joint_mean, joint, torch.tensor([3, 4]), y)
    prior_times_likelihood = log_density(x, mean, P) + log_density(y, C @ x, R)
    near(log_density(x, *posterior) + log_density(y, moved, S), prior_times_likelihood)


def test_woodbury_turns_gains_into_information() -> None:
    """`(P^-1 + C^T R^-1 C)^-1 = P - P C^T (C P C^T + R)^-1 C P`, its gain, and the determinant lemma."""
    (_, P), (_, R) = gaussian(4, 12), gaussian(2, 13)
    C = torch.randn(2, 4, generator=generator(14), dtype=torch.float64)
    S = C @ P @ C.mT + R
    gain = P @ C.mT @ torch.linalg.inv(S)
    information = torch.linalg.inv(P) + C.mT @ torch.linalg.inv(R) @ C
    near(torch.linalg.inv(information), P - gain @ S @ gain.mT)
    near(torch.linalg.inv(information) @ C.mT @ torch.linalg.inv(R), gain)
    near(torch.logdet(S), torch.logdet(R) + torch.logdet(P) + torch.logdet(information))
    keep = torch.eye(4, dtype=torch.float64) - gain @ C
    near(keep @ P @ keep.mT + gain @ R @ gain.mT, P - gain @ S @ gain.mT)


@pytest.mark.parametrize("fraction", [0.0, 0.6])
def test_posterior_factorises_backwards(fraction: float) -> None:
    """Equation A.7: whatever the states, joint density over posterior is the likelihood."""
    model = system(3, 2, batch=3)
    y, observed = observations(model, 3, 6), missing(3, 6, fraction)
    filtered = kalman_filter(model, y, observed)
    for states in (*sample_posterior(model, filtered, 2, generator(15)), torch.ones(3, 6, 3, dtype=torch.float64)):
        difference = joint_log_density(model, states, y, observed) - posterior_log_density(model, filtered, states)
        near(difference, filtered.log_likelihood.sum(dim=1), 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factor_of_singular_matrices(dtype: torch.dtype) -> None:
    thin = torch.randn(4, 2, generator=generator(16), dtype=dtype)
    matrices = torch.stack([thin @ thin.mT, torch.zeros(4, 4, dtype=dtype), torch.eye(4, dtype=dtype)])
    lower = factor(matrices)
    torch.testing.assert_close(lower @ lower.mT, matrices, rtol=0, atol=30 * torch.finfo(dtype).eps * 10)
    with pytest.raises(ValueError, match="not positive semi-definite"):
        factor(-torch.eye(2, dtype=dtype))

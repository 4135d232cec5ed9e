"""Long sequences in float32, ill-conditioned models, and covariances that settle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reg_bench.state_space import LinearGaussianModel, kalman_filter, rts_smoother
from tests.state_space.systems import generator, missing, observations, system

LENGTH = 1000


def tracking(dtype: torch.dtype) -> LinearGaussianModel:
    """Position, velocity and acceleration (eigenvalue 1, three times) seen with little noise after a vague start."""
    A = torch.tensor([[1, 1, 0.5], [0, 1, 1], [0, 0, 1]])
    Q = 1e-4 * torch.tensor([[0.05, 0.125, 1 / 6], [0.125, 1 / 3, 0.5], [1 / 6, 0.5, 1]])
    parts = (A, torch.tensor([[1.0, 0, 0]]), Q, 1e-4 * torch.eye(1), torch.zeros(3), 1e4 * torch.eye(3))
    return LinearGaussianModel(*(x.to(dtype) for x in parts))


def single(model: LinearGaussianModel) -> LinearGaussianModel:
    return replace(model, **{k: v.float() for k, v in vars(model).items()})


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.6])
def test_float32_over_a_thousand_frames(fraction: float, parallel: bool) -> None:
    model = system(8, 4, radius=0.99)
    y, observed = observations(model, 2, LENGTH), missing(2, LENGTH, fraction)
    exact = kalman_filter(model, y, observed)
    rough = kalman_filter(single(model), y.float(), observed, parallel=parallel)
    pairs = [(exact, rough), (rts_smoother(model, exact), rts_smoother(single(model), rough, parallel=parallel))]
    for true, found in pairs:
        deviation = true.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        assert ((found.mean.double() - true.mean).abs() / deviation).max() < 2e-3
        scale = deviation[..., None] * deviation[..., None, :]
        assert ((found.covariance.double() - true.covariance).abs() / scale).max() < 2e-3
        assert torch.equal(found.covariance, found.covariance.mT)
        assert torch.linalg.eigvalsh(found.covariance.double()).min() > 0
    assert (rough.log_likelihood.double().sum() / exact.log_likelihood.sum() - 1).abs() < 1e-4


def test_float32_of_an_ill_conditioned_model() -> None:
    """Variances of the first state are 10^8 times those of the noise: the differences of numbers of seven digits."""
    model = tracking(torch.float64)
    y = observations(model, 1, LENGTH)
    y = y / y.std() * 10
    exact, rough = kalman_filter(model, y), kalman_filter(single(model), y.float())
    smoothed, rough_smoothed = rts_smoother(model, exact), rts_smoother(single(model), rough)
    for true, found in ((exact, rough), (smoothed, rough_smoothed)):
        torch.testing.assert_close(found.covariance.double(), true.covariance, rtol=1e-5, atol=0)
    # Once the vague start is forgotten both agree.
    late = slice(20, None)
    for true, found in ((exact, rough), (smoothed, rough_smoothed)):
        deviation = true.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        assert ((found.mean.double() - true.mean).abs() / deviation)[:, late].max() < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.5, 0.999])
def test_settled_covariances_are_those_of_every_step(dtype: torch.dtype, radius: float) -> None:
    """With a gradient to follow nothing is cut short."""
    model = system(4, 2, radius=radius, dtype=dtype)
    model = replace(model, C=0.3 * model.C)
    observed = torch.ones(2, 300, dtype=torch.bool)
    observed[:, 100:103] = False
    observed[1, 200] = False
    followed = replace(model, A=model.A.clone().requires_grad_())
    y = observations(model, 2, 300)
    for pattern in (None, observed[:1].expand(2, -1), observed):
        short, full = (kalman_filter(m, y, pattern) for m in (model, followed))
        assert len(set(short.covariances.place)) < 200
        assert len(set(full.covariances.place)) == 300
        tolerance = 1e-8 if dtype == torch.float64 else 2e-4
        same(short.covariance, full.covariance, tolerance)
        same(short.mean, full.mean, tolerance)
        same(short.log_likelihood, full.log_likelihood, 10 * tolerance)
        smooth, all_steps = rts_smoother(model, short), rts_smoother(followed, full)
        same(smooth.covariance, all_steps.covariance, tolerance)
        same(smooth.cross_covariance, all_steps.cross_covariance, tolerance)
        same(smooth.mean, all_steps.mean, tolerance)


def test_slow_convergence_is_not_taken_for_the_end() -> None:
    """Without anything to see, a variance creeps from 0 to Q / (1 - a^2), by less in a step than any rounding error."""
    one = torch.ones(1, 1, dtype=torch.float64)
    model = LinearGaussianModel(one * (1 - 1e-7), one * 1e-9, one * 1e-12, one, one[0] * 0, one)
    filtered = kalman_filter(model, torch.zeros(1, 3000, 1, dtype=torch.float64))
    a2 = (1 - 1e-7) ** 2
    expected = a2**2999 + 1e-12 * (1 - a2**2999) / (1 - a2)
    assert abs(float(filtered.covariance[0, -1]) - expected) < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_variances_settle_as_well(dtype: torch.dtype) -> None:
    """One state has settled long before another, unseen, of a ten-thousandth of its variance, has grown."""
    parts = (torch.diag(torch.tensor([0.5, 0.9995])), torch.tensor([[1.0, 0.0]]), torch.diag(torch.tensor([1.0, 1e-7])))
    model = LinearGaussianModel(*(x.to(dtype) for x in (*parts, torch.eye(1), torch.zeros(2), torch.eye(2) * 1e-9)))
    filtered = kalman_filter(model, torch.zeros(1, 4000, 1, dtype=dtype))
    # Its A, Q and first variance as they are stored.
    a2, q, v = float(model.A[1, 1]) ** 2, float(model.Q[1, 1]), float(model.covariance[1, 1])
    expected = a2**3999 * v + q * (1 - a2**3999) / (1 - a2)
    assert abs(float(filtered.covariance[0, -1, 1, 1]) / expected - 1) < 1e-3


def same(found: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=tolerance * scale)


def test_random_times_missing_everywhere() -> None:
    """Every sequence has its own frames missing: as if each were filtered alone."""
    model = system(4, 2)
    y, observed = observations(model, 5, 60), missing(5, 60, 0.6)
    observed[4] = observed[3]
    together = kalman_filter(model, y, observed)
    assert len(together.covariances.filtered) == 4
    smoothed = rts_smoother(model, together)
    for b in torch.randperm(5, generator=generator(0)).tolist():
        alone = kalman_filter(model, y[b : b + 1], observed[b : b + 1])
        torch.testing.assert_close(together.mean[b], alone.mean[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(together.log_likelihood[b], alone.log_likelihood[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(smoothed.covariance[b], rts_smoother(model, alone).covariance[0], rtol=0, atol=1e-10)

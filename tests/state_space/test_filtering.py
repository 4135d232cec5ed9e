"""Filter, smoother and likelihood against conditioning of the joint Gaussian by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.state_space import LinearGaussianModel, forecast, kalman_filter, kalman_step, kalman_update, rts_smoother
from tests.state_space.systems import Array, conditioned, joint, missing, observations, system

BATCH, LENGTH = 3, 7
CASES = [(None, None), (None, 0.6), (None, 0.2), (BATCH, None), (BATCH, 0.6)]


def case(own: int | None, fraction: float | None, p: int = 2) -> tuple[LinearGaussianModel, Tensor, Tensor | None]:
    model = system(3, p, batch=own)
    y = observations(model, BATCH, LENGTH)
    if fraction is None:
        return model, y, None
    observed = missing(BATCH, LENGTH, fraction)
    return model, torch.where(observed[..., None], y, torch.nan), observed


def by_hand(
    model: LinearGaussianModel, y: Tensor, observed: Tensor | None, b: int, until: int
) -> tuple[Array, Array, float]:
    """Mean and covariance `(T n)` of all states given the observations before `until`, and their log-likelihood."""
    n, p = model.states, model.observations
    mean, covariance, states = joint(model, y.shape[1], b)
    times = [t for t in range(until) if observed is None or observed[b, t]]
    given = np.array([states + t * p + k for t in times for k in range(p)], dtype=int)
    values = np.concatenate([y[b, t].numpy() for t in times]) if times else np.zeros(0)
    off = values - mean[given]
    block = covariance[np.ix_(given, given)]
    likelihood = -0.5 * (off @ np.linalg.solve(block, off) + np.linalg.slogdet(2 * np.pi * block)[1]) if times else 0.0
    mean, covariance = conditioned(mean, covariance, given, values)
    return mean[:states].reshape(-1, n), covariance[:states, :states].reshape(y.shape[1], n, y.shape[1], n), likelihood


def close(found: Tensor, expected: Array | Tensor | float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("p", [2, 4])
@pytest.mark.parametrize(("own", "fraction"), CASES)
def test_equals_conditioning_by_hand(own: int | None, fraction: float | None, p: int, parallel: bool) -> None:
    model, y, observed = case(own, fraction, p)
    filtered = kalman_filter(model, y, observed, parallel=parallel)
    smoothed = rts_smoother(model, filtered, parallel=parallel)
    for b in range(BATCH):
        before = 0.0
        for t in range(LENGTH):
            mean, covariance, _ = by_hand(model, y, observed, b, t)
            close(filtered.predicted_mean[b, t], mean[t])
            close(filtered.predicted_covariance[b, t], covariance[t, :, t])
            mean, covariance, likelihood = by_hand(model, y, observed, b, t + 1)
            close(filtered.mean[b, t], mean[t])
            close(filtered.covariance[b, t], covariance[t, :, t])
            close(filtered.log_likelihood[b, t], likelihood - before)
            before = likelihood
        for t in range(LENGTH):
            close(smoothed.mean[b, t], mean[t])
            close(smoothed.covariance[b, t], covariance[t, :, t])
            if t + 1 < LENGTH:
                close(smoothed.cross_covariance[b, t], covariance[t + 1, :, t])


@pytest.mark.parametrize("fraction", [None, 0.6])
def test_forecast_equals_the_joint_gaussian(fraction: float | None) -> None:
    model, y, observed = case(None, fraction)
    given = y[:, :4], None if observed is None else observed[:, :4]
    filtered = kalman_filter(model, *given)
    means, covariances = forecast(model, filtered.mean[:, -1], filtered.covariance[:, -1], LENGTH - 4)
    for b in range(BATCH):
        mean, covariance, _ = by_hand(model, y, observed, b, 4)
        for k in range(LENGTH - 4):
            close(means[b, k], mean[4 + k])
            close(covariances[b, k], covariance[4 + k, :, 4 + k])


def test_steps_of_a_stream_equal_the_filter() -> None:
    model, y, observed = case(None, 0.6)
    assert observed is not None
    observed = observed[:1].expand(BATCH, -1)
    y = observations(model, BATCH, LENGTH)
    filtered = kalman_filter(model, y, observed)
    mean, covariance = model.mean.expand(BATCH, -1), model.covariance
    for t in range(LENGTH):
        step = kalman_update if t == 0 else kalman_step
        mean, covariance = step(model, mean, covariance, y[:, t] if observed[0, t] else None)
        close(mean, filtered.mean[:, t])
        close(covariance.expand(BATCH, -1, -1), filtered.covariance[:, t])


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_scans_equal_steps_at_every_length(length: int) -> None:
    model = system(3, 2)
    y, observed = observations(model, 2, length), missing(2, length, 0.5)
    for a, b in ((kalman_filter(model, y, observed, parallel=k) for k in (False, True)),):
        close(a.mean, b.mean)
        close(a.log_likelihood, b.log_likelihood)
        first, second = rts_smoother(model, a), rts_smoother(model, b, parallel=True)
        close(first.mean, second.mean)
        close(first.covariance, second.covariance)


def test_own_means_share_covariances() -> None:
    """The first state of every sequence has its own mean, its covariance is common, `(n, n)` or expanded."""
    model, y, observed = case(BATCH, None)
    shared = replace(model, covariance=model.covariance[0])
    expanded = replace(model, covariance=model.covariance[0].expand(BATCH, -1, -1))
    first, second = kalman_filter(shared, y, observed), kalman_filter(expanded, y, observed)
    assert len(first.covariances.filtered) == len(second.covariances.filtered) == 1
    assert first.covariance.shape == (BATCH, LENGTH, 3, 3)
    for b in range(BATCH):
        mean, covariance, _ = by_hand(expanded, y, observed, b, LENGTH)
        for found in (first, second):
            close(rts_smoother(shared, found).mean[b], mean)
            close(found.covariance[b, -1], covariance[-1, :, -1])


def test_all_missing_is_the_prior_rolled_out() -> None:
    model = system(3, 2)
    y = torch.full((2, 5, 2), torch.nan, dtype=torch.float64)
    filtered = kalman_filter(model, y, torch.zeros(2, 5, dtype=torch.bool))
    close(filtered.mean, filtered.predicted_mean)
    close(filtered.covariance, filtered.predicted_covariance)
    assert not filtered.log_likelihood.any()
    means, covariances = forecast(model, model.mean[None].expand(2, -1), model.covariance, 4)
    close(filtered.mean[:, 1:], means)
    close(filtered.covariance[:, 1:], covariances)


def test_what_is_missing_has_no_influence_and_no_gradient() -> None:
    model, y, observed = case(None, 0.6)
    assert observed is not None
    changed = torch.where(observed[..., None], y, 1e6).requires_grad_()
    a, b = kalman_filter(model, y, observed), kalman_filter(model, changed, observed)
    assert torch.equal(a.mean, b.mean)
    assert torch.equal(a.log_likelihood, b.log_likelihood)
    gradient = torch.autograd.grad(b.log_likelihood.sum() + b.mean.sum(), changed)[0]
    assert gradient.isfinite().all()
    assert not gradient[~observed].any()
    assert gradient[observed].any()


def test_knowledge_only_grows() -> None:
    """Smoothed below filtered below predicted, as quadratic forms."""
    model, y, observed = case(None, 0.6)
    filtered = kalman_filter(model, y, observed)
    smoothed = rts_smoother(model, filtered)
    for more, less in (
        (smoothed.covariance, filtered.covariance),
        (filtered.covariance, filtered.predicted_covariance),
    ):
        assert torch.linalg.eigvalsh(less - more).min() > -1e-12


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("own", [None, 2])
def test_gradients(own: int | None, parallel: bool) -> None:
    model = system(2, 2, batch=own)
    y, observed = observations(model, 2, 4), missing(2, 4, 0.4)

    def work(*parts: Tensor) -> tuple[Tensor, ...]:
        A, C, q, r, mean, p = parts[:6]
        current = LinearGaussianModel(A, C, q @ q.mT, r @ r.mT, mean, p @ p.mT)
        filtered = kalman_filter(current, parts[6], observed, parallel=parallel)
        smoothed = rts_smoother(current, filtered, parallel=parallel)
        return filtered.log_likelihood, filtered.mean, smoothed.mean, smoothed.covariance, smoothed.cross_covariance

    parts = [model.A, model.C, *(torch.linalg.cholesky(x) for x in (model.Q, model.R)), model.mean]
    parts += [torch.linalg.cholesky(model.covariance), y]
    assert torch.autograd.gradcheck(work, [x.clone().requires_grad_() for x in parts], fast_mode=True)


def test_states_that_are_known_exactly() -> None:
    """No noise in the transition and a first state that is known: everything follows from it."""
    base = system(3, 2)
    zero = torch.zeros_like(base.Q)
    model = LinearGaussianModel(base.A, base.C, zero, base.R, base.mean, zero)
    y = observations(base, 2, 6)
    filtered = kalman_filter(model, y)
    smoothed = rts_smoother(model, filtered)
    expected = torch.stack([torch.linalg.matrix_power(model.A, t) @ model.mean for t in range(6)])
    close(filtered.mean, expected.expand(2, -1, -1))
    close(smoothed.mean, expected.expand(2, -1, -1))
    assert not smoothed.covariance.any()


def test_transitions_without_noise() -> None:
    """Later covariances are all but singular; the smoother must not divide by them."""
    base = system(6, 3, radius=1.0)
    model = LinearGaussianModel(base.A, base.C, 0 * base.Q, 1e-4 * base.R, base.mean, base.covariance)
    y = observations(model, 1, 6)
    smoothed = rts_smoother(model, kalman_filter(model, y))
    mean, covariance, _ = by_hand(model, y, None, 0, 6)
    close(smoothed.mean[0], mean)
    for t in range(6):
        close(smoothed.covariance[0, t], covariance[t, :, t])
    long = observations(model, 1, 300)
    filtered = kalman_filter(model, long)
    gained = filtered.covariance - rts_smoother(model, filtered).covariance
    assert torch.linalg.eigvalsh(gained).min() > -1e-12


def test_bad_input_is_told() -> None:
    model = system(3, 2)
    y = observations(model, 2, 4)
    with pytest.raises(ValueError, match=r"C.*\(2, 3\)|A must be"):
        LinearGaussianModel(model.A[:2], model.C, model.Q, model.R, model.mean, model.covariance)
    with pytest.raises(ValueError, match="floating-point type"):
        LinearGaussianModel(model.A.float(), model.C, model.Q, model.R, model.mean, model.covariance)
    with pytest.raises(ValueError, match=r"observations must be \(B, T, 2\)"):
        kalman_filter(model, y[..., :1])
    with pytest.raises(ValueError, match="float32"):
        kalman_filter(model, y.float())
    with pytest.raises(ValueError, match="observed must be bool"):
        kalman_filter(model, y, torch.ones(2, 4))
    with pytest.raises(ValueError, match="of 3 sequences"):
        kalman_filter(system(3, 2, batch=3), y)
    bad = LinearGaussianModel(model.A, model.C, model.Q, -50 * model.R, model.mean, model.covariance)
    with pytest.raises(ValueError, match="not positive definite"):
        kalman_filter(bad, y)

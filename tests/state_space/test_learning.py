"""Learning of the parameters: by expectation maximisation and by gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reg_bench.state_space import (
    LearnableLinearGaussian,
    LinearGaussianModel,
    expectation_maximization,
    forecast,
    kalman_filter,
    maximization,
    rts_smoother,
    sample_prior,
)
from reg_bench.state_space.learnable import NAMES
from tests.state_space.systems import generator, missing, observations, system


def start(n: int, p: int) -> LinearGaussianModel:
    return system(n, p, seed=20, radius=0.5)


@pytest.mark.parametrize("own", [None, 6])
@pytest.mark.parametrize("fraction", [0.0, 0.4])
@pytest.mark.parametrize("learn", [NAMES, ("A",), ("Q",), ("C",), ("R",), ("mean", "covariance"), ("Q", "R")])
def test_likelihood_never_falls(learn: tuple[str, ...], fraction: float, own: int | None) -> None:
    truth = system(3, 2, seed=21, batch=own)
    y, observed = observations(truth, 6, 15), missing(6, 15, fraction)
    begin = start(3, 2)
    begin = replace(begin, mean=truth.mean, covariance=truth.covariance[0]) if own else begin
    fitted = expectation_maximization(begin, y, observed, iterations=8, learn=learn)
    rises = torch.tensor(fitted.log_likelihood).diff()
    assert (rises > -1e-8 * abs(fitted.log_likelihood[0])).all()
    assert rises.sum() > 0
    for name in set(NAMES) - set(learn):
        assert torch.equal(getattr(fitted.model, name), getattr(begin, name))
    for name in ("Q", "R", "covariance"):
        assert torch.linalg.eigvalsh(getattr(fitted.model, name)).min() > 0


def test_a_step_with_visible_states_is_least_squares() -> None:
    """With states that are seen all but exactly, A and Q are those of a regression on the frame before."""
    base = system(2, 2, seed=22)
    eye = torch.eye(2, dtype=torch.float64)
    model = replace(base, C=eye, R=1e-10 * eye)
    y = observations(model, 3, 20)
    seen = torch.ones(3, 20, dtype=torch.bool)
    found = maximization(model, rts_smoother(model, kalman_filter(model, y)), y, seen)
    before, after = y[:, :-1].flatten(0, 1), y[:, 1:].flatten(0, 1)
    A = torch.linalg.lstsq(before, after).solution.mT
    left = after - before @ A.mT
    for name, expected in (
        ("A", A),
        ("Q", left.mT @ left / len(left)),
        ("C", eye),
        ("mean", y[:, 0].mean(dim=0)),
        ("covariance", torch.cov(y[:, 0].mT, correction=0)),
    ):
        torch.testing.assert_close(getattr(found, name), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_recovers_a_system(fraction: float) -> None:
    """Up to the choice of coordinates of the states: eigenvalues, and the law of the observations."""
    angle = torch.tensor(0.5, dtype=torch.float64)
    c, s = 0.97 * angle.cos(), 0.97 * angle.sin()
    eye = torch.eye(2, dtype=torch.float64)
    truth = LinearGaussianModel(
        A=torch.stack([torch.stack([c, -s]), torch.stack([s, c])]),
        C=torch.randn(4, 2, generator=generator(0), dtype=torch.float64),
        Q=0.05 * eye,
        R=0.02 * torch.eye(4, dtype=torch.float64),
        mean=torch.ones(2, dtype=torch.float64),
        covariance=eye,
    )
    y, observed = observations(truth, 30, 40, seed=3), missing(30, 40, fraction)
    begin = replace(start(2, 4), Q=0.2 * eye, R=0.1 * torch.eye(4, dtype=torch.float64))
    fitted = expectation_maximization(begin, y, observed, iterations=100).model
    found, expected = (torch.linalg.eigvals(m.A) for m in (fitted, truth))
    assert (found[found.imag.argsort()] - expected[expected.imag.argsort()]).abs().max() < 0.03
    seen = [float(kalman_filter(m, y, observed).log_likelihood.sum()) for m in (fitted, truth)]
    assert seen[0] > seen[1]
    fresh = observations(truth, 30, 40, seed=4)
    unseen = [float(kalman_filter(m, fresh).log_likelihood.mean()) for m in (fitted, truth)]
    assert unseen[0] > unseen[1] - 0.05
    filtered = [kalman_filter(m, fresh[:, :-3]) for m in (fitted, truth)]
    ahead = [
        forecast(m, f.mean[:, -1], f.covariance[:, -1], 3)[0] @ m.C.mT
        for m, f in zip((fitted, truth), filtered, strict=True)
    ]
    assert (ahead[0] - ahead[1]).abs().mean() < 0.1 * ahead[1].abs().mean()


def test_diagonal_stays_diagonal_and_bad_names_are_told() -> None:
    y = observations(system(2, 3), 4, 10)
    fitted = expectation_maximization(start(2, 3), y, iterations=2, diagonal=("Q", "R")).model
    assert not (fitted.Q - torch.diag(fitted.Q.diagonal())).any()
    assert not (fitted.R - torch.diag(fitted.R.diagonal())).any()
    with pytest.raises(ValueError, match="learn may name A, C"):
        expectation_maximization(start(2, 3), y, learn=("B",))
    with pytest.raises(ValueError, match="length 1"):
        expectation_maximization(start(2, 3), y[:, :1])
    with pytest.raises(ValueError, match="nothing is observed"):
        expectation_maximization(start(2, 3), y, torch.zeros(4, 10, dtype=torch.bool))


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_learnable_begins_at_a_model_and_learns_what_it_may(structure: str) -> None:
    base = system(3, 2, dtype=torch.float32)
    if structure == "diagonal":
        base = replace(base, **{k: torch.diag(getattr(base, k).diagonal()) for k in ("Q", "R", "covariance")})
    module = LearnableLinearGaussian(
        2, 3, learn=("A", "Q"), noise_structure=structure, initial_structure=structure, initial=base
    )
    for name in NAMES:
        torch.testing.assert_close(getattr(module.model(), name), getattr(base, name))
    y = sample_prior(system(3, 2, seed=5, dtype=torch.float32), 4, 12, generator(0))[1]
    before = {k: v.clone() for k, v in module.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(15):
        loss = -kalman_filter(module.model(), y).log_likelihood.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {k.split(".")[0] for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"A", "Q"}
    assert torch.linalg.eigvalsh(module.model().Q).min() > 0


def test_size_of_the_papers_model() -> None:
    """A 1024, C 512, Q 32, R 16; the network for the first state brings the rest of its 3,216."""
    module = LearnableLinearGaussian(16, 32, learn=("A", "C", "Q", "R"))
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 1584
    model = module.model(torch.zeros(5, 32), torch.eye(32).expand(5, -1, -1))
    torch.testing.assert_close(model.Q, 0.01 * torch.eye(32))
    torch.testing.assert_close(model.R, 0.01 * torch.eye(16))
    assert kalman_filter(model, torch.zeros(5, 3, 16)).mean.shape == (5, 3, 32)
    assert abs(float(module.A.detach().std()) - 0.05) < 0.01
    with pytest.raises(ValueError, match="learn may name"):
        LearnableLinearGaussian(2, 3, learn=("B",))
    with pytest.raises(ValueError, match="initial must have 4 states"):
        LearnableLinearGaussian(2, 4, initial=system(3, 2))

"""The lower bound of the Kalman VAE, term by term, against densities written down once more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from lightning_modules.networks.kalman_vae_dynamics import LatentDynamics
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.field import warp

SMALL: dict[str, Any] = {"size": 16, "latents": 3, "states": 4, "filters": (4, 6), "image_std": 0.2}


def clip(seed: int = 0, batch: int = 2, length: int = 5) -> Tensor:
    return torch.rand(batch, length, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def network(**changes: Any) -> KalmanVAENetwork:
    torch.manual_seed(0)
    return KalmanVAENetwork(**{**SMALL, **changes}).eval()


def joint(dynamics: LatentDynamics, reference: Tensor, length: int) -> MultivariateNormal:
    """The distribution of all latent variables of a sequence at once, `x_1 .. x_T` one after the other."""
    model = dynamics.model(reference)
    n = model.states
    # z = mean + noise of all times, each carried on by powers of A.
    powers = [torch.linalg.matrix_power(model.A, k) for k in range(length)]
    carried = torch.zeros(length * n, length * n)
    for t in range(length):
        for s in range(t + 1):
            carried[t * n : (t + 1) * n, s * n : (s + 1) * n] = powers[t - s]
    noise = torch.block_diag(model.covariance[0], *[model.Q] * (length - 1))
    emission = torch.block_diag(*[model.C] * length)
    mean = emission @ torch.cat([powers[t] @ model.mean[0] for t in range(length)])
    covariance = emission @ carried @ noise @ carried.T @ emission.T + torch.block_diag(*[model.R] * length)
    return MultivariateNormal(mean, (covariance + covariance.T) / 2)


def test_likelihood_of_the_dynamics_is_that_of_the_joint_distribution() -> None:
    torch.manual_seed(0)
    dynamics = LatentDynamics(3, 4, start="steady", std=0.5)
    x, observed = torch.randn(2, 5, 3), torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]]).bool()
    with torch.no_grad():
        whole = dynamics.log_likelihood(x, x[:, 0])
        missing = dynamics.log_likelihood(x, x[:, 0], observed)
        for b in range(2):
            every = joint(dynamics, x[b : b + 1, 0], 5)
            assert float(whole[b]) == pytest.approx(float(every.log_prob(x[b].flatten())), rel=1e-4)
            kept = observed[b].repeat_interleave(3)
            some = MultivariateNormal(every.mean[kept], every.covariance_matrix[kept][:, kept])
            assert float(missing[b]) == pytest.approx(float(some.log_prob(x[b].flatten()[kept])), rel=1e-4)


def test_product_of_marginals_is_a_looser_bound() -> None:
    torch.manual_seed(0)
    exact, paper = LatentDynamics(3, 4, start="steady"), LatentDynamics(3, 4, "paper", "steady")
    paper.load_state_dict(exact.state_dict())
    x = torch.randn(1, 6, 3).expand(400, -1, -1)
    with torch.no_grad():
        sampled = paper.log_likelihood(x, x[:, 0])
        value = float(exact.log_likelihood(x[:1], x[:1, 0]))
    spread = float(sampled.std()) / 20
    assert float(sampled.mean()) < value - 3 * spread


def test_paper_mode_is_exact_where_states_are_independent() -> None:
    """Without a transition the posterior is the product of its marginals, and every sample gives the evidence."""
    torch.manual_seed(0)
    exact, paper = LatentDynamics(3, 4), LatentDynamics(3, 4, "paper")
    with torch.no_grad():
        exact.transition.zero_()
        exact.emission.normal_()
    paper.load_state_dict(exact.state_dict())
    x = torch.randn(3, 5, 3)
    torch.testing.assert_close(paper.log_likelihood(x, x[:, 0]), exact.log_likelihood(x, x[:, 0]), rtol=1e-4, atol=1e-2)


def test_eigenvalues_beyond_the_limit_come_back_to_it_alone() -> None:
    torch.manual_seed(0)
    dynamics = LatentDynamics(3, 6)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    basis = torch.randn(6, 6)
    blocks = torch.block_diag(1.2 * turn, 0.9 * turn, torch.diag(torch.tensor([-1.1, 0.4])))
    expected = torch.block_diag(0.99 * turn, 0.9 * turn, torch.diag(torch.tensor([-0.99, 0.4])))
    with torch.no_grad():
        dynamics.transition.copy_(basis @ blocks @ torch.linalg.inv(basis))
    dynamics.stabilise(0.99)
    torch.testing.assert_close(
        dynamics.transition.detach(), basis @ expected @ torch.linalg.inv(basis), rtol=1e-3, atol=1e-3
    )
    kept = dynamics.transition.detach().clone()
    dynamics.stabilise(0.991)
    assert torch.equal(dynamics.transition, kept)


def test_terms_of_the_bound_by_hand() -> None:
    """The sample of x is drawn first, so that it can be drawn once more."""
    model, frames = network(field_std=0.0, penalty=0.3), clip()
    with torch.no_grad():
        torch.manual_seed(5)
        found = model.bound(frames, beta=0.5)
        torch.manual_seed(5)
        mean, std = model.encode(frames, frames[:, 0])
        x = mean + std * torch.randn(1, 2, 5, 3)[0]
        assert model.dynamics is not None
        u = model.decode(x)
        warped = torch.stack([warp(frames[:, 0], u[:, t]) for t in range(5)], dim=1)
        image = Normal(warped, 0.2).log_prob(frames).flatten(1).sum(1)
        encoder = Normal(mean, std).log_prob(x).flatten(1).sum(1)
        dynamics = torch.stack([joint(model.dynamics, x[b : b + 1, 0], 5).log_prob(x[b].flatten()) for b in range(2)])
        steps = (u[..., 1:, :] - u[..., :-1, :]).square().flatten(1).sum(1)
        steps += (u[..., 1:] - u[..., :-1]).square().flatten(1).sum(1)
    torch.testing.assert_close(found.image, image, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found.encoder, encoder, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.dynamics, dynamics, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.penalty, 0.15 * steps, rtol=1e-4, atol=1e-4)
    expected = image + 0.5 * (dynamics - encoder) - found.penalty
    torch.testing.assert_close(found.value, expected, rtol=1e-4, atol=1e-1)


def test_importance_weights_raise_the_bound_with_the_samples() -> None:
    # A wide likelihood, so that no single sample decides.
    model, frames = network(image_std=3.0, start="steady"), clip(batch=1, length=3)
    with torch.no_grad():
        for dense in (model.encoder.mean, model.encoder.spread):
            dense.weight.mul_(0.1)
        means = {}
        for samples in (1, 4, 16):
            torch.manual_seed(0)
            repeated = frames.expand(60, -1, -1, -1, -1)
            means[samples] = float(model.bound(repeated, samples=samples, weighted=True).value.mean())
    assert means[1] < means[4] < means[16]


def test_frames_that_are_missing_count_for_nothing() -> None:
    model, frames = network(), clip()
    observed = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 1, 1]]).bool()
    changed = torch.where(observed[..., None, None, None], frames, torch.rand_like(frames))
    with torch.no_grad():
        values = []
        for given in (frames, changed):
            torch.manual_seed(0)
            values.append(model.bound(given, observed).value)
    torch.testing.assert_close(*values)


def test_some_frames_stand_for_all() -> None:
    model, frames = network(field_std=0.0), clip(batch=1, length=3)
    with torch.no_grad():
        model.encoder.spread.weight.zero_()
        model.encoder.spread.bias.fill_(-30.0)
        whole = float(model.bound(frames).image)
        each = [float(model.bound(frames, used=[t]).image) for t in range(3)]
    assert sum(each) / 3 == pytest.approx(whole, rel=1e-4)


def test_nothing_moves_beyond_the_field_of_view() -> None:
    model, frames = network(field_std=0.0), clip()
    nothing = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    with torch.no_grad():
        found = model.bound(frames, field_of_view=nothing).image
    still = Normal(frames[:, :1], 0.2).log_prob(frames).flatten(1).sum(1)
    torch.testing.assert_close(found, still, rtol=1e-5, atol=1e-2)
    assert bool(model.field_of_view().all())
    model.see(torch.eye(16, dtype=torch.bool)[None, None])
    model.see(torch.eye(16, dtype=torch.bool).flip(0)[None, None])
    assert int(model.field_of_view().sum()) == 32


def test_a_plain_vae_has_the_divergence_in_closed_form() -> None:
    model, frames = network(dynamic=False), clip(batch=1)
    with torch.no_grad():
        found = model.bound(frames)
        sampled = [model.bound(frames, samples=50, weighted=True) for _ in range(8)]
    assert float(found.dynamics) == 0
    estimate = torch.stack([s.encoder - s.dynamics for s in sampled])
    assert float(estimate.mean()) == pytest.approx(float(found.encoder), abs=5 * float(estimate.std()) / 8**0.5 + 0.05)

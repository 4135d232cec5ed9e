"""Terms of lower bounds against torch's distributions, sampling, and a model whose evidence is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from reg_bench.variational_bound import (
    bound,
    divergence_from_standard_normal,
    image_log_likelihood,
    monotonic_annealing,
    normal_log_density,
)


def test_densities_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mean, std = (torch.rand(3, 4, 5, generator=generator, dtype=torch.float64) + 0.1 for _ in range(3))
    torch.testing.assert_close(normal_log_density(x, mean, std), Normal(mean, std).log_prob(x).sum(-1))
    torch.testing.assert_close(normal_log_density(x, mean, 0.3), Normal(mean, 0.3).log_prob(x).sum(-1))
    image, other = torch.rand(2, 2, 3, 1, 4, 5, generator=generator, dtype=torch.float64)
    expected = Normal(other, 0.07).log_prob(image).flatten(2).sum(2)
    torch.testing.assert_close(image_log_likelihood(image, other, 0.07), expected)


def test_the_likelihood_of_a_perfect_clip_is_the_paper_s_upper_limit() -> None:
    image = torch.zeros(1, 50, 1, 112, 112, dtype=torch.float64)
    assert float(image_log_likelihood(image, image, 0.01).sum()) == pytest.approx(2_312_004, abs=1)


def test_divergence_in_closed_form_is_that_of_sampling() -> None:
    mean, std = torch.tensor([0.5, -1.0, 0.2]), torch.tensor([0.3, 0.8, 1.5])
    closed = divergence_from_standard_normal(mean, std)
    torch.testing.assert_close(closed, kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum())
    x = mean + std * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    sampled = normal_log_density(x, mean, std) - normal_log_density(x, torch.zeros(3), 1.0)
    assert float(sampled.mean()) == pytest.approx(float(closed), abs=4 * float(sampled.std()) / math.sqrt(len(x)))


def test_importance_weights_raise_the_bound_with_the_samples_and_never_above_the_evidence() -> None:
    """x ~ N(0, 1), y | x ~ N(x, 0.5^2), so y ~ N(0, 1.25); the encoder is off."""
    y, std, repeats = 1.2, 0.5, 20_000
    evidence = float(Normal(0.0, math.sqrt(1.25)).log_prob(torch.tensor(y)))
    generator = torch.Generator().manual_seed(0)
    values = {}
    for samples in (1, 2, 5, 20):
        x = 0.5 + 0.9 * torch.randn(samples, repeats, generator=generator)
        weights = Normal(0.0, 1.0).log_prob(x) + Normal(x, std).log_prob(torch.tensor(y)) - Normal(0.5, 0.9).log_prob(x)
        values[samples] = float(bound(weights, weighted=True).mean())
        plain = float(bound(weights).mean())
        assert plain == pytest.approx(values[1], abs=0.05)
    assert values[1] + 0.02 < values[2] < values[5] - 0.02
    assert values[5] < values[20] - 0.005
    assert values[20] < evidence
    assert values[20] == pytest.approx(evidence, abs=0.05)


def test_annealing_is_the_paper_s_and_never_falls() -> None:
    assert [round(monotonic_annealing(e), 3) for e in range(1, 8)] == [0.047, 0.065, 0.159, 0.5, 0.912, 0.995, 1.0]
    course = [monotonic_annealing(e) for e in range(1, 200)]
    assert course == sorted(course)
    assert course[-1] <= 1
    with pytest.raises(ValueError, match="count from 1"):
        monotonic_annealing(0)

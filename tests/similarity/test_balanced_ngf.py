"""Balanced normalised gradient fields against NumPy, their bounds, and the bias that they are there to avoid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.field import gaussian
from reg_bench.similarity import NGF, BalancedNGF


def image(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    noise = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return gaussian(noise, 1.0)


@pytest.mark.parametrize("shape", [(12, 11), (7, 8, 6)])
def test_value_is_the_formula(shape: tuple[int, ...]) -> None:
    fixed, warped = image(shape, 0), image(shape, 1)
    spacing = np.array([1.0, 2.0, 0.5][: len(shape)])
    edges = spacing / np.exp(np.log(spacing).mean())
    found = BalancedNGF(0.7)(fixed, warped, spacing_mm=torch.tensor(np.stack([spacing, spacing])))
    for case in range(2):
        fields = []
        for values in (fixed, warped):
            g = np.stack(np.gradient(values[case, 0].numpy())) / edges.reshape(-1, *(1,) * len(shape))
            length = np.sqrt((g**2).sum(0))
            fields.append(g / np.sqrt(length**2 + (0.7 * length.mean()) ** 2))
        f, w = fields
        powers = [((n**2).sum(0) ** 2).sum() for n in (f, w)]
        expected = 1 - ((f * w).sum(0) ** 2).sum() / np.sqrt(powers[0] * powers[1])
        assert float(found[case]) == pytest.approx(expected, abs=1e-9)


def test_equal_and_inverted_images_are_the_minimum_where_plain_gradients_gain_by_contrast() -> None:
    fixed = image((20, 20), 2)
    for other in (fixed, -fixed, 3 - 2 * fixed):
        assert float(BalancedNGF()(fixed, other).abs().max()) < 1e-7
    leaf = fixed.clone().requires_grad_()
    (plain,) = torch.autograd.grad(NGF()(fixed, leaf).sum(), leaf)
    (balanced,) = torch.autograd.grad(BalancedNGF()(fixed, leaf).sum(), leaf)
    assert float(balanced.abs().max()) < 1e-3 * float(plain.abs().max())


def test_gradients_are_those_of_differences_and_constants_are_finite() -> None:
    fixed, warped = image((6, 5), 3), image((6, 5), 4)
    mask = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: BalancedNGF()(fixed, w, mask), warped.requires_grad_())
    flat = torch.ones(1, 1, 6, 5, requires_grad=True)
    energy = BalancedNGF()(flat.detach(), flat)
    energy.sum().backward()
    assert float(energy.detach()) == pytest.approx(1.0)
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())
    empty = BalancedNGF()(fixed, warped, torch.zeros_like(mask))
    assert torch.equal(empty, torch.zeros_like(empty))
    with pytest.raises(ValueError, match="noise must be positive, got 0"):
        BalancedNGF(0.0)

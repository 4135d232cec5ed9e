"""Penalties on the Jacobian determinant against closed forms and NumPy."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from reg_bench.field import jacobian_determinant
from reg_bench.regularization import JacobianPenalty
from reg_bench.regularization.jacobian_penalty import folding_penalty, volume_penalty
from tests.regularization.polynomials import quadratic

KINDS: list[Literal["folding", "volume"]] = ["folding", "volume"]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 1.7])
def test_uniform_scaling(dims: int, scale: float) -> None:
    u = quadratic((6, 5, 7)[:dims], (scale - 1) * np.eye(dims))
    determinant = scale**dims
    folding = max(0.0, 0.1 - determinant) ** 2
    assert float(JacobianPenalty("folding", 0.1)(u)) == pytest.approx(folding, abs=1e-14)
    assert float(JacobianPenalty("volume", 0.001)(u)) == pytest.approx(math.log(determinant) ** 2, abs=1e-12)


def test_against_numpy() -> None:
    u = 0.3 * torch.randn(1, 2, 9, 8, dtype=torch.float64)
    rows = [np.gradient(u[0, c].numpy()) for c in range(2)]
    determinant = (1 + rows[0][0]) * (1 + rows[1][1]) - rows[0][1] * rows[1][0]
    expected = (np.maximum(0, 0.8 - determinant) ** 2).mean()
    assert float(JacobianPenalty("folding", 0.8)(u)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fold_is_pushed_back(kind: Literal["folding", "volume"]) -> None:
    u = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    u[0, 0, 4], u[0, 0, 6] = 1.5, -1.5
    assert int((jacobian_determinant(u) <= 0).sum()) > 0
    penalty = JacobianPenalty(kind, 0.1)
    start = float(penalty(u))
    assert math.isfinite(start)
    for _ in range(300):
        leaf = u.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(penalty(leaf).sum(), leaf)
        u = u - 0.1 * gradient / gradient.abs().max().clamp(min=1e-12)
    assert float(penalty(u)) < start
    assert int((jacobian_determinant(u) <= 0).sum()) == 0


def test_the_pieces_join_smoothly() -> None:
    for function in (folding_penalty, volume_penalty):
        eps = 0.2
        around = torch.tensor([eps - 1e-7, eps + 1e-7], dtype=torch.float64, requires_grad=True)
        values = function(around, eps)
        (slopes,) = torch.autograd.grad(values.sum(), around)
        assert float((values[0] - values[1]).detach().abs()) < 1e-5
        assert float((slopes[0] - slopes[1]).abs()) < 1e-4


def test_the_spacing_does_not_matter() -> None:
    u = 0.3 * torch.randn(1, 3, 5, 6, 4, dtype=torch.float64)
    mm = torch.tensor([[1.0, 2.0, 5.0]])
    for kind in KINDS:
        torch.testing.assert_close(JacobianPenalty(kind)(u, mm), JacobianPenalty(kind)(u))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="folding or volume"):
        JacobianPenalty("log")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"eps must lie in \(0, 1\)"):
        JacobianPenalty(eps=0.0)

"""Products with Jacobians against torch.func and dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reg_bench.field import warp
from reg_bench.optimization import linearise, through_displacement
from reg_bench.optimization.linearisation import explicit_jacobian


def smooth(theta: Tensor) -> Tensor:
    a, b, c = theta.unbind(dim=1)
    return torch.stack((a * b.sin(), (a * c).exp(), b - c, c.square()), dim=1)


def test_products_of_a_smooth_function() -> None:
    theta = torch.randn(3, 3, dtype=torch.float64)
    dense = torch.func.vmap(torch.func.jacrev(lambda x: smooth(x[None])[0]))(theta)
    system = linearise(smooth, theta)
    v, w = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(system.residuals, smooth(theta))
    torch.testing.assert_close(system.push(v), torch.einsum("bnp,bp->bn", dense, v))
    torch.testing.assert_close(system.pull(w), torch.einsum("bnp,bn->bp", dense, w))
    torch.testing.assert_close(explicit_jacobian(system, theta), dense)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-3)])
def test_what_has_no_forward_mode_is_differenced(dtype: torch.dtype, tolerance: float) -> None:
    """Interpolation of images; positions kept away from voxel centres, where it has kinks."""
    image = torch.randn(2, 1, 7, 6, dtype=dtype)

    def warped(u: Tensor) -> Tensor:
        return warp(image, u).flatten(1)

    u = 0.3 + 0.2 * torch.rand(2, 2, 7, 6, dtype=dtype)
    v, w = torch.randn(2, 2, 7, 6, dtype=dtype), torch.randn(2, 42, dtype=dtype)
    system = linearise(warped, u)
    # <w, J v> = <J^T w, v>, the right side by reverse mode.
    left, right = (w * system.push(v)).sum(dim=1), (system.pull(w) * v).flatten(1).sum(dim=1)
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_chain_through_a_displacement(dims: int) -> None:
    """Equals the linearisation of the whole, for a model with parameters of its own."""
    shape = (5, 6, 4)[:dims]
    image = torch.randn(2, 2, *shape, dtype=torch.float64)
    bases = 0.1 * torch.rand(6, dims, *shape, dtype=torch.float64)

    def displacement(theta: Tensor) -> Tensor:
        return 0.3 + torch.einsum("bp,p...->b...", theta + 0.1 * theta.square(), bases)

    theta = torch.rand(2, 6, dtype=torch.float64)
    chained = through_displacement(displacement, lambda u: warp(image, u), theta)
    whole = linearise(lambda x: warp(image, displacement(x)).flatten(1), theta)
    v, w = torch.randn(2, 6, dtype=torch.float64), torch.randn_like(whole.residuals)
    torch.testing.assert_close(chained.residuals, whole.residuals)
    torch.testing.assert_close(chained.push(v), whole.push(v), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(chained.pull(w), whole.pull(w))


def test_a_zero_direction_and_a_constant() -> None:
    image = torch.randn(1, 1, 4, 4)
    system = linearise(lambda u: warp(image, u).flatten(1), torch.full((1, 2, 4, 4), 0.3))
    assert float(system.push(torch.zeros(1, 2, 4, 4)).abs().max()) == 0.0
    with pytest.raises(ValueError, match="do not depend on theta"):
        linearise(lambda u: torch.zeros(1, 3), torch.zeros(1, 2))

"""What holds for every regularizer: gradients, independent cases, units, dtypes, messages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reg_bench.regularization import (
    BendingEnergy,
    Curvature,
    Diffusion,
    Fluid,
    JacobianPenalty,
    LinearElastic,
    Regularizer,
)

ALL = [
    Diffusion(),
    Curvature(),
    BendingEnergy(),
    LinearElastic(1.3, 0.7),
    Fluid(0.6, 0.4),
    JacobianPenalty("folding", 0.3),
    JacobianPenalty("volume", 0.3),
]
QUADRATIC = ALL[:5]
SHAPES = [(5, 4), (3, 3, 4)]


def name(member: object) -> str:
    return type(member).__name__ + getattr(member, "kind", "") if isinstance(member, Regularizer) else str(member)


def rough(shape: tuple[int, ...], seed: int = 0, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(batch, len(shape), *shape, generator=generator, dtype=torch.float64)


def uneven(batch: int, dims: int) -> Tensor:
    return torch.linspace(0.6, 2.2, batch * dims, dtype=torch.float64).reshape(batch, dims)


@pytest.mark.parametrize("regularizer", ALL, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_once_and_twice(regularizer: Regularizer, shape: tuple[int, ...]) -> None:
    u, spacing = rough(shape, batch=1).requires_grad_(), uneven(1, len(shape))
    assert torch.autograd.gradcheck(lambda v: regularizer(v, spacing), u)
    assert torch.autograd.gradgradcheck(lambda v: regularizer(v, spacing), u, fast_mode=True)


@pytest.mark.parametrize("regularizer", ALL, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_case_of_a_batch_comes_out_as_if_alone(regularizer: Regularizer, shape: tuple[int, ...]) -> None:
    u, spacing = rough(shape, batch=3).requires_grad_(), uneven(3, len(shape))
    values = regularizer(u, spacing)
    (gradient,) = torch.autograd.grad(values.sum(), u)
    assert values.shape == (3,)
    for case in range(3):
        alone = u[case : case + 1].detach().requires_grad_()
        value = regularizer(alone, spacing[case : case + 1])
        torch.testing.assert_close(value, values[case : case + 1], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(
            torch.autograd.grad(value.sum(), alone)[0], gradient[case : case + 1], rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("regularizer", ALL, ids=name)
def test_the_unit_of_the_spacing_does_not_matter(regularizer: Regularizer) -> None:
    u, spacing = rough((4, 3, 5)), uneven(2, 3)
    torch.testing.assert_close(regularizer(u, spacing), regularizer(u, 1000 * spacing), rtol=1e-12, atol=0)
    torch.testing.assert_close(regularizer(u), regularizer(u, torch.full((2, 3), 0.3)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("regularizer", QUADRATIC, ids=name)
def test_anisotropy_matters(regularizer: Regularizer) -> None:
    u = rough((4, 3, 5))
    assert ((regularizer(u, uneven(2, 3)) - regularizer(u)).abs() > 0.02 * regularizer(u)).all()


@pytest.mark.parametrize("regularizer", QUADRATIC, ids=name)
def test_constants_cost_nothing(regularizer: Regularizer) -> None:
    u = torch.full((1, 3, 4, 5, 3), 7.3, dtype=torch.float64, requires_grad=True)
    value = regularizer(u, uneven(1, 3))
    (gradient,) = torch.autograd.grad(value.sum(), u)
    assert float(value.detach()) < 1e-28
    assert float(gradient.abs().max()) < 1e-14


@pytest.mark.parametrize("regularizer", QUADRATIC, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_alternating_field_escapes(regularizer: Regularizer, shape: tuple[int, ...]) -> None:
    """The fields +1, -1, +1, … along any set of axes: central differences would not see them."""
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"))
    for pattern in range(1, 2 ** len(shape)):
        odd = sum(index[a] for a in range(len(shape)) if pattern >> a & 1) % 2
        for c in range(len(shape)):
            u = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
            u[0, c] = 1.0 - 2.0 * odd
            assert float(regularizer(u)) > 0.5


@pytest.mark.parametrize("regularizer", ALL, ids=name)
def test_single_precision_and_half(regularizer: Regularizer) -> None:
    u = rough((12, 10, 11), batch=1) * 0.1
    exact = regularizer(u)
    single = regularizer(u.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-9)
    assert regularizer(u.half()).dtype == torch.float32


@pytest.mark.parametrize("regularizer", ALL, ids=name)
def test_axes_too_short_for_a_derivative(regularizer: Regularizer) -> None:
    """A volume of one slice that moves within it has the derivatives of that slice."""
    flat = rough((6, 5), batch=1)
    u = torch.zeros(1, 3, 1, 6, 5, dtype=torch.float64)
    u[:, 1:, 0] = flat
    torch.testing.assert_close(regularizer(u), regularizer(flat), rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(regularizer, u.requires_grad_())
    point = torch.zeros(1, 2, 1, 1)
    assert float(regularizer(point)) == 0.0


@pytest.mark.parametrize("regularizer", ALL, ids=name)
def test_messages(regularizer: Regularizer) -> None:
    u = rough((5, 4))
    with pytest.raises(ValueError, match="floating point field"):
        regularizer(torch.zeros(1, 3, 5, 4))
    with pytest.raises(ValueError, match=r"spacing_mm must be \(B, D\)"):
        regularizer(u, torch.ones(1, 2))
    with pytest.raises(ValueError, match="positive and finite"):
        regularizer(u, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))

"""Closed-form fits against known maps, SciPy, and a numerical minimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import lstsq
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from reg_bench.field import identity_grid, sample
from reg_bench.landmarks import KINDS, AffineMap, fit, least_points, squared_distance
from tests.landmarks.maps import points, rotation, true_map


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_points_give_the_exact_map(kind: str, dims: int) -> None:
    """From the fewest points that determine it, and from many, at any rotation."""
    for degrees in (25.0, 170.0):
        truth = true_map(kind, dims, degrees)
        for count in (least_points(kind, dims), 30):
            source = points(count, dims, seed=count)
            found = fit(source, truth(source), kind)
            torch.testing.assert_close(found.matrix, truth.matrix, atol=1e-7, rtol=0)
            torch.testing.assert_close(found.offset, truth.offset, atol=1e-6, rtol=0)


def test_rigid_equals_scipy_with_noise_and_weights() -> None:
    source = points(12, 3)
    target = true_map("rigid", 3)(source) + points(12, 3, seed=1, spread=2.0)
    weights = torch.rand(1, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = fit(source, target, "rigid", weights)
    share = weights[0, :, None] / weights.sum()
    a, b = source[0] - (share * source[0]).sum(0), target[0] - (share * target[0]).sum(0)
    expected = Rotation.align_vectors(b.numpy(), a.numpy(), weights=weights[0].numpy())[0].as_matrix()
    np.testing.assert_allclose(found.matrix[0].numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_equals_least_squares(dims: int) -> None:
    source, noise = points(15, dims), points(15, dims, seed=1, spread=3.0)
    target = true_map("affine", dims)(source) + noise
    found = fit(source, target, "affine")
    design = np.column_stack([source[0].numpy(), np.ones(15)])
    solution = lstsq(design, target[0].numpy())[0]
    np.testing.assert_allclose(found.matrix[0].numpy(), solution[:dims].T, atol=1e-10)
    np.testing.assert_allclose(found.offset[0].numpy(), solution[dims], atol=1e-9)


@pytest.mark.parametrize("kind", ["rigid", "similarity"])
def test_no_other_map_of_the_kind_is_better(kind: str) -> None:
    """A numerical minimiser over angle, scale and shift ends at the same error."""
    source = points(9, 2)
    target = true_map(kind, 2)(source) + points(9, 2, seed=4, spread=6.0)
    weights = torch.linspace(0.2, 2, 9, dtype=torch.float64)[None]

    def map_of(p: np.ndarray) -> AffineMap:
        scale = np.exp(p[3]) if kind == "similarity" else 1.0
        c, s = np.cos(p[0]), np.sin(p[0])
        return AffineMap(torch.from_numpy(scale * np.array([[[c, -s], [s, c]]])), torch.from_numpy(p[None, 1:3]))

    best = minimize(lambda p: float(squared_distance(map_of(p)(source), target, weights)), np.zeros(4), tol=1e-12)
    found = float(squared_distance(fit(source, target, kind, weights)(source), target, weights))
    assert found == pytest.approx(best.fun, rel=1e-6)


def test_reflected_points_still_give_a_rotation() -> None:
    source = points(8, 3)
    target = source * torch.tensor([1.0, 1.0, -1.0])
    for kind in ("rigid", "similarity"):
        matrix = fit(source, target, kind).matrix[0]
        assert float(torch.linalg.det(matrix)) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_points_leave_open_stays_as_it_is(kind: str) -> None:
    """One point: a shift. Points on a line or in a plane: no turn about it, no stretch across it."""
    one = torch.tensor([[[4.0, 5.0, 6.0]]])
    found = fit(one, one + 2, kind)
    torch.testing.assert_close(found.matrix, torch.eye(3)[None])
    torch.testing.assert_close(found.offset, torch.full((1, 3), 2.0))
    line = torch.linspace(-5, 5, 6)[None, :, None] * torch.tensor([0.6, 0.8, 0.0])
    torch.testing.assert_close(fit(line, line + 1, kind).matrix, torch.eye(3)[None], atol=1e-5, rtol=0)
    plane = points(9, 3)
    plane[..., 2] = 0
    matrix = fit(plane, plane * torch.tensor([1.1, 1.1, 1.0]), "affine").matrix[0]
    torch.testing.assert_close(matrix, torch.diag(torch.tensor([1.1, 1.1, 1.0])).double(), atol=1e-9, rtol=0)


def test_weight_zero_leaves_a_point_out_and_batches_are_ragged_through_it() -> None:
    truth = true_map("affine", 2)
    source = points(10, 2, batch=2)
    target = truth(source)
    target[1, 6:] = torch.nan
    weights = torch.ones(2, 10, dtype=torch.float64)
    weights[1, 6:] = 0
    for kind in KINDS:
        both = fit(source, target, kind, weights)
        for b, n in ((0, 10), (1, 6)):
            alone = fit(source[b : b + 1, :n], target[b : b + 1, :n], kind)
            torch.testing.assert_close(both.matrix[b], alone.matrix[0])
            torch.testing.assert_close(both.offset[b], alone.offset[0])


def test_gradients_and_dtype() -> None:
    source, target = points(5, 2, spread=1.0), points(5, 2, seed=3, spread=1.0).requires_grad_()
    for kind in KINDS:
        assert torch.autograd.gradcheck(lambda t, k=kind: fit(source, t, k).matrix, (target,))
        assert torch.autograd.gradcheck(lambda t, k=kind: fit(source, t, k).offset, (target,))
    assert fit(source.float(), target.detach().float(), "rigid").matrix.dtype == torch.float32


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        fit(points(3, 2), points(3, 2), "projective")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fit: expected two equal"):
        fit(points(3, 2), points(4, 2))
    with pytest.raises(ValueError, match=r"matrix must be \(B, D, D\)"):
        AffineMap(torch.eye(2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"offset must be \(1, 2\)"):
        AffineMap(torch.eye(2)[None], torch.zeros(2))


# ------------------------------------------------------------------------------------------------------ maps


@pytest.mark.parametrize("dims", [2, 3])
def test_maps_are_inverted_and_chained(dims: int) -> None:
    first, second, p = true_map("affine", dims), true_map("similarity", dims, -70.0), points(7, dims)
    torch.testing.assert_close(first.inverse()(first(p)), p)
    torch.testing.assert_close(second.after(first)(p), second(first(p)))
    torch.testing.assert_close(AffineMap.identity(1, dims)(p), p)


@pytest.mark.parametrize("shape", [(9, 7), (6, 8, 5)])
def test_displacement_takes_voxels_to_voxels_of_the_other_grid(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    edges = torch.tensor([[1.0, 2.0, 3.0][:dims], [0.5, 0.7, 1.5][:dims]], dtype=torch.float64)
    others = torch.tensor([[1.2, 1.0, 3.0][:dims], [0.5, 0.9, 1.0][:dims]], dtype=torch.float64)
    one = true_map("affine", dims)
    both = AffineMap(
        torch.cat((one.matrix, rotation(dims, 40.0)[None])), torch.cat((one.offset, torch.zeros_like(one.offset)))
    )
    u = both.displacement(shape, edges, others)
    grid = identity_grid(shape, dtype=torch.float64).flatten(1).T
    for b in range(2):
        expected = both((grid * edges[b])[None].expand(2, -1, -1))[b] / others[b]
        torch.testing.assert_close(u[b].flatten(1).T + grid, expected)
    at = torch.full((2, 1, dims), 2.5, dtype=torch.float64)
    torch.testing.assert_close((at + sample(u, at)) * others[:, None], both(at * edges[:, None]))

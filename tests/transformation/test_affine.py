"""Affine maps against matrices by hand and SciPy's rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from reg_bench import field
from reg_bench.transformation import (
    Affine,
    Domain,
    affine_displacement,
    compose_affine,
    invert_affine,
    rotation_angles,
    rotation_matrix,
)

SPACING = torch.tensor([[0.7, 1.1, 3.0], [2.0, 1.0, 0.5]], dtype=torch.float64)


def domain_of(shape: tuple[int, ...], batch: int = 2) -> Domain:
    return Domain(shape, batch, SPACING[:batch, : len(shape)], dtype=torch.float64)


def random_theta(model: Affine, domain: Domain, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return scale * torch.randn(model.identity(domain).shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "in_2d", "in_3d"), [("translation", 2, 3), ("rigid", 3, 6), ("similarity", 4, 7), ("affine", 6, 12)]
)
def test_degrees_of_freedom(kind: str, in_2d: int, in_3d: int) -> None:
    assert Affine(kind).num_parameters(domain_of((8, 9))) == in_2d
    assert Affine(kind).num_parameters(domain_of((8, 9, 7))) == in_3d


@pytest.mark.parametrize("shape", [(21, 30), (12, 17, 9)])
@pytest.mark.parametrize(("kind", "scaled"), [("rigid", False), ("similarity", True)])
def test_distances_in_millimetres_are_kept_up_to_the_scale(shape: tuple[int, ...], kind: str, scaled: bool) -> None:
    """Rigid is rigid on voxels that are no cubes."""
    domain = domain_of(shape)
    model = Affine(kind)
    theta = random_theta(model, domain)
    u = model.displacement(theta, domain)
    places = (field.identity_grid(shape, dtype=torch.float64) + u).flatten(2).transpose(1, 2)
    before = field.identity_grid(shape, dtype=torch.float64).flatten(1).T * domain.spacing_mm[:, None]
    after = places * domain.spacing_mm[:, None]
    chosen = torch.randperm(before.shape[1], generator=torch.Generator().manual_seed(0))[:50]
    ratio = torch.cdist(after[:, chosen], after[:, chosen]) / torch.cdist(before[:, chosen], before[:, chosen])
    upper = ratio[:, *torch.triu_indices(50, 50, 1)]
    assert (upper.amax(dim=1) - upper.amin(dim=1)).max() < 1e-9
    assert bool(((upper[:, 0] - 1).abs() > 1e-3).all()) == scaled
    assert (field.jacobian_determinant(u) > 0).all()


def test_rotation_turns_the_first_axis_towards_the_second_about_the_centre() -> None:
    domain = Domain((11, 21), dtype=torch.float64)
    quarter = torch.tensor([[math.pi / 2 * 10, 0.0, 0.0]], dtype=torch.float64)  # the half extent is 10
    u = Affine("rigid").displacement(quarter, domain)
    # The centre (5, 10) stays; the voxel one step along axis 0 goes one step along axis 1.
    torch.testing.assert_close(u[0, :, 5, 10], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(u[0, :, 6, 10], torch.tensor([-1.0, 1.0], dtype=torch.float64))


def test_translation_counts_in_mean_voxel_edges() -> None:
    spacing = torch.tensor([[1.0, 4.0]], dtype=torch.float64)  # geometric mean 2
    u = Affine("translation").displacement(
        torch.tensor([[1.0, 1.0]], dtype=torch.float64), Domain((5, 6), 1, spacing, dtype=torch.float64)
    )
    assert u[0, 0].eq(2).all()
    assert u[0, 1].eq(0.5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotations_are_those_of_scipy_and_their_angles_come_back(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    lengths = torch.cat((torch.tensor([0.0, 1e-9, 1e-4, 0.0999, 0.1001, 3.1415]), torch.linspace(0.01, 3.1, 34)))
    vectors = vectors / vectors.norm(dim=1, keepdim=True) * lengths.double()[:, None]
    matrices = rotation_matrix(vectors.to(dtype))
    assert matrices.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    np.testing.assert_allclose(matrices.double().numpy(), expected, atol=tolerance)
    np.testing.assert_allclose(rotation_angles(matrices).double().numpy(), vectors.numpy(), atol=tolerance * 1e3)
    flat = torch.tensor([[0.3], [-2.0], [0.0]], dtype=dtype)
    torch.testing.assert_close(rotation_angles(rotation_matrix(flat)), flat)


def test_gradient_of_a_rotation_near_none() -> None:
    for scale in (0.0, 1e-8, 0.05, 0.0999, 0.2):
        vector = (torch.tensor([[0.5, -0.7, 0.4]], dtype=torch.float64) * scale).requires_grad_()
        assert torch.autograd.gradcheck(rotation_matrix, (vector,))
        assert torch.autograd.gradgradcheck(rotation_matrix, (vector,))


@pytest.mark.parametrize("shape", [(9, 14), (7, 8, 10)])
@pytest.mark.parametrize("kind", ["translation", "rigid", "similarity", "affine"])
def test_compose_and_invert(shape: tuple[int, ...], kind: str) -> None:
    domain, model = domain_of(shape), Affine(kind)
    a = model.voxel_matrix(random_theta(model, domain), domain)
    b = model.voxel_matrix(random_theta(model, domain, -1.0), domain)
    grid = field.identity_grid(shape, dtype=torch.float64).flatten(1)
    one = torch.cat((grid, torch.ones(1, grid.shape[1], dtype=torch.float64)))
    by_hand = (a @ (b @ one))[:, :-1].reshape(domain.field_shape) - grid.reshape(-1, *shape)
    torch.testing.assert_close(affine_displacement(compose_affine(a, b), shape), by_hand)
    torch.testing.assert_close(
        compose_affine(a, invert_affine(a)), torch.eye(len(shape) + 1, dtype=torch.float64).expand_as(a)
    )
    undone = affine_displacement(invert_affine(a), shape)
    torch.testing.assert_close(model.inverse_displacement(random_theta(model, domain), domain), undone)


@pytest.mark.parametrize("shape", [(9, 14), (7, 8, 10)])
@pytest.mark.parametrize("kind", ["translation", "rigid", "similarity", "affine"])
def test_parameters_come_back_from_the_matrix(shape: tuple[int, ...], kind: str) -> None:
    domain, model = domain_of(shape), Affine(kind)
    theta = random_theta(model, domain)
    torch.testing.assert_close(model.parameters_of(model.voxel_matrix(theta, domain), domain), theta)


def test_the_nearest_rotation_of_an_affine_map() -> None:
    domain = Domain((20, 20, 20), dtype=torch.float64)
    rotation = Rotation.from_rotvec([0.2, -0.3, 0.1]).as_matrix()
    stretch = np.array([[1.2, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]])
    theta = torch.zeros(1, 12, dtype=torch.float64)
    theta[0, :9] = torch.from_numpy(rotation @ stretch - np.eye(3)).flatten() * 9.5
    matrix = Affine("affine").voxel_matrix(theta, domain)
    rigid = Affine("rigid")
    found = rigid.voxel_matrix(rigid.parameters_of(matrix, domain), domain)[0, :3, :3]
    np.testing.assert_allclose(found.numpy(), rotation, atol=1e-9)
    scale = Affine("similarity").parameters_of(matrix, domain)[0, 3] / 9.5
    assert float(scale) == pytest.approx(math.log(np.linalg.det(stretch)) / 3)


def test_resampled_on_grids_whose_spacing_is_not_given() -> None:
    coarse, fine = Domain((9, 12), dtype=torch.float64), Domain((17, 30), dtype=torch.float64)
    theta = torch.tensor([[0.5, -0.2, 0.3, 0.1, 1.0, -2.0]], dtype=torch.float64)
    model = Affine("affine")
    u = model.displacement(model.resampled(theta, coarse, fine), fine)
    torch.testing.assert_close(u, field.resize(model.displacement(theta, coarse), fine.shape))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of .* got 'elastic'"):
        Affine("elastic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be invertible"):
        invert_affine(torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match="matrix must be homogeneous"):
        compose_affine(torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match=r"matrix must be \(B, 4, 4\)"):
        affine_displacement(torch.eye(3)[None], (3, 4, 5))
    with pytest.raises(ValueError, match="keeps orientation"):
        Affine("rigid").parameters_of(torch.diag(torch.tensor([-1.0, 1.0, 1.0]))[None], Domain((4, 4)))

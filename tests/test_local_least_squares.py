"""Local least squares against a solver per voxel, and against motion in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.field import gaussian
from reg_bench.local_least_squares import follow, local_model, local_step


@pytest.mark.parametrize("shape", [(9, 8), (6, 5, 7)])
def test_a_step_solves_the_weighted_normal_equations_of_every_voxel(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    dims = len(shape)
    fixed = torch.rand(2, 2, *shape, generator=rng, dtype=torch.float64)
    difference = 0.1 * torch.randn(2, 2, *shape, generator=rng, dtype=torch.float64)
    window, damping = [1.3] * dims, 1e-2
    found = local_step(local_model(fixed, window, damping), difference, 1e9)
    gradient = np.stack(np.gradient(fixed.numpy(), axis=tuple(range(2, 2 + dims))), axis=2)
    products = torch.from_numpy(np.einsum("bci...,bcj...->bij...", gradient, gradient)).flatten(1, 2)
    tensor = gaussian(products, window).unflatten(1, (dims, dims)).movedim((1, 2), (-2, -1))
    right = gaussian(torch.from_numpy(np.einsum("bci...,bc...->bi...", gradient, difference.numpy())), window)
    matrix = tensor + damping * torch.eye(dims, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, right.movedim(1, -1)[..., None])[..., 0].movedim(-1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_steps_are_cut_to_their_largest_length_keeping_direction() -> None:
    fixed = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    model = local_model(fixed, [1.0, 1.0], 1e-3)
    difference = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    free, cut = local_step(model, difference, 1e9), local_step(model, difference, 0.5)
    length = free.norm(dim=1, keepdim=True)
    assert float(length.max()) > 0.5
    torch.testing.assert_close(cut, free * (0.5 / length.clamp(min=0.5)))


def _waves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    waves = ((0.31, 0.12), (-0.18, 0.29), (0.10, -0.35), (0.24, 0.27))
    return (0.5 + sum(0.12 * torch.sin(a * x + b * y + 7 * a) for a, b in waves))[None, None]


def test_a_known_shift_is_found() -> None:
    x, y = torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij")
    moving, fixed = _waves(x, y), _waves(x + 1.3, y - 0.8)
    settings = {"window": [3.0, 3.0], "smoothing": [1.0, 1.0], "damping": 1e-5}
    u = follow(fixed, moving, torch.zeros(1, 2, 48, 40), iterations=10, **settings)  # type: ignore[arg-type]
    inside = u[0, :, 12:-12, 12:-12]
    assert float((inside - torch.tensor([1.3, -0.8])[:, None, None]).norm(dim=0).mean()) < 0.05


def test_no_texture_no_motion_and_an_axis_of_one_voxel() -> None:
    flat = torch.full((1, 1, 10, 1), 0.5)
    settings = {"window": [2.0, 2.0], "smoothing": [1.0, 1.0], "damping": 1e-3}
    u = follow(flat, flat + 0.1, torch.zeros(1, 2, 10, 1), iterations=3, **settings)  # type: ignore[arg-type]
    assert torch.equal(u, torch.zeros_like(u))

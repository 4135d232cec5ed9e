"""Pyramids against closed forms, SciPy and the textbook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d, gaussian_filter, map_coordinates
from torch import Tensor

from reg_bench.field import identity_grid, resize_image
from reg_bench.pyramid import (
    distinct_levels,
    from_laplacian_pyramid,
    gaussian_pyramid,
    laplacian_pyramid,
    level_shapes,
    shrink,
)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


# --------------------------------------------------------------------------------------------------- shapes


def test_cubes_shrink_by_the_factor_rounded_up() -> None:
    assert level_shapes((64, 45, 33), (4, 2, 1)) == [(16, 12, 9), (32, 23, 17), (64, 45, 33)]


def test_thick_axes_shrink_less_in_any_unit() -> None:
    shapes = level_shapes((256, 256, 40), (8, 4, 2, 1), (1.0, 1.0, 4.0))
    assert shapes == [(32, 32, 20), (64, 64, 40), (128, 128, 40), (256, 256, 40)]
    assert level_shapes((256, 256, 40), (8, 4, 2, 1), torch.tensor([[0.1, 0.1, 0.4]] * 2)) == shapes


def test_no_axis_falls_below_the_smallest_size_and_short_ones_stay() -> None:
    assert level_shapes((100, 20, 5, 1)[:3], (16, 4), smallest_size=8) == [(8, 8, 5), (25, 8, 5)]
    assert level_shapes((20, 1), (4,), smallest_size=1) == [(5, 1)]


def test_of_equal_levels_the_last_stays() -> None:
    shapes = level_shapes((12, 12), (8, 4, 1.5, 1), smallest_size=8)
    assert shapes == [(8, 8), (8, 8), (8, 8), (12, 12)]
    assert distinct_levels(shapes) == [(2, (8, 8)), (3, (12, 12))]
    assert distinct_levels([]) == []


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"factors must be finite and at least 1, got \(2, 0.5\)"):
        level_shapes((9, 9), (2, 0.5))
    with pytest.raises(ValueError, match="spacing_mm must be positive"):
        level_shapes((9, 9), (2,), (1.0, 0.0))
    with pytest.raises(ValueError, match="spacing_mm must hold 2 lengths"):
        level_shapes((9, 9), (2,), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="must have the same spacing"):
        level_shapes((9, 9), (2,), torch.tensor([[1.0, 1.0], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="smallest_size must be at least 1"):
        level_shapes((9, 9), (2,), smallest_size=0)
    with pytest.raises(ValueError, match="2 lengths of 1 up to"):
        shrink(torch.zeros(1, 1, 5, 6), (5, 7))
    with pytest.raises(ValueError, match="2 lengths of 1 up to"):
        shrink(torch.zeros(1, 1, 5, 6), (5,))
    with pytest.raises(ValueError, match="levels must be at least 1"):
        gaussian_pyramid(torch.zeros(1, 1, 5, 6), 0)
    with pytest.raises(ValueError, match="bands is empty"):
        from_laplacian_pyramid([])


# -------------------------------------------------------------------------------------------------- shrinking


@pytest.mark.parametrize(("old", "new"), [((64, 45), (23, 45)), ((30, 21, 17), (10, 11, 9))])
def test_shrink_is_a_gaussian_then_linear_interpolation(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    image = noise(2, 2, *old)
    out = shrink(image, new)
    sigmas = [0.5 * np.sqrt(((n - 1) / (m - 1)) ** 2 - 1) for n, m in zip(old, new, strict=True)]
    axes = [np.linspace(0, n - 1, m) for n, m in zip(old, new, strict=True)]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"))
    for b in range(2):
        for c in range(2):
            smooth = gaussian_filter(image[b, c].numpy(), sigmas, mode="nearest")
            expected = map_coordinates(smooth, positions, order=1, mode="nearest")
            np.testing.assert_allclose(out[b, c].numpy(), expected, atol=1e-9)
    torch.testing.assert_close(shrink(image.float(), new), out.float(), atol=2e-6, rtol=0)


def test_shrink_keeps_constants_and_the_place_of_things() -> None:
    """A linear ramp of positions stays one, away from the border."""
    torch.testing.assert_close(shrink(torch.full((1, 1, 40, 30), 2.0), (10, 30)), torch.full((1, 1, 10, 30), 2.0))
    ramp = identity_grid((81, 60), dtype=torch.float64)[None]
    coarse = shrink(ramp, (21, 20))
    torch.testing.assert_close(coarse[..., 3:-3, 3:-3], resize_image(ramp, (21, 20))[..., 3:-3, 3:-3])


def test_shrink_removes_what_the_coarse_grid_cannot_show() -> None:
    """A chequerboard vanishes; without the blur it would come out as full contrast."""
    x, y = identity_grid((65, 65), dtype=torch.float64)
    board = ((x + y) % 2)[None, None] - 0.5
    assert resize_image(board, (33, 33)).abs().max() == 0.5
    assert shrink(board, (33, 33))[..., 2:-2, 2:-2].abs().max() < 0.05


def test_shrinking_twice_is_about_the_same_as_once() -> None:
    image = shrink(noise(1, 1, 161, 129), (81, 65))
    apart = shrink(shrink(image, (41, 33)), (21, 17)) - shrink(image, (21, 17))
    assert float(apart.abs().mean()) < 0.1 * float(shrink(image, (21, 17)).std())


def test_shrink_to_the_same_shape_and_to_one_voxel() -> None:
    image = noise(1, 2, 9, 12)
    assert torch.equal(shrink(image, (9, 12)), image)
    torch.testing.assert_close(shrink(image, (1, 12)), image.mean(2, keepdim=True))


def test_masks_become_shares() -> None:
    mask = torch.zeros(1, 1, 33, 33, dtype=torch.bool)
    mask[..., 8:25, 8:25] = True
    share = shrink(mask, (9, 9))
    assert share.dtype == torch.float32
    assert 0 <= share.min() <= share.max() <= 1 + 1e-6
    assert share[0, 0, 4, 4] == pytest.approx(1.0, abs=1e-3)
    assert share[0, 0, 0, 0] < 1e-6
    assert 0.3 < share[0, 0, 2, 4] < 0.8
    assert shrink(mask.to(torch.uint8), (9, 9)).is_floating_point()


def test_cases_do_not_influence_one_another_and_gradients_hold() -> None:
    image = noise(2, 1, 12, 9)
    assert torch.equal(shrink(image, (5, 4))[1:], shrink(image[1:], (5, 4)))
    small = noise(1, 1, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: shrink(v, (3, 4)), (small,))
    assert torch.autograd.gradcheck(lambda v: gaussian_pyramid(v, 2, smallest_size=2)[1], (small,))


# --------------------------------------------------------------------------------------------------- pyramids


def test_odd_axes_are_blurred_by_the_binomial_kernel_and_every_second_voxel_kept() -> None:
    image = noise(1, 2, 33, 17, 25)
    fine, coarse, coarsest = gaussian_pyramid(image, 3, smallest_size=3)
    assert fine is image
    for before, after in ((fine, coarse), (coarse, coarsest)):
        expected = before.numpy()
        for axis in (2, 3, 4):
            expected = convolve1d(expected, np.array([1, 4, 6, 4, 1]) / 16, axis=axis, mode="nearest")
        np.testing.assert_allclose(after.numpy(), expected[:, :, ::2, ::2, ::2], atol=1e-12)


def test_levels_have_the_shapes_of_the_factors_and_equal_ones_are_left_out() -> None:
    image = noise(1, 1, 64, 30, 10)
    shapes = [tuple(level.shape[2:]) for level in gaussian_pyramid(image, 5, (1.0, 1.0, 3.0))]
    assert shapes == [(64, 30, 10), (32, 15, 10), (16, 8, 8), (8, 8, 8)]
    assert len(gaussian_pyramid(noise(1, 1, 8, 6), 4)) == 1


@pytest.mark.parametrize("spatial", [(40, 33), (1, 30), (17, 24, 12), (7, 6)])
def test_every_level_keeps_constants_and_positions(spatial: tuple[int, ...]) -> None:
    for level in gaussian_pyramid(torch.full((1, 1, *spatial), 1.5), 4, smallest_size=3):
        torch.testing.assert_close(level, torch.full_like(level, 1.5))
    grid = identity_grid((40, 65), dtype=torch.float64)[None]
    middle = gaussian_pyramid(grid, 3)[2][..., 3:-3, 3:-3]
    torch.testing.assert_close(middle, resize_image(grid, (10, 17))[..., 3:-3, 3:-3], atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spatial", [(40, 33), (1, 30), (21, 18, 12)])
def test_laplacian_pyramid_is_put_together_perfectly(spatial: tuple[int, ...], dtype: torch.dtype) -> None:
    image = noise(2, 3, *spatial).to(dtype)
    bands = laplacian_pyramid(image, 4, smallest_size=3)
    assert len(bands) > 2
    back = from_laplacian_pyramid(bands)
    assert back.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(back, image, atol=tolerance, rtol=0)


def test_bands_hold_detail_and_the_last_level_the_rest() -> None:
    """A constant is in the last level alone; a chequerboard in the first band alone; a slow wave hardly there."""
    flat = laplacian_pyramid(torch.ones(1, 1, 33, 33, dtype=torch.float64), 3)
    assert max(float(band.abs().max()) for band in flat[:-1]) < 1e-12
    x, y = identity_grid((65, 65), dtype=torch.float64)
    board = ((x + y) % 2)[None, None] - 0.5
    bands = [b[..., 4:-4, 4:-4] for b in laplacian_pyramid(board, 3)]
    assert bands[0].abs().min() > 0.49
    assert max(float(b.abs().max()) for b in bands[1:]) < 0.01
    wave = torch.sin(2 * torch.pi * x / 64)[None, None]
    assert laplacian_pyramid(wave, 3)[0][..., 4:-4, :].abs().max() < 0.01


def test_masks_are_taken_as_floating_point() -> None:
    mask = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    for level in gaussian_pyramid(mask, 2):
        torch.testing.assert_close(level, torch.ones_like(level, dtype=torch.float32))

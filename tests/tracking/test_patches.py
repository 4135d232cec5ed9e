"""Patches cut, shifted, turned, scaled and mirrored, against direct reading of the image."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from reg_bench.tracking import Augmentation, default_augmentations
from reg_bench.tracking.patches import augmented, bordered, cut
from reg_bench.tracking.smoothing import smooth


def waves(i: Tensor, j: Tensor) -> Tensor:
    return torch.sin(i / 9) + torch.cos(j / 7 + i / 15)


def image(size: int = 64) -> Tensor:
    places = torch.arange(float(size), dtype=torch.float64)
    return waves(places[:, None], places[None])[None, None]


def test_patches_are_copies_of_the_pixels_around_points() -> None:
    maps = torch.cat((image(), image() + 1))
    points = torch.tensor([[20.4, 30.6], [1.0, 62.0], [20.4, 30.6]], dtype=torch.float64)
    found = cut(bordered(maps, 8), torch.tensor([0, 1, 1]), points, 8)
    assert torch.equal(found[0, 0], maps[0, 0, 16:24, 27:35])
    assert torch.equal(found[2, 0], maps[1, 0, 16:24, 27:35])
    rows, columns = torch.arange(-3, 5).clamp(min=0), torch.arange(58, 66).clamp(max=63)
    assert torch.equal(found[1, 0], maps[1, 0][rows][:, columns])


@pytest.mark.parametrize(
    ("how", "matrix"),
    [
        (Augmentation(), [[1, 0], [0, 1]]),
        (Augmentation(degrees=90), [[0, -1], [1, 0]]),
        (Augmentation(scale=1.25), [[0.8, 0], [0, 0.8]]),
        (Augmentation(flip=True), [[-1, 0], [0, 1]]),
        (Augmentation(shift=(3.0, -2.0)), [[1, 0], [0, 1]]),
    ],
)
def test_changed_patches_read_the_image_elsewhere(how: Augmentation, matrix: list[list[float]]) -> None:
    points = torch.tensor([[30.25, 33.5]], dtype=torch.float64)
    found = augmented(image(), torch.tensor([0]), points, 12, how)[0, 0]
    r = torch.stack(torch.meshgrid(torch.arange(-6.0, 6), torch.arange(-6.0, 6), indexing="ij"), -1).double()
    where = points + (r - torch.tensor(how.shift)) @ torch.tensor(matrix, dtype=torch.float64).T
    torch.testing.assert_close(found, waves(where[..., 0], where[..., 1]), atol=0.02, rtol=0)


def test_smoothing_is_of_scipy() -> None:
    x = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = ndimage.gaussian_filter(x.numpy(), (0, 0, 1.5, 1.5), mode="nearest", truncate=3.0)
    torch.testing.assert_close(smooth(x, 1.5), torch.from_numpy(expected))
    assert smooth(x, 0.0) is x


def test_default_augmentations_are_of_all_kinds() -> None:
    kinds = default_augmentations()
    assert sum(a.shifts_only for a in kinds) == 4
    assert {a.degrees for a in kinds} > {0.0}
    assert {a.scale for a in kinds} > {1.0}
    assert {a.blur for a in kinds} > {0.0}

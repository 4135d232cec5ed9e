"""Patches around points: cut from feature maps, or resampled for training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from reg_bench.field import sample
from reg_bench.tracking.smoothing import smooth


def bordered(maps: Tensor, size: int) -> Tensor:
    """`maps (B, K, H, W)` with their border repeated as far as patches of edge `size` reach."""
    half = size // 2
    return F.pad(maps, (half, half - 1, half, half - 1), mode="replicate")


def cut(maps: Tensor, cases: Tensor, points: Tensor, size: int) -> Tensor:
    """Patches `(M, K, size, size)` of `bordered` maps around the pixels nearest to points. Nothing is interpolated.

    Args:
        maps: of `bordered`.
        cases: `(M,)`, which case of the maps each point lies in.
        points: `(M, 2)` voxels, inside the image.
        size: edge of a patch, even; pixels `-size / 2 .. size / 2 - 1` from its centre.
    """
    places = zip(cases.tolist(), points.round().long().tolist(), strict=True)
    return torch.stack([maps[b, :, i : i + size, j : j + size] for b, (i, j) in places])


@dataclass(frozen=True)
class Augmentation:
    """How a patch is changed for training.

    Attributes:
        degrees: by which the content is turned about the point.
        scale: by which the content grows.
        shift: by which the content moves, in voxels; the filter learns to answer there.
        blur: standard deviation of a Gaussian, in voxels.
        flip: whether the content is mirrored, along the first axis.
        weight: of the sample beside the unchanged one, which has 1.
    """

    degrees: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    flip: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0 or self.blur < 0 or not self.weight > 0:
            raise ValueError(
                "Augmentation: scale and weight must be positive and blur at least 0, "
                f"got {self.scale}, {self.weight} and {self.blur}"
            )

    @property
    def shifts_only(self) -> bool:
        """Whether the content is moved and nothing else."""
        return self.degrees == 0 and self.scale == 1 and self.blur == 0 and not self.flip


def default_augmentations(weight: float = 0.1) -> tuple[Augmentation, ...]:
    """Turned, scaled, shifted and blurred patches: the kinds of Paper I's tracker in the range of a beating heart."""
    turned = [Augmentation(degrees=d, weight=weight) for d in (-30.0, -20.0, -10.0, 10.0, 20.0, 30.0)]
    scaled = [Augmentation(scale=s, weight=weight) for s in (0.9, 1.1)]
    shifted = [Augmentation(shift=(a, b), weight=weight) for a, b in ((6, 6), (-6, 6), (6, -6), (-6, -6))]
    return (*turned, *scaled, *shifted, Augmentation(blur=1.0, weight=weight))


def augmented(
    images: Tensor, cases: Tensor, points: Tensor, size: int, how: Augmentation, origin: float = 0.0
) -> Tensor:
    """Changed patches `(M, C, size, size)` of `images (B, C, H, W)`, with the points at their centres plus the shift.

    Args:
        cases, points: as for `cut`.
        origin: where the point lies from the pixel `size / 2` of a patch, along each axis.
    """
    places = torch.arange(size, dtype=points.dtype, device=points.device) - (size // 2 + origin)
    grid = torch.stack(torch.meshgrid(places, places, indexing="ij"), dim=-1).reshape(-1, 2)
    moved = (grid - grid.new_tensor(how.shift)) @ _matrix(how).to(grid).T
    patches = images.new_empty(len(points), images.shape[1], size, size)
    for case in range(len(images)):
        here = cases == case
        where = (points[here][:, None] + moved).reshape(1, -1, 2)
        values = sample(images[case : case + 1], where).reshape(-1, size, size, images.shape[1])
        patches[here] = values.movedim(-1, 1).to(patches.dtype)
    return smooth(patches, how.blur)


def _matrix(how: Augmentation) -> Tensor:
    """From the changed patch to the image."""
    angle = torch.deg2rad(torch.tensor(how.degrees, dtype=torch.float64))
    turn = torch.stack((torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos()))))
    mirror = torch.diag(torch.tensor([-1.0 if how.flip else 1.0, 1.0], dtype=torch.float64))
    return turn @ mirror / how.scale

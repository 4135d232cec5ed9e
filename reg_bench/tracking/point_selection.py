"""Which points of the reference image are followed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from reg_bench.tracking.corners import corner_strength, spaced_peaks
from reg_bench.tracking.even_spread import evenly_spread


def mask_distance(mask: Tensor) -> Tensor:
    """Euclidean distance of every pixel from the mask, `(B, 1, H, W)` float64 voxels; 0 inside it.

    An empty mask says nothing: the distance is then 0 everywhere.
    """
    out = torch.zeros(mask.shape, dtype=torch.float64)
    for distance, one in zip(out, mask.detach().cpu().bool().numpy(), strict=True):
        if one.any():
            distance.copy_(torch.from_numpy(ndimage.distance_transform_edt(~one[0]))[None])
    return out.to(mask.device)


def density_points(density: Tensor, count: int, seed: int, candidates_each: int = 1) -> Tensor:
    """`count` different pixels `(B, count, 2)` drawn with probabilities in proportion to `density (B, 1, H, W)`.

    Every case is drawn from `seed` anew, so that it comes out as if it were alone. With several `candidates_each`,
    so many times as many are drawn, and `evenly_spread` chooses among them.

    Raises:
        ValueError: fewer than `count` pixels of positive density.
    """
    drawn = []
    for weights in density.detach().double().cpu()[:, 0]:
        available = int((weights > 0).sum())
        if not 1 <= count <= available:
            raise ValueError(f"density_points: count must lie in 1..{available}, the pixels to draw from, got {count}")
        generator = torch.Generator().manual_seed(seed)
        candidates = min(candidates_each * count, available)
        index = torch.multinomial(weights.flatten(), candidates, replacement=False, generator=generator)
        points = torch.stack((index // weights.shape[1], index % weights.shape[1]), dim=1)
        expected = weights.flatten()[index] * (count / weights.sum())
        drawn.append(points[evenly_spread(points, expected, count)])
    return torch.stack(drawn).to(density.device)


class PointSelection(ABC):
    """Chooses points of reference images. Subclasses are final and implement `select`."""

    @abstractmethod
    def select(self, reference: Tensor, mask: Tensor | None = None) -> Tensor:
        """The points `(B, N, 2)` in voxels, array axis order, in the dtype of `reference (B, C, H, W)`.

        `mask` is `(B, 1, H, W)`, non-zero inside; `None`: the whole image. Each case is treated as if alone.
        """


class MaskDensity(PointSelection):
    """Random pixels, their density inversely proportional to the distance from the mask, `1 / (1 + d)` (Paper I).

    Without a mask all pixels are equally likely.

    Args:
        points: how many, drawn without replacement.
        seed: of the generator.
        candidates: drawn for each point; of more than one the most crowded are left out, so that the points spread
            evenly without changing their density. 1: independent points.
    """

    def __init__(self, points: int = 150, seed: int = 0, candidates: int = 1) -> None:
        _check_count("MaskDensity", points)
        if candidates < 1:
            raise ValueError(f"MaskDensity: candidates must be at least 1, got {candidates}")
        self.points, self.seed, self.candidates = points, seed, candidates

    def select(self, reference: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `PointSelection.select`."""
        whole = reference.new_ones(len(reference), 1, *reference.shape[2:])
        inside = whole if mask is None else _checked(mask, reference)
        return density_points(1 / (1 + mask_distance(inside)), self.points, self.seed, self.candidates).to(
            reference.dtype
        )


class Corners(PointSelection):
    """Corners (Shi–Tomasi): the strongest that keep a distance from each other.

    Args:
        points: how many. Where corners run out, the distance is halved until there are enough.
        min_distance: in voxels.
        near_mask: only pixels at most so many voxels from the mask are taken; `None`: anywhere.
        sigma_voxels: of the window over which gradients are averaged.
    """

    def __init__(
        self, points: int = 150, min_distance: float = 6.0, near_mask: float | None = None, sigma_voxels: float = 1.5
    ) -> None:
        _check_count("Corners", points)
        if min_distance < 0 or not sigma_voxels > 0 or (near_mask is not None and near_mask < 0):
            raise ValueError(
                "Corners: min_distance and near_mask must be at least 0 and sigma_voxels positive, "
                f"got {min_distance}, {near_mask} and {sigma_voxels}"
            )
        self.points, self.min_distance = points, min_distance
        self.near_mask, self.sigma_voxels = near_mask, sigma_voxels

    def select(self, reference: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `PointSelection.select`."""
        strength = corner_strength(reference, self.sigma_voxels)
        if mask is not None and self.near_mask is not None:
            strength = strength.masked_fill(mask_distance(_checked(mask, reference)) > self.near_mask, -1.0)
        return torch.stack([spaced_peaks(one[0], self.points, self.min_distance) for one in strength])


class RegularGrid(PointSelection):
    """Points on a square grid, centred in the image.

    Args:
        spacing_voxels: between neighbours along both axes.
    """

    def __init__(self, spacing_voxels: float = 20.0) -> None:
        if not (spacing_voxels > 0 and math.isfinite(spacing_voxels)):
            raise ValueError(f"RegularGrid: spacing_voxels must be positive, got {spacing_voxels}")
        self.spacing_voxels = spacing_voxels

    def select(self, reference: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `PointSelection.select`; the mask makes no difference."""
        axes = [self._axis(n).to(reference) for n in reference.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 2)
        return grid.repeat(len(reference), 1, 1)

    def _axis(self, n: int) -> Tensor:
        count = int((n - 1) / self.spacing_voxels) + 1
        return (n - 1) / 2 + (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * self.spacing_voxels


class GivenPoints(PointSelection):
    """The same points in every image.

    Args:
        points: rows of two voxel coordinates, array axis order.
    """

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 2 or not len(array) or not np.isfinite(array).all():
            raise ValueError(f"GivenPoints: points must be rows of two finite numbers, got shape {array.shape}")
        self.points = torch.from_numpy(array)

    def select(self, reference: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `PointSelection.select`; the mask makes no difference."""
        last = torch.tensor(reference.shape[2:], dtype=torch.float64) - 1
        if bool(((self.points < 0) | (self.points > last)).any()):
            raise ValueError(f"GivenPoints: points must lie in the image of shape {tuple(reference.shape[2:])}")
        return self.points.to(reference).repeat(len(reference), 1, 1)


def _check_count(name: str, points: int) -> None:
    if points < 1:
        raise ValueError(f"{name}: points must be at least 1, got {points}")


def _checked(mask: Tensor, reference: Tensor) -> Tensor:
    expected = (len(reference), 1, *reference.shape[2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"mask must be (B, 1, H, W) = {expected}, got {tuple(mask.shape)}")
    return mask != 0

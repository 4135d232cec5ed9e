"""Preprocessing shared by the datasets: MONAI dictionary transforms on loaded arrays, plain tensors out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRangePercentilesd
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.grid import Grid

Arrays = Mapping[str, NDArray[Any]]
Step = Callable[[dict[str, Any]], Mapping[Hashable, Any]]


def preprocess(arrays: Arrays, steps: Sequence[Step]) -> dict[str, Tensor]:
    """Runs MONAI dictionary transforms over arrays `(*S)`; the results are plain tensors `(1, 1, *S')`.

    Floating point becomes float32, everything else stays as it is.
    """
    data: dict[str, Any] = {key: torch.from_numpy(np.ascontiguousarray(a))[None] for key, a in arrays.items()}
    for step in steps:
        data = {str(key): value for key, value in step(data).items()}
    return {key: plain(data[key])[None] for key in arrays}


def plain(value: Tensor) -> Tensor:
    """`value` without MONAI's metadata, contiguous; floating point as float32."""
    tensor: Tensor = value.as_tensor() if isinstance(value, MetaTensor) else value
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def scale_intensity(keys: KeysCollection, *, upper: float = 99.5) -> ScaleIntensityRangePercentilesd:
    """Each image to 0..1 between its minimum and its `upper` percentile, clipped."""
    return ScaleIntensityRangePercentilesd(keys, lower=0, upper=upper, b_min=0.0, b_max=1.0, clip=True)


class MatchHistogramd(MapTransform):
    """Maps the intensities of images so that their histogram becomes that of a reference image.

    Quantile matching by SimpleITK's `HistogramMatching` (Nyul and Udupa, "On standardizing the MR image
    intensity scale", 1999), the background below the mean left out when the quantiles are taken.

    Args:
        keys: images to change, `(1, *S)`.
        reference: key of the image whose histogram they get.
        levels: histogram bins.
        points: quantiles that are matched.
    """

    def __init__(self, keys: KeysCollection, *, reference: str, levels: int = 256, points: int = 15) -> None:
        super().__init__(keys)
        self.reference, self.levels, self.points = reference, levels, points

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        reference = self._image(changed[self.reference])
        for key in self.key_iterator(changed):
            matched = sitk.HistogramMatching(self._image(changed[key]), reference, self.levels, self.points, True)
            changed[key] = torch.from_numpy(sitk.GetArrayFromImage(matched))[None]
        return changed

    @staticmethod
    def _image(tensor: Tensor) -> sitk.Image:
        # The order of the axes does not matter to a histogram, as long as it is undone the same way.
        return sitk.GetImageFromArray(tensor[0].float().numpy())


def geometry(grid: Grid) -> tuple[Tensor, Tensor]:
    """Spacing in mm `(1, D)` float32 and RAS affine `(1, D + 1, D + 1)` float64 of a grid."""
    spacing = torch.tensor([grid.spacing_mm], dtype=torch.float32)
    return spacing, torch.from_numpy(np.ascontiguousarray(grid.affine_ras()))[None]


def plane(shape: Sequence[int], spacing_mm: Sequence[float]) -> Grid:
    """The grid of a 2-D image whose place in the world is not known: first pixel at 0, axes x and y."""
    return Grid((shape[0], shape[1]), (spacing_mm[0], spacing_mm[1]), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))


def cropped(grid: Grid, start: Sequence[int], shape: Sequence[int]) -> Grid:
    """The part of `grid` of `shape` voxels whose voxel 0 is voxel `start` (negative: padded)."""
    origin = grid.to_world(np.asarray([start], dtype=np.float64))[0]
    return Grid(tuple(shape), grid.spacing_mm, tuple(float(o) for o in origin), grid.direction)

"""Preprocessing shared by the datasets: MONAI dictionary transforms on loaded arrays, plain tensors out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRangePercentilesd
from numpy.typing import NDArray
from torch import Tensor

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


def ras_affine(spacing_mm: Sequence[float], origin_lps: Sequence[float], direction: NDArray[Any]) -> Tensor:
    """`(1, D + 1, D + 1)` float64 voxel-to-RAS affine of an ITK geometry (LPS origin and direction)."""
    dims = len(spacing_mm)
    matrix = np.eye(dims + 1)
    matrix[:dims, :dims] = np.asarray(direction, float).reshape(dims, dims) * np.asarray(spacing_mm, float)
    matrix[:dims, dims] = origin_lps
    # LPS to RAS: the first two world axes change sign.
    matrix[:2] *= -1
    return torch.from_numpy(matrix)[None]


def cropped_affine(affine: Tensor, start: Sequence[int]) -> Tensor:
    """The affine of a grid whose voxel 0 is voxel `start` of the given one (negative: padded)."""
    dims = affine.shape[-1] - 1
    shifted = affine.clone()
    shifted[:, :dims, dims] += affine[:, :dims, :dims] @ torch.tensor(list(start), dtype=affine.dtype)
    return shifted


def spacing_tensor(spacing_mm: Sequence[float]) -> Tensor:
    """`(1, D)` float32 spacing in mm."""
    return torch.tensor([[float(s) for s in spacing_mm]], dtype=torch.float32)

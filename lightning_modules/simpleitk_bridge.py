"""Between tensors and SimpleITK images, for the methods that run on SimpleITK.

Array axes keep their order: spatial axis `c` of a tensor is ITK axis `c` (x, y, z), so NumPy's view of an ITK
image, which is (z, y, x), is transposed on the way in and out. Directions are the identity and voxel 0 of
both grids lies at the origin; only the spacing is carried over, because fixed and moving image of a unified
pair share one grid. Where they do not (index-to-index pairs), each image keeps its own spacing and the
displacement is turned into voxels by `y = (x spacing_fixed + d) / spacing_moving`.

Lengths are measured in the smallest voxel edge of the fixed image, so that step lengths and stopping
tolerances do not depend on whether the spacing is known or in which unit it came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.intensities import PERCENTILES, ROUNDING
from reg_bench.types import DisplacementField, RegistrationPair

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ImagePair:
    """One case as SimpleITK images, intensities in 0..1, spacing in units of the smallest fixed voxel edge."""

    fixed: sitk.Image
    moving: sitk.Image

    @property
    def dimension(self) -> int:
        return int(self.fixed.GetDimension())

    @property
    def is_constant(self) -> bool:
        """Whether one of the images shows nothing to align by."""
        return any(np.ptp(array_of(image)) == 0 for image in (self.fixed, self.moving))


def register_each(pair: RegistrationPair, register: Callable[[ImagePair], sitk.Image | None]) -> DisplacementField:
    """Runs `register` on every element of the batch and gathers the fields.

    `register` returns the displacement `d` at the fixed voxels as a vector image in the units of `ImagePair`,
    or `None` for no motion. It is not called where an image is constant: nothing can be aligned then and
    there is no motion. Channels are averaged. An axis of length 1 in both images is left out, because filters and
    transforms are undefined across it; its displacement is zero.
    """
    fields = [_register_one(element, register) for element in pair.split()]
    u = torch.from_numpy(np.stack(fields)).to(pair.device)
    return DisplacementField.for_pair(u, pair)


def _register_one(pair: RegistrationPair, register: Callable[[ImagePair], sitk.Image | None]) -> Array:
    fixed, moving = (_grey(image) for image in (pair.fixed, pair.moving))
    u = np.zeros((pair.dimension, *fixed.shape), np.float32)
    kept = [c for c in range(pair.dimension) if fixed.shape[c] > 1 or moving.shape[c] > 1]
    spacings = _spacings(pair)
    if len(kept) < 2 or any(min(fixed.shape[c], moving.shape[c]) < 2 for c in kept):
        return u
    dropped = tuple(c for c in range(pair.dimension) if c not in kept)
    images = ImagePair(
        *(
            to_image(normalised(array.squeeze(dropped)), spacing[kept])
            for array, spacing in zip((fixed, moving), spacings, strict=True)
        )
    )
    found = None if images.is_constant else register(images)
    # Without a displacement u is still not zero where the spacings of the two grids differ.
    u[kept] = to_voxels(found, images).reshape(len(kept), *fixed.shape)
    return u


def _grey(image: Tensor) -> Array:
    return image[0].detach().to("cpu", torch.float32).mean(0).numpy()


def _spacings(pair: RegistrationPair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fixed and moving spacing, smallest fixed edge 1; all ones where one of them is unknown."""
    if pair.fixed_spacing_mm is None or pair.moving_spacing_mm is None:
        return np.ones(pair.dimension), np.ones(pair.dimension)
    fixed, moving = (
        s[0].detach().to("cpu", torch.float64).numpy() for s in (pair.fixed_spacing_mm, pair.moving_spacing_mm)
    )
    return fixed / fixed.min(), moving / fixed.min()


def normalised(array: Array) -> Array:
    """`array` scaled linearly so that the percentiles 0.1 and 99.9 become 0 and 1, and clipped there.

    An image that is constant up to rounding becomes zero.
    """
    low, high = (float(v) for v in np.percentile(array, PERCENTILES))
    if high <= low:
        low, high = float(array.min()), float(array.max())
    if high - low <= ROUNDING * max(abs(low), abs(high)):
        return np.zeros_like(array)
    scaled: Array = np.clip((array - low) / (high - low), 0, 1).astype(np.float32)
    return scaled


def to_image(array: Array, spacing: NDArray[np.float64]) -> sitk.Image:
    """The scalar image of `array` (*S) with voxel 0 at the origin."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(s) for s in spacing])
    return image


def array_of(image: sitk.Image) -> NDArray[np.float64]:
    """A copy of a scalar image as (*S), of a vector image as (D, *S), in float64."""
    # GetArrayFromImage copies: a view would dangle once a temporary image is gone.
    array: NDArray[np.float64] = sitk.GetArrayFromImage(image).astype(np.float64)
    if image.GetNumberOfComponentsPerPixel() == 1:
        return array.T
    return np.moveaxis(array, -1, 0).transpose(0, *range(image.GetDimension(), 0, -1))


def to_voxels(displacement: sitk.Image | None, images: ImagePair) -> Array:
    """`u` (D, *S) in fixed voxels, index to index, of a physical displacement on the fixed grid."""
    size = images.fixed.GetSize()
    dims = len(size)
    column = (dims, *(1,) * dims)
    fixed_spacing = np.reshape(images.fixed.GetSpacing(), column)
    moving_spacing = np.reshape(images.moving.GetSpacing(), column)
    index = np.indices(size, dtype=np.float64)
    d = array_of(displacement) if displacement is not None else np.zeros_like(index)
    u: Array = ((index * fixed_spacing + d) / moving_spacing - index).astype(np.float32)
    return u


def displacement_of(transform: sitk.Transform, images: ImagePair) -> sitk.Image:
    """The displacement of `transform` (fixed to moving points) at the fixed voxels."""
    return sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        images.fixed.GetSize(),
        images.fixed.GetOrigin(),
        images.fixed.GetSpacing(),
        images.fixed.GetDirection(),
    )


def resample(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """`image` (scalar or vector) linearly on `grid`; outside it continues with its border values."""
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(True)
    resampler.SetOutputPixelType(image.GetPixelID())
    if transform is not None:
        resampler.SetTransform(transform)
    return resampler.Execute(image)


def coarser(image: sitk.Image, factors: NDArray[np.float64]) -> sitk.Image:
    """`image` smoothed and resampled to voxels about `factors` times as long, over the same extent.

    The new size is rounded up and the spacing follows from it, so that no voxel of an odd size is lost and
    every fine voxel lies inside the coarse grid. Smoothing: Gaussian, sigma half the factor in voxels.
    """
    size = np.array(image.GetSize())
    new_size = np.maximum(np.ceil(size / factors), 1).astype(int)
    if (new_size == size).all():
        return image
    actual = size / new_size
    spacing = np.array(image.GetSpacing())
    sigma = np.where(actual > 1, 0.5 * actual, 0.0)
    smooth = sitk.DiscreteGaussian(image, [float(s) ** 2 for s in sigma], 32, 0.01, False)
    grid = sitk.Image([int(n) for n in new_size], sitk.sitkUInt8)
    grid.SetSpacing((spacing * actual).tolist())
    grid.SetOrigin((np.array(image.GetOrigin()) + 0.5 * spacing * (actual - 1)).tolist())
    return resample(smooth, grid)


def at_own_level(images: ImagePair, factors: NDArray[np.float64]) -> ImagePair:
    """Both images smoothed and resampled for a pyramid level, each on its own grid.

    `factors` are those of the fixed image; the moving voxels become as long as the coarse fixed ones.
    """
    fixed = coarser(images.fixed, factors)
    if not same_grid(images.fixed, images.moving):
        ratio = np.array(fixed.GetSpacing()) / np.array(images.moving.GetSpacing())
        factors = np.maximum(ratio, 1.0)
    return ImagePair(fixed, coarser(images.moving, factors))


def at_level(images: ImagePair, factors: NDArray[np.float64]) -> ImagePair:
    """The images of a pyramid level, both on the coarser fixed grid, for filters that need one grid.

    A moving image of another grid is resampled where it lies: voxel 0 on voxel 0, physical lengths kept.
    """
    level = at_own_level(images, factors)
    if same_grid(level.fixed, level.moving):
        return level
    return ImagePair(level.fixed, resample(level.moving, level.fixed))


def distinct_levels(
    image: sitk.Image, shrink_factors: Sequence[float], smallest: int
) -> list[tuple[int, NDArray[np.float64]]]:
    """Number of the level and its factors per axis; of neighbouring levels that come out equal only the last."""
    levels = [level_factors(image, shrink, smallest) for shrink in shrink_factors]
    following = [*levels[1:], None]
    return [
        (number, factors)
        for number, (factors, after) in enumerate(zip(levels, following, strict=True))
        if after is None or not np.array_equal(factors, after)
    ]


def thickened(images: ImagePair) -> ImagePair:
    """The images with axes below 4 voxels continued by their border values; voxel 0 stays where it is.

    ITK's derivative filters need four voxels along every axis.
    """
    padded = []
    for image in (images.fixed, images.moving):
        missing = [max(4 - n, 0) for n in image.GetSize()]
        padded.append(sitk.ZeroFluxNeumannPad(image, [0] * len(missing), missing) if any(missing) else image)
    return ImagePair(*padded)


def same_grid(a: sitk.Image, b: sitk.Image) -> bool:
    """Whether both images have the same size, spacing and origin."""
    return bool(a.GetSize() == b.GetSize() and a.GetSpacing() == b.GetSpacing() and a.GetOrigin() == b.GetOrigin())


def level_factors(image: sitk.Image, shrink: float, smallest: int) -> NDArray[np.float64]:
    """By how much each axis shrinks at a pyramid level of factor `shrink`.

    Thick axes shrink less, so that voxels become more nearly isotropic, and no axis falls below
    `smallest` voxels (short axes keep their size).
    """
    size, spacing = np.array(image.GetSize(), float), np.array(image.GetSpacing())
    factors = shrink * spacing.min() / spacing
    clipped: NDArray[np.float64] = np.clip(factors, 1.0, np.maximum(size / smallest, 1.0))
    return clipped


def centre(image: sitk.Image) -> NDArray[np.float64]:
    """The middle of the grid, in physical units."""
    middle = [(n - 1) / 2 for n in image.GetSize()]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(middle))


def centre_of_intensity(image: sitk.Image) -> NDArray[np.float64]:
    """The centre of mass, intensities taken as mass, in physical units; the middle of an empty image."""
    mass = array_of(image)
    total = float(mass.sum())
    if total <= 0:
        return centre(image)
    axes = range(mass.ndim)
    index = [float(mass.sum(tuple(a for a in axes if a != c)) @ np.arange(mass.shape[c])) / total for c in axes]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))

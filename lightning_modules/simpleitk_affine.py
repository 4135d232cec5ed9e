"""Affine registration and its restrictions by SimpleITK, driven by mutual information."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from lightning_modules.simpleitk_bridge import (
    ImagePair,
    at_own_level,
    centre,
    centre_of_intensity,
    displacement_of,
    level_factors,
    register_each,
    thickened,
)
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair

TransformName = Literal["translation", "rigid", "similarity", "affine"]

# What is optimised before what: an affine transform that starts from the rigid optimum finds large rotations.
_STAGES: dict[TransformName, tuple[TransformName, ...]] = {
    "translation": ("translation",),
    "rigid": ("rigid",),
    "similarity": ("rigid", "similarity"),
    "affine": ("rigid", "affine"),
}
_NEW = {
    "rigid": {2: sitk.Euler2DTransform, 3: sitk.Euler3DTransform},
    "similarity": {2: sitk.Similarity2DTransform, 3: sitk.Similarity3DTransform},
    "affine": {dims: partial(sitk.AffineTransform, dims) for dims in (2, 3)},
}
_NO_OVERLAP = float("inf")
# On identical images ITK's metric still gains up to 0.01 % by a shift of some hundredths of a voxel, because
# border voxels fall out of it; less than ten times that is no evidence of motion.
_LEAST_GAIN = 1e-3


class Affine(RegistrationModule):
    """Affine transform by Mattes mutual information in a pyramid; never worse than no motion by that metric.

    The start is the best of three by the metric: no motion, centres of the grids aligned, centres of
    intensity aligned. A rigid transform is optimised first, then the wanted one, by gradient descent with
    steps measured in physical shift. The result is compared with all earlier candidates on all voxels at full
    resolution and the best one is returned; no motion if the gain is below 0.1 %. Mattes et al., IEEE
    Transactions on Medical Imaging 22(1), 2003.

    Args:
        transform: `translation`, `rigid`, `similarity` (one scale) or `affine`.
        shrink_factors: of the levels, coarse to fine; later stages leave out the coarsest.
        iterations: at most this many per level and stage.
        samples: voxels that the metric looks at in every level, drawn with `seed`; all where there are fewer.
        bins: of the joint histogram, per axis.
        seed: of the voxels drawn; the result depends on nothing random beside.
        smallest_size: no axis is shrunk below this many voxels.
    """

    name: ClassVar[str] = "affine"

    def __init__(
        self,
        transform: TransformName = "affine",
        shrink_factors: Sequence[float] = (4.0, 2.0, 1.0),
        iterations: int = 100,
        samples: int = 20_000,
        bins: int = 32,
        seed: int = 1,
        smallest_size: int = 16,
    ) -> None:
        super().__init__()
        if transform not in _STAGES:
            raise ValueError(f"affine: transform must be one of {', '.join(_STAGES)}, got {transform!r}")
        if not shrink_factors or min(shrink_factors) < 1:
            raise ValueError(f"affine: shrink_factors must be 1 or more, got {list(shrink_factors)}")
        if min(iterations, samples, seed) < 1 or bins < 5:
            raise ValueError("affine: iterations, samples and seed must be at least 1 and bins at least 5")
        self.transform: TransformName = transform
        self.shrink_factors = tuple(shrink_factors)
        self.iterations = iterations
        self.samples = samples
        self.bins = bins
        self.seed = seed
        self.smallest_size = smallest_size

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return register_each(pair, self._displacement)

    def _displacement(self, images: ImagePair) -> sitk.Image | None:
        best = self.estimate(images)
        return None if best is None else displacement_of(best, images)

    def estimate(self, images: ImagePair) -> sitk.Transform | None:
        """The transform from fixed to moving points in the units of `images`; `None`: nothing beats no motion."""
        images = thickened(images)
        nothing: sitk.Transform = sitk.TranslationTransform(images.dimension)
        candidates = [nothing, *starts(images)]
        values = [self._cost(images, c) for c in candidates]
        current = candidates[int(np.argmin(values))]
        for number, stage in enumerate(_STAGES[self.transform]):
            current = transform_of(stage, images, current)
            try:
                for shrink in self.shrink_factors[min(number, len(self.shrink_factors) - 1) :]:
                    self._descend(images, current, shrink)
            except RuntimeError:
                # The images have lost each other: what was found before stands.
                break
            candidates.append(current)
            values.append(self._cost(images, current))
        best = int(np.argmin(values))
        enough = values[0] - _LEAST_GAIN * abs(values[0])
        return candidates[best] if values[best] < enough else None

    def _descend(self, images: ImagePair, transform: sitk.Transform, shrink: float) -> None:
        """Optimises `transform` in place at one level."""
        level = at_own_level(images, level_factors(images.fixed, shrink, self.smallest_size))
        method = self._method()
        share = self.samples / level.fixed.GetNumberOfPixels()
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, self.seed)
        # Lengths are in fixed voxels: the first step moves the image by one voxel, the last by a thousandth.
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-3,
            numberOfIterations=self.iterations,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-8,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, True)
        method.Execute(level.fixed, level.moving)

    def _cost(self, images: ImagePair, transform: sitk.Transform) -> float:
        """Negative mutual information on all voxels of the fixed image that the moving image covers."""
        method = self._method()
        method.SetInitialTransform(transform)
        try:
            return float(method.MetricEvaluate(images.fixed, images.moving))
        except RuntimeError:
            return _NO_OVERLAP

    def _method(self) -> sitk.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
        method.SetMetricAsMattesMutualInformation(self.bins)
        method.SetInterpolator(sitk.sitkLinear)
        return method


def starts(images: ImagePair) -> list[sitk.Transform]:
    """Translations that put the centres of the grids, and the centres of intensity, upon each other."""
    centres = centre(images.moving) - centre(images.fixed)
    moments = centre_of_intensity(images.moving) - centre_of_intensity(images.fixed)
    # Grids of one size have one centre: no motion is that candidate already.
    shifts = [shift for shift in (centres, moments) if np.any(shift)]
    return [sitk.TranslationTransform(images.dimension, shift.tolist()) for shift in shifts]


def transform_of(kind: TransformName, images: ImagePair, start: sitk.Transform) -> sitk.Transform:
    """A transform of `kind` about the centre of the fixed image that maps points as `start` does.

    `start` must be representable: a translation for every kind, a rigid transform for similarity and affine.
    """
    dims = images.dimension
    offset = np.array(start.TransformPoint([0.0] * dims))
    if kind == "translation":
        return sitk.TranslationTransform(dims, offset.tolist())
    matrix = np.stack([np.array(start.TransformPoint(axis)) - offset for axis in np.eye(dims).tolist()], axis=1)
    middle = centre(images.fixed)
    transform = _NEW[kind][dims]()
    transform.SetCenter(middle.tolist())
    transform.SetMatrix(matrix.ravel().tolist())
    transform.SetTranslation((matrix @ middle + offset - middle).tolist())
    return transform

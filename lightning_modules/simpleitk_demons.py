"""Demons by SimpleITK: classic, fast symmetric forces and diffeomorphic, in a pyramid or on one level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import SimpleITK as sitk  # noqa: N813

from lightning_modules.simpleitk_bridge import (
    ImagePair,
    at_level,
    distinct_levels,
    register_each,
    resample,
    same_grid,
)
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair

Forces = Literal["classic", "symmetric", "diffeomorphic"]

_FILTERS = {
    "classic": sitk.DemonsRegistrationFilter,
    "symmetric": sitk.FastSymmetricForcesDemonsRegistrationFilter,
    "diffeomorphic": sitk.DiffeomorphicDemonsRegistrationFilter,
}


class Demons(RegistrationModule):
    """Thirion's Demons in a pyramid of three levels (SimpleITK).

    Every voxel is pushed along the image gradient by the intensity difference, then the field is smoothed,
    level by level from coarse to fine (thesis eqs. 2.18-2.19, Algorithm 1). Classic forces: Thirion, Medical
    Image Analysis 2(3), 1998. Symmetric and diffeomorphic: Vercauteren et al., NeuroImage 45(1), 2009.

    Args:
        forces: `classic`; `symmetric` averages the gradients of both images (ESM); `diffeomorphic` also
            composes exponentials of the updates, so that the field does not fold.
        shrink_factors: of the levels, coarse to fine. Thick axes shrink less, none below `smallest_size`
            voxels, and levels that come out equal are run once.
        iterations: per level.
        sigma_voxels: standard deviation of the Gaussian that smooths the displacement after every iteration,
            in voxels of the level along each axis; 0 for none. Diffusion-like regularisation.
        update_sigma_voxels: the same for every update; fluid-like. 0 for none.
        step_voxels: upper limit of one update, in root-mean-square voxel edges (not for classic forces).
        histogram_matching: maps the moving intensities to the fixed image's histogram first.
        histogram_levels, histogram_points: of that mapping, which uses voxels above the mean only.
        intensity_scale: what intensities, scaled to 0..1, are multiplied by. Forces do not depend on it but
            for the difference below which a voxel feels none, 0.001.
        smallest_size: no axis is shrunk below this many voxels.
    """

    name: ClassVar[str] = "demons"

    def __init__(
        self,
        forces: Forces = "classic",
        shrink_factors: Sequence[float] = (4.0, 2.0, 1.0),
        iterations: Sequence[int] = (40, 40, 40),
        sigma_voxels: float = 1.5,
        update_sigma_voxels: float = 0.0,
        step_voxels: float = 0.5,
        histogram_matching: bool = False,
        histogram_levels: int = 1024,
        histogram_points: int = 7,
        intensity_scale: float = 1.0,
        smallest_size: int = 16,
    ) -> None:
        super().__init__()
        if forces not in _FILTERS:
            raise ValueError(f"demons: forces must be one of {', '.join(_FILTERS)}, got {forces!r}")
        steps = {
            "sigma_voxels": sigma_voxels,
            "update_sigma_voxels": update_sigma_voxels,
            "step_voxels": step_voxels,
            "intensity_scale": intensity_scale,
        }
        _check(shrink_factors, iterations, steps, smallest_size)
        self.forces = forces
        self.shrink_factors = tuple(shrink_factors)
        self.iterations = tuple(iterations)
        self.sigma_voxels = sigma_voxels
        self.update_sigma_voxels = update_sigma_voxels
        self.step_voxels = step_voxels
        self.histogram = (histogram_levels, histogram_points) if histogram_matching else None
        self.intensity_scale = intensity_scale
        self.smallest_size = smallest_size

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return register_each(pair, self._displacement)

    def _displacement(self, images: ImagePair) -> sitk.Image:
        if self.histogram is not None:
            images = replace(images, moving=match_histogram(images.moving, images.fixed, *self.histogram))
        scaled = (sitk.Multiply(image, self.intensity_scale) for image in (images.fixed, images.moving))
        images = ImagePair(*scaled)
        found: list[sitk.Image] = []
        for number, factors in distinct_levels(images.fixed, self.shrink_factors, self.smallest_size):
            level = at_level(images, factors)
            start = [resample(found[-1], level.fixed)] if found else []
            found.append(self._filter(self.iterations[number]).Execute(level.fixed, level.moving, *start))
        return found[-1] if same_grid(found[-1], images.fixed) else resample(found[-1], images.fixed)

    def _filter(self, iterations: int) -> sitk.ImageFilter:
        demons = _FILTERS[self.forces]()
        demons.SetNumberOfThreads(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
        demons.SetNumberOfIterations(iterations)
        # The number of iterations decides, not the length of the last update.
        demons.SetMaximumRMSError(0.0)
        _smoothing(demons.SetSmoothDisplacementField, demons.SetStandardDeviations, self.sigma_voxels)
        _smoothing(demons.SetSmoothUpdateField, demons.SetUpdateFieldStandardDeviations, self.update_sigma_voxels)
        if self.forces != "classic":
            demons.SetMaximumUpdateStepLength(self.step_voxels)
        return demons


def _smoothing(switch: Callable[[bool], None], set_sigma: Callable[[float], None], sigma_voxels: float) -> None:
    switch(sigma_voxels > 0)
    if sigma_voxels > 0:
        set_sigma(sigma_voxels)


def match_histogram(moving: sitk.Image, fixed: sitk.Image, levels: int, points: int) -> sitk.Image:
    """The moving image with intensities mapped piecewise linearly so that its quantiles equal the fixed image's.

    Only voxels above the mean count, so that the size of the background does not matter.
    """
    return sitk.HistogramMatching(moving, fixed, levels, points, True)


def _check(
    shrink_factors: Sequence[float], iterations: Sequence[int], steps: Mapping[str, float], smallest_size: int
) -> None:
    """Raises a ValueError that names the setting which cannot be used."""
    if not shrink_factors or len(shrink_factors) != len(iterations):
        raise ValueError(
            "demons: shrink_factors and iterations need one entry per level, "
            f"got {list(shrink_factors)} and {list(iterations)}"
        )
    if min(shrink_factors) < 1 or list(shrink_factors) != sorted(shrink_factors, reverse=True):
        raise ValueError(f"demons: shrink_factors must descend to 1 or more, got {list(shrink_factors)}")
    if min(iterations) < 1 or smallest_size < 2:
        raise ValueError("demons: iterations must be at least 1 and smallest_size at least 2")
    for name, value in steps.items():
        if not value >= 0:
            raise ValueError(f"demons: {name} must not be negative, got {value}")

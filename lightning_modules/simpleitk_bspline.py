"""Free-form deformation by cubic B-splines, optimised by SimpleITK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import SimpleITK as sitk  # noqa: N813

from lightning_modules.simpleitk_bridge import (
    ImagePair,
    at_own_level,
    displacement_of,
    distinct_levels,
    register_each,
    thickened,
)
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


class BSpline(RegistrationModule):
    """Cubic B-spline free-form deformation by mean squares and L-BFGS in a pyramid (SimpleITK).

    The displacement is a cubic spline on a control grid (thesis eqs. 2.11-2.13; Rueckert et al., IEEE
    Transactions on Medical Imaging 18(8), 1999). One control grid on all levels. Nothing but the grid keeps
    the field smooth.

    Args:
        grid_voxels: distance of the control points, in the smallest fixed voxel edges.
        shrink_factors: of the images, coarse to fine; levels that come out equal are run once.
        fewest_cells: along every axis, so that small volumes get more than a global bend: the distance of the
            control points shrinks for it, to 8 voxels at the least. 1 to keep to `grid_voxels`.
        iterations: at most this many per level.
        tolerance: relative decrease of the metric over five iterations that ends a level.
        samples: at most this many voxels per level, drawn with `seed`.
        seed: of the voxels drawn.
        smallest_size: no axis is shrunk below this many voxels.
    """

    name: ClassVar[str] = "bspline"

    def __init__(
        self,
        grid_voxels: float = 20.0,
        shrink_factors: Sequence[float] = (4.0, 2.0, 1.0),
        fewest_cells: int = 6,
        iterations: int = 12,
        tolerance: float = 1e-5,
        samples: int = 8000,
        seed: int = 1,
        smallest_size: int = 32,
    ) -> None:
        super().__init__()
        if not shrink_factors or min(shrink_factors) < 1:
            raise ValueError(f"bspline: shrink_factors must be 1 or more, got {list(shrink_factors)}")
        if min(iterations, samples, seed, fewest_cells) < 1 or not min(tolerance, grid_voxels) > 0:
            raise ValueError(
                "bspline: grid_voxels, fewest_cells, iterations, tolerance, samples and seed must be positive"
            )
        self.grid_voxels = grid_voxels
        self.fewest_cells = fewest_cells
        self.shrink_factors = tuple(shrink_factors)
        self.iterations = iterations
        self.tolerance = tolerance
        self.samples = samples
        self.seed = seed
        self.smallest_size = smallest_size

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return register_each(pair, self._displacement)

    def _displacement(self, images: ImagePair) -> sitk.Image:
        mesh = mesh_size(images.fixed, self.grid_voxels, self.fewest_cells)
        transform = sitk.BSplineTransformInitializer(images.fixed, mesh, 3)
        for _, factors in distinct_levels(images.fixed, self.shrink_factors, self.smallest_size):
            self._optimise(thickened(at_own_level(images, factors)), transform)
        return displacement_of(transform, images)

    def _optimise(self, level: ImagePair, transform: sitk.BSplineTransform) -> None:
        """Changes `transform` in place; where it starts at the optimum it stays."""
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
        method.SetMetricAsMeanSquares()
        method.SetInterpolator(sitk.sitkLinear)
        share = self.samples / level.fixed.GetNumberOfPixels()
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, self.seed)
        method.SetOptimizerAsLBFGS2(
            solutionAccuracy=1e-7,
            numberOfIterations=self.iterations,
            deltaConvergenceDistance=5,
            deltaConvergenceTolerance=self.tolerance,
        )
        method.SetInitialTransform(transform, True)
        method.Execute(level.fixed, level.moving)


def mesh_size(image: sitk.Image, grid: float, fewest_cells: int) -> tuple[int, ...]:
    """Cells of the control grid per axis: of edge `grid`, or `fewest_cells` shorter ones, but none below 8 voxels."""
    sizes = np.array(image.GetSize())
    extents = (sizes - 1) * np.array(image.GetSpacing())
    wanted = np.maximum(np.round(extents / grid), np.minimum(fewest_cells, (sizes - 1) // 8))
    return tuple(int(n) for n in np.maximum(wanted, 1))

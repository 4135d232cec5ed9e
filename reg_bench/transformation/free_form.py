"""Free-form deformation by cubic B-splines as a transformation model."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.transformation.base import Domain, Transformation, check_theta, voxel_ratio
from reg_bench.transformation.bspline import control_shape, evaluate_bspline, refine_bspline
from reg_bench.transformation.control_grid import intervals


class FreeFormDeformation(Transformation):
    """A displacement whose components are cubic B-splines on a control grid (thesis eqs. 2.11–2.13).

    `theta (B, D, *P)` holds the coefficients in voxels, `P = intervals + 3` along each axis. First and last knot lie
    on the first and last voxel, so the spacing is met up to the rounding to whole intervals. In millimetres, cases of
    different voxel size have control grids of different size: `theta` is as large as the largest of them and the rest
    of it has no effect.

    Args:
        spacing: the distance of neighbouring control points.
        unit: of the spacing, `voxel` or `mm`.
    """

    def __init__(self, spacing: float, unit: str = "voxel") -> None:
        super().__init__()
        if not spacing > 0:
            raise ValueError(f"FreeFormDeformation: spacing must be positive, got {spacing}")
        if unit not in ("voxel", "mm"):
            raise ValueError(f"FreeFormDeformation: unit must be 'voxel' or 'mm', got {unit!r}")
        self.spacing, self.unit = spacing, unit

    def identity(self, domain: Domain) -> Tensor:
        return domain.zeros(domain.dimension, *self._control_shape(domain))

    def displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        check_theta("FreeFormDeformation", theta, (domain.batch, domain.dimension, *self._control_shape(domain)))
        grids = intervals(domain, self.spacing, self.unit)
        if len(set(grids)) == 1:
            return evaluate_bspline(theta, grids[0], domain.shape)
        cases = zip(torch.split(theta, 1), grids, strict=True)
        return torch.cat([evaluate_bspline(case, grid, domain.shape) for case, grid in cases])

    def resampled(self, theta: Tensor, domain: Domain, finer: Domain) -> Tensor:
        check_theta("FreeFormDeformation", theta, (domain.batch, domain.dimension, *self._control_shape(domain)))
        ratio = voxel_ratio(domain, finer).to(theta).reshape(1, -1, *(1,) * domain.dimension)
        result = self.identity(finer).to(theta)
        grids = (intervals(d, self.spacing, self.unit) for d in (domain, finer))
        for k, (old, new) in enumerate(zip(*grids, strict=True)):
            used = tuple(slice(n) for n in control_shape(old))
            fitted = refine_bspline(theta[(slice(k, k + 1), slice(None), *used)], old, new)
            result[(slice(k, k + 1), slice(None), *(slice(n) for n in fitted.shape[2:]))] = fitted * ratio
        return result

    def _control_shape(self, domain: Domain) -> tuple[int, ...]:
        """Of the largest control grid among the cases."""
        shapes = [control_shape(grid) for grid in intervals(domain, self.spacing, self.unit)]
        return tuple(max(lengths) for lengths in zip(*shapes, strict=True))

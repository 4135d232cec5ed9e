"""The thin-plate spline as a transformation model: its parameters are the displacements of control points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reg_bench.transformation.base import Domain, Transformation, check_theta, voxel_ratio
from reg_bench.transformation.control_grid import common_intervals, grid_fractions
from reg_bench.transformation.thin_plate import ThinPlate, thin_plate_spline


class ThinPlateSpline(Transformation):
    """The smoothest displacement through control points (thesis eqs. 2.9–2.10); `theta (B, N, D)` holds in voxels
    where they move.

    Every voxel depends on every control point: the cost is voxels times points.

    Args:
        spacing: the distance of control points that are placed on a regular grid over the image.
        unit: of the spacing, `voxel` or `mm`.
        control_points: `(N, D)` or per case `(B, N, D)` instead of a spacing, as fractions of the extent: 0 is the
            first voxel along an axis and 1 the last, on every level of a pyramid.
        lam: 0 passes through the control points exactly; larger values smooth. Lengths count in half the longest
            axis, so that a value means the same on every level and in every unit.
    """

    def __init__(
        self,
        spacing: float | None = None,
        unit: str = "voxel",
        control_points: Sequence[Sequence[float]] | Tensor | None = None,
        lam: float = 0.0,
    ) -> None:
        super().__init__()
        if (spacing is None) == (control_points is None):
            raise ValueError("ThinPlateSpline: needs either a spacing or control_points")
        if unit not in ("voxel", "mm"):
            raise ValueError(f"ThinPlateSpline: unit must be 'voxel' or 'mm', got {unit!r}")
        self.spacing, self.unit, self.lam = spacing, unit, lam
        self.control_points = None if control_points is None else torch.as_tensor(control_points, dtype=torch.float64)
        if self.control_points is not None and self.control_points.ndim not in (2, 3):
            raise ValueError(
                f"ThinPlateSpline: control_points must be (N, D) or (B, N, D), got {tuple(self.control_points.shape)}"
            )

    def points(self, domain: Domain) -> Tensor:
        """The control points `(B, N, D)` in voxels, float64."""
        if self.control_points is not None:
            fractions = self.control_points
        else:
            fractions = grid_fractions(common_intervals(domain, float(self.spacing or 0), self.unit))
        expected = (domain.batch, fractions.shape[-2], domain.dimension)
        if fractions.ndim == 2:
            fractions = fractions.expand(domain.batch, -1, -1)
        if tuple(fractions.shape) != expected:
            raise ValueError(f"ThinPlateSpline: control_points must be {expected}, got {tuple(fractions.shape)}")
        last = torch.tensor([n - 1 for n in domain.shape], dtype=torch.float64)
        return (fractions * last).to(domain.device)

    def identity(self, domain: Domain) -> Tensor:
        return domain.zeros(*self.points(domain).shape[1:])

    def displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        spline, unit = self._spline(theta, domain)
        return spline.on_grid(domain.shape, unit, theta.dtype)

    def resampled(self, theta: Tensor, domain: Domain, finer: Domain) -> Tensor:
        spline, unit = self._spline(theta, domain)
        ratio = voxel_ratio(domain, finer).to(torch.float64)
        places = self.points(finer) / ratio
        if places.shape == theta.shape and torch.allclose(places, self.points(domain)):
            return theta * ratio.to(theta.dtype)
        return (spline.at(places * unit[:, None]) * ratio).to(theta.dtype)

    def _spline(self, theta: Tensor, domain: Domain) -> tuple[ThinPlate, Tensor]:
        """The spline of the displacement, and the edges of a voxel in half the longest axis, `(B, D)`."""
        points = self.points(domain)
        check_theta("ThinPlateSpline", theta, points.shape)
        edges = domain.edges().to(torch.float64)
        extent = edges * edges.new_tensor([max(n - 1, 1) / 2 for n in domain.shape])
        unit = edges / extent.amax(dim=1, keepdim=True)
        return thin_plate_spline(points * unit[:, None], theta, self.lam), unit

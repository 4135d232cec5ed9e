"""A thin-plate spline through the landmarks of a pair."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from reg_bench.landmarks import fit, ransac, voxel_edges
from reg_bench.method import RegistrationModule
from reg_bench.transformation import thin_plate_spline
from reg_bench.types import DisplacementField, RegistrationPair

# Points that extend less than this share of their extent across a plane (a line) count as lying in it.
_FLAT = 1e-4


class TpsLandmarks(RegistrationModule):
    """Thin-plate spline through corresponding landmarks, every second left out of the fit; sees no image.

    The displacement at the fixed landmarks is the way to the moving ones, `u(x_fixed) = x_moving - x_fixed`, and bends
    least in between (thesis eqs. 2.9-2.10). Lengths are in mm where both spacings are known, else in voxels. Landmarks
    that do not determine a spline, too few or in a plane oblique to the grid, give the affine map nearest to none.

    On landmarks that it was fitted to, the target registration error is none: it is the error of the fit, 0 for
    `lam = 0`. Hence `holdout`: of the set, the points number `holdout`, `2 holdout`, ... (counted from 1) are left out.
    A mean over the whole set then still mixes both kinds; rows hold the error of every point by its index from 0, so
    that with the default the odd ones are honest. To fit all landmarks, for use or as a ceiling, set it to 0.

    Args:
        points: name of the set; by default `landmarks`, else the first by name.
        lam: smoothing as of `reg_bench.transformation.thin_plate_spline`; 0 interpolates.
        ransac_mm: if given, only landmarks are used that agree with one affine map within this distance (RANSAC),
            which must leave room for the deformation.
        holdout: every how many-th landmark is left out of the fit, at least 2; 0 for none.
        seed: of the draws of RANSAC; nothing else is random.
    """

    name: ClassVar[str] = "tps-landmarks"
    needs: ClassVar[tuple[str, ...]] = ("points",)

    def __init__(
        self,
        points: str | None = None,
        lam: float = 0.0,
        ransac_mm: float | None = None,
        holdout: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not lam >= 0:
            raise ValueError(f"tps-landmarks: lam must be at least 0, got {lam}")
        if ransac_mm is not None and not ransac_mm > 0:
            raise ValueError(f"tps-landmarks: ransac_mm must be positive, got {ransac_mm}")
        if holdout != 0 and holdout < 2:
            raise ValueError(f"tps-landmarks: holdout must be 0 or at least 2, got {holdout}")
        self.points = points
        self.lam = lam
        self.ransac_mm = ransac_mm
        self.holdout = holdout
        self.seed = seed

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why it cannot take `pair`: no points, not the set that it was told to use, or an empty one."""
        refusal = super().accepts(pair)
        if refusal is not None:
            return refusal
        name = self._set_of(pair)
        if not pair.points or name not in pair.points:
            return f"TpsLandmarks needs the points {name!r}, the case has {sorted(pair.points or {})}"
        if any(len(points) == 0 for points in pair.points[name].fixed):
            return f"TpsLandmarks needs at least one point in {name!r} of every case"
        return None

    def _set_of(self, pair: RegistrationPair) -> str:
        names = sorted(pair.points or {})
        return self.points or ("landmarks" if "landmarks" in names or not names else names[0])

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """The spline of every case on its fixed grid, computed on the CPU.

        Raises:
            ValueError: the points are missing; `accepts` says so beforehand.
        """
        refusal = self.accepts(pair)
        if refusal is not None:
            raise ValueError(f"{', '.join(pair.case_ids)}: {refusal}")
        u = torch.cat([self._register_one(case) for case in pair.split()])
        return DisplacementField.for_pair(u.to(pair.device), pair)

    def _register_one(self, case: RegistrationPair) -> Tensor:
        """`(1, D, *S)` float32."""
        assert case.points is not None
        chosen = case.points[self._set_of(case)]
        fixed, moving = (p[0].detach().double().cpu() for p in (chosen.fixed, chosen.moving))
        kept = self._fitted(len(fixed))
        fixed_edges, moving_edges = voxel_edges(case)
        source, target = fixed[kept] * fixed_edges, moving[kept] * moving_edges
        if self.ransac_mm is not None:
            inliers = ransac(source, target, self.ransac_mm, "affine", seed=self.seed).inliers
            source, target = source[inliers], target[inliers]
        source, target = merged(source, target)
        if not _bends(source):
            affine = fit(source[None], target[None], "affine")
            return affine.displacement(case.spatial_shape, fixed_edges, moving_edges).float()
        displacement = target / moving_edges - source / fixed_edges
        spline = thin_plate_spline(source[None], displacement[None], self.lam)
        return spline.on_grid(case.spatial_shape, fixed_edges, torch.float32)

    def _fitted(self, count: int) -> Tensor:
        """`(N,)` bool: the landmarks that are not held out."""
        number = torch.arange(1, count + 1)
        return number % self.holdout != 0 if self.holdout else torch.ones(count, dtype=torch.bool)


def merged(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Points `(N, D)` without repetitions in `source`; the partners of equal ones are averaged."""
    distinct, index = torch.unique(source, dim=0, return_inverse=True)
    if len(distinct) == len(source):
        return source, target
    sums = torch.zeros_like(distinct).index_add_(0, index, target)
    return distinct, sums / torch.bincount(index)[:, None]


def _bends(points: Tensor) -> bool:
    """Whether points `(N, D)` are enough for more than an affine map, and in a position that determines a spline."""
    # The spline leaves out axes along which all points are equal, as those of one slice.
    varying = points[:, (points != points[0]).any(dim=0)]
    if len(points) <= varying.shape[1] + 1:
        return False
    extents = torch.linalg.svdvals(varying - varying.mean(dim=0))
    return bool(extents[-1] > _FLAT * extents[0])

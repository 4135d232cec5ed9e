"""Surfaces of label maps brought onto each other by iterative closest points."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from reg_bench.landmarks import KINDS, AffineMap, Kind, icp, robust_icp, surface_points, voxel_edges
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


class SurfaceIcp(RegistrationModule):
    """Affine map between the surfaces of equal labels by iterative closest points; sees no intensity.

    The surface of a label is paired with that of the same label in the other map, nearest point by nearest point and
    both ways, and the map is fitted in closed form, in turn (thesis 2.3.1 and eq. 2.33). Distances are in mm where
    both spacings are known, else in voxels. It is given the labels that Dice is scored on: its overlap is that of a
    fit, not of a prediction, and no more comparable with methods that see images alone than `truth` is.

    Args:
        kind: `translation`, `rigid`, `similarity` or `affine`.
        trim: share of the farthest pairs that each fit leaves out, for surfaces that one image shows in part.
        ransac_mm: if given, only points are used whose pairs agree with one map within this distance (RANSAC).
        points_per_label: most points of a surface, evenly spread.
        iterations: most fits.
        seed: of the draws of RANSAC; nothing else is random.
    """

    name: ClassVar[str] = "icp-labels"
    needs: ClassVar[tuple[str, ...]] = ("fixed_labels", "moving_labels")

    def __init__(
        self,
        kind: Kind = "affine",
        trim: float = 0.0,
        ransac_mm: float | None = None,
        points_per_label: int = 2000,
        iterations: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"icp-labels: kind must be one of {KINDS}, got {kind!r}")
        if ransac_mm is not None and not ransac_mm > 0:
            raise ValueError(f"icp-labels: ransac_mm must be positive, got {ransac_mm}")
        if not 0 <= trim < 1 or points_per_label < 1 or iterations < 1:
            raise ValueError(
                "icp-labels: expected 0 <= trim < 1 and points_per_label and iterations of at least 1, "
                f"got {trim}, {points_per_label} and {iterations}"
            )
        self.kind: Kind = kind
        self.trim = trim
        self.ransac_mm = ransac_mm
        self.points_per_label = points_per_label
        self.iterations = iterations
        self.seed = seed

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why it cannot take `pair`: no labels, or none that stands in both maps."""
        refusal = super().accepts(pair)
        if refusal is not None:
            return refusal
        for case in pair.split():
            assert case.fixed_labels is not None
            assert case.moving_labels is not None
            here, there = (set(torch.unique(t).tolist()) - {0} for t in (case.fixed_labels, case.moving_labels))
            if not here & there:
                return f"SurfaceIcp needs a label that stands in both maps, {case.case_ids[0]} has none"
        return None

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """The affine field of every case, computed on the CPU.

        Raises:
            ValueError: a case without labels, or without a label whose surface both maps show.
        """
        u = torch.cat([self._register_one(case) for case in pair.split()])
        return DisplacementField.for_pair(u.to(pair.device), pair)

    def _register_one(self, case: RegistrationPair) -> Tensor:
        """`(1, D, *S)` float32."""
        edges = voxel_edges(case)
        return self._align(case, *edges).displacement(case.spatial_shape, *edges).float()

    def _align(self, case: RegistrationPair, fixed_edges: Tensor, moving_edges: Tensor) -> AffineMap:
        if case.fixed_labels is None or case.moving_labels is None:
            raise ValueError(f"{case.case_ids[0]}: has no fixed_labels or no moving_labels")
        fixed = surface_points(case.fixed_labels[0, 0], fixed_edges[0], self.points_per_label)
        moving = surface_points(case.moving_labels[0, 0], moving_edges[0], self.points_per_label)
        common = sorted(fixed.keys() & moving.keys())
        if not common:
            raise ValueError(
                f"{case.case_ids[0]}: no label has a surface in both maps, fixed {list(fixed)}, moving {list(moving)}"
            )
        source, target = [fixed[k] for k in common], [moving[k] for k in common]
        if self.ransac_mm is None:
            return icp(source, target, self.kind, iterations=self.iterations, trim=self.trim).map
        options = {"iterations": self.iterations, "seed": self.seed}
        return robust_icp(source, target, self.kind, self.ransac_mm, trim=self.trim, **options).map

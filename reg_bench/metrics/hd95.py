"""95th percentile of the Hausdorff distance between label surfaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from reg_bench.metrics.arrays import label_array
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.label_maps import Codes, encode
from reg_bench.metrics.surfaces import element_surfaces, robust_hausdorff, voxel_surfaces

Definition = Literal["voxels", "elements"]


def hd95(
    fixed_labels: Any,
    warped_labels: Any,
    spacing_mm: Sequence[float] | None = None,
    labels: Iterable[int] | None = None,
    definition: Definition = "voxels",
) -> dict[int, float]:
    """Larger of the two directed 95th percentiles of surface distances, of every label.

    Args:
        fixed_labels, warped_labels: integer tensors or arrays of equal shape, with or without axes `(1, 1)` in
            front.
        spacing_mm: one number per axis; distances are in voxels without it.
        labels: which to score; by default every non-zero label of either map.
        definition: `voxels`, the distances between voxels that have a face neighbour outside the label, all
            counting alike (MONAI's); `elements`, between surface elements weighted by their area (that of the
            package surface-distance, used by Learn2Reg; voxels only).

    Returns:
        Label value to distance; infinite where only one map has the label, NaN where neither has it.

    Raises:
        ValueError: shapes that differ, maps that are not integers, a spacing that does not fit, or an unknown
            definition.
    """
    fixed, warped = label_array("hd95", fixed_labels, warped_labels)
    coded = encode(fixed, warped)
    spacing = np.ones(fixed.ndim) if spacing_mm is None else np.asarray(spacing_mm, float).reshape(-1)
    if spacing.shape != (fixed.ndim,) or not (spacing > 0).all():
        raise ValueError(f"hd95: spacing_mm must be {fixed.ndim} positive numbers, got {spacing_mm}")
    if definition == "elements" and not (spacing == 1).all():
        raise ValueError("hd95: the definition 'elements' measures in voxels, without spacing_mm")
    if labels is None:
        labels = (int(v) for v in np.union1d(np.unique(fixed), np.unique(warped)) if v != 0)
    wanted = {int(label): coded.code_of(int(label)) for label in labels}
    codes = np.array([code for code in wanted.values() if code is not None], np.int64)
    found = _per_code(coded.fixed, coded.moving, codes, len(coded.values), spacing, definition)
    return {label: math.nan if code is None else found[code] for label, code in wanted.items()}


def _per_code(
    fixed: Codes,
    warped: Codes,
    codes: NDArray[np.int64],
    count: int,
    spacing: NDArray[np.float64],
    definition: str,
) -> dict[int, float]:
    if definition not in ("voxels", "elements"):
        raise ValueError(f"hd95: definition must be 'voxels' or 'elements', got {definition!r}")
    chosen = np.zeros(count, bool)
    chosen[codes] = True
    chosen[0] = False
    find = voxel_surfaces if definition == "voxels" else element_surfaces
    values = robust_hausdorff(find(fixed, warped, chosen), codes, spacing)
    return dict(zip(map(int, codes), values, strict=True))


class HausdorffDistance95(Metric):
    """HD95 of each label after warping: the larger of the two directed 95th percentiles of surface distances.

    `strict`: distances in mm between surface voxels (MONAI's definition). `learn2reg`: distances in voxels
    between area-weighted surface elements (the package surface-distance with spacing 1). The case value is the
    mean over labels.

    A label that stands in both maps but vanishes under the warp is infinitely far in `learn2reg` (null, and so is
    the mean); in `strict` it gets the diagonal of the fixed image, the largest distance possible, so that the
    mean stays finite and worst. A label that either map lacks before the warp is null and not counted: that
    depends on the data only, not on the method.
    """

    name: ClassVar[str] = "hd95"
    units: ClassVar[Mapping[str, str]] = {"learn2reg": "voxel", "strict": "mm"}
    better: ClassVar[Better] = "lower"
    needs: ClassVar[tuple[str, ...]] = ("fixed_labels", "moving_labels")

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        values = self._per_label(context, profile)
        counted = [v for v in values.values() if not math.isnan(v)]
        mean = float(np.mean(counted)) if counted else math.nan
        unit = context.length_unit if profile == "strict" else "voxel"
        return self.values(profile, [*((str(k), v) for k, v in values.items()), (ALL, mean)], unit)

    @staticmethod
    def _per_label(context: ScoringContext, profile: Profile) -> dict[int, float]:
        labels, shape = context.labels, context.pair.spatial_shape
        spacing = np.ones(len(shape))
        if profile == "strict" and context.spacing_mm is not None:
            spacing = context.spacing_mm
        comparable = [label for label in context.scored_labels if all(context.stands_in(label))]
        codes = np.array([labels.code_of(label) for label in comparable], np.int64)
        definition = "voxels" if profile == "strict" else "elements"
        found = _per_code(labels.fixed, context.warped_labels, codes, len(labels.values), spacing, definition)
        if profile == "strict":
            diagonal = float(np.linalg.norm((np.array(shape) - 1) * spacing))
            found = {code: diagonal if math.isinf(value) else value for code, value in found.items()}
        by_label = {label: found[int(code)] for label, code in zip(comparable, codes, strict=True)}
        return {label: by_label.get(label, math.nan) for label in context.scored_labels}

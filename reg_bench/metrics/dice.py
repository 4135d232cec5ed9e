"""Dice overlap of label maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from reg_bench.metrics.arrays import label_array
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.label_maps import CodedLabels, Overlap, encode, overlap


def dice(fixed_labels: Any, warped_labels: Any, labels: Iterable[int] | None = None) -> dict[int, float]:
    """Dice coefficient `2 |F ∩ W| / (|F| + |W|)` of every label.

    Args:
        fixed_labels, warped_labels: integer tensors or arrays of equal shape, with or without axes `(1, 1)` in
            front.
        labels: which to score; by default every non-zero label of either map.

    Returns:
        Label value to Dice; 0 where only one map has the label, NaN where neither has it.

    Raises:
        ValueError: shapes that differ, or maps that are not integers.
    """
    coded = encode(*label_array("dice", fixed_labels, warped_labels))
    counts = overlap(coded.fixed, coded.moving, len(coded.values))
    if labels is None:
        present = (counts.fixed + counts.warped > 0) & (coded.values != 0)
        labels = sorted(int(v) for v in coded.values[present])
    per_code = dice_per_code(counts)
    return {int(label): _value(per_code, coded, int(label)) for label in labels}


def dice_per_code(counts: Overlap) -> NDArray[np.float64]:
    """Dice of every code; NaN where neither map has it."""
    total = counts.fixed + counts.warped
    with np.errstate(invalid="ignore"):
        return 2.0 * counts.both / total


def _value(per_code: NDArray[np.float64], coded: CodedLabels, label: int) -> float:
    code = coded.code_of(label)
    return float("nan") if code is None else float(per_code[code])


class Dice(Metric):
    """Dice coefficient of each label after warping; 1 is perfect overlap.

    Labels are warped by nearest neighbour, background outside the moving image. The case value is the mean.

    A label that stands in both maps but vanishes under the warp counts as 0 in both profiles. `learn2reg` leaves
    a label out (null) that the fixed or the unwarped moving map lacks. `strict` gives it 0 and counts it, so that
    no label disappears from a mean, and null only where neither map has it.
    """

    name: ClassVar[str] = "dice"
    units: ClassVar[Mapping[str, str]] = {"learn2reg": "1", "strict": "1"}
    better: ClassVar[Better] = "higher"
    needs: ClassVar[tuple[str, ...]] = ("fixed_labels", "moving_labels")

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        per_code = dice_per_code(context.overlap)
        values = {label: self._of(context, profile, label, per_code) for label in context.scored_labels}
        counted = [v for v in values.values() if v is not None]
        mean = float(np.mean(counted)) if counted else None
        return self.values(profile, [*((str(k), v) for k, v in values.items()), (ALL, mean)])

    @staticmethod
    def _of(context: ScoringContext, profile: Profile, label: int, per_code: NDArray[np.float64]) -> float | None:
        fixed, moving = context.stands_in(label)
        if not fixed and not moving:
            return None
        if not fixed or not moving:
            return None if profile == "learn2reg" else 0.0
        code = context.labels.code_of(label)
        assert code is not None
        return float(per_code[code])

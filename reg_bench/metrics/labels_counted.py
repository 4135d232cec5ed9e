"""How many labels stand behind a mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext


class LabelsCounted(Metric):
    """Number of labels in the mean Dice (`all`) and in the mean HD95 (`hd95`).

    Dice in `strict` counts every label that either map holds; everything else counts the labels that both maps
    hold before the warp. It depends on the data only, never on the field.
    """

    name: ClassVar[str] = "labels_counted"
    units: ClassVar[Mapping[str, str]] = {"learn2reg": "1", "strict": "1"}
    better: ClassVar[Better] = "neutral"
    needs: ClassVar[tuple[str, ...]] = ("fixed_labels", "moving_labels")

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        found = [context.stands_in(label) for label in context.scored_labels]
        both = sum(all(where) for where in found)
        either = sum(any(where) for where in found)
        return self.values(profile, [("hd95", both), (ALL, either if profile == "strict" else both)])

"""Learn2Reg's count of foldings, which cannot be anything but zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext


class NumFoldings(Metric):
    """Learn2Reg's `num_foldings`: always 0; see `nonpositive_fraction` for the honest number.

    The official evaluation counts values <= 0 among determinants that it has just clipped to at least 1e-9.
    """

    name: ClassVar[str] = "num_foldings"
    units: ClassVar[Mapping[str, str]] = {"learn2reg": "voxel"}
    better: ClassVar[Better] = "neutral"
    profiles: ClassVar[tuple[str, ...]] = ("learn2reg",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        return self.values(profile, [(ALL, 0.0)])

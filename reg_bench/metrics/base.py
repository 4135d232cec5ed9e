"""What a metric is: the base of every file in this folder, and the value that it returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from reg_bench.metrics.context import ScoringContext

Profile = Literal["learn2reg", "strict"]
PROFILES: tuple[Profile, ...] = ("learn2reg", "strict")
Better = Literal["higher", "lower", "neutral"]

ALL = "all"
"""Label of the value of the whole case."""


@dataclass(frozen=True)
class MetricValue:
    """One number of one case.

    Attributes:
        metric: such as `dice` or `tre_landmarks`.
        profile: `learn2reg` or `strict`.
        label: a label value or a point index as text, `all` for the value of the case (the mean that the
            profile defines), or a named statistic such as `p95`.
        value: `None` where it does not exist or is not finite; each metric documents when that is.
        unit: `1`, `mm`, or `voxel` where the spacing is unknown or the profile counts voxels.
    """

    metric: str
    profile: str
    label: str
    value: float | None
    unit: str

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)


class Metric(ABC):
    """One metric, without state. Subclasses are final, name themselves and implement `compute`.

    Class attributes (literals, because `reg-bench list metrics` reads them without importing):
        name: unique among metrics.
        units: unit per profile; `mm` becomes `voxel` where the spacing is unknown.
        better: which direction is better.
        needs: what of the pair (or `backward`) must exist; without it the metric gives no value.
        profiles: in which it is defined.
    """

    name: ClassVar[str] = ""
    units: ClassVar[Mapping[str, str]] = {}
    better: ClassVar[Better] = "neutral"
    needs: ClassVar[tuple[str, ...]] = ()
    profiles: ClassVar[tuple[str, ...]] = ("learn2reg", "strict")

    @abstractmethod
    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        """The values of the case; called only where `needs` is there and `profile` is one of `profiles`."""

    def values(
        self,
        profile: Profile,
        labelled: Iterable[tuple[str, float | None]],
        unit: str | None = None,
        metric: str | None = None,
    ) -> list[MetricValue]:
        """`(label, value)` pairs as `MetricValue`s of this metric."""
        unit = self.units[profile] if unit is None else unit
        name = self.name if metric is None else metric
        return [MetricValue(name, profile, label, value, unit) for label, value in labelled]

"""Means over the cases of all processes, of values that not every case has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch


class ScoreSums:
    """Sums of named values. Lightning's own means wait for ever where one process has a name that another has not."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """Counts `value` of one case, or of `weight` cases."""
        sums = self._sums[name]
        sums[0] += weight * value
        sums[1] += weight

    def means(self) -> dict[str, float]:
        """The mean of each name over all processes, in order of the names; all processes must call this."""
        own = {name: tuple(sums) for name, sums in self._sums.items()}
        everyone: list[Mapping[str, tuple[float, ...]]] = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone = [{}] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, own)
        names = sorted({name for sums in everyone for name in sums})
        pairs = {name: [sums[name] for sums in everyone if name in sums] for name in names}
        return {name: sum(p[0] for p in found) / sum(p[1] for p in found) for name, found in pairs.items()}

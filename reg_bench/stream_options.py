"""What a suite says about a task of sequences: which frames are given, what is foretold, what counts as in time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from reg_bench.errors import ConfigError

_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


@dataclass(frozen=True)
class Streaming:
    """How the sequences of a task are streamed and scored.

    Attributes:
        every: one run of each sequence per number: 1 gives the method every frame, 3 every third after the reference
            and nothing in between, where its estimate is scored all the same.
        horizons_s: how far ahead it has to look, seconds; rounded to whole frames, at least one.
        budget_ms: milliseconds in which an estimate has to be there; 200 for 5 Hz.
        target: name of the label whose centroid is followed, if any.
        gate_mm: the target is in the gate while it is no further than this from its place in the reference.
        labels: how labels are warped: `nearest`, or `linear` as masks of their own, inside above one half (Paper I).
        periodic: the last frame is followed by the first, as in a gated cine: the stream goes on over the frames
            before the reference and closes with the reference itself, where there should be no motion.
        pictures: frames that are drawn, evenly spaced.
    """

    every: tuple[int, ...] = (1,)
    horizons_s: tuple[float, ...] = ()
    budget_ms: float = 200.0
    target: str | None = None
    gate_mm: float = 3.0
    labels: Literal["nearest", "linear"] = "nearest"
    periodic: bool = False
    pictures: int = 5

    def __post_init__(self) -> None:
        if not self.every or min(self.every) < 1 or len(set(self.every)) < len(self.every):
            raise ConfigError(f"stream.every must be different numbers from 1, got {list(self.every)}")
        if any(not h > 0 for h in self.horizons_s):
            raise ConfigError(f"stream.horizons_s must be positive, got {list(self.horizons_s)}")
        for name in ("budget_ms", "gate_mm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"stream.{name} must be positive, got {getattr(self, name)}")
        if self.pictures < 1:
            raise ConfigError(f"stream.pictures must be at least 1, got {self.pictures}")

    @property
    def conditions(self) -> tuple[str | None, ...]:
        """The conditions of the results, in order of `every`."""
        return tuple(condition_of(n) for n in self.every)

    def content(self) -> dict[str, Any]:
        """What the values depend on, beside the condition: results of other settings never mix."""
        return {k: getattr(self, k) for k in ("horizons_s", "target", "gate_mm", "labels", "periodic")}


def condition_of(every: int) -> str | None:
    """`every-2nd` where every second frame is given, `None` where all are."""
    if every == 1:
        return None
    ending = "th" if every % 100 in (11, 12, 13) else _ENDINGS.get(every % 10, "th")
    return f"every-{every}{ending}"


def every_of(condition: str | None) -> int:
    """The number that a condition stands for.

    Raises:
        ConfigError: no such condition.
    """
    found = re.fullmatch(r"every-(\d+)(st|nd|rd|th)", condition or "every-1st")
    if found is None:
        raise ConfigError(f"condition must be like every-2nd, got {condition!r}")
    return int(found[1])

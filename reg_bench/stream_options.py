"""What a suite says about a task of sequences: which frames are given, what is foretold, what counts as in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reg_bench.errors import ConfigError
from reg_bench.stream_conditions import Condition


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
        region: where the end-point error counts: in the `mask` of a frame, or of it where the frame has `labels`, as in
            ultrasound, where the motion of blood is not seen.
        hidden: one more run per number: so many frames at the end are not given, and only these are scored.
        imputed: one more run per number, offline: every first (smoothing), second, … frame is given, all of them at
            once, and every frame is scored. Methods that cannot look ahead give what their stream does.
        calibration: whether it is measured how wide the intervals of the estimates are and what they cover; see
            `reg_bench.stream_calibration`.
    """

    every: tuple[int, ...] = (1,)
    horizons_s: tuple[float, ...] = ()
    budget_ms: float = 200.0
    target: str | None = None
    gate_mm: float = 3.0
    labels: Literal["nearest", "linear"] = "nearest"
    periodic: bool = False
    pictures: int = 5
    hidden: tuple[int, ...] = ()
    imputed: tuple[int, ...] = ()
    calibration: bool = False
    region: Literal["mask", "labels"] = "mask"

    def __post_init__(self) -> None:
        if not self.every or min(self.every) < 1 or len(set(self.every)) < len(self.every):
            raise ConfigError(f"stream.every must be different numbers from 1, got {list(self.every)}")
        for name in ("hidden", "imputed"):
            numbers = getattr(self, name)
            if (numbers and min(numbers) < 1) or len(set(numbers)) < len(numbers):
                raise ConfigError(f"stream.{name} must be different numbers from 1, got {list(numbers)}")
        if any(not h > 0 for h in self.horizons_s):
            raise ConfigError(f"stream.horizons_s must be positive, got {list(self.horizons_s)}")
        for name in ("budget_ms", "gate_mm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"stream.{name} must be positive, got {getattr(self, name)}")
        if self.pictures < 1:
            raise ConfigError(f"stream.pictures must be at least 1, got {self.pictures}")

    @property
    def conditions(self) -> tuple[str | None, ...]:
        """The conditions of the results: those of `every`, `hidden` and `imputed`, each in its order."""
        online = [Condition(every=n) for n in self.every] + [Condition(hidden=n) for n in self.hidden]
        return tuple(c.name for c in [*online, *(Condition(every=n, offline=True) for n in self.imputed)])

    def content(self) -> dict[str, Any]:
        """What the values depend on, beside the condition: results of other settings never mix."""
        asked = {k: getattr(self, k) for k in ("horizons_s", "target", "gate_mm", "labels", "periodic")}
        # Not where they are as they were before they could be chosen: results from then go on to count.
        asked |= {"calibration": True} if self.calibration else {}
        return asked if self.region == "mask" else {**asked, "region": self.region}

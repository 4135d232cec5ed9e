"""Under which conditions a stream runs: which frames a method is given, and whether it may look back at all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reg_bench.errors import ConfigError

_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


@dataclass(frozen=True)
class Condition:
    """What a method is given of a sequence.

    Attributes:
        every: every how many frames after the reference it is given one.
        hidden: how many frames at the end it is not given.
        offline: whether it is given all of these at once, and then says where every frame was, looking both ways.
    """

    every: int = 1
    hidden: int = 0
    offline: bool = False

    @property
    def name(self) -> str | None:
        """`every-3rd`, `last-5-hidden`, `smoothed` (all frames at once), `imputed-3rd` (every third, all at once);
        `None` where all frames are given one by one."""
        if self.hidden:
            return f"last-{self.hidden}-hidden"
        if self.offline:
            return "smoothed" if self.every == 1 else f"imputed-{_ordinal(self.every)}"
        return None if self.every == 1 else f"every-{_ordinal(self.every)}"

    @property
    def scores_all(self) -> bool:
        """Whether all frames are scored, and not only those that are hidden at the end."""
        return not self.hidden

    def gives(self, step: int, steps: int) -> bool:
        """Whether the frame of step number `step`, from 1 to `steps`, is given."""
        return step % self.every == 0 and step <= steps - self.hidden


def condition_named(name: str | None) -> Condition:
    """The condition of that name.

    Raises:
        ConfigError: no such condition.
    """
    if name is None:
        return Condition()
    if name == "smoothed":
        return Condition(offline=True)
    if found := re.fullmatch(r"last-(\d+)-hidden", name):
        return Condition(hidden=int(found[1]))
    if found := re.fullmatch(r"(every|imputed)-(\d+)(st|nd|rd|th)", name):
        return Condition(every=int(found[2]), offline=found[1] == "imputed")
    raise ConfigError(
        f"condition must be like every-2nd, imputed-2nd, smoothed or last-5-hidden, got {name!r}",
    )


def condition_of(every: int) -> str | None:
    """`every-2nd` where every second frame is given, `None` where all are."""
    return Condition(every).name


def every_of(condition: str | None) -> int:
    """The number that a condition like `every-2nd` stands for.

    Raises:
        ConfigError: no such condition.
    """
    return condition_named(condition).every


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else _ENDINGS.get(number % 10, "th")
    return f"{number}{ending}"

"""Beating hearts in short axis, generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.synthesis_cases import LastSequence, case_seed, check_positive, detached_pair, evenly_spaced
from reg_bench.synthesis_heart import HeartConfig, heart_sequence
from reg_bench.types import ImageSequence, RegistrationPair


class PhantomCine(RegistrationDataModule):
    """2-D cine of a beating, breathing heart in short axis with known motion (generated).

    Every case is the first frame (end-diastole, moving) against another frame of the same heart. The motion is
    in closed form, so `true_displacement`, labels (blood pool, myocardium) and landmarks are exact.

    Args:
        sequences: hearts per split.
        frames: how many frames of each are cases, evenly spaced; `None`: all but the reference.
        size: pixels along x and y.
        length: frames per sequence, at 0.09 s.
        max_motion: largest displacement of a heart over all its frames in pixels; 0 for none.
        noise: standard deviation of the Rician noise; the blood is about 0.85.
        drift: relative change of the intensity over the sequence.
        spacing_mm: pixel size.
        batch_size, num_workers, cache, cache_dir, seed: as in `RegistrationDataModule`.
    """

    name: ClassVar[str] = "phantom-cine"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        *,
        sequences: int = 4,
        frames: int | None = None,
        size: tuple[int, int] = (256, 256),
        length: int = 20,
        max_motion: float = 14.0,
        noise: float = 0.025,
        drift: float = 0.08,
        spacing_mm: float = 1.4,
        batch_size: int = 1,
        num_workers: int = 0,
        cache: Literal["none", "memory", "disk"] = "none",
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, cache=cache, cache_dir=cache_dir, seed=seed)
        check_positive(self.name, sequences=sequences, size=tuple(size), spacing_mm=spacing_mm)
        self.sequences, self.frames = sequences, evenly_spaced(length, frames)
        self.config = HeartConfig(
            size=(size[0], size[1]),
            length=length,
            max_motion=max_motion,
            noise=noise,
            drift=drift,
            spacing_mm=spacing_mm,
        )
        self._last = LastSequence(self._make)

    def records(self, split: Split) -> Sequence[Record]:
        """One record per heart and frame; case ids are `<split><number>/<frame>`."""
        return [
            {
                "case_id": f"{split}{index:03d}/{frame:03d}",
                "subject": f"{split}{index:03d}",
                "frame": frame,
                "seed": case_seed(split, self.seed, index),
                "config": repr(self.config),
            }
            for index in range(self.sequences)
            for frame in self.frames
        ]

    def sequence(self, record: Record) -> ImageSequence:
        """The whole sequence that the case of `record` belongs to, as a batch of one."""
        return self._last(record)

    def load(self, record: Record) -> RegistrationPair:
        """The reference against the frame of `record`."""
        return detached_pair(self.sequence(record).pair(record["frame"]))

    def _make(self, record: Mapping[str, Any]) -> ImageSequence:
        return heart_sequence(self.config, seed=record["seed"], case_id=record["subject"])

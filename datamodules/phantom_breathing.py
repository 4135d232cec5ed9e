"""Breathing chests in sagittal view, generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.synthesis_cases import LastSequence, case_seed, check_positive, detached_pair, evenly_spaced
from reg_bench.synthesis_breathing import BreathingConfig, breathing_sequence
from reg_bench.types import ImageSequence, RegistrationPair


class PhantomBreathing(RegistrationDataModule):
    """2-D sagittal cine of breathing liver and lung that slide along the chest wall, at 5 Hz (generated).

    Every case is the first frame (end-exhale, moving) against another frame of the same subject: what an
    MR-linac sees. Labels: liver, lung, target; points: `landmarks`, and the tracked `target` alone. The true
    displacement is exact on either side of the pleura and jumps across it.

    Args:
        sequences: subjects per split.
        frames: how many frames of each are cases, evenly spaced; `None`: all but the reference.
        size: pixels from front to back and from head to foot.
        length: frames per sequence, at 0.2 s.
        max_motion: largest displacement of a subject over all its frames in pixels; 0 for none.
        noise: standard deviation of the Rician noise; the liver is about 0.5.
        drift: relative change of the intensity over the sequence.
        spacing_mm: pixel size.
        batch_size, num_workers, cache, cache_dir, seed: as in `RegistrationDataModule`.
    """

    name: ClassVar[str] = "phantom-breathing"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        *,
        sequences: int = 4,
        frames: int | None = None,
        size: tuple[int, int] = (192, 192),
        length: int = 50,
        max_motion: float = 12.0,
        noise: float = 0.025,
        drift: float = 0.06,
        spacing_mm: float = 1.8,
        batch_size: int = 1,
        num_workers: int = 0,
        cache: Literal["none", "memory", "disk"] = "none",
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, cache=cache, cache_dir=cache_dir, seed=seed)
        check_positive(self.name, sequences=sequences, size=tuple(size), spacing_mm=spacing_mm)
        self.sequences, self.frames = sequences, evenly_spaced(length, frames)
        self.config = BreathingConfig(
            size=(size[0], size[1]),
            length=length,
            max_motion=max_motion,
            noise=noise,
            drift=drift,
            spacing_mm=spacing_mm,
        )
        self._last = LastSequence(self._make)

    def records(self, split: Split) -> Sequence[Record]:
        """One record per subject and frame; case ids are `<split><number>/<frame>`."""
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
        return breathing_sequence(self.config, seed=record["seed"], case_id=record["subject"])

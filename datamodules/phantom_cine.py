"""Beating hearts in short axis, generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.synthesis_cases import (
    Contrast,
    LastSequence,
    check_contrast,
    check_not_negative,
    check_positive,
    detached_pair,
    evenly_spaced,
    frame_records,
    recontrasted,
)
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
        max_motion: largest displacement of a heart over all its frames (at least 20) in pixels;
            0 for none;
            `None`: 14 at 256 x 256, in proportion.
        noise: standard deviation of the Rician noise; the blood is about 0.85.
        drift: relative change of the intensity over the sequence.
        spacing_mm: pixel size.
        contrast: `same`, or what another modality would show in the moving image: `inverted`, `non-monotonic`.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        DataError: a size, spacing or number that is not positive, negative noise or motion, more frames than there are.
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
        max_motion: float | None = None,
        noise: float = 0.025,
        drift: float = 0.08,
        spacing_mm: float = 1.4,
        contrast: Contrast = "same",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_positive(self.name, sequences=sequences, size=tuple(size), spacing_mm=spacing_mm)
        check_not_negative(self.name, max_motion=max_motion, noise=noise)
        self.sequences, self.frames, self.size, self.length = sequences, frames, tuple(size), length
        self.max_motion, self.noise, self.drift, self.spacing_mm = max_motion, noise, drift, spacing_mm
        self._chosen = evenly_spaced(length, frames)
        check_contrast(self.name, contrast)
        self.contrast: Contrast = contrast
        self._config = HeartConfig(
            size=(size[0], size[1]),
            length=length,
            max_motion=14.0 * min(size) / 256 if max_motion is None else max_motion,
            noise=noise,
            drift=drift,
            spacing_mm=spacing_mm,
        )
        self._last = LastSequence(self._make)

    def records(self, split: Split) -> Sequence[Record]:
        return frame_records(split, self.seed, self.sequences, self._chosen)

    def sequence(self, record: Record) -> ImageSequence:
        """The whole sequence that the case of `record` belongs to, as a batch of one."""
        return self._last(record)

    def load(self, record: Record) -> RegistrationPair:
        """The reference against the frame of `record`."""
        return recontrasted(detached_pair(self.sequence(record).pair(record["frame"])), self.contrast)

    def _make(self, record: Mapping[str, Any]) -> ImageSequence:
        return heart_sequence(self._config, seed=record["seed"], case_id=record["subject"])

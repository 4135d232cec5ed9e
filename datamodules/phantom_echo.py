"""Beating left ventricles in an apical ultrasound view, generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import DataError
from reg_bench.synthesis_cases import (
    LastSequence,
    check_not_negative,
    check_positive,
    detached_pair,
    evenly_spaced,
    frame_records,
)
from reg_bench.synthesis_echo import EchoConfig, echo_sequence
from reg_bench.types import ImageSequence, RegistrationPair


class PhantomEcho(RegistrationDataModule):
    """2-D echocardiograms of a beating left ventricle with known motion (generated).

    Every case is the first frame (in any phase of the beat, moving) against another frame of the same heart, as in
    clips of EchoNet-Dynamic: 50 frames of 112 x 112 pixels at 50 Hz in a sector. Rate and strength of the beat vary
    between hearts and from beat to beat. The motion is in closed form, so `true_displacement` and the labels (cavity,
    wall) of every frame are exact; the mask is the sector. No heart is in two splits. Dice of the true field: 0.985 for
    the cavity and 0.968 for the wall, which is 7 pixels wide; of no motion 0.90 and 0.86, and 0.78 and 0.73 in the
    frame that is most unlike the reference.

    For training on clips of several frames see the dataset `clips`.

    Args:
        sequences: hearts per split; any number below a million.
        frames: how many frames of each are cases, evenly spaced; `None`: all but the reference.
        size: pixels along x and y.
        length: frames per sequence.
        seconds_per_frame: between two frames.
        strength: lowest and highest strength of the contraction; 1 takes 45 % of the width of the cavity and moves its
            base by 11 pixels of 112; 0 for none.
        traced: as EchoNet-Dynamic is traced: frame 0 is end-diastole, and only it and the frame in which the cavity is
            smallest carry labels.
        attenuation: decibels per pixel of 112 that the depth still costs after compensation.
        noise: of the receiver, decibels below the brightest tissue, near the probe.
        spacing_mm: pixel size.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        DataError: a size, spacing or number that is not positive, a strength outside 0..1, more frames than there are.
    """

    name: ClassVar[str] = "phantom-echo"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        *,
        sequences: int = 8,
        frames: int | None = None,
        size: tuple[int, int] = (112, 112),
        length: int = 50,
        seconds_per_frame: float = 0.02,
        strength: tuple[float, float] = (0.5, 1.0),
        traced: bool = False,
        attenuation: float = 0.06,
        noise: float = 54.0,
        spacing_mm: float = 1.3,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_positive(
            self.name,
            sequences=sequences,
            size=tuple(size),
            length=length,
            seconds_per_frame=seconds_per_frame,
            spacing_mm=spacing_mm,
        )
        check_not_negative(self.name, attenuation=attenuation, noise=noise)
        if not 0 <= strength[0] <= strength[1] <= 1:
            raise DataError(f"{self.name}: strength must rise within 0..1, got {list(strength)}")
        if min(size) < 32:
            raise DataError(f"{self.name}: size must be at least 32 x 32 to hold a heart, got {list(size)}")
        self.sequences, self.frames, self.size, self.length = sequences, frames, tuple(size), length
        self.seconds_per_frame, self.strength, self.attenuation = seconds_per_frame, tuple(strength), attenuation
        self.noise, self.spacing_mm, self.traced = noise, spacing_mm, traced
        self._chosen = evenly_spaced(length, frames)
        self._config = EchoConfig(
            size=(size[0], size[1]),
            length=length,
            seconds_per_frame=seconds_per_frame,
            strength=(strength[0], strength[1]),
            phase=0.0 if traced else None,
            traced=traced,
            attenuation=attenuation,
            noise=noise,
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
        return detached_pair(self.sequence(record).pair(record["frame"]))

    def _make(self, record: Mapping[str, Any]) -> ImageSequence:
        return echo_sequence(self._config, seed=record["seed"], case_id=record["subject"])

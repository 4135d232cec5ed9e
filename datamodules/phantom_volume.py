"""Trunks with a dozen organs, generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.synthesis_cases import (
    Contrast,
    check_contrast,
    check_not_negative,
    check_positive,
    pair_records,
    recontrasted,
)
from reg_bench.synthesis_organs import OrgansConfig, organs_pair
from reg_bench.types import RegistrationPair


class PhantomVolume(RegistrationDataModule):
    """3-D pairs of a trunk with twelve textured organs under large and small deformations (generated).

    Both images are the same anatomy under a random diffeomorphism that holds a large smooth and a small local
    part; a smaller `max_motion` gives small deformations throughout. Labels, landmarks, body mask and
    `true_displacement` are exact.

    Args:
        cases: pairs per split.
        size: voxels per axis (right, anterior, superior).
        spacing_mm: voxel size per axis; may be anisotropic.
        max_motion: largest displacement in voxels, met exactly; 0 for none;
            `None`: 6 for a shortest side of 64, in proportion.
        noise: standard deviation of the Rician noise; organs lie between 0.12 and 0.95.
        drift: relative difference of gain between the two images.
        landmarks: points per pair, inside organs.
        contrast: `same`, or what another modality would show in the moving image: `inverted`, `non-monotonic`.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        DataError: a size, spacing or number that is not positive, negative noise or motion.
    """

    name: ClassVar[str] = "phantom-3d"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        *,
        cases: int = 10,
        size: tuple[int, int, int] = (64, 64, 64),
        spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0),
        max_motion: float | None = None,
        noise: float = 0.02,
        drift: float = 0.06,
        landmarks: int = 80,
        contrast: Contrast = "same",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_positive(self.name, cases=cases, size=tuple(size), spacing_mm=tuple(spacing_mm), landmarks=landmarks)
        check_not_negative(self.name, max_motion=max_motion, noise=noise)
        self.cases, self.size, self.spacing_mm = cases, tuple(size), tuple(spacing_mm)
        self.max_motion, self.landmarks, self.noise, self.drift = max_motion, landmarks, noise, drift
        check_contrast(self.name, contrast)
        self.contrast: Contrast = contrast
        self._config = OrgansConfig(
            size=(size[0], size[1], size[2]),
            spacing_mm=(spacing_mm[0], spacing_mm[1], spacing_mm[2]),
            max_motion=6.0 * min(size) / 64 if max_motion is None else max_motion,
            noise=noise,
            drift=drift,
            landmarks=landmarks,
        )

    def records(self, split: Split) -> Sequence[Record]:
        return pair_records(split, self.seed, self.cases)

    def load(self, record: Record) -> RegistrationPair:
        """The pair of `record`, generated."""
        return recontrasted(organs_pair(self._config, seed=record["seed"], case_id=record["case_id"]), self.contrast)

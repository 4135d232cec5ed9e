"""Inhale and exhale of a thorax, generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.synthesis_cases import check_not_negative, check_positive, pair_records
from reg_bench.synthesis_lung import LungConfig, lung_pair
from reg_bench.types import RegistrationPair


class PhantomLung(RegistrationDataModule):
    """3-D inhale (moving) and exhale (fixed) CT-like lung pairs with mask and 100 landmarks (generated).

    Intensities are Hounsfield units; the density of the lung follows its change of volume. Labels: right and
    left lung; landmarks lie on vessels. The motion is one smooth diffeomorphism, without sliding.

    Args:
        cases: pairs per split.
        size: voxels per axis (right, anterior, superior).
        spacing_mm: voxel size per axis; may be anisotropic.
        max_motion: largest displacement in voxels, met exactly; 0 for none;
            `None`: 7 for a shortest side of 64, in proportion.
        noise_hu: standard deviation of the Gaussian noise.
        density_change: 1 for lung density that follows the volume exactly, 0 for none.
        landmarks: points per pair, on vessels.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        DataError: a size, spacing or number that is not positive, negative noise or motion.
    """

    name: ClassVar[str] = "phantom-lung"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        *,
        cases: int = 10,
        size: tuple[int, int, int] = (80, 64, 80),
        spacing_mm: tuple[float, float, float] = (4.0, 4.0, 4.0),
        max_motion: float | None = None,
        noise_hu: float = 25.0,
        density_change: float = 1.0,
        landmarks: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_positive(self.name, cases=cases, size=tuple(size), spacing_mm=tuple(spacing_mm), landmarks=landmarks)
        check_not_negative(self.name, max_motion=max_motion, noise_hu=noise_hu)
        self.cases, self.size, self.spacing_mm = cases, tuple(size), tuple(spacing_mm)
        self.max_motion, self.landmarks, self.noise_hu, self.density_change = (
            max_motion,
            landmarks,
            noise_hu,
            density_change,
        )
        self._config = LungConfig(
            size=(size[0], size[1], size[2]),
            spacing_mm=(spacing_mm[0], spacing_mm[1], spacing_mm[2]),
            max_motion=7.0 * min(size) / 64 if max_motion is None else max_motion,
            noise_hu=noise_hu,
            density_change=density_change,
            landmarks=landmarks,
        )

    def records(self, split: Split) -> Sequence[Record]:
        return pair_records(split, self.seed, self.cases)

    def load(self, record: Record) -> RegistrationPair:
        """The pair of `record`, generated."""
        return lung_pair(self._config, seed=record["seed"], case_id=record["case_id"])

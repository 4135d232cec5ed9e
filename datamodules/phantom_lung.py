"""Inhale and exhale of a thorax, generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.synthesis_cases import case_seed, check_positive
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
        max_motion: largest displacement in voxels, met exactly; 0 for none.
        noise_hu: standard deviation of the Gaussian noise.
        density_change: 1 for lung density that follows the volume exactly, 0 for none.
        landmarks: points per pair, on vessels.
        batch_size, num_workers, cache, cache_dir, seed: as in `RegistrationDataModule`.
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
        max_motion: float = 7.0,
        noise_hu: float = 25.0,
        density_change: float = 1.0,
        landmarks: int = 100,
        batch_size: int = 1,
        num_workers: int = 0,
        cache: Literal["none", "memory", "disk"] = "none",
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, cache=cache, cache_dir=cache_dir, seed=seed)
        check_positive(self.name, cases=cases, size=tuple(size), spacing_mm=tuple(spacing_mm), landmarks=landmarks)
        self.cases = cases
        self.config = LungConfig(
            size=(size[0], size[1], size[2]),
            spacing_mm=(spacing_mm[0], spacing_mm[1], spacing_mm[2]),
            max_motion=max_motion,
            noise_hu=noise_hu,
            density_change=density_change,
            landmarks=landmarks,
        )

    def records(self, split: Split) -> Sequence[Record]:
        """One record per pair; case ids are `<split><number>`."""
        return [
            {
                "case_id": f"{split}{index:03d}",
                "seed": case_seed(split, self.seed, index),
                "config": repr(self.config),
            }
            for index in range(self.cases)
        ]

    def load(self, record: Record) -> RegistrationPair:
        """The pair of `record`, generated."""
        return lung_pair(self.config, seed=record["seed"], case_id=record["case_id"])

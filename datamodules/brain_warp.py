"""The MNI152 T1 template, warped by known diffeomorphisms: real anatomy with an exact truth."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from monai.transforms import CropForegroundd
from numpy.typing import NDArray

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import ConfigError, DataError, MissingExtraError
from reg_bench.grid import Grid
from reg_bench.io import read_image
from reg_bench.known_warp import Appearance, Subject, known_warp
from reg_bench.preprocessing import cropped, preprocess
from reg_bench.synthesis import random_diffeomorphism, random_generator
from reg_bench.types import RegistrationPair

_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
# Kept around the brain, so that the deformation can fade out before the border.
_MARGIN_MM = 14
_LABELS = {1: "grey matter", 2: "white matter", 3: "fluid and other"}


class BrainWarp(RegistrationDataModule):
    """The MNI152 T1 template (moving) warped by random diffeomorphisms, with changed contrast, bias and noise.

    Labels: grey matter, white matter (the more probable of the template's maps, if above one half together)
    and what else lies inside the brain; mask: the brain. The files come inside the nilearn wheel and are
    averaged over blocks for a resolution below 1 mm. `fixed(x) = moving(x + u(x))` up to the appearance.

    Args:
        cases: number of test pairs; val has as many, train four times as many, all of different seeds.
        resolution_mm: edge of a voxel, 1, 2, 3 or 4.
        max_displacement_mm: longest displacement; each case draws 0.6 to 1 times this.
        smoothness_mm: extent of the random deformations (see `synthesis.random_diffeomorphism`).
        landmarks: points per case.
        contrast, bias, noise: appearance of the fixed image (see `known_warp.Appearance`).
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: an unknown resolution or no cases.
        MissingExtraError: nilearn is not installed.
    """

    name: ClassVar[str] = "brain-warp"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "LicenseRef-ICBM-MNI152"
    folder: ClassVar[str] = ""

    def __init__(
        self,
        *,
        cases: int = 5,
        resolution_mm: int = 2,
        max_displacement_mm: float = 12.0,
        smoothness_mm: float = 20.0,
        landmarks: int = 100,
        contrast: float = 0.25,
        bias: float = 0.05,
        noise: float = 0.02,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if resolution_mm not in (1, 2, 3, 4):
            raise ConfigError(f"{self.name}: resolution_mm must be 1, 2, 3 or 4, got {resolution_mm}")
        if cases < 1:
            raise ConfigError(f"{self.name}: cases must be at least 1, got {cases}")
        self.cases, self.resolution_mm = cases, resolution_mm
        self.max_displacement_mm, self.smoothness_mm = max_displacement_mm, smoothness_mm
        self.landmarks, self.contrast, self.bias, self.noise = landmarks, contrast, bias, noise

    def records(self, split: Split) -> Sequence[Record]:
        folder = _template_folder()
        files = {kind: folder / _FILE.format(kind) for kind in ("t1", "gm", "wm")}
        for path in files.values():
            if not path.is_file():
                raise DataError(f"{path}: missing from the installed nilearn; brain-warp needs nilearn 0.10 or later")
        count = 4 * self.cases if split == "train" else self.cases
        named = {kind: str(path) for kind, path in files.items()}
        return [{"case_id": f"{split}-{i:03d}", "split": split, "index": i, **named} for i in range(count)]

    def load(self, record: Record) -> RegistrationPair:
        subject = _subject(record["t1"], record["gm"], record["wm"], self.resolution_mm)
        key = (self.name, str(record["split"]), int(record["index"]), self.seed)
        draw = random_generator(*key)
        u, _ = random_diffeomorphism(
            subject.grid.shape,
            seed=int(draw.integers(2**31)),
            max_displacement=float(draw.uniform(0.6, 1.0)) * self.max_displacement_mm / self.resolution_mm,
            smoothness=self.smoothness_mm / self.resolution_mm,
        )
        appearance = Appearance(self.contrast, self.bias, self.noise)
        return known_warp(str(record["case_id"]), subject, u, landmarks=self.landmarks, appearance=appearance, key=key)


def _template_folder() -> Path:
    """Where nilearn keeps the template, found without importing nilearn."""
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise MissingExtraError("the dataset brain-warp", "nilearn", "demo")
    return Path(spec.origin).parent / "datasets" / "data"


@functools.lru_cache(maxsize=1)
def _subject(t1: str, gm: str, wm: str, factor: int) -> Subject:
    """The template at `factor` mm, cropped to the brain; kept, because every case starts from it."""
    head, grey, white = (read_image(path) for path in (t1, gm, wm))
    if {head.grid.shape, grey.grid.shape, white.grid.shape} != {head.grid.shape}:
        raise DataError(f"{gm}, {wm}: expected the grid of {t1}")
    maps = {k: _block_mean(image.array, factor) / 255 for k, image in (("t1", head), ("gm", grey), ("wm", white))}
    inside = _block_mean((head.array > 0).astype(np.float32), factor) > 0.5
    tissue = np.where(maps["wm"] > maps["gm"], 2, 1)
    labels = np.where(maps["gm"] + maps["wm"] > 0.5, tissue, 3) * inside
    arrays = {"image": maps["t1"], "labels": labels.astype(np.uint8), "mask": inside.astype(np.uint8)}
    crop = CropForegroundd(list(arrays), source_key="mask", margin=_MARGIN_MM // factor, allow_smaller=True)
    low, high = _bounds(inside, _MARGIN_MM // factor)
    tensors = preprocess(arrays, [crop])
    shape = [end - start for start, end in zip(low, high, strict=True)]
    grid = cropped(_coarser(head.grid, factor, inside.shape), low, shape)
    return Subject(tensors["image"], tensors["labels"], tensors["mask"].bool(), grid, _LABELS)


def _block_mean(array: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Means over blocks of `factor` voxels a side; what does not fill a block is cut off at the end."""
    shape = [n // factor for n in array.shape]
    kept = array[tuple(slice(n * factor) for n in shape)]
    blocks = kept.reshape([m for n in shape for m in (n, factor)])
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float64), dtype=np.float32)


def _coarser(grid: Grid, factor: int, shape: Sequence[int]) -> Grid:
    """The grid of block means: a block's centre is its middle."""
    origin = grid.to_world(np.full((1, 3), (factor - 1) / 2))[0]
    spacing = tuple(s * factor for s in grid.spacing_mm)
    return Grid(tuple(shape), spacing, tuple(float(o) for o in origin), grid.direction)


def _bounds(inside: NDArray[np.bool_], margin: int) -> tuple[list[int], list[int]]:
    """First and one past the last voxel of the box around `inside` with a margin, within the image."""
    voxels = np.argwhere(inside)
    low = np.maximum(voxels.min(axis=0) - margin, 0)
    high = np.minimum(voxels.max(axis=0) + 1 + margin, inside.shape)
    return [int(v) for v in low], [int(v) for v in high]

"""An abdominal CT, warped by known inhale-like deformations: organs of many sizes with an exact truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.transforms import ScaleIntensityRanged
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import ConfigError, DataError
from reg_bench.file_state import kept_while_unchanged
from reg_bench.grid import grids_equal
from reg_bench.io import read_image
from reg_bench.known_warp import Appearance, Subject, known_warp
from reg_bench.preprocessing import preprocess
from reg_bench.synthesis import diffeomorphism, gaussian_field, random_generator
from reg_bench.synthesis_flow import border_window, saturated
from reg_bench.types import RegistrationPair

# Hounsfield units: what is denser is body; a neighbourhood that varies more has texture to follow.
_BODY_HU, _TEXTURE_HU = -300.0, 15.0


class CtWarp(RegistrationDataModule):
    """Abdominal CT with 61 organs and bones (moving), warped by known inhale-like fields with fresh noise.

    The deformation is the flow of a smooth velocity: organs move down and the wall of the belly forwards,
    most under the diaphragm and in front, little at the spine and in the pelvis, with a random part on top.
    It vanishes at the border of the grid. Mask: body with texture (standard deviation above 15 HU in a
    neighbourhood of 5 voxels); the landmarks lie there.

    Args:
        root: folder with `ct.nii.gz` and `seg.nii.gz`.
        cases: number of test pairs; val has as many, train four times as many, all of different seeds.
        max_displacement_mm: longest displacement; each case draws 0.6 to 1 times this.
        random_share: weight of the random part of the velocity beside the breathing part.
        smoothness_mm: extent of the random part.
        window_hu: Hounsfield units that become 0 and 1; what lies outside is clipped.
        landmarks: points per case.
        noise: standard deviation of the noise of the fixed image, as a share of the window.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: no cases or an empty window.
    """

    name: ClassVar[str] = "ct-warp"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "Apache-2.0"
    folder: ClassVar[str] = "ct_abdomen"
    source: ClassVar[str] = (
        "the test files of TotalSegmentator 2.18.0 (example_ct and its labels, the CT stored as int16); "
        "cite Wasserthal et al., Radiology: Artificial Intelligence, 2023"
    )
    layout: ClassVar[str] = """
        ct.nii.gz    abdominal CT, 122 x 101 x 112 at 3 mm, Hounsfield units
        seg.nii.gz   the same grid: 61 organ and bone labels
    """
    splits: ClassVar[str] = "one image; the known fields of train, val and test are drawn from different seeds"

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        cases: int = 5,
        max_displacement_mm: float = 24.0,
        random_share: float = 0.5,
        smoothness_mm: float = 30.0,
        window_hu: tuple[float, float] = (-300.0, 500.0),
        landmarks: int = 100,
        noise: float = 0.02,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if cases < 1:
            raise ConfigError(f"{self.name}: cases must be at least 1, got {cases}")
        if not window_hu[0] < window_hu[1]:
            raise ConfigError(f"{self.name}: window_hu must rise, got {tuple(window_hu)}")
        self.root, self.cases, self.max_displacement_mm = root, cases, max_displacement_mm
        self.random_share, self.smoothness_mm, self.window_hu = random_share, smoothness_mm, tuple(window_hu)
        self.landmarks, self.noise = landmarks, noise

    def records(self, split: Split) -> Sequence[Record]:
        folder = self.root_folder()
        files = {"image": folder / "ct.nii.gz", "labels": folder / "seg.nii.gz"}
        for path in files.values():
            if not path.is_file():
                raise DataError(f"{self.name}: {path} is missing")
        count = 4 * self.cases if split == "train" else self.cases
        named = {key: str(path) for key, path in files.items()}
        return [{"case_id": f"{split}-{i:03d}", "split": split, "index": i, **named} for i in range(count)]

    def load(self, record: Record) -> RegistrationPair:
        subject = _subject(str(record["image"]), str(record["labels"]), *self.window_hu)
        key = (self.name, str(record["split"]), int(record["index"]), self.seed)
        u = self._deformation(subject, *key)
        appearance = Appearance(noise=self.noise)
        return known_warp(str(record["case_id"]), subject, u, landmarks=self.landmarks, appearance=appearance, key=key)

    def _deformation(self, subject: Subject, *key: str | int) -> Tensor:
        """`(1, 3, *S)` voxels, from the inhaled (fixed) grid back to the CT."""
        draw = random_generator("deformation", *key)
        spacing = float(np.mean(subject.grid.spacing_mm))
        smoothness = self.smoothness_mm / spacing
        random = saturated(gaussian_field(subject.grid.shape, smoothness=smoothness, generator=draw, channels=3))
        velocity = _breathing(subject) + self.random_share * random / np.sqrt(3)
        velocity *= border_window(subject.grid.shape, width=1.5 * smoothness)
        longest = float(draw.uniform(0.6, 1.0)) * self.max_displacement_mm / spacing
        return diffeomorphism(torch.from_numpy(velocity)[None], max_displacement=longest)[0]


def _breathing(subject: Subject) -> NDArray[np.float64]:
    """`(3, *S)` velocity of breathing in, pulled back: where tissue comes from, in units of the largest motion."""
    # World axes are LPS: +y is the back, +z the head. Tissue that moves down and forwards comes from above and
    # from behind.
    directions = subject.grid.direction_matrix
    body = np.argwhere(subject.mask[0, 0].numpy())
    low, high = body.min(axis=0), body.max(axis=0)
    axes = [np.clip((np.arange(n) - a) / (b - a), 0, 1) for n, a, b in zip(subject.grid.shape, low, high, strict=True)]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    up, back = (_towards(place, directions[axis]) for axis in (2, 1))
    # Most at four fifths of the height (the diaphragm), none at the bottom; a third as much at the back.
    amount = np.sin(0.5 * np.pi * np.clip(up / 0.8, 0, 1)) ** 2 * (1 - 0.67 * back**2)
    head = directions.T @ np.array([0.0, 0.0, 1.0])
    behind = directions.T @ np.array([0.0, 1.0, 0.0])
    shape = (3, 1, 1, 1)
    return np.asarray(amount * (head.reshape(shape) + 0.4 * (1 - back) * behind.reshape(shape)))


def _towards(place: NDArray[np.float64], components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative position 0..1 along a world axis, from that of the array axis that is closest to it."""
    axis = int(np.argmax(np.abs(components)))
    return place[axis] if components[axis] > 0 else 1 - place[axis]


@kept_while_unchanged(1)
def _subject(image_path: str, labels_path: str, low_hu: float, high_hu: float) -> Subject:
    """The CT with labels and mask; kept, because every case starts from it."""
    image, labels = read_image(image_path), read_image(labels_path, kind="labels")
    if not grids_equal(image.grid, labels.grid):
        raise DataError(f"{labels_path}: {labels.grid.describe()}; expected the grid of {image_path}")
    window = ScaleIntensityRanged("image", a_min=low_hu, a_max=high_hu, b_min=0.0, b_max=1.0, clip=True)
    tensors = preprocess({"image": image.array, "labels": labels.array, "mask": _textured(image.array)}, [window])
    names = {int(v): f"label {v}" for v in np.unique(labels.array) if v != 0}
    return Subject(tensors["image"], tensors["labels"], tensors["mask"], image.grid, names)


def _textured(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Voxels of the body whose neighbourhood varies."""
    dense = ndimage.binary_opening(hu > _BODY_HU, iterations=2)
    parts, count = ndimage.label(dense)
    sizes = ndimage.sum_labels(dense, parts, range(1, count + 1))
    body = ndimage.binary_fill_holes(parts == 1 + int(np.argmax(sizes)))
    values = hu.astype(np.float64)
    mean = ndimage.uniform_filter(values, 5)
    variance = ndimage.uniform_filter(values**2, 5) - mean**2
    # The skin varies against air: half of its neighbourhood is outside, so it is left out.
    return np.asarray(ndimage.binary_erosion(body, iterations=2) & (variance > _TEXTURE_HU**2))

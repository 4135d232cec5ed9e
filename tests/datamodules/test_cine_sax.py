"""The cine of one animal: read as written, every fault named with its file."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from datamodules.cine_sax import CineSax
from reg_bench.errors import DataError
from reg_bench.inspection import inspect

SHAPE = (16, 14, 20, 20)
AFFINE = np.diag([0.8, 0.9, 5.0, 1.0])
IMAGES, LABELS = "cine_sax.nii.gz", "lv_labels.nii.gz"
SLICES = (6, 7)


def labels() -> np.ndarray:
    x, y, _, t = np.indices(SHAPE, sparse=True)
    radius = 6 - 3 * np.sin(np.pi * t / 20)
    distance = np.hypot(x - 8, y - 7) + 0 * np.zeros(SHAPE)
    return np.where(distance < radius / 2, 1, np.where(distance < radius, 2, 0)).astype(np.uint8)


def images() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 20, SHAPE)
    return (100 * labels() + noise + 10).astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save(tmp_path / IMAGES, images())
    save(tmp_path / LABELS, labels())
    return tmp_path


def test_cases_are_what_was_written(root: Path) -> None:
    data = CineSax(root=root, slices=SLICES)
    assert not inspect(data).findings
    sequence = data.sequence(data.records("test")[19])
    assert sequence.labels is not None
    assert np.array_equal(sequence.labels[0, :, 0].numpy(), np.moveaxis(labels()[:, :, 7], -1, 0))
    assert sequence.spacing_mm is not None
    np.testing.assert_allclose(sequence.spacing_mm.numpy(), [[0.8, 0.9]], atol=1e-6)
    stored = images()[:, :, 7].astype(float)
    top = np.percentile(stored, 99.5)
    expected = np.clip((stored - stored.min()) / (top - stored.min()), 0, 1)
    np.testing.assert_allclose(sequence.frames[0, :, 0].numpy(), np.moveaxis(expected, -1, 0), atol=1e-5)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def patch(path: Path, place: int, content: bytes) -> None:
    """Overwrites a part of the header."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[place : place + len(content)] = content
    path.write_bytes(gzip.compress(bytes(raw)))


def with_voxel(value: float) -> np.ndarray:
    array = images().astype(np.float32)
    array[3, 3, 6, 3] = value
    return array


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda r: (r / IMAGES).unlink(), f"{IMAGES}: no such file"),
    "labels missing": (lambda r: (r / LABELS).unlink(), f"{LABELS}: no such file"),
    "truncated": (lambda r: cut(r / IMAGES), f"{IMAGES}: unreadable or truncated"),
    "labels truncated": (lambda r: cut(r / LABELS), f"{LABELS}: unreadable or truncated"),
    "no image": (lambda r: (r / IMAGES).write_text("text"), f"{IMAGES}: unreadable or truncated"),
    "NaN": (lambda r: save(r / IMAGES, with_voxel(np.nan)), f"{IMAGES}: 1 of 89600 voxels are NaN"),
    "constant": (
        lambda r: save(r / IMAGES, images() * 0 + 3),
        f"{IMAGES}: fixed image: constant, every voxel is 0; case slice06/001 and",
    ),
    "3-D": (lambda r: save(r / IMAGES, images()[..., 0]), f"{IMAGES}: 3 axes"),
    "a phase less": (lambda r: save(r / IMAGES, images()[..., 1:]), f"{IMAGES}: shape (16, 14, 20, 19), expected"),
    "labels of another size": (
        lambda r: save(r / LABELS, labels()[1:]),
        f"{LABELS}: shape (15, 14, 20, 20), expected that of its images, (16, 14, 20, 20)",
    ),
    "no label": (
        lambda r: save(r / LABELS, labels() * 0),
        f"{LABELS}: fixed labels: empty, every voxel is background; case slice06/001 and",
    ),
    "labels interpolated": (lambda r: save(r / LABELS, labels() * np.float32(0.5)), f"{LABELS}: labels must be whole"),
    "zero spacing": (lambda r: patch(r / IMAGES, 80, struct.pack("<f", 0)), f"{IMAGES}: zero spacing"),
    "singular affine": (lambda r: patch(r / IMAGES, 280, bytes(16)), f"{IMAGES}: singular affine"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_its_file(fault: str, root: Path) -> None:
    data = CineSax(root=root, slices=SLICES, phases=(1, 11))
    data.load(data.records("test")[0])
    plant, words = FAULTS[fault]
    plant(root)
    found = [str(f) for f in inspect(CineSax(root=root, slices=SLICES, phases=(1, 11))).faults]
    assert any(words in f for f in found), found


def test_all_faults_stand_in_the_error(root: Path) -> None:
    cut(root / IMAGES)
    (root / LABELS).unlink()
    with pytest.raises(DataError, match=rf"2 faults[^$]*{IMAGES}[^$]*{LABELS}"):
        CineSax(root=root).records("test")

"""End-diastole to end-systole pairs of short-axis cardiac MR (Sunnybrook Cardiac Data)."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from monai.transforms import CenterSpatialCropd
from numpy.typing import NDArray

from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.discovery import build_datamodule
from reg_bench.errors import DataError
from reg_bench.file_state import kept_while_unchanged
from reg_bench.preprocessing import preprocess, scale_intensity
from reg_bench.splits import SPLITS, read_split
from reg_bench.survey import Survey
from reg_bench.types import ImageSequence, RegistrationPair

# Index of the frames in the files.
_DIASTOLE, _SYSTOLE = 0, 1
_SIZE = (128, 128)
_TABLE = "split.csv"


class Sunnybrook(RegistrationDataModule):
    """Cardiac cine MR of 30 patients, one 2-D pair per slice: fixed end-systole, moving end-diastole, cavity label.

    The central `size` of the 192 x 192 pictures, each scaled to 0..1 by its 99.5th percentile, axes x, y.
    The pixel size is not known: no spacing, distances are in pixels. Every split holds all slices of its
    patients.

    A folder that holds the data in its original form, DICOM with contours as text, is read as the dataset
    `sunnybrook-dicom` does, whose description and options are its own: whole pictures unless a `size` is given.

    Args:
        root: folder with the `SC-*.npz` files and `split.csv`, or one with the original files.
        size: pixels kept along each axis.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.
    """

    name: ClassVar[str] = "sunnybrook"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "CC0-1.0"
    folder: ClassVar[str] = "sunnybrook_ed_es"
    source: ClassVar[str] = (
        "Sunnybrook Cardiac Data (Cardiac Atlas Project; 2009 left ventricle challenge), paired by slice; "
        "cite Radau et al., The MIDAS Journal, 2009, hdl.handle.net/10380/3070"
    )
    layout: ClassVar[str] = """
        SC-*.npz    image and mask (slice, 2, 192, 192) uint8: end-diastole, end-systole
        split.csv   columns patient,split,slices
        or the original files, DICOM and contours as text: see `reg-bench data describe sunnybrook-dicom`
    """
    splits: ClassVar[str] = (
        "18 train, 4 val, 8 test patients by split.csv, two of each diagnosis in test; of the original files the sets "
        "of the 2009 challenge"
    )

    def __init__(
        self, *, root: str | os.PathLike[str] | None = None, size: tuple[int, int] = _SIZE, **options: Any
    ) -> None:
        super().__init__(**options)
        self.root, self.size = root, tuple(size)

    @functools.cached_property
    def _original(self) -> RegistrationDataModule | None:
        """The dataset of the original files, where these lie in the folder."""
        folder = self.root_folder()
        if (folder / _TABLE).is_file() or next(folder.rglob("IRCCI-expert"), None) is None:
            return None
        arguments = {} if self.size == _SIZE else {"size": list(self.size)}
        return build_datamodule({"class_path": "sunnybrook-dicom", "init_args": arguments}, folder)

    def look_through(self) -> Survey:
        if self._original is not None:
            return self._original.look_through()
        folder = self.root_folder()
        survey = Survey(folder)
        table = folder / _TABLE
        try:
            listed = {split: read_split(table, "patient", split) for split in SPLITS}
        except DataError as error:
            survey.fault(table, str(error).removeprefix(f"{table}: ").removeprefix(f"{table}, "))
            return survey
        for split, rows in listed.items():
            for row in rows:
                survey.count("patients")
                path = folder / f"{row['patient']}.npz"
                slices = self._slices(survey, path, row.get("slices"))
                survey.records[split] += [
                    {"case_id": f"{row['patient']}/{index:02d}", "file": str(path), "index": index}
                    for index in range(slices)
                ]
        return survey

    @staticmethod
    def _slices(survey: Survey, path: Path, told: str | None) -> int:
        """How many slices the file of a patient holds; 0 and a fault where it cannot be used."""
        if not path.is_file():
            survey.fault(path, f"is missing; {_TABLE} names it")
            return 0
        try:
            slices = len(_read(str(path))[0])
        except DataError as error:
            survey.fault(path, str(error).removeprefix(f"{path}: "))
            return 0
        if told is None or told.strip() != str(slices):
            text = "has no column slices" if told is None else f"says {told!r}"
            survey.fault(path, f"holds {slices} slices, {_TABLE} {text}")
        return slices

    def load(self, record: Record) -> RegistrationPair:
        if "file" not in record and self._original is not None:
            return self._original.load(record)
        # Stored as rows and columns, that is y, x.
        image, mask = (stored[record["index"]].swapaxes(-1, -2) for stored in _read(str(record["file"])))
        arrays = {
            "fixed": image[_SYSTOLE].astype(np.float32),
            "moving": image[_DIASTOLE].astype(np.float32),
            "fixed_labels": (mask[_SYSTOLE] > 0).astype(np.uint8),
            "moving_labels": (mask[_DIASTOLE] > 0).astype(np.uint8),
        }
        steps = [CenterSpatialCropd(list(arrays), roi_size=self.size), scale_intensity(["fixed", "moving"])]
        return RegistrationPair(
            case_ids=(str(record["case_id"]),), **preprocess(arrays, steps), label_names={1: "cavity"}
        )

    def sequence(self, record: Record) -> ImageSequence:
        """All frames of a slice of the original files; the paired arrays hold two frames only.

        Raises:
            DataError: paired arrays, or not all frames of the slice are there.
        """
        return super().sequence(record) if self._original is None else self._original.sequence(record)


@kept_while_unchanged(1)
def _read(path: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image and mask `(slice, 2, y, x)` of a patient; kept, because every slice needs the whole file.

    Raises:
        DataError: not such a file, damaged, or of shapes that do not fit.
    """
    try:
        with np.load(path) as stored:
            absent = [key for key in ("image", "mask") if key not in stored]
            arrays = [] if absent else [np.asarray(stored[key]) for key in ("image", "mask")]
    except Exception as error:  # zipfile, zlib, pickle and NumPy raise whatever the damage led to.
        raise DataError(f"{path}: unreadable or truncated npz file ({type(error).__name__}: {error})") from error
    if absent:
        raise DataError(f"{path}: no array {absent[0]!r}; expected image and mask")
    image, mask = arrays
    if image.ndim != 4 or image.shape[1] != 2:
        raise DataError(f"{path}: image of shape {image.shape}, expected (slice, 2, y, x)")
    if mask.shape != image.shape:
        raise DataError(f"{path}: mask of shape {mask.shape}, expected {image.shape} as its image")
    bad = int((~np.isfinite(image)).sum()) if image.dtype.kind in "fiub" else image.size
    if bad:
        raise DataError(f"{path}: image: {bad} of {image.size} values are no finite numbers")
    return image, mask

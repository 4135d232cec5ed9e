"""End-diastole to end-systole pairs of short-axis cardiac MR (Sunnybrook Cardiac Data)."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from monai.transforms import CenterSpatialCropd

from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.preprocessing import preprocess, scale_intensity
from reg_bench.splits import SPLITS, read_split
from reg_bench.survey import Survey
from reg_bench.types import RegistrationPair

# Index of the frames in the files.
_DIASTOLE, _SYSTOLE = 0, 1


class Sunnybrook(RegistrationDataModule):
    """Cardiac cine MR of 30 patients, one 2-D pair per slice: fixed end-systole, moving end-diastole, cavity label.

    The central `size` of the 192 x 192 pictures, each scaled to 0..1 by its 99.5th percentile, axes x, y.
    The pixel size is not known: no spacing, distances are in pixels. Every split holds all slices of its
    patients.

    Args:
        root: folder with the `SC-*.npz` files and `split.csv`.
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
    """
    splits: ClassVar[str] = "18 train, 4 val, 8 test patients by split.csv, two of each diagnosis in test"

    def __init__(
        self, *, root: str | os.PathLike[str] | None = None, size: tuple[int, int] = (128, 128), **options: Any
    ) -> None:
        super().__init__(**options)
        self.root, self.size = root, tuple(size)

    def look_through(self) -> Survey:
        folder = self.root_folder()
        survey = Survey(folder)
        for split in SPLITS:
            for row in read_split(folder / "split.csv", "patient", split):
                path = folder / f"{row['patient']}.npz"
                survey.count("patients")
                if not path.is_file():
                    survey.fault(path, "is missing; split.csv names it")
                    continue
                survey.records[split] += [
                    {"case_id": f"{row['patient']}/{index:02d}", "file": str(path), "index": index}
                    for index in range(int(row["slices"]))
                ]
        return survey

    def load(self, record: Record) -> RegistrationPair:
        with np.load(str(record["file"])) as stored:
            # Stored as rows and columns, that is y, x.
            image = stored["image"][record["index"]].swapaxes(-1, -2)
            mask = stored["mask"][record["index"]].swapaxes(-1, -2)
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

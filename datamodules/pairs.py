"""Any folder of images, through a CSV of pairs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.errors import DataError
from reg_bench.io import pair_from_files
from reg_bench.pair_table import read_pair_table
from reg_bench.preprocessing import plain, scale_intensity
from reg_bench.survey import Survey
from reg_bench.types import RegistrationPair


class Pairs(RegistrationDataModule):
    """Your own images: a CSV with the columns fixed, moving and, as far as known, labels, points, mask, case_id, split.

    Columns: `fixed, moving` (required), `fixed_labels, moving_labels, fixed_points, moving_points, mask, case_id,
    split`. File names are relative to the CSV. Any format and grid that `reg_bench.io` reads; the moving image is
    resampled onto the fixed grid by the headers. Every file is checked (headers and points) before work begins
    and all faults are listed; faults of voxels fail their own case when it is loaded.

    Args:
        csv: the table.
        root: folder that a relative `csv` lies in; the current one if not given.
        native: index to index without resampling, headers ignored, as the Learn2Reg challenge scores.
        percentile: scale each image to 0..1 between its minimum and this percentile, such as 99.5; intensities
            stay as stored if not given.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        DataError: `percentile` outside 0..100.
    """

    name: ClassVar[str] = "pairs"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    source: ClassVar[str] = "your own files"
    layout: ClassVar[str] = "a CSV, given as --data csv=FILE, and the files that it names: see the columns below"
    splits: ClassVar[str] = (
        "the column split of the CSV, test where it is empty; the part of case_id before the first slash is the subject"
    )

    def __init__(
        self,
        csv: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        native: bool = False,
        percentile: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if percentile is not None and not 0 < percentile <= 100:
            raise DataError(f"{self.name}: percentile must lie in 0..100, got {percentile}")
        self.csv = os.path.abspath(csv if root is None else Path(root) / csv)
        self.root, self.native, self.percentile = root, native, percentile

    def look_through(self) -> Survey:
        path, survey = Path(self.csv), Survey()
        if not path.is_file():
            raise DataError(
                "\n  ".join([f"{self.name}: {path}: no such table of pairs; name one by csv", *self.about()])
            )
        try:
            rows, faults = read_pair_table(path)
        except DataError as error:
            survey.fault("", str(error))
            return survey
        for line, text in faults:
            survey.fault(f"{path}, line {line}", text)
        for row in rows:
            survey.count("pairs")
            where = {"case_id": row.case_id, "where": f"{path.name}, line {row.line}"}
            survey.records[row.split].append({**where, **{column: str(file) for column, file in row.files.items()}})
        return survey

    def load(self, record: Record) -> RegistrationPair:
        files = {key: value for key, value in record.items() if key not in ("case_id", "where")}
        try:
            pair = pair_from_files(case_id=str(record["case_id"]), native=self.native, **files)
        except DataError as error:
            raise DataError(f"{record['where']}: {error}") from error
        return pair if self.percentile is None else _scaled(pair, self.percentile)


def _scaled(pair: RegistrationPair, percentile: float) -> RegistrationPair:
    scaled = scale_intensity(["fixed", "moving"], upper=percentile)({"fixed": pair.fixed, "moving": pair.moving})
    return replace(pair, fixed=plain(scaled["fixed"]), moving=plain(scaled["moving"]))

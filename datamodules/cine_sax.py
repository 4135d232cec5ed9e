"""Short-axis cine MR of one animal with contours in every frame (Sunnybrook preclinical data)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.file_state import kept_while_unchanged
from reg_bench.image_series import read_4d, read_4d_header
from reg_bench.preprocessing import geometry, plane, preprocess, scale_intensity
from reg_bench.survey import Survey
from reg_bench.types import ImageSequence, RegistrationPair

_FILES = ("cine_sax.nii.gz", "lv_labels.nii.gz")
_SLICES, _PHASES = 20, 20
_SECONDS_PER_FRAME = 0.0316


class CineSax(RegistrationDataModule):
    """Short-axis cine MR of one animal, 20 phases: moving phase 0, fixed phase p, labels cavity and wall.

    Pairs are 2-D, one per slice and phase, and views of `sequence`. Intensities are scaled to 0..1 by the
    99.5th percentile of the whole slice over time, so that brightness stays comparable between phases. One
    animal: only a test split.

    Args:
        root: folder with `cine_sax.nii.gz` and `lv_labels.nii.gz`.
        slices: slices used, 0-based; the contours of 6 to 16 are good.
        phases: fixed phases; all but 0 if not given. The headline figure is of phase 11, end-systole.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: a slice or phase that does not exist.
    """

    name: ClassVar[str] = "cine-sax"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "CC0-1.0"
    folder: ClassVar[str] = "cine_sax_pig"
    source: ClassVar[str] = (
        "series E774S5 of the Sunnybrook Preclinical Simulated Cardiac EP Dataset "
        "(github.com/WrightGroupSRI/ep-dataset), converted to NIfTI"
    )
    layout: ClassVar[str] = """
        cine_sax.nii.gz    (x, y, slice, phase), 144 x 144 x 20 x 20
        lv_labels.nii.gz   the same shape: 1 cavity, 2 wall
    """
    splits: ClassVar[str] = "test only: one animal"

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        slices: tuple[int, ...] = tuple(range(6, 17)),
        phases: tuple[int, ...] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.slices = root, tuple(slices)
        self.phases = tuple(range(1, _PHASES)) if phases is None else tuple(phases)
        for label, values, lowest, end in (("slices", self.slices, 0, _SLICES), ("phases", self.phases, 1, _PHASES)):
            wrong = [v for v in values if not lowest <= v < end]
            if wrong:
                raise ConfigError(f"{self.name}: {label} must lie in {lowest}..{end - 1}, got {wrong[0]}")

    def look_through(self) -> Survey:
        survey = Survey(self.root_folder())
        assert survey.root is not None
        images, labels = (survey.root / name for name in _FILES)
        for path in (images, labels):
            self._check(survey, path)
        survey.count("slices", len(self.slices))
        survey.records["test"] = [
            {
                "case_id": f"slice{s:02d}/{p:03d}",
                "subjects": ["pig"],
                "sequence": f"slice{s:02d}",
                "images": str(images),
                "labels": str(labels),
                "slice": s,
                "phase": p,
            }
            for s in self.slices
            for p in self.phases
            if not survey.faults
        ]
        return survey

    @staticmethod
    def _check(survey: Survey, path: Path) -> None:
        """That a file is there and holds what it should, by its header."""
        try:
            grid, phases, _ = read_4d_header(path)
        except DataError as error:
            survey.fault(path, str(error).removeprefix(f"{path}: "))
            return
        if (grid.shape[2], phases) != (_SLICES, _PHASES):
            survey.fault(path, f"shape {(*grid.shape, phases)}, expected (x, y, {_SLICES}, {_PHASES})")

    def load(self, record: Record) -> RegistrationPair:
        return self.sequence(record).pair(int(record["phase"]))

    def sequence(self, record: Record) -> ImageSequence:
        """All phases of the slice of `record`, labels in every frame."""
        s = int(record["slice"])
        (frames, spacing), (labels, _) = _read(str(record["images"])), _read(str(record["labels"]))
        if frames.shape != labels.shape:
            raise DataError(f"{record['labels']}: shape {labels.shape}, expected that of its images, {frames.shape}")
        maps = np.moveaxis(labels[:, :, s], -1, 0)
        if not np.array_equal(maps, maps.astype(np.uint8)):
            raise DataError(f"{record['labels']}: labels must be whole numbers from 0; was the map interpolated?")
        # (x, y, t) is scaled as one image, so that all frames share one scale.
        scaled = preprocess({"image": frames[:, :, s]}, [scale_intensity("image")])["image"]
        spacing_mm, affine = geometry(plane(frames.shape, spacing))
        return ImageSequence(
            case_ids=(f"slice{s:02d}",),
            frames=scaled[0].permute(3, 0, 1, 2)[None].contiguous(),
            seconds_per_frame=_SECONDS_PER_FRAME,
            spacing_mm=spacing_mm,
            affine=affine,
            labels=torch.from_numpy(maps.astype(np.uint8, order="C"))[None, :, None],
            labelled_frames=tuple(range(_PHASES)),
            label_names={1: "cavity", 2: "wall"},
        )


@kept_while_unchanged(2)
def _read(path: str) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Array `(x, y, slice, phase)` and spacing in mm; kept, because every case needs the whole file."""
    array, grid, _ = read_4d(path)
    return array, grid.spacing_mm

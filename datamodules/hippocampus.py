"""Inter-subject pairs of hippocampus MR (Medical Segmentation Decathlon, Task04)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from monai.transforms import ResizeWithPadOrCropd

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import DataError
from reg_bench.io import read_image
from reg_bench.preprocessing import MatchHistogramd, cropped, geometry, preprocess, scale_intensity
from reg_bench.splits import SPLITS, read_split
from reg_bench.survey import Survey
from reg_bench.synthesis import random_generator
from reg_bench.types import RegistrationPair

# Test pairs: every subject against the next and the seventh next of the sorted names, round and round.
_STEPS = (1, 7)


class Hippocampus(RegistrationDataModule):
    """Hippocampus MR of 200 subjects, two labels; pairs of different people, centred in 48 x 64 x 48 boxes.

    Test: the sorted names, pairs (i, i + 1) and (i, i + 7) modulo their number, fixed first. Train and val:
    ordered pairs drawn with the seed from the subjects of that split only. The boxes are laid over each
    other, so both images carry the grid of the fixed one. Each image is scaled to 0..1 by its 99.5th
    percentile and, with `match`, the moving image's histogram is matched to the fixed one's.

    Args:
        root: folder with `images`, `labels` and `split.csv`.
        size: voxels of the box.
        match: match the histogram of moving to fixed.
        train_pairs, val_pairs: how many pairs are drawn.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.
    """

    name: ClassVar[str] = "hippocampus"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "CC-BY-SA-4.0"
    folder: ClassVar[str] = "hippocampus_msd"
    source: ClassVar[str] = (
        "200 of the 260 training subjects of the Medical Segmentation Decathlon, Task04_Hippocampus "
        "(medicaldecathlon.com); cite Simpson et al., arXiv:1902.09063"
    )
    layout: ClassVar[str] = """
        images/hippocampus_NNN.nii.gz   T1-weighted MR around one hippocampus, 1 mm
        labels/hippocampus_NNN.nii.gz   the same names: 1 anterior, 2 posterior
        split.csv                       columns file,split
    """
    splits: ClassVar[str] = "160 train, 20 val, 20 test subjects by split.csv; pairs are drawn within a split"

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        size: tuple[int, int, int] = (48, 64, 48),
        match: bool = True,
        train_pairs: int = 400,
        val_pairs: int = 40,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.size, self.match = root, tuple(size), match
        self.train_pairs, self.val_pairs = train_pairs, val_pairs

    def look_through(self) -> Survey:
        folder = self.root_folder()
        survey = Survey(folder)
        table = folder / "split.csv"
        try:
            listed = {split: sorted(row["file"] for row in read_split(table, "file", split)) for split in SPLITS}
        except DataError as error:
            survey.fault(table, str(error).removeprefix(f"{table}: ").removeprefix(f"{table}, "))
            return survey
        for split, files in listed.items():
            for kind, name in itertools.product(("images", "labels"), files):
                if not (folder / kind / name).is_file():
                    survey.fault(folder / kind / name, "is missing; split.csv names it")
                survey.holds(folder / kind / name, "image" if kind == "images" else "labels")
            survey.count("subjects", len(files))
            pairs = self._indices(split, len(files))
            survey.records[split] = [self._record(folder, files[i], files[j]) for i, j in pairs]
        return survey

    def _indices(self, split: Split, n: int) -> list[tuple[int, int]]:
        if split == "test":
            # Of a few subjects some pairs would come twice, or be of one subject.
            pairs = dict.fromkeys((i, (i + step) % n) for step in _STEPS for i in range(n))
            return [(i, j) for i, j in pairs if i != j]
        wanted = min(self.train_pairs if split == "train" else self.val_pairs, n * (n - 1))
        generator = random_generator(self.name, split, self.seed)
        drawn = generator.choice(n * (n - 1), size=wanted, replace=False) if wanted else []
        # Ordered pairs of different subjects, numbered row by row with the diagonal left out.
        return [(int(k) // (n - 1), (int(k) // (n - 1) + 1 + int(k) % (n - 1)) % n) for k in drawn]

    @staticmethod
    def _record(folder: Path, fixed: str, moving: str) -> Record:
        short = [f.removeprefix("hippocampus_").removesuffix(".nii.gz") for f in (fixed, moving)]
        return {
            "case_id": f"{short[0]}-{short[1]}",
            "subjects": short,
            "fixed": str(folder / "images" / fixed),
            "moving": str(folder / "images" / moving),
            "fixed_labels": str(folder / "labels" / fixed),
            "moving_labels": str(folder / "labels" / moving),
        }

    def load(self, record: Record) -> RegistrationPair:
        fixed, moving = read_image(record["fixed"]), read_image(record["moving"])
        arrays = {"fixed": fixed.array, "moving": moving.array}
        for key in ("fixed_labels", "moving_labels"):
            arrays[key] = read_image(record[key], kind="labels").array
            if arrays[key].shape != arrays[key.removesuffix("_labels")].shape:
                raise DataError(
                    f"{record[key]}: shape {arrays[key].shape}, expected that of its image, "
                    f"{arrays[key.removesuffix('_labels')].shape}"
                )
        steps: list[Callable[..., Any]] = [scale_intensity(["fixed", "moving"])]
        if self.match:
            steps.append(MatchHistogramd(["moving"], reference="fixed"))
        steps.append(ResizeWithPadOrCropd(list(arrays), spatial_size=self.size))
        tensors = preprocess(arrays, steps)
        # As MONAI does it: padding puts the smaller half in front, cropping keeps the middle about voxel n // 2.
        shape = fixed.grid.shape
        start = [-((s - n) // 2) if s >= n else n // 2 - s // 2 for s, n in zip(self.size, shape, strict=True)]
        spacing, affine = geometry(cropped(fixed.grid, start, self.size))
        return RegistrationPair(
            case_ids=(str(record["case_id"]),),
            **tensors,
            fixed_spacing_mm=spacing,
            moving_spacing_mm=spacing,
            fixed_affine=affine,
            moving_affine=affine,
            label_names={1: "anterior", 2: "posterior"},
        )

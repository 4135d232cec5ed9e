"""2-D brain slices with a known shift and a known rotation (the ITK registration examples)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import DataError
from reg_bench.io import read_image
from reg_bench.preprocessing import geometry, plane, preprocess, scale_intensity
from reg_bench.synthesis import landmarks_in, random_generator
from reg_bench.types import PointPairs, RegistrationPair

_PD, _T1 = "BrainProtonDensitySliceBorder20.png", "BrainT1SliceBorder20.png"
_SHIFTED, _ROTATED = "BrainProtonDensitySliceShifted13x17y.png", "BrainProtonDensitySliceR10X13Y17.png"
_CASES = {
    "pd-shift": (_PD, _SHIFTED),
    "pd-rotation": (_PD, _ROTATED),
    "t1-shift": (_T1, _SHIFTED),
    "t1-rotation": (_T1, _ROTATED),
}
# Maps from fixed to moving points, x right and y down in pixels of 1 mm: degrees about a centre, then a shift.
_MAPS: dict[str, tuple[float, tuple[float, float], tuple[float, float]]] = {
    _SHIFTED: (0.0, (0.0, 0.0), (13.0, 17.0)),
    _ROTATED: (10.0, (110.0, 128.0), (13.09, 15.92)),
}
# Grey levels (of 255) above which a pixel belongs to the head.
_HEAD_LEVEL = 15


class BrainSlices(RegistrationDataModule):
    """2-D brain MR slices of 1 mm with a known shift or rotation; two pairs of PD and two of T1 against PD.

    Cases: `pd-shift`, `pd-rotation` and, multi-modal with the same answers, `t1-shift`, `t1-rotation`. The
    truth of the shift is exact, that of the rotation (10 degrees about (110, 128), then (13.09, 15.92)) good
    to 0.05 pixel. Arrays are in x, y order; the mask is the head. Only a test split.

    Args:
        root: folder with the `Brain*.png` files.
        cases: which of the cases above; all if not given.
        landmarks: points per case, in the head.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        DataError: an unknown case.
    """

    name: ClassVar[str] = "brain-slices"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "Apache-2.0"
    folder: ClassVar[str] = "brain2d_itk"
    source: ClassVar[str] = (
        "the example images of the Insight Toolkit, Examples/Data "
        "(Debian package insighttoolkit5-examples 5.2.1), unmodified"
    )
    layout: ClassVar[str] = """
        BrainProtonDensitySliceBorder20.png           fixed, proton density
        BrainT1SliceBorder20.png                      fixed, T1
        BrainProtonDensitySliceShifted13x17y.png      moving, shifted by (13, 17)
        BrainProtonDensitySliceR10X13Y17.png          moving, rotated by 10 degrees and shifted
    """
    splits: ClassVar[str] = "test only"

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        cases: tuple[str, ...] = ("pd-shift", "pd-rotation", "t1-shift", "t1-rotation"),
        landmarks: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        unknown = [c for c in cases if c not in _CASES]
        if unknown:
            raise DataError(f"{self.name}: no case {unknown[0]!r}; there are {', '.join(_CASES)}")
        self.root, self.cases, self.landmarks = root, tuple(cases), landmarks

    def records(self, split: Split) -> Sequence[Record]:
        if split != "test":
            return []
        folder = self.root_folder()
        records = []
        for case in self.cases:
            fixed, moving = (folder / name for name in _CASES[case])
            for path in (fixed, moving):
                if not path.is_file():
                    raise DataError(f"{self.name}: {path} is missing")
            records.append({"case_id": case, "fixed": str(fixed), "moving": str(moving)})
        return records

    def load(self, record: Record) -> RegistrationPair:
        case = str(record["case_id"])
        images = {key: read_image(record[key]).array for key in ("fixed", "moving")}
        shape, head = images["fixed"].shape, _head(images["fixed"])
        grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1)
        u = np.moveaxis(_true_map(grid, _CASES[case][1]) - grid, -1, 0)
        inside = _lands_inside(grid + np.moveaxis(u, 0, -1), images["moving"].shape)
        mask = torch.from_numpy(head & inside)
        points = landmarks_in(mask, self.landmarks, int(random_generator(self.name, self.seed).integers(2**31)))
        moved = torch.from_numpy(_true_map(points.double().numpy(), _CASES[case][1])).float()
        spacing, affine = geometry(plane(shape, (1.0, 1.0)))
        return RegistrationPair(
            case_ids=(case,),
            **preprocess(images, [scale_intensity(["fixed", "moving"])]),
            fixed_spacing_mm=spacing,
            moving_spacing_mm=spacing,
            fixed_affine=affine,
            moving_affine=affine,
            points={"landmarks": PointPairs((points,), (moved,))},
            mask=mask[None, None],
            true_displacement=torch.from_numpy(np.ascontiguousarray(u)).float()[None],
        )


def _true_map(points: NDArray[np.float64], moving: str) -> NDArray[np.float64]:
    """Fixed points `(..., 2)` x, y carried into the moving picture."""
    degrees, centre, shift = _MAPS[moving]
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return np.asarray((points - centre) @ rotation.T + centre + np.array(shift))


def _lands_inside(places: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.asarray(((places >= 0) & (places <= np.array(shape) - 1)).all(axis=-1))


def _head(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest bright region without holes."""
    parts, count = ndimage.label(ndimage.binary_opening(image > _HEAD_LEVEL, iterations=2))
    sizes = ndimage.sum_labels(image > _HEAD_LEVEL, parts, range(1, count + 1))
    return np.asarray(ndimage.binary_fill_holes(parts == 1 + int(np.argmax(sizes))))

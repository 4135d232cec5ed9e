"""Files in, registration pairs out: the one door through which images, labels and points enter.

Images of different grids are unified on the fixed one by what the headers say; a method never has to guess.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.errors import DataError
from reg_bench.grid import Grid, grids_equal
from reg_bench.image_io import LoadedImage, PathLike, read_image, resample_to, to_sitk, write_image
from reg_bench.points_io import read_points
from reg_bench.types import PointPairs, RegistrationPair

__all__ = [
    "Grid",
    "HeaderWarning",
    "LoadedImage",
    "grid_of_pair",
    "grids_equal",
    "pair_from_files",
    "read_image",
    "read_points",
    "resample_to",
    "to_sitk",
    "write_image",
]


class HeaderWarning(UserWarning):
    """Files whose headers disagree where they should not."""


def pair_from_files(
    fixed: PathLike,
    moving: PathLike,
    *,
    fixed_labels: PathLike | None = None,
    moving_labels: PathLike | None = None,
    fixed_points: PathLike | None = None,
    moving_points: PathLike | None = None,
    mask: PathLike | None = None,
    case_id: str | None = None,
    point_set: str = "landmarks",
    native: bool = False,
    problems: list[str] | None = None,
) -> RegistrationPair:
    """A batch of one from files, on the grid of the fixed image.

    The moving image and labels are resampled onto the fixed grid by their headers (linear with the image's minimum
    outside, nearest with 0), and moving points are carried through the world into voxels of that grid.

    Args:
        fixed, moving: images (see `read_image`).
        fixed_labels, moving_labels: label maps on the grids of their images.
        fixed_points, moving_points: points (see `read_points`), row by row in correspondence.
        mask: on the grid of the fixed image, true where it is not zero.
        case_id: by default made of the file names.
        point_set: name of the set of points.
        native: index to index as the Learn2Reg challenge scores, which accepts points outside the image and maps
            without a common label: these are notes then. Nothing is resampled, the moving image keeps its
            own grid, spacing and points.
        problems: takes disagreements of headers as text; without it they are warnings.

    Raises:
        DataError: any file that is missing or unreadable, or files that do not fit together; names them.

    Warns:
        HeaderWarning: labels or mask have the shape of their image but another geometry (the image's is used), or
            with `native` the images themselves disagree.
    """
    note = _notes(problems)
    still, moved = read_image(fixed), read_image(moving)
    if still.grid.dimension != moved.grid.dimension:
        raise DataError(
            f"{moving}: a {_describe(moved)} image, expected the dimension of {fixed}, a {_describe(still)}"
        )
    grid = still.grid
    maps = _companions(still, moved, fixed_labels, moving_labels, mask, note, native)
    points = _points(still, moved, fixed_points, moving_points, note if native else None)
    on_fixed = moved
    if native:
        if not grids_equal(grid, moved.grid):
            note(f"{moving}: {moved.grid.describe()} is not the grid of {fixed}: {grid.describe()}; indices are used")
    else:
        on_fixed = _unified(still, moved)
        if maps["moving_labels"] is not None:
            maps["moving_labels"] = resample_to(maps["moving_labels"], grid, "nearest")
    known = still.spacing_known and moved.spacing_known
    return RegistrationPair(
        case_ids=(case_id or f"{_stem(fixed)}--{_stem(moving)}",),
        fixed=_tensor(still.array),
        moving=_tensor(on_fixed.array),
        fixed_spacing_mm=_row(grid.spacing_mm) if known else None,
        moving_spacing_mm=_row(on_fixed.grid.spacing_mm) if known else None,
        fixed_affine=torch.from_numpy(grid.affine_ras())[None],
        moving_affine=torch.from_numpy(on_fixed.grid.affine_ras())[None],
        fixed_labels=_tensor_of(maps["fixed_labels"]),
        moving_labels=_tensor_of(maps["moving_labels"]),
        points=None if points is None else {point_set: points},
        mask=_tensor_of(maps["mask"]),
    )


def grid_of_pair(pair: RegistrationPair) -> Grid:
    """The fixed grid of a batch of one, as files need it.

    Where the pair knows no affine its spacing is used, and 1 mm without one: voxels then stand for millimetres.

    Raises:
        ValueError: more than one case.
        DataError: a singular or sheared affine.
    """
    if pair.batch_size != 1:
        raise ValueError(f"grid_of_pair: expected a batch of one, got {pair.batch_size}")
    if pair.fixed_affine is not None:
        return Grid.from_affine(pair.fixed_affine[0].cpu().numpy(), pair.spatial_shape)
    dims = pair.dimension
    spacing = (1.0,) * dims if pair.fixed_spacing_mm is None else tuple(pair.fixed_spacing_mm[0].tolist())
    return Grid(pair.spatial_shape, spacing, (0.0,) * dims, tuple(np.eye(dims).ravel().tolist()))


def _notes(problems: list[str] | None) -> Callable[[str], None]:
    """Where disagreements of headers go."""
    if problems is not None:
        return problems.append
    return lambda text: warnings.warn(text, HeaderWarning, stacklevel=4)


def _describe(image: LoadedImage) -> str:
    return f"{image.grid.dimension}-D {image.grid.shape}"


def _stem(path: PathLike) -> str:
    name = Path(path).name
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else Path(name).stem


def _row(values: tuple[float, ...]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def _tensor(array: NDArray[Any]) -> Tensor:
    """An array in index order as `(1, 1, *S)`."""
    return torch.from_numpy(np.ascontiguousarray(array))[None, None]


def _tensor_of(image: LoadedImage | None) -> Tensor | None:
    return None if image is None else _tensor(image.array)


def _unified(still: LoadedImage, moved: LoadedImage) -> LoadedImage:
    """The moving image on the fixed grid."""
    image = resample_to(moved, still.grid, "linear")
    if image.array.min() == image.array.max():
        raise DataError(
            f"{moved.path}: does not overlap with {still.path} in space: {moved.grid.describe()} against "
            f"{still.grid.describe()}; expected headers in one coordinate system"
        )
    return image


def _companions(
    still: LoadedImage,
    moved: LoadedImage,
    fixed_labels: PathLike | None,
    moving_labels: PathLike | None,
    mask: PathLike | None,
    note: Callable[[str], None],
    native: bool,
) -> dict[str, LoadedImage | None]:
    """Label maps and mask, each on the grid of its image."""
    maps: dict[str, LoadedImage | None] = {
        "fixed_labels": None if fixed_labels is None else read_image(fixed_labels, kind="labels"),
        "moving_labels": None if moving_labels is None else read_image(moving_labels, kind="labels"),
        "mask": None if mask is None else read_image(mask, kind="mask"),
    }
    for name, companion in maps.items():
        if companion is not None:
            maps[name] = _on_grid_of(moved if name == "moving_labels" else still, companion, note)
    a, b = maps["fixed_labels"], maps["moving_labels"]
    if a is not None and b is not None:
        here, there = (set(np.unique(m.array).tolist()) - {0} for m in (a, b))
        if not here & there:
            text = (
                f"{b.path}: holds the labels {sorted(there)[:10]} and {a.path} the labels {sorted(here)[:10]}; "
                "expected at least one in common"
            )
            if not native:
                raise DataError(text)
            note(text)
    return maps


def _on_grid_of(image: LoadedImage, companion: LoadedImage, note: Callable[[str], None]) -> LoadedImage:
    """A label map or mask, voxel by voxel on the grid of its image."""
    if companion.grid.shape != image.grid.shape:
        raise DataError(
            f"{companion.path}: shape {companion.grid.shape}, expected {image.grid.shape} as its image {image.path}"
        )
    if not grids_equal(companion.grid, image.grid) and image.spacing_known and companion.spacing_known:
        note(
            f"{companion.path}: the header disagrees with that of its image {image.path}, whose geometry is used: "
            f"{companion.grid.describe()} against {image.grid.describe()}"
        )
    return replace(companion, grid=image.grid)


def _points(
    still: LoadedImage,
    moved: LoadedImage,
    fixed_points: PathLike | None,
    moving_points: PathLike | None,
    native: Callable[[str], None] | None,
) -> PointPairs | None:
    """Corresponding points in voxels of the grids that the pair will have; `native` is told of oddities."""
    if fixed_points is None and moving_points is None:
        return None
    if fixed_points is None or moving_points is None:
        given = moving_points if fixed_points is None else fixed_points
        raise DataError(f"{given}: points of one image only; expected fixed and moving points")
    here = read_points(fixed_points, still.grid, note=native)
    there = read_points(moving_points, moved.grid, note=native)
    if len(here) != len(there):
        raise DataError(
            f"{moving_points}: {len(there)} points, expected {len(here)} as in {fixed_points}: row n of one "
            "corresponds to row n of the other"
        )
    if native is None:
        there = still.grid.to_voxels(moved.grid.to_world(there))
    return PointPairs((torch.from_numpy(here),), (torch.from_numpy(there),))

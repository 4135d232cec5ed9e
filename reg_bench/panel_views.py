"""Upright pictures of a registered pair: what `panels` draws, as arrays `(rows, columns)`.

A 2-D image shows its first axis to the right and its second downwards. A 3-D one is cut in up to three planes,
in world directions where the affine is known: right is right, anterior is up in axial planes, superior is up in
coronal and sagittal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench import field as _field
from reg_bench.types import DisplacementField, RegistrationPair

Picture = NDArray[np.float32]
Labels = NDArray[np.int64]

#: Percentiles that map to black and white, each image by its own: intensities need not be comparable.
WINDOW = (0.5, 99.5)
#: A plane thinner than this in one direction shows nothing.
THINNEST = 8
_SAMPLES = 200_000


@dataclass(frozen=True)
class View:
    """One plane of a pair and its field.

    Attributes:
        name: `axial` and so on, empty in 2-D.
        pixel: height and width of a pixel of the fixed grid, in mm where the spacing is known.
        moving_pixel: the same of the moving grid.
        sides: letters of the left and right edge of the picture, empty where unknown.
        fixed, moving, warped: grey values, 0..1 within the window of their image.
        before, after: fixed minus moving, fixed minus warped, of the windowed values; `before` is None where
            the grids differ.
        positions: `(2, rows, columns)`, row and column in the moving picture of `x + u(x)`.
        magnitude: length of `u` in all its components, in mm where the spacing is known, else voxels.
        jacobian: determinant of the whole field, 3-D in a 3-D pair.
        fixed_labels, moving_labels, warped_labels: integer maps where there are any.
    """

    name: str
    pixel: tuple[float, float]
    moving_pixel: tuple[float, float]
    sides: tuple[str, str]
    fixed: Picture
    moving: Picture
    warped: Picture
    before: Picture | None
    after: Picture
    positions: Picture
    magnitude: Picture
    jacobian: Picture
    fixed_labels: Labels | None = None
    moving_labels: Labels | None = None
    warped_labels: Labels | None = None


@dataclass(frozen=True)
class _Plane:
    """Array axes of a picture's rows and columns, which of them run backwards, and the slice of the third."""

    name: str
    row: int
    column: int
    flip_row: bool
    flip_column: bool
    normal: int | None
    index: int
    sides: tuple[str, str]


def views(pair: RegistrationPair, field: DisplacementField) -> list[View]:
    """The planes to draw of the first case of `pair`: one in 2-D, up to three in 3-D.

    A 3-D case is cut where its labels are large, else through the middle of its mask, else in the middle.
    """
    with torch.no_grad():
        pair, u = pair[0], field.u[:1].detach().float()
        low_high = window(pair.fixed[0, 0]), window(pair.moving[0, 0])
        return [_view(pair, u, plane, low_high) for plane in _planes(pair)]


def window(image: Tensor) -> tuple[float, float]:
    """The grey values that show as black and white; never equal."""
    step = max(1, image.numel() // _SAMPLES)
    values = image.reshape(-1)[::step].float().cpu().numpy()
    low, high = (float(v) for v in np.percentile(values, WINDOW))
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1.0


def _planes(pair: RegistrationPair) -> list[_Plane]:
    if pair.dimension == 2:
        return [_Plane("", 1, 0, False, False, None, 0, ("", ""))]
    axes, signs, known = _orientation(pair)
    right, anterior, superior = axes
    letters = ("L", "R") if known else ("", "")
    profile = ("P", "A") if known else ("", "")
    back = [sign < 0 for sign in signs]
    # Rows run downwards: upright means that they run against anterior and superior.
    up_anterior, up_superior = not back[1] if known else False, not back[2]
    made = [
        _Plane("axial", anterior, right, up_anterior, back[0], superior, 0, letters),
        _Plane("coronal", superior, right, up_superior, back[0], anterior, 0, letters),
        _Plane("sagittal", superior, anterior, up_superior, back[1], right, 0, profile),
    ]
    shape = pair.spatial_shape
    thick = [p for p in made if min(shape[p.row], shape[p.column]) >= THINNEST] or [
        max(made, key=lambda p: shape[p.row] * shape[p.column])
    ]
    return [_Plane(**{**vars(p), "index": _best_slice(pair, int(p.normal or 0))}) for p in thick]


def _orientation(pair: RegistrationPair) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Array axes that run most along right, anterior and superior, and their signs; whether that is known."""
    if pair.fixed_affine is None:
        return (0, 1, 2), (1, 1, 1), False
    directions = pair.fixed_affine[0, :3, :3].double().cpu().numpy()
    cosines = directions / np.maximum(np.linalg.norm(directions, axis=0), 1e-12)
    axes, signs = [-1, -1, -1], [1, 1, 1]
    for _ in range(3):
        world, axis = np.unravel_index(int(np.abs(cosines).argmax()), (3, 3))
        axes[world], signs[world] = int(axis), 1 if cosines[world, axis] >= 0 else -1
        cosines[world], cosines[:, axis] = 0.0, 0.0
    if sorted(axes) != [0, 1, 2]:
        return (0, 1, 2), (1, 1, 1), False
    return tuple(axes), tuple(signs), True


def _best_slice(pair: RegistrationPair, normal: int) -> int:
    if pair.fixed_labels is not None:
        area = _areas(pair.fixed_labels[0, 0], normal)
        # The most central of the large slices: the largest itself is often at the end of a structure.
        large = torch.nonzero(area >= 0.7 * area.max()).flatten()
        if int(area.max()) > 0:
            return int(large[len(large) // 2])
    if pair.mask is not None:
        area = _areas(pair.mask[0, 0], normal).cumsum(0)
        if int(area[-1]) > 0:
            return int(torch.searchsorted(area, area[-1:] // 2)[0])
    return pair.spatial_shape[normal] // 2


def _areas(volume: Tensor, normal: int) -> Tensor:
    """Foreground per slice along `normal`, counted on every few voxels of large slices: `(n,)`."""
    others = [axis for axis in range(3) if axis != normal]
    coarse = tuple(slice(None, None, 1 if a == normal else max(1, n // 64)) for a, n in enumerate(volume.shape))
    area = (volume[coarse] != 0).sum(dim=others)
    return area if int(area.max()) > 0 else (volume != 0).sum(dim=others)


def _cut(volume: Tensor, plane: _Plane, index: int) -> NDArray[np.float32]:
    """The slice of `volume (*S)` as an upright picture."""
    flat = volume if plane.normal is None else volume.select(plane.normal, index)
    return _upright(flat.cpu().numpy(), plane)


def _upright(flat: NDArray[np.float32], plane: _Plane) -> NDArray[np.float32]:
    """A slice with its axes in array order as rows and columns."""
    picture = flat if plane.row < plane.column else flat.T
    return np.ascontiguousarray(picture[:: -1 if plane.flip_row else 1, :: -1 if plane.flip_column else 1])


def _view(
    pair: RegistrationPair, u: Tensor, plane: _Plane, windows: tuple[tuple[float, float], tuple[float, float]]
) -> View:
    shape, moving_shape = pair.spatial_shape, tuple(pair.moving.shape[2:])
    vectors = u[0] if plane.normal is None else u[0].select(plane.normal + 1, plane.index)
    points = _plane_points(shape, plane).to(u) + vectors
    flat = points.reshape(len(shape), -1).T[None]
    index = plane.index
    if plane.normal is not None:
        index = min(index, moving_shape[plane.normal] - 1)
    fixed = _grey(_cut(pair.fixed[0, 0], plane, plane.index), windows[0])
    moving = _grey(_cut(pair.moving[0, 0], plane, index), windows[1])
    sampled = _field.sample(pair.moving[:1, :1].float(), flat)[0, :, 0].reshape(points.shape[1:])
    warped = _grey(_upright(sampled.cpu().numpy(), plane), windows[1])
    lengths = pair.fixed_spacing_mm[0].to(u) if pair.fixed_spacing_mm is not None else torch.ones(len(shape)).to(u)
    magnitude = (vectors * lengths.reshape(-1, *(1,) * (vectors.ndim - 1))).square().sum(dim=0).sqrt()
    labels = _labels(pair, plane, index, flat, points.shape[1:])
    return View(
        name=plane.name,
        pixel=_pixel(pair.fixed_spacing_mm, plane),
        moving_pixel=_pixel(pair.moving_spacing_mm, plane),
        sides=plane.sides,
        fixed=fixed,
        moving=moving,
        warped=warped,
        before=fixed - moving if fixed.shape == moving.shape else None,
        after=fixed - warped,
        positions=_positions(points, plane, moving_shape),
        magnitude=_upright(magnitude.cpu().numpy(), plane),
        jacobian=_jacobian(u, plane),
        fixed_labels=labels[0],
        moving_labels=labels[1],
        warped_labels=labels[2],
    )


def _grey(picture: NDArray[np.float32], low_high: tuple[float, float]) -> Picture:
    low, high = low_high
    return np.clip((picture.astype(np.float32) - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _pixel(spacing_mm: Tensor | None, plane: _Plane) -> tuple[float, float]:
    if spacing_mm is None:
        return (1.0, 1.0)
    return float(spacing_mm[0, plane.row]), float(spacing_mm[0, plane.column])


def _plane_points(shape: tuple[int, ...], plane: _Plane) -> Tensor:
    """Voxel coordinates `(D, a, b)` of the plane, its axes in array order."""
    ranges = [
        torch.tensor([float(plane.index)]) if axis == plane.normal else torch.arange(n, dtype=torch.float32)
        for axis, n in enumerate(shape)
    ]
    grid = torch.stack(torch.meshgrid(*ranges, indexing="ij"))
    return grid if plane.normal is None else grid.select(plane.normal + 1, 0)


def _positions(points: Tensor, plane: _Plane, moving_shape: tuple[int, ...]) -> Picture:
    """Row and column of `points (D, a, b)` in the upright moving picture."""
    pictures = []
    for axis, flip in ((plane.row, plane.flip_row), (plane.column, plane.flip_column)):
        value = points[axis] if not flip else moving_shape[axis] - 1 - points[axis]
        pictures.append(_upright(value.cpu().numpy(), plane))
    return np.stack(pictures)


def _jacobian(u: Tensor, plane: _Plane) -> Picture:
    """The determinant on the plane, from the slices beside it."""
    if plane.normal is None:
        return _upright(_field.jacobian_determinant(u)[0, 0].cpu().numpy(), plane)
    start = max(0, plane.index - 1)
    stop = min(u.shape[plane.normal + 2], plane.index + 2)
    slab = u.narrow(plane.normal + 2, start, stop - start)
    determinant = _field.jacobian_determinant(slab)[0, 0]
    return _upright(determinant.select(plane.normal, plane.index - start).cpu().numpy(), plane)


def _labels(
    pair: RegistrationPair, plane: _Plane, index: int, flat: Tensor, shape: torch.Size
) -> tuple[Labels | None, Labels | None, Labels | None]:
    fixed = moving = warped = None
    if pair.fixed_labels is not None:
        fixed = _cut(pair.fixed_labels[0, 0], plane, plane.index).astype(np.int64)
    if pair.moving_labels is not None:
        moving = _cut(pair.moving_labels[0, 0], plane, index).astype(np.int64)
        values = _field.sample(pair.moving_labels[:1], flat, mode="nearest", padding="zeros")[0, :, 0]
        warped = _upright(values.reshape(shape).cpu().numpy(), plane).astype(np.int64)
    return fixed, moving, warped

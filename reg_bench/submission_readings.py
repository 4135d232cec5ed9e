"""Whether a field fits its images, and if not, which other reading of its numbers does.

The fixed image is compared with the moving image at `x + u(x)`, at some ten thousand voxels, for the field as it is,
for no motion, and for the readings that people mean by mistake: negated, doubled, in millimetres, normalised, with
components in another order, positions in place of displacements.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from reg_bench.submission_fault import KINDS

Floats = NDArray[np.float64]

_POINTS = 60_000
#: A field of less motion than this everywhere says nothing, in voxels.
_STILL = 0.02
#: By how much of the mismatch of the unwarped image another reading has to be better to be believed.
_BETTER = 0.1
#: Or it leaves less than this share of the mismatch of the field as it is, and is better by the smaller share.
_FRACTION, _BETTER_BY_FRACTION = 0.6, 0.03
#: By how much a warped image may match worse than the unwarped one.
_WORSE = 0.02
_BINS = 32


@dataclass(frozen=True)
class Verdict:
    """What the images say of a field.

    Attributes:
        kind: of the fault, a key of `KINDS`; empty: it fits; `still`: nothing moves.
        before, after: mismatch without motion and with the field as it is; 0 is a perfect match.
        other: mismatch with the reading that fits better.
        doubt: a reading that fits better, though a weak registration would look the same.
    """

    kind: str
    before: float
    after: float
    other: float | None = None
    doubt: str = ""


def readings(u: Floats, points: Floats, shape: tuple[int, ...], spacing_mm: Floats) -> Mapping[str, Floats]:
    """Displacements in voxels `(D, N)` at `points` `(D, N)` under every reading of the numbers `u` `(D, N)`."""
    size = np.asarray(shape, float)[:, None]
    spacing = spacing_mm[:, None]
    half = (size - 1) / 2
    found = {"negated": -u, "doubled": u / 2, "halved": u * 2}
    if not np.allclose(spacing, 1, atol=0.02):
        found["millimetres"] = u / spacing
    # As grid_sample counts: -1 to 1 over the image, the last axis first.
    found["normalised"] = u * half
    found["normalised, axes reversed"] = u[::-1] * half
    found["positions"] = u - points
    found["normalised positions"] = (u + 1) * half - points
    found["normalised positions, axes reversed"] = (u[::-1] + 1) * half - points
    for order in itertools.permutations(range(len(shape))):
        if list(order) != sorted(order):
            found["components " + "".join("xyz"[i] for i in order)] = u[list(order)]
    return found


def judge(
    fixed: NDArray[np.floating],
    moving: NDArray[np.floating],
    stored: NDArray[np.floating],
    spacing_mm: Floats,
    *,
    same_contrast: bool,
) -> Verdict:
    """What the images say of a field.

    Args:
        fixed, moving: `(*S)` of equal axes count; intensities as stored.
        stored: `(D, *S')` on the fixed grid or a coarser one with aligned end points; values as stored.
        spacing_mm: `(D,)` of the fixed grid.
        same_contrast: compare by correlation; else by mutual information.
    """
    points = _points(fixed.shape)
    u = _at(stored, points, fixed.shape)
    values = fixed[tuple(points.astype(np.intp))].astype(np.float64)
    compare = _uncorrelated if same_contrast else _uninformed

    def mismatch(displacement: Floats) -> float:
        position = np.clip(points + displacement, 0, np.asarray(moving.shape, float)[:, None] - 1)
        return compare(values, map_coordinates(moving, position, np.float64, order=1, mode="nearest"))

    before = mismatch(np.zeros_like(u))
    if np.abs(u).max(initial=0) < _STILL and not _normalised(u, points, fixed.shape, mismatch, before):
        return Verdict("still", before, before)
    after = mismatch(u)
    others = {name: mismatch(other) for name, other in readings(u, points, fixed.shape, spacing_mm).items()}
    best = min(others, key=lambda name: others[name])
    scale = max(before, 1e-12)
    least = others[best]
    believed = least < min(after, before) - _BETTER * scale or (
        least < _FRACTION * after and least < min(after, before) - _BETTER_BY_FRACTION * scale
    )
    enlarges = best == "halved" or (best == "millimetres" and float(np.mean(spacing_mm)) < 1)
    if believed and not enlarges:
        kind = next(k for k in KINDS if best.startswith(k))
        return Verdict(kind, before, after, others[best])
    if after > before + _WORSE * scale:
        return Verdict("worse", before, after)
    return Verdict("", before, after, doubt=best if believed else "")


def _normalised(u: Floats, points: Floats, shape: tuple[int, ...], mismatch: object, before: float) -> bool:
    """Whether tiny values make sense as normalised coordinates."""
    assert callable(mismatch)
    half = (np.asarray(shape, float)[:, None] - 1) / 2
    return bool(min(mismatch(u * half), mismatch(u[::-1] * half)) < before * (1 - _BETTER))


def _points(shape: tuple[int, ...]) -> Floats:
    """A regular choice of voxels `(D, N)`, away from the faces."""
    stride = max(1, int(np.ceil((np.prod(shape) / _POINTS) ** (1 / len(shape)))))
    axes = [np.arange(min(1, n - 1), max(2, n - 1), stride, dtype=float) for n in shape]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])


def _at(stored: NDArray[np.floating], points: Floats, shape: tuple[int, ...]) -> Floats:
    if stored.shape[1:] == shape:
        return np.asarray(stored[(slice(None), *points.astype(np.intp))], np.float64)
    ratio = [(m - 1) / max(n - 1, 1) for m, n in zip(stored.shape[1:], shape, strict=True)]
    where = points * np.asarray(ratio)[:, None]
    return np.stack([map_coordinates(c.astype(np.float32), where, np.float64, order=1, mode="nearest") for c in stored])


def _uncorrelated(a: Floats, b: Floats) -> float:
    """One minus the correlation coefficient; 1 where an image is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return 1 - float((a * b).sum()) / norm if norm > 0 else 1.0


def _uninformed(a: Floats, b: Floats) -> float:
    """One minus the mutual information, as a share of what the fixed image could give."""
    joint = np.histogram2d(_ranked(a), _ranked(b), _BINS)[0] / len(a)
    rows, columns = joint.sum(1), joint.sum(0)
    outer = np.outer(rows, columns)
    inside = joint > 0
    information = float((joint[inside] * np.log(joint[inside] / outer[inside])).sum())
    entropy = -float((rows[rows > 0] * np.log(rows[rows > 0])).sum())
    return 1 - information / entropy if entropy > 0 else 1.0


def _ranked(values: Floats) -> Floats:
    """Intensities between the 1st and the 99th percentile: a few bright voxels would take all the bins."""
    low, high = np.quantile(values, (0.01, 0.99))
    return np.clip(values, low, high)

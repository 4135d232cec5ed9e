"""Whether a method is as sure as it may be: what its intervals of contour positions cover, and how wide they are.

A point of the contour of a frame is taken back to the reference by the field; where it lands has a standard deviation,
and so has its distance across the contour of the reference there. Of a calibrated method half of the contour lies
within the interval that is said to hold 50 %, and 95 % of it within that of 95 %; narrower intervals that do so are
better (Gneiting et al., "Probabilistic forecasts, calibration and sharpness", 2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from reg_bench.field import sample
from reg_bench.latent_courses import INTERVALS
from reg_bench.results import value_entry
from reg_bench.streaming import Step
from reg_bench.types import ImageSequence

Array = NDArray[np.float64]

#: Of the signed distance from which normals are taken, pixels: outlines of pixels have corners.
_NORMAL_SIGMA = 1.0


@dataclass(frozen=True)
class _Contour:
    """Points `(N, D)` of the outline of a label in a frame, in voxels."""

    frame: int
    label: int
    points: Tensor


def calibration_values(sequence: ImageSequence, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Values of the contours of all labels together, over the frames that carry labels, in voxels.

    * `contour_error`: mean distance across the contour between where its points are and where they are thought to be;
      of every frame.
    * where the method says how sure it is: `coverage_50` and `coverage_95`, shares of the points whose distance lies
      within the interval of that probability, and `contour_std`, the mean standard deviation of that distance. Without
      a horizon of the estimates themselves, with one of forecasts.

    The distance is between the true and the estimated place in the reference, along the normal of the contour there;
    where no true displacement is known, it is that of the estimated place from the contour of the reference.
    Sequences without labels have none of these.
    """
    if sequence.labels is None or sequence.labels_of(sequence.reference) is None:
        return []
    contours, made = _Contours(sequence), []
    spread: dict[int, list[tuple[Array, Array]]] = {}
    for number, step in enumerate(steps):
        errors = [contours.error(c, step.field.u.cpu())[0] for c in contours.of(step.frame)]
        if errors:
            mean = float(np.abs(np.concatenate(errors)).mean())
            made.append(value_entry("contour_error", mean, "voxel", frame=step.frame))
        for ahead, said in step.spread.items():
            if number + ahead < len(steps):
                found = [contours.error(c, said.u, said.std) for c in contours.of(steps[number + ahead].frame)]
                spread.setdefault(ahead, []).extend(found)
    for ahead, pairs in sorted(spread.items()):
        if not pairs:
            continue
        error, std = (np.concatenate(part) for part in zip(*pairs, strict=True))
        horizon_s = round(ahead * sequence.seconds_per_frame, 6) if ahead else None
        for name, width in INTERVALS.items():
            share = float((np.abs(error) <= width * std).mean())
            made.append(value_entry(f"coverage_{name}", share, "1", horizon_s=horizon_s))
        made.append(value_entry("contour_std", float(std.mean()), "voxel", horizon_s=horizon_s))
    return made


class _Contours:
    """The outlines of the labels of a sequence, and distances across those of the reference."""

    def __init__(self, sequence: ImageSequence) -> None:
        self.sequence = sequence
        reference = sequence.labels_of(sequence.reference)
        assert reference is not None
        labels = reference[0, 0].cpu().numpy()
        self._distances, self._normals = {}, {}
        for label in (int(k) for k in np.unique(labels) if k):
            distance = signed_distance(labels == label)
            smooth = ndimage.gaussian_filter(distance, _NORMAL_SIGMA)
            self._distances[label] = torch.from_numpy(distance)[None, None]
            self._normals[label] = torch.from_numpy(np.stack(np.gradient(smooth)))[None]
        self._known: dict[int, list[_Contour]] = {}

    def of(self, frame: int) -> list[_Contour]:
        """The outlines in `frame`; none where it carries no labels."""
        if frame not in self._known:
            self._known[frame] = list(self._outlines(frame))
        return self._known[frame]

    def _outlines(self, frame: int) -> Iterator[_Contour]:
        labels = self.sequence.labels_of(frame)
        if labels is None:
            return
        for label in self._distances:
            points = outline(labels[0, 0].cpu().numpy() == label)
            if len(points):
                yield _Contour(frame, label, torch.from_numpy(points))

    def error(self, contour: _Contour, u: Tensor, std: Tensor | None = None) -> tuple[Array, Array]:
        """Signed distances across the contour `(N,)`, and their standard deviations, 0 if `std` is not given."""
        points, truth = contour.points[None], self.sequence.true_displacement
        landed = points + sample(u.double(), points)
        place = landed
        if truth is not None:
            place = points + sample(truth[:, contour.frame].cpu().double(), points)
        normal = sample(self._normals[contour.label], place)[0]
        normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-6)
        if truth is None:
            distance = sample(self._distances[contour.label], landed)[0, :, 0]
        else:
            distance = ((landed - place)[0] * normal).sum(dim=1)
        if std is None:
            return distance.numpy(), np.zeros(len(distance))
        across = (sample(std.double(), points)[0] * normal).square().sum(dim=1).sqrt()
        return distance.numpy(), across.numpy()


def signed_distance(mask: NDArray[np.bool_]) -> Array:
    """Voxels to the outline of `mask`, positive inside; it runs half way between the centres of neighbours."""
    inside, outside = (ndimage.distance_transform_edt(m) for m in (mask, ~mask))
    return np.asarray(np.where(mask, inside - 0.5, 0.5 - outside))


def outline(mask: NDArray[np.bool_]) -> Array:
    """Points `(N, D)` half way between the centres of neighbours of which one alone is in `mask`."""
    found = []
    for axis in range(mask.ndim):
        before, after = (np.delete(mask, end, axis=axis) for end in (-1, 0))
        place = np.argwhere(before != after).astype(np.float64)
        place[:, axis] += 0.5
        found.append(place)
    return np.concatenate(found)

"""Points on the surfaces of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Points = NDArray[np.float64]


def surface_points(
    labels: Tensor, edges: Sequence[float] | Tensor | None = None, most: int | None = None
) -> dict[int, Points]:
    """The surface of every label of one map, as the middles of the voxel faces between inside and outside.

    Unlike the voxels at the rim, which lie half a voxel inside, faces are not biased in size. Where a label touches
    the border of the image it is cut off: no surface is seen there and none is returned.

    Args:
        labels: integer map `(*S)` of one case; 0 is background.
        edges: `(D,)` lengths of the voxel edges; without them points are in voxels. Voxel 0 lies at the origin.
        most: points per label; of more, evenly spaced ones in the order of the grid are kept.

    Returns:
        `(N, D)` points for every label that stands in the map and has a surface, labels ascending.

    Raises:
        ValueError: no integer map of 2 or 3 axes, edges that do not fit, or `most` below 1.
    """
    if labels.is_floating_point() or labels.ndim not in (2, 3):
        raise ValueError(
            f"surface_points: labels must be an integer map of 2 or 3 axes, got {labels.dtype} {tuple(labels.shape)}"
        )
    values = labels.detach().cpu().numpy().astype(np.int64)
    scale = np.ones(values.ndim) if edges is None else np.asarray(torch.as_tensor(edges).cpu(), dtype=np.float64)
    if scale.shape != (values.ndim,) or not (scale > 0).all():
        raise ValueError(f"surface_points: edges must be {values.ndim} positive lengths, got {scale.tolist()}")
    if most is not None and most < 1:
        raise ValueError(f"surface_points: most must be at least 1, got {most}")
    codes, places = _faces(values)
    found = {}
    for label in np.unique(codes[codes != 0]).tolist():
        points = places[codes == label]
        if most is not None and len(points) > most:
            points = points[np.linspace(0, len(points) - 1, most).round().astype(int)]
        found[int(label)] = points * scale
    return found


def _faces(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], Points]:
    """Label and middle of every face between two labels; a face counts for both."""
    codes, places = [], []
    for axis in range(values.ndim):
        low, high = (np.delete(values, end, axis) for end in (-1, 0))
        index = np.argwhere(low != high)
        where = index.astype(np.float64)
        where[:, axis] += 0.5
        for side in (low, high):
            codes.append(side[tuple(index.T)])
            places.append(where)
    return np.concatenate(codes), np.concatenate(places)

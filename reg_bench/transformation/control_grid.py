"""Regular control grids over the extent of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.transformation.base import Domain


def intervals(domain: Domain, spacing: float, unit: str) -> list[tuple[int, ...]]:
    """Into how many intervals each axis of each case is divided: about `spacing` long, and a whole number of them.

    First and last control point lie on the first and last voxel, so that grids on the levels of a pyramid nest. An
    axis of length 1 has none.

    Args:
        domain: the image grid.
        spacing: distance of neighbouring control points.
        unit: `voxel` or `mm`.
    """
    if not spacing > 0:
        raise ValueError(f"spacing of control points must be positive, got {spacing}")
    voxels = domain.voxels_of(spacing, unit).to(torch.float64).tolist()
    return [
        tuple(max(1, round((n - 1) / s)) if n > 1 else 0 for n, s in zip(domain.shape, case, strict=True))
        for case in voxels
    ]


def common_intervals(domain: Domain, spacing: float, unit: str) -> tuple[int, ...]:
    """`intervals` of all cases.

    Raises:
        ValueError: they differ between the cases of the batch.
    """
    found = set(intervals(domain, spacing, unit))
    if len(found) > 1:
        raise ValueError(
            f"the cases of a batch need the same control grid, got {sorted(found)} intervals of {spacing:g} {unit}: "
            "use batches of one"
        )
    return found.pop()


def grid_fractions(counts: tuple[int, ...]) -> Tensor:
    """The points of a grid with `counts` intervals as fractions of the extent, `(N, D)` float64."""
    axes = [torch.linspace(0, 1, m + 1, dtype=torch.float64) if m else torch.zeros(1).double() for m in counts]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(counts))

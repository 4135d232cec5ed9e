"""Target registration error: distance between corresponding points after registration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench import field as fields
from reg_bench.gather import linear_at
from reg_bench.metrics.arrays import one_field, scale_of
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.cubic import cubic_at
from reg_bench.types import DisplacementField


def tre(
    field: DisplacementField | Tensor,
    fixed_points: Any,
    moving_points: Any,
    spacing_mm: Any = None,
    interpolation: Literal["linear", "cubic"] = "linear",
) -> NDArray[np.float64]:
    """Distance from `x + u(x)` to the moving point, for every fixed point `x`.

    Args:
        field: `(1, D, *S)` voxels.
        fixed_points, moving_points: `(N, D)` or `(1, N, D)` voxels, never rounded.
        spacing_mm: of the **moving** grid, on which both ends of the error lie; in voxels without it.
        interpolation: of the field at the points; `cubic` is Learn2Reg's B-spline, with a zero displacement
            outside the grid (`linear` repeats the border).

    Returns:
        `(N,)` distances.

    Raises:
        ValueError: shapes that do not fit, or an unknown interpolation.
    """
    u = one_field("tre", field)
    dims = u.shape[0]
    fixed, moving = _points("tre", fixed_points, dims), _points("tre", moving_points, dims)
    if len(fixed) != len(moving):
        raise ValueError(f"tre: {len(fixed)} fixed points but {len(moving)} moving points")
    if interpolation == "linear":
        displacement = _linear(u, fixed)
    elif interpolation == "cubic":
        displacement = cubic_at(u.numpy(), fixed)
    else:
        raise ValueError(f"tre: interpolation must be 'linear' or 'cubic', got {interpolation!r}")
    error: NDArray[np.float64] = fixed + displacement - moving
    if spacing_mm is not None:
        error *= scale_of("tre", spacing_mm, dims).numpy()
    return np.sqrt((error * error).sum(axis=1))


def _linear(u: Tensor, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(N, D)` displacements; straight to NumPy where it can: 100 points cost more to hand over than to compute."""
    if u.dtype in (torch.float32, torch.float64) and u.is_contiguous() and not np.isnan(points.sum()):
        return linear_at(u.numpy(), points).T
    return fields.sample(u[None], torch.from_numpy(points)[None])[0].to(torch.float64).numpy()


def _points(name: str, points: Any, dims: int) -> NDArray[np.float64]:
    array = np.asarray(points.detach().cpu() if isinstance(points, Tensor) else points, dtype=np.float64)
    array = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if array.ndim != 2 or array.shape[1] != dims:
        raise ValueError(f"{name}: points must be (N, {dims}) voxels, got shape {tuple(array.shape)}")
    return array


class TargetRegistrationError(Metric):
    """Distance of corresponding points after registration, one metric `tre_<set>` per set of points.

    The case value is the mean over points. `strict`: linear interpolation of the field, spacing of the moving
    grid. `learn2reg`: cubic B-splines, zero displacement for points outside the grid, spacing of the moving image
    (2022 and later) or of the fixed one (2020). An empty set is null.
    """

    name: ClassVar[str] = "tre"
    units: ClassVar[Mapping[str, str]] = {"learn2reg": "mm", "strict": "mm"}
    better: ClassVar[Better] = "lower"
    needs: ClassVar[tuple[str, ...]] = ("points",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        spacing = context.tre_spacing_mm(profile)
        found: list[MetricValue] = []
        for set_name, pairs in (context.pair.points or {}).items():
            errors = tre(
                context.u,
                pairs.fixed[0],
                pairs.moving[0],
                spacing,
                "linear" if profile == "strict" else "cubic",
            )
            mean = float(errors.mean()) if len(errors) else None
            labelled = [*((str(i), float(e)) for i, e in enumerate(errors)), (ALL, mean)]
            found += self.values(profile, labelled, "voxel" if spacing is None else "mm", f"tre_{set_name}")
        return found

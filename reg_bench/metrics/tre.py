"""Target registration error: distance between corresponding points after registration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench import field as fields
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
    fixed, moving = (_points("tre", p, u.shape[0]) for p in (fixed_points, moving_points))
    if fixed.shape != moving.shape:
        raise ValueError(f"tre: {len(fixed)} fixed points but {len(moving)} moving points")
    scale = scale_of("tre", spacing_mm, u.shape[0])
    if interpolation == "linear":
        displacement = fields.sample(u[None], fixed[None])[0].to(torch.float64)
    elif interpolation == "cubic":
        displacement = torch.from_numpy(cubic_at(u.numpy(), fixed.numpy()))
    else:
        raise ValueError(f"tre: interpolation must be 'linear' or 'cubic', got {interpolation!r}")
    error: NDArray[np.float64] = ((fixed + displacement - moving) * scale).norm(dim=1).numpy()
    return error


def _points(name: str, points: Any, dims: int) -> Tensor:
    tensor = torch.as_tensor(points, dtype=torch.float64).detach().cpu()
    tensor = tensor[0] if tensor.ndim == 3 and tensor.shape[0] == 1 else tensor
    if tensor.ndim != 2 or tensor.shape[1] != dims:
        raise ValueError(f"{name}: points must be (N, {dims}) voxels, got shape {tuple(tensor.shape)}")
    return tensor


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

"""The maps that a velocity generates which changes in time: thesis eq. 2.20; Beg et al., IJCV 61 (2005)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from reg_bench import field
from reg_bench.field.checks import check_field

# A velocity `(B, D, *S)` in voxels per unit time, and for how long it holds.
Interval = tuple[Tensor, float]


def flow(velocities: Tensor, seconds: float = 1.0) -> tuple[Tensor, Tensor]:
    """The maps of a velocity that is constant in each of T equal intervals.

    With `phi_t` moved along by the velocity, `d phi / dt = v_t(phi)`, an image is carried along as
    `warped = moving o phi^-1`.

    Args:
        velocities: `(B, T, D, *S)`, voxels per unit time.
        seconds: the time over which they act together.

    Returns:
        the displacements `(B, D, *S)` in voxels of `phi^-1`, which pulls the moving image, and of `phi`, its inverse.
    """
    if velocities.ndim not in (5, 6) or velocities.shape[1] < 1:
        raise ValueError(f"flow: velocities must be (B, T, D, *spatial) with T >= 1, got {tuple(velocities.shape)}")
    check_field("flow", velocities[:, 0], "velocities[:, 0]")
    duration = seconds / velocities.shape[1]
    intervals = [(v, duration) for v in velocities.unbind(dim=1)]
    return pulled(intervals), pushed(intervals)


def pushed(intervals: Sequence[Interval]) -> Tensor:
    """The displacement `(B, D, *S)` in voxels of `phi`: every voxel follows the velocities."""
    return _followed(intervals)


def pulled(intervals: Sequence[Interval]) -> Tensor:
    """The displacement `(B, D, *S)` in voxels of `phi^-1`: every voxel follows the velocities back in time."""
    return _followed([(v, -duration) for v, duration in reversed(intervals)])


def _followed(intervals: Iterable[Interval]) -> Tensor:
    """Paths by the midpoint rule, of second order. Each is followed by itself: nothing is interpolated but velocities,
    so errors of interpolation add up over the path once, and not once per step as they do when maps are composed."""
    u: Tensor | None = None
    for velocity, duration in intervals:
        start = velocity if u is None else field.linear(velocity, u)
        half = start * (duration / 2) if u is None else torch.add(u, start, alpha=duration / 2)
        step = field.linear(velocity, half)
        u = step * duration if u is None else torch.add(u, step, alpha=duration)
    if u is None:
        raise ValueError("flow: at least one interval is needed")
    return u

"""Composition of displacements and the exponential of velocities."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.field.checks import check_field, needs_graph
from reg_bench.field.warping import warp


def compose(u: Tensor, v: Tensor) -> Tensor:
    """The field that warps by `u` first and by `v` on the result.

    `w(x) = v(x) + u(x + v(x))`, so that `warp(warp(m, u), v) == warp(m, w)` up to interpolation; as maps
    `id + w = (id + u) o (id + v)`. Beyond its grid `u` continues with its border values.

    Args:
        u: `(B, D, *S_u)`, voxels.
        v: `(B, D, *S)`, voxels of the grid of the result.
    """
    check_field("compose", v, "v")
    check_field("compose", u)
    if needs_graph(u, v):
        return v + warp(u, v)
    w = warp(u, v)
    return w.add_(v) if w.dtype == torch.promote_types(w.dtype, v.dtype) else v + w


def exponential(velocity: Tensor, steps: int = 7) -> Tensor:
    """The displacement of a stationary velocity field after unit time, by scaling and squaring.

    `exp(v) = exp(v / 2^steps)` composed with itself `steps` times: Arsigny et al., MICCAI 2006. The first
    step is Euler's, so the relative error is about `|grad v| / 2^(steps + 1)`.

    Args:
        velocity: `(B, D, *S)`, voxels per unit time.
        steps: number of squarings, at least 0.

    Returns:
        `(B, D, *S)` voxels; `exponential(-v)` is the inverse.
    """
    check_field("exponential", velocity, "velocity")
    if steps < 0:
        raise ValueError(f"exponential: steps must be at least 0, got {steps}")
    u = velocity / 2**steps
    for _ in range(steps):
        u = compose(u, u)
    return u

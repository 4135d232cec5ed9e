"""Composition of displacements."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32, check_field, check_image, needs_graph
from reg_bench.field.linear_sampling import linear


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
    check_image("compose", u, v.shape[0], v.ndim - 2, "u")
    work = at_least_float32(u, v)
    w = linear(u.to(work), v.to(work))
    w = v + w if needs_graph(u, v) else w.add_(v)
    return w.to(torch.promote_types(u.dtype, v.dtype))

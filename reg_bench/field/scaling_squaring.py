"""The exponential of a stationary velocity by scaling and squaring."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reg_bench.field.checks import at_least_float32, check_field, needs_graph
from reg_bench.field.differences import add_doubled_difference_adjoint, doubled_difference
from reg_bench.field.linear_sampling import add_gradients, read
from reg_bench.field.points import sample
from reg_bench.field.resizing import resize


def exponential(velocity: Tensor, steps: int = 7) -> Tensor:
    """The displacement of a stationary velocity field after unit time, by scaling and squaring.

    `exp(v)` is a short step composed with itself again and again: Arsigny et al., MICCAI 2006. From the third step on,
    `(steps - 1) // 2` squarings are not done one by one but by a second-order first step, whose error is below that
    of as many squarings of Euler's; `steps // 2 + 1` remain.

    Args:
        velocity: `(B, D, *S)`, voxels per unit time.
        steps: number of squarings, at least 0.

    Returns:
        `(B, D, *S)` voxels; `exponential(-v)` is the inverse. For `steps >= 3` the relative error of the time steps is
        about `|grad v|^2 / (6 * 4^(steps // 2 + 1))`, below them `|grad v| / 2^(steps + 1)`. Differentiable once.
    """
    check_field("exponential", velocity, "velocity")
    if steps < 0:
        raise ValueError(f"exponential: steps must be at least 0, got {steps}")
    work = velocity.to(at_least_float32(velocity))
    if needs_graph(velocity):
        u: Tensor = _Exponential.apply(work, steps)  # type: ignore[no-untyped-call]
    else:
        u = _forward(work.detach(), steps, None)
    return u.to(velocity.dtype)


def exponential_coarse(velocity: Tensor, steps: int = 7, factor: float = 2.0) -> tuple[Tensor, Tensor]:
    """`exponential` computed on a grid with `factor` times as long voxels, and its error.

    Args:
        velocity: `(B, D, *S)`, voxels per unit time.
        steps: as in `exponential`.
        factor: at least 1.

    Returns:
        `u (B, D, *S)` in voxels, and `(B,)` the largest error at two thousand points all over the grid, in voxels, by
        `flow_error`, without a graph.
    """
    check_field("exponential_coarse", velocity, "velocity")
    if not factor >= 1:
        raise ValueError(f"exponential_coarse: factor must be at least 1, got {factor}")
    shape = velocity.shape[2:]
    u = resize(exponential(resize(velocity, [math.ceil((n - 1) / factor) + 1 for n in shape]), steps), shape)
    return u, flow_error(velocity, u)


def flow_error(velocity: Tensor, u: Tensor, points: int = 2048, steps: int = 8) -> Tensor:
    """How far `u` is from the flow of a stationary velocity, at points whose path is followed by Runge and Kutta.

    Args:
        velocity, u: `(B, D, *S)`, voxels per unit time and voxels.
        points: how many voxels, spread evenly over the grid.
        steps: of the fourth order along a path.

    Returns:
        `(B,)` the largest distance in voxels, without a graph.
    """
    check_field("flow_error", velocity, "velocity")
    velocity, u = velocity.detach(), u.detach()
    count = u[0, 0].numel()
    # A stride by the golden ratio meets every part of the grid, and no case draws random numbers.
    chosen = (torch.arange(min(points, count), dtype=torch.float64) * 0.6180339887498949 % 1) * count
    where = chosen.long().to(u.device)
    start = (
        torch.stack(torch.unravel_index(where, tuple(u.shape[2:])), dim=-1).to(velocity.dtype).expand(len(u), -1, -1)
    )
    x, h = start, 1 / steps
    for _ in range(steps):
        a = sample(velocity, x)
        b = sample(velocity, x + a * (h / 2))
        c = sample(velocity, x + b * (h / 2))
        x = x + (a + 2 * b + 2 * c + sample(velocity, x + c * h)) * (h / 6)
    reached = u.flatten(2)[:, :, where].transpose(1, 2)
    return torch.linalg.vector_norm(x - start - reached, dim=2).amax(dim=1)


def _schedule(steps: int) -> tuple[int, bool]:
    """How many squarings are done, and whether the first step is of second order."""
    skipped = max(0, (steps - 1) // 2)
    return steps - skipped, skipped > 0


def _forward(velocity: Tensor, steps: int, kept: list[Tensor] | None) -> Tensor:
    """The exponential; appends every squared field and what its gradient needs to `kept`."""
    squarings, second_order = _schedule(steps)
    u = velocity / 2**squarings
    if second_order:
        u = _second_order(u)
    for _ in range(squarings):
        value, rise = read(u, u, with_rise=kept is not None)
        if kept is not None:
            kept += [u, rise]
        u = value.add_(u)
    return u


class _Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, velocity: Tensor, steps: int) -> Tensor:
        kept: list[Tensor] = []
        u = _forward(velocity, steps, kept)
        ctx.steps = steps
        ctx.save_for_backward(velocity, *kept)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        velocity, *kept = ctx.saved_tensors
        squarings, second_order = _schedule(ctx.steps)
        gradient = gradients[0]
        for k in reversed(range(squarings)):
            u, rise = kept[2 * k : 2 * k + 2]
            total = gradient.clone(memory_format=torch.contiguous_format)
            add_gradients(u, u, rise, gradient, total, total)
            gradient = total
        if second_order:
            gradient = _second_order_adjoint(velocity / 2**squarings, gradient)
        return gradient / 2**squarings, None


def _second_order(w: Tensor) -> Tensor:
    """`w + (w . grad) w / 2`, the exponential up to terms of third order; `w (B, D, *S)`."""
    dims = w.shape[1]
    out, spare = w.clone(memory_format=torch.contiguous_format), torch.empty_like(w[:, 0])
    for axis in range(dims):
        for c in range(dims):
            out[:, c].addcmul_(w[:, axis], doubled_difference(w[:, c], axis - dims, spare), value=0.25)
    return out


def _second_order_adjoint(w: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of `_second_order`, given that of its result."""
    dims = w.shape[1]
    out, spare = gradient.clone(memory_format=torch.contiguous_format), torch.empty_like(w[:, 0])
    for axis in range(dims):
        for c in range(dims):
            difference = doubled_difference(w[:, c], axis - dims, spare)
            out[:, axis].addcmul_(gradient[:, c], difference, value=0.25)
            product = torch.mul(w[:, axis], gradient[:, c], out=spare)
            add_doubled_difference_adjoint(product, axis - dims, out[:, c], 0.25)
    return out

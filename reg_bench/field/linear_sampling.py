"""Linear interpolation along a displacement with a gradient of its own, the core of every optimisation.

On CPUs volumes go through `volume`. Everything else goes through torch's sampler, with coordinates that are made in
one pass and a gradient that is computed for the arguments that need one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench.field.checks import identity_grid, needs_graph
from reg_bench.field.volume import add_volume_gradients, plan_slabs, read_volume

# Smaller volumes gain little, and torch's sampler places them to 1e-5 voxel.
_LEAST_VOXELS = 1 << 14


def linear(image: Tensor, u: Tensor) -> Tensor:
    """`image (B, C, *S)` at `x + u(x)`, `u (B, D, *S')` in voxels: `(B, C, *S')`, border repeated.

    Both of one dtype, float32 or float64. Positions are exact to 2e-4 voxel in float32. NaN in `u` gives NaN.
    Differentiable, as often as torch's sampler is.
    """
    if needs_graph(image, u):
        out: Tensor = _Linear.apply(image, u)  # type: ignore[no-untyped-call]
        return out
    return read(image.detach(), u.detach())[0]


def read(image: Tensor, u: Tensor, with_rise: bool = False) -> tuple[Tensor, Tensor]:
    """`linear` without a graph, and for `add_gradients` what it can use again (empty unless asked for)."""
    image = image.contiguous()
    out = image.new_empty((*image.shape[:2], *u.shape[2:]))
    if not _in_slabs(image, u):
        _read_any(image, u, out)
        return out, image.new_empty(0)
    rise = torch.empty_like(out) if with_rise else image.new_empty(0)
    for index, (case, motion) in enumerate(zip(image, u, strict=True)):
        slabs = plan_slabs(motion, case.shape[1:])
        if slabs is None:
            _read_any(case[None], motion[None], out[index : index + 1])
        else:
            read_volume(case, motion, slabs, out[index], rise[index] if with_rise else None)
    return out, rise


def add_gradients(
    image: Tensor, u: Tensor, rise: Tensor, gradient: Tensor, into_image: Tensor | None, into_u: Tensor | None
) -> None:
    """Adds the gradients of `linear(image, u)`, given that of its result, to those of its arguments.

    Args:
        image, u: as given to `read`.
        rise: what `read` returned; without it only the gradient of the image can be had from slabs.
        gradient: `(B, C, *S')`.
        into_image, into_u: of the shapes of `image` and `u`, contiguous, possibly the same memory; `None` for no
            gradient.
    """
    image = image.contiguous()
    if not _in_slabs(image, u):
        _add_any(image, u, gradient, into_image, into_u)
        return
    for k in range(len(u)):
        one = slice(k, k + 1)
        of_image, of_u = (None if x is None else x[one] for x in (into_image, into_u))
        slabs = plan_slabs(u[k], image.shape[2:])
        if slabs is None:
            _add_any(image[one], u[one], gradient[one], of_image, of_u)
        else:
            first = (None if x is None else x[0] for x in (of_image, of_u))
            add_volume_gradients(image[k], u[k], slabs, rise[k] if rise.numel() else None, gradient[k], *first)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, u: Tensor) -> Tensor:
        out, rise = read(image, u, with_rise=ctx.needs_input_grad[1])
        ctx.save_for_backward(image, u, rise)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        image, u, rise = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradients(image, u, gradients[0], ctx.needs_input_grad)
        into = [
            torch.zeros_like(x, memory_format=torch.contiguous_format) if needed else None
            for x, needed in zip((image, u), ctx.needs_input_grad, strict=True)
        ]
        add_gradients(image, u, rise, gradients[0], *into)
        return into[0], into[1]


def _differentiable_gradients(
    image: Tensor, u: Tensor, gradient: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients as functions of the arguments, for second derivatives."""
    bad = u.isnan().any(dim=1, keepdim=True)
    out = _sampled(image, _normalised(u.masked_fill(bad, 0), image.shape[2:]))
    wanted = [x for x, yes in zip((image, u), needed, strict=True) if yes]
    found = iter(torch.autograd.grad(out, wanted, gradient.masked_fill(bad, 0), create_graph=True))
    return (next(found) if needed[0] else None), (next(found) if needed[1] else None)


def _in_slabs(image: Tensor, u: Tensor) -> bool:
    return image.ndim == 5 and image.device.type == "cpu" and u[0, 0].numel() >= _LEAST_VOXELS


def _normalised(u: Tensor, spatial: Sequence[int]) -> Tensor:
    """Coordinates `(B, *S', D)` in -1..1 of an image of shape `spatial`, last axis first."""
    half = u.new_tensor([max(n - 1, 1) / 2 for n in spatial])
    return ((identity_grid(u.shape[2:], u.device, u.dtype) + u).movedim(1, -1) / half - 1).flip(-1)


def _normalised_in_place(u: Tensor, spatial: Sequence[int]) -> Tensor:
    """`_normalised` without a graph, and 0 for NaN: torch's sampler would read anywhere and its gradient crashes."""
    u = u.nan_to_num(0.0)
    grid = torch.empty_like(u, memory_format=torch.contiguous_format)
    dims = len(spatial)
    for axis, n in enumerate(spatial):
        scale = 2 / max(n - 1, 1)
        index = torch.arange(u.shape[2 + axis], dtype=u.dtype, device=u.device)
        index = (index * scale - 1).reshape([-1 if a == axis else 1 for a in range(dims)])
        torch.add(index, u[:, axis], alpha=scale, out=grid[:, dims - 1 - axis])
    return grid.movedim(1, -1)


def _sampled(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _read_any(image: Tensor, u: Tensor, out: Tensor) -> None:
    """`out` becomes `image` at `x + u(x)` by torch's own sampler."""
    out.copy_(_sampled(image, _normalised_in_place(u, image.shape[2:])))
    out.masked_fill_(u.isnan().any(dim=1, keepdim=True), torch.nan)


def _add_any(image: Tensor, u: Tensor, gradient: Tensor, into_image: Tensor | None, into_u: Tensor | None) -> None:
    """`add_gradients` by torch's own sampler."""
    dims = u.shape[1]
    backward = torch.ops.aten.grid_sampler_2d_backward if dims == 2 else torch.ops.aten.grid_sampler_3d_backward
    gradient = gradient.masked_fill(u.isnan().any(dim=1, keepdim=True), 0)
    grid = _normalised_in_place(u, image.shape[2:])
    of_image, of_grid = backward(gradient, image, grid, 0, 1, True, [into_image is not None, into_u is not None])
    if into_image is not None:
        into_image += of_image
    if into_u is not None:
        for axis, n in enumerate(image.shape[2:]):
            into_u[:, axis].add_(of_grid[..., dims - 1 - axis], alpha=2 / max(n - 1, 1))

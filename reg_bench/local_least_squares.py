"""Dense displacements by local least squares: Lucas and Kanade's solution of the optical flow equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.field import compose, gaussian, warp
from reg_bench.field.differences import difference


@dataclass(frozen=True)
class LocalModel:
    """The normal equations of every voxel's neighbourhood, which depend on the fixed image alone.

    Attributes:
        gradient: of the fixed image per channel, `(B, C, D, *S)`, per voxel.
        inverse: of the damped structure tensor, `(B, D, D, *S)`.
        window: standard deviation of the neighbourhood along each axis, in voxels.
    """

    gradient: Tensor
    inverse: Tensor
    window: Sequence[float]


def local_model(fixed: Tensor, window: Sequence[float], damping: float) -> LocalModel:
    """Gradient and inverse structure tensor of a fixed image.

    Args:
        fixed: `(B, C, *S)`, intensities of about 0..1.
        window: standard deviation of the Gaussian neighbourhood along each axis, in voxels.
        damping: added to the diagonal of the structure tensor, in squared intensities per voxel: flat
            neighbourhoods stay where they are.
    """
    gradient = torch.stack([difference(fixed, dim) for dim in range(2, fixed.ndim)], dim=2)
    dims = gradient.shape[2]
    places = [(i, j) for i in range(dims) for j in range(i, dims)]
    products = torch.stack([(gradient[:, :, i] * gradient[:, :, j]).sum(dim=1) for i, j in places], dim=1)
    smooth = dict(zip(places, gaussian(products, window).unbind(dim=1), strict=True))
    for i in range(dims):
        smooth[i, i] = smooth[i, i] + damping
    return LocalModel(gradient, _symmetric_inverse(smooth, dims), tuple(window))


def _symmetric_inverse(entries: dict[tuple[int, int], Tensor], dims: int) -> Tensor:
    """The inverse `(B, D, D, *S)` of symmetric positive definite matrices by their cofactors."""
    if dims == 2:
        a, b, d = entries[0, 0], entries[0, 1], entries[1, 1]
        rows = [[d, -b], [-b, a]]
        determinant = a * d - b * b
    else:
        a, b, c = entries[0, 0], entries[0, 1], entries[0, 2]
        d, e, f = entries[1, 1], entries[1, 2], entries[2, 2]
        first = [d * f - e * e, c * e - b * f, b * e - c * d]
        rows = [first, [first[1], a * f - c * c, b * c - a * e], [first[2], b * c - a * e, a * d - b * b]]
        determinant = a * first[0] + b * first[1] + c * first[2]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1) / determinant[:, None, None]


def local_step(model: LocalModel, difference: Tensor, largest: float) -> Tensor:
    """The displacement `(B, D, *S)` in voxels that best explains a difference around every voxel.

    It minimises `sum_y w(x - y) |fixed(y) - warped(y) - grad fixed(y) . v|^2 + damping |v|^2` over `v`, for each `x`
    (Lucas and Kanade, IJCAI 1981; thesis equations 2.14-2.17 give the flow equation).

    Args:
        model: of the fixed image.
        difference: fixed minus warped image, `(B, C, *S)`.
        largest: displacements are cut to this length, in voxels: the equation is linear.
    """
    force = gaussian((model.gradient * difference[:, :, None]).sum(dim=1), model.window)
    step = (model.inverse * force[:, None]).sum(dim=2)
    length = step.square().sum(dim=1, keepdim=True).sqrt_()
    return step.mul_(largest / length.clamp_(min=largest))


def follow(
    fixed: Tensor,
    moving: Tensor,
    u: Tensor,
    *,
    iterations: int,
    window: Sequence[float],
    smoothing: Sequence[float],
    damping: float,
    largest: float = 1.0,
) -> Tensor:
    """Improves a displacement by local least squares, composing and smoothing after every step.

    Args:
        fixed: `(B, C, *S)`.
        moving: `(B, C, *S_m)`.
        u: `(B, D, *S)`, voxels, the start.
        iterations: number of steps.
        window: see `local_model`; per axis in voxels.
        smoothing: standard deviation of the Gaussian that smooths the field after every step, per axis in voxels.
        damping, largest: see `local_model`, `local_step`.

    Returns:
        `(B, D, *S)`, voxels.
    """
    model = local_model(fixed, window, damping)
    for _ in range(iterations):
        step = local_step(model, fixed - warp(moving, u), largest)
        u = gaussian(compose(u, step), smoothing)
    return u

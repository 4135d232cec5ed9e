"""Demons on one grid: forces from intensity differences and gradients, Gaussian smoothing, and the loop of both.

Thesis equations 2.17-2.19 and Algorithm 1. With the kernel `bessel` and the same settings this is ITK's Demons, voxel
by voxel (Thirion, Medical Image Analysis 2, 1998; Vercauteren et al., NeuroImage 45, 2009).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ive
from torch import Tensor

from reg_bench.field import compose, exponential, gaussian, warp
from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix
from reg_bench.field.smoothing import convolution_matrix

Forces = Literal["optical-flow", "thirion", "symmetric"]
Composition = Literal["additive", "compositive", "diffeomorphic"]
Kernel = Literal["sampled", "bessel"]

FORCES: tuple[Forces, ...] = ("optical-flow", "thirion", "symmetric")
COMPOSITIONS: tuple[Composition, ...] = ("additive", "compositive", "diffeomorphic")
KERNELS: tuple[Kernel, ...] = ("sampled", "bessel")


@dataclass(frozen=True)
class Demons:
    """What one iteration of Demons does. Lengths in units of the root-mean-square voxel edge, intensities as given.

    Attributes:
        forces: `optical-flow` (equation 2.18), along the gradient of the fixed image, as far as the linearised images
            differ; `thirion` (2.19), the same, stabilised by the difference; `symmetric`, stabilised, along the mean of
            the gradients of the fixed and the warped image.
        composition: `additive`, `u + du`; `compositive`, `(id + u) o (id + du)`; `diffeomorphic`, with the exponential
            of `du` in place of `id + du`.
        sigma_voxels: of the Gaussian that smooths the displacement after every iteration (diffusion-like), in voxels
            along each axis; 0 for none.
        update_sigma_voxels: the same for every update (fluid-like).
        step: greatest length of an update before it is smoothed. The stabilised forces keep it by themselves,
            `optical-flow` is cut off. 0 for no limit: then all three are unstabilised.
        difference_threshold: intensity difference below which a voxel feels no force.
        gradient_threshold: intensity per unit of length below which a voxel feels no unstabilised force.
        kernel: `bessel`, the discrete analogue of a Gaussian, cut off where it holds 0.9 of its sum, as ITK has it;
            `sampled`, a whole Gaussian at whole voxels, which smooths about a quarter further.
    """

    forces: Forces = "symmetric"
    composition: Composition = "additive"
    sigma_voxels: float = 1.5
    update_sigma_voxels: float = 0.0
    step: float = 0.5
    difference_threshold: float = 1e-3
    gradient_threshold: float = 1e-2
    kernel: Kernel = "bessel"

    def __post_init__(self) -> None:
        for name, known in (("forces", FORCES), ("composition", COMPOSITIONS), ("kernel", KERNELS)):
            if getattr(self, name) not in known:
                raise ValueError(f"demons: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("sigma_voxels", "update_sigma_voxels", "step", "difference_threshold", "gradient_threshold"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"demons: {name} must be finite and not negative, got {value}")


@dataclass
class Course:
    """The mean squared difference of the images, `(B,)` per iteration, the start first, and the seconds until then."""

    energies: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def demons(
    fixed: Tensor,
    moving: Tensor,
    u: Tensor,
    iterations: int,
    settings: Demons | None = None,
    spacing_mm: Tensor | None = None,
) -> tuple[Tensor, Course]:
    """Moves `u` by the forces of the images and smooths it, again and again (Algorithm 1).

    Voxels that lie outside the moving image after the displacement feel no force. Several channels push together.
    Each case of a batch comes out as if alone.

    Args:
        fixed: `(B, C, *S)` floating point, intensities of about 0..1 for the default thresholds.
        moving: `(B, C, *S_m)`, voxel 0 at the place of the fixed image's.
        u: `(B, D, *S)` voxels, the start.
        iterations: at least 0.
        settings: `None` takes the defaults.
        spacing_mm: `(B, D)` voxel edges in any unit; `None` for cubes.

    Returns:
        the displacement `(B, D, *S)` in voxels, without a graph, and the course of the energy.

    Raises:
        ValueError: a negative number of iterations, or shapes that do not fit.
    """
    if iterations < 0:
        raise ValueError(f"demons: iterations must be at least 0, got {iterations}")
    if fixed.shape[:2] != moving.shape[:2]:
        raise ValueError(
            "demons: fixed and moving must have the same batch and channels (B, C), got "
            f"{tuple(fixed.shape[:2])} and {tuple(moving.shape[:2])}"
        )
    settings = settings or Demons()
    with torch.no_grad():
        return _iterate(fixed, moving, u.detach(), iterations, settings, relative_edges(fixed, spacing_mm))


def _iterate(
    fixed: Tensor, moving: Tensor, u: Tensor, iterations: int, settings: Demons, edges: Tensor
) -> tuple[Tensor, Course]:
    course, clock = Course(), time.perf_counter()
    slope = fixed_gradient(fixed, edges)
    for k in range(iterations + 1):
        warped, inside = warp(moving, u), is_inside(u, moving.shape[2:])
        difference = (fixed - warped).mul_(inside)
        course.energies.append(_mean_square(difference, inside))
        course.seconds.append(time.perf_counter() - clock)
        if k < iterations:
            if settings.forces == "symmetric":
                gradient = warped_gradient(warped, inside, edges).add_(slope).mul_(0.5)
            else:
                gradient = slope
            update = force(difference, gradient, settings) / _column(edges, u)
            update = smoothed(update, settings.update_sigma_voxels, settings.kernel)
            u = smoothed(_moved(u, update, settings), settings.sigma_voxels, settings.kernel)
    return u, course


def relative_edges(image: Tensor, spacing_mm: Tensor | None) -> Tensor:
    """The voxel edges `(B, D)` in units of their root mean square, so independent of the unit.

    Raises:
        ValueError: a spacing of another shape, or not positive.
    """
    expected = (image.shape[0], image.ndim - 2)
    if spacing_mm is None:
        return image.new_ones(expected)
    if tuple(spacing_mm.shape) != expected or not bool((spacing_mm.isfinite() & (spacing_mm > 0)).all()):
        raise ValueError(f"demons: spacing_mm must be positive (B, D) = {expected}, got {spacing_mm.tolist()}")
    edges = spacing_mm.double()
    return (edges / edges.square().mean(dim=1, keepdim=True).sqrt()).to(image)


def _column(edges: Tensor, like: Tensor) -> Tensor:
    """`(B, D, 1, ...)` of `(B, D)`, to go with a field."""
    return edges.reshape(*edges.shape, *(1,) * (like.ndim - 2))


def is_inside(u: Tensor, moving_shape: torch.Size) -> Tensor:
    """Which voxels `(B, 1, *S)` lie in the moving image, to its outer voxel faces, after the displacement `u`."""
    inside = torch.ones_like(u[:, :1], dtype=torch.bool)
    for axis, n in enumerate(moving_shape):
        index = torch.arange(u.shape[2 + axis], dtype=u.dtype, device=u.device)
        place = u[:, axis : axis + 1] + index.reshape([-1 if a == axis else 1 for a in range(len(moving_shape))])
        inside &= (place >= -0.5) & (place < n - 0.5)
    return inside


def _mean_square(difference: Tensor, inside: Tensor) -> Tensor:
    """Over voxels inside and channels, `(B,)`; 0 where nothing is inside."""
    count = inside.flatten(1).sum(1).clamp(min=1) * difference.shape[1]
    return difference.square().flatten(1).sum(1) / count


def fixed_gradient(image: Tensor, edges: Tensor) -> Tensor:
    """Central differences `(B, C, D, *S)` per unit of length of `image (B, C, *S)`; 0 at the border across it."""
    dims = image.ndim - 2
    gradient = image.new_zeros((*image.shape[:2], dims, *image.shape[2:]))
    for axis in range(dims):
        n, along = image.shape[2 + axis], 2 + axis
        if n > 2:
            inner = gradient[:, :, axis].narrow(along, 1, n - 2)
            torch.sub(image.narrow(along, 2, n - 2), image.narrow(along, 0, n - 2), out=inner)
    return gradient.mul_(0.5 / _column(edges, image)[:, None])


def warped_gradient(warped: Tensor, inside: Tensor, edges: Tensor) -> Tensor:
    """The same of a warped image, between voxels that are `inside (B, 1, *S)`: one-sided where one neighbour is not."""
    dims = warped.ndim - 2
    gradient = warped.new_zeros((*warped.shape[:2], dims, *warped.shape[2:]))
    for axis in range(dims):
        n, along = warped.shape[2 + axis], 2 + axis
        if n < 2:
            continue
        usable = inside.narrow(along, 1, n - 1) & inside.narrow(along, 0, n - 1)
        rise = (warped.narrow(along, 1, n - 1) - warped.narrow(along, 0, n - 1)).mul_(usable)
        count = torch.zeros_like(inside, dtype=warped.dtype)
        count.narrow(along, 1, n - 1).add_(usable)
        count.narrow(along, 0, n - 1).add_(usable)
        total = gradient[:, :, axis]
        total.narrow(along, 1, n - 1).add_(rise)
        total.narrow(along, 0, n - 1).add_(rise)
        total.div_(count.clamp_(min=1))
    return gradient.div_(_column(edges, warped)[:, None])


def force(difference: Tensor, gradient: Tensor, settings: Demons) -> Tensor:
    """The update that the images ask for, before any smoothing.

    `du = d g / (|g|^2 + d^2 / (2 step)^2)`, at most `step` long (equation 2.19: with `step` 0.5 the denominator is
    `|g|^2 + d^2`); for optical flow `du = d g / |g|^2` (2.18), cut off at `step`. Of several channels
    numerator and denominator are the means.

    Args:
        difference: `d (B, C, *S)`, fixed less warped.
        gradient: `g (B, C, D, *S)`, intensity per unit of length.
        settings: forces, step and thresholds.

    Returns:
        `(B, D, *S)` in units of length.
    """
    stabilised = settings.forces != "optical-flow" and settings.step > 0
    push = (difference[:, :, None] * gradient).mean(1)
    steep = gradient.square().sum(2).mean(1, keepdim=True)
    apart = difference.square().mean(1, keepdim=True)
    still = apart < settings.difference_threshold**2
    if stabilised:
        below = steep.add_(apart, alpha=0.25 / settings.step**2)
    else:
        below, still = steep, still | (steep < settings.gradient_threshold**2)
    update = push.div_(below.clamp_(min=torch.finfo(below.dtype).tiny)).masked_fill_(still, 0)
    if stabilised or settings.step == 0:
        return update
    length = torch.linalg.vector_norm(update, dim=1, keepdim=True)
    return update.mul_(settings.step / length.clamp_(min=settings.step))


def _moved(u: Tensor, update: Tensor, settings: Demons) -> Tensor:
    if settings.composition == "additive":
        return u + update
    if settings.composition == "diffeomorphic":
        update = exponential(update, squarings(settings.step))
    return compose(u, update)


def squarings(step: float) -> int:
    """How often the exponential of an update is squared, so that its first step is a quarter of a voxel at most."""
    return max(0, math.ceil(2 + math.log2(step))) if step > 0 else 7


def smoothed(u: Tensor, sigma_voxels: float, kernel: Kernel) -> Tensor:
    """A field `(B, D, *S)` smoothed along every axis, the border repeated; itself for sigma 0."""
    if sigma_voxels == 0:
        return u
    if kernel == "sampled":
        return gaussian(u, sigma_voxels)
    return along_axes(u, [_bessel_matrix(n, sigma_voxels, u.dtype, u.device) for n in u.shape[2:]])


def bessel_kernel(sigma: float, error: float = 0.1, most: int = 30) -> NDArray[np.float64]:
    """The discrete analogue of a Gaussian, `exp(-t) I_k(t)` with `t = sigma^2` (Lindeberg, PAMI 12, 1990), sum 1.

    It equals the operator of ITK, whose own Bessel functions lose digits for a sigma above 5.

    Args:
        sigma: in voxels, above 0.
        error: the weights end where they add up to `1 - error` before they are scaled to sum 1, but not before `k = 1`.
        most: weights on one side, that of the centre included.
    """
    weights = ive(np.arange(max(most, 1) + 1), sigma**2)
    total = 2 * np.cumsum(weights) - weights[0]
    enough = int(np.argmax(total >= 1 - error)) if total[-1] >= 1 - error else len(weights) - 1
    half = weights[: max(enough, 1) + 1]
    both = np.concatenate([half[:0:-1], half])
    return np.asarray(both / both.sum())


@lru_cache(maxsize=64)
def _bessel_matrix(length: int, sigma: float, dtype: torch.dtype, device: torch.device) -> AxisMatrix:
    return axis_matrix(convolution_matrix(length, bessel_kernel(sigma)), dtype, device)

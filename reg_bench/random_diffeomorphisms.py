"""Random diffeomorphisms by geodesic shooting: smooth invertible maps of an image onto itself, as many as one likes.

Paper I trains on such fields. An initial momentum of white noise is shot along its geodesic (EPDiff) on a grid as
coarse as the kernel allows; a Gaussian makes its velocities smooth and a window keeps them inside the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from reg_bench import field
from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix
from reg_bench.transformation.flow import Interval
from reg_bench.transformation.gaussian_kernel import GaussianKernel
from reg_bench.transformation.geodesic_shooting import geodesics

# Grids of shooting and of following the paths: so many voxels to a standard deviation of the kernel. Velocities are
# band-limited far below the first, and linear interpolation on the second is off by 1 / 3000 of them.
_SHOT, _FOLLOWED = 3.0, 20.0
# Voxels of the shooting grid along an axis at least: the window needs a few to rise.
_FEWEST = 9
# Over how many standard deviations the window rises from the border: a steeper one would tear maps at the border apart.
_RISE = 1.5


@dataclass(frozen=True)
class Diffeomorphisms:
    """Maps of the image onto itself.

    Attributes:
        displacement: `(B, D, *S)`, voxels; what the geodesic pulls by (of `phi^-1`).
        inverse: `(B, D, *S)`, voxels, of the inverse map (`phi`); `None` if not asked for.
        energies: `(B, steps + 1)`, the kinetic energy along each geodesic, equal but for the errors of the steps.
    """

    displacement: Tensor
    inverse: Tensor | None
    energies: Tensor


def random_diffeomorphisms(
    shape: Sequence[int],
    sigma_voxels: Sequence[float],
    distance: Sequence[float],
    generator: torch.Generator,
    *,
    with_inverse: bool = True,
    steepest: float = 0.9,
    steps: int = 6,
) -> Diffeomorphisms:
    """Draws a batch of maps, float32 on the CPU.

    The normal component of the velocity vanishes at the border, so the image is mapped onto itself and points of a face
    stay on it. Where the border is a standard deviation away, each component of the displacement is about normal with
    the standard deviation `distance`; the longest displacement in the image is about 2.5 times that.

    Args:
        shape: 2 or 3 lengths of at least 2.
        sigma_voxels: per case the standard deviation of the kernel; `std / sqrt(2)` of the paper's `exp(-r^2 / std^2)`.
        distance: per case how far points move, in voxels.
        generator: of the momenta, on the CPU; cases are drawn one after the other.
        with_inverse: whether the inverse is computed as well, for half the time again.
        steepest: the largest derivative that the initial velocity may have along any axis. Momenta beyond it are
            scaled down: maps that stretch a voxel tenfold are invertible, but no longer on the grid of the image. It
            concerns the draws with the smallest kernels and the largest distances.
        steps: of the geodesic in time, divided further where the motion is large.

    Raises:
        ValueError: a shape, sigma or distance that is out of range.
    """
    shape = tuple(shape)
    _check(shape, sigma_voxels, distance, steepest)
    cases = [
        _one(shape, sigma, _Course(far, steepest, steps), generator, with_inverse)
        for sigma, far in zip(sigma_voxels, distance, strict=True)
    ]
    displacement, inverse, energies = zip(*cases, strict=True)
    return Diffeomorphisms(torch.cat(displacement), torch.cat(inverse) if with_inverse else None, torch.cat(energies))


@dataclass(frozen=True)
class ContainedKernel:
    """`v = W G W m`: a Gaussian between two windows, hence symmetric and positive as it is.

    The window of component c rises from 0 at both ends of axis c, so that nothing crosses the border.

    Attributes:
        gaussian: in voxels of the grid.
        rise: over how many voxels of each axis.
    """

    gaussian: GaussianKernel
    rise: Sequence[float]

    def __call__(self, momentum: Tensor) -> Tensor:
        """The velocity `(B, D, *S)` of a `momentum (B, D, *S)`."""
        window = torch.stack(
            [
                _window(n, rise).to(momentum).reshape(-1, *(1,) * (momentum.ndim - 3 - axis)).expand(momentum.shape[2:])
                for axis, (n, rise) in enumerate(zip(momentum.shape[2:], self.rise, strict=True))
            ]
        )
        return self.gaussian(momentum * window) * window


@lru_cache(maxsize=64)
def _window(length: int, rise: float) -> Tensor:
    """`(n,)`: the quarter of a sine from 0 at both ends to 1."""
    place = torch.arange(length, dtype=torch.float64)
    from_end = torch.minimum(place, length - 1 - place)
    return torch.sin(math.pi / 2 * (from_end / min(rise, (length - 1) / 2)).clamp(max=1))


@dataclass(frozen=True)
class _Course:
    """How far and how steeply a geodesic may go, and its steps in time."""

    distance: float
    steepest: float
    steps: int


def _check(shape: tuple[int, ...], sigma_voxels: Sequence[float], distance: Sequence[float], steepest: float) -> None:
    name = "random_diffeomorphisms"
    if len(shape) not in (2, 3) or min(shape) < 2:
        raise ValueError(f"{name}: shape must hold 2 or 3 lengths of at least 2, got {shape}")
    if len(sigma_voxels) != len(distance) or not sigma_voxels:
        raise ValueError(
            f"{name}: sigma_voxels and distance must hold one number per case, got {len(sigma_voxels)} and "
            f"{len(distance)}"
        )
    if not all(math.isfinite(s) and s > 0 for s in sigma_voxels):
        raise ValueError(f"{name}: sigma_voxels must be positive and finite, got {list(sigma_voxels)}")
    if not all(math.isfinite(d) and d >= 0 for d in distance):
        raise ValueError(f"{name}: distance must be at least 0 and finite, got {list(distance)}")
    if not steepest > 0:
        raise ValueError(f"{name}: steepest must be positive, got {steepest}")


def _one(
    shape: tuple[int, ...], sigma: float, course: _Course, generator: torch.Generator, with_inverse: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Displacement and inverse `(1, D, *S)` and energies `(1, steps + 1)` of one case."""
    coarse = _grid(shape, sigma / _SHOT, _FEWEST)
    edges = [(n - 1) / (k - 1) for n, k in zip(shape, coarse, strict=True)]
    in_cells = [sigma / h for h in edges]
    kernel = ContainedKernel(GaussianKernel(in_cells, edges), [_RISE * s for s in in_cells])
    momentum = _momentum(coarse, kernel, edges, course, generator)
    (path,), energies = geodesics(momentum, kernel, course.steps)
    followed = _grid(shape, sigma / _FOLLOWED, 2)
    intervals: list[Interval] = [(_enlarged(v, followed), duration) for v, duration in path]
    back = [(v, -duration) for v, duration in reversed(intervals)]
    displacement = _enlarged(_followed(back), shape)
    return displacement, _enlarged(_followed(intervals), shape) if with_inverse else None, energies


def _grid(shape: tuple[int, ...], cell: float, fewest: int) -> tuple[int, ...]:
    """Voxels of at most `cell` over the same extent, but no finer ones than there are unless they are very few."""
    return tuple(max(min(n, math.ceil((n - 1) / cell) + 1), fewest) for n in shape)


def _momentum(
    shape: tuple[int, ...], kernel: ContainedKernel, edges: Sequence[float], course: _Course, generator: torch.Generator
) -> Tensor:
    """White noise `(1, D, *S)` whose velocity has the standard deviation `distance` in the middle of the grid."""
    dims = len(shape)
    noise = torch.randn(1, dims, *shape, generator=generator)
    impulse = torch.zeros_like(noise)
    impulse.flatten(2)[..., np.ravel_multi_index([n // 2 for n in shape], shape)] = 1
    # What a voxel gathers is, the kernel being symmetric, what it scatters.
    norms = torch.linalg.vector_norm(kernel(impulse).flatten(2), dim=2)
    per_component = (1, dims, *(1,) * dims)
    momentum = noise * (course.distance / (noise.new_tensor(edges) * norms)).reshape(per_component)
    velocity = kernel(momentum) * noise.new_tensor(edges).reshape(per_component)
    slopes = [float(velocity.diff(dim=axis).abs().max()) / h for axis, h in enumerate(edges, start=2)]
    return momentum * min(1.0, course.steepest / max(slopes)) if max(slopes) > 0 else momentum


def _followed(intervals: Sequence[Interval]) -> Tensor:
    """Where every voxel is carried, by the method of Runge and Kutta in each interval: there and back is then nearly
    the identity, although velocities stand still for an interval."""
    u = torch.zeros_like(intervals[0][0])
    for velocity, duration in intervals:
        a = field.linear(velocity, u)
        b = field.linear(velocity, torch.add(u, a, alpha=duration / 2))
        c = field.linear(velocity, torch.add(u, b, alpha=duration / 2))
        d = field.linear(velocity, torch.add(u, c, alpha=duration))
        u = u.add(a + d, alpha=duration / 6).add_(b + c, alpha=duration / 3)
    return u


def _enlarged(u: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A smooth field on a finer grid over the same extent by cubic splines, in voxels of that grid."""
    matrices = [None if old == new else _spline(old, new, u.dtype) for old, new in zip(u.shape[2:], shape, strict=True)]
    ratio = u.new_tensor([(new - 1) / (old - 1) for old, new in zip(u.shape[2:], shape, strict=True)])
    return along_axes(u, matrices) * ratio.reshape(-1, *(1,) * len(shape))


@lru_cache(maxsize=256)
def _spline(old: int, new: int, dtype: torch.dtype) -> AxisMatrix:
    """Natural cubic interpolation of an axis."""
    spline = CubicSpline(np.arange(old), np.eye(old), bc_type="natural") if old > 2 else None
    places = np.linspace(0, old - 1, new)
    matrix = spline(places) if spline else np.stack((1 - places, places), axis=1)
    return axis_matrix(np.asarray(matrix), dtype, torch.device("cpu"))

"""Geodesic shooting: the deformation that an initial momentum sets going.

Miller, Trouvé and Younes, J. Math. Imaging Vis. 24 (2006); thesis section 2.7.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32, check_field
from reg_bench.transformation.coadjoint import coadjoint
from reg_bench.transformation.flow import Interval, pulled, pushed

Kernel = Callable[[Tensor], Tensor]

# Voxels that a step of the fourth-order method may move: central differences are stable up to 2.8.
_MOST_MOTION = 1.5


def shoot(momentum: Tensor, kernel: Kernel, steps: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """The displacement at time 1 of the geodesic that starts with a momentum.

    EPDiff, `m_t = -ad*_v m` with `v = K m`, by the method of Runge and Kutta on the discrete coadjoint of `coadjoint`,
    which conserves the energy; the map and its inverse by following every voxel forth and back through the velocities.

    Args:
        momentum: `(B, D, *S)` at time 0, on the grid of the moving image; `<m, v>` is the sum over the voxels of
            products with velocities in voxels.
        kernel: a symmetric positive linear map from momenta to velocities in voxels per unit time, such as
            `GaussianKernel`; for batches of several cases it has to be the same for all.
        steps: in time; a step is divided for as long as its motion exceeds 1.5 voxels.

    Returns:
        the displacement `(B, D, *S)` in voxels that pulls the moving image (of `phi^-1`); that of its inverse, along
        which points of the moving image move (`phi`); and the energies `<m, v> / 2`, means over the grid, at every
        step `(B, steps + 1)`, equal but for the errors of the steps. All differentiable once in `momentum`.

    Raises:
        ValueError: wrong arguments, or a momentum that is not finite or too large to be followed.
    """
    paths, energies = geodesics(momentum, kernel, steps)
    return (
        torch.cat([pulled(path) for path in paths]).to(momentum.dtype),
        torch.cat([pushed(path) for path in paths]).to(momentum.dtype),
        energies,
    )


def geodesics(momentum: Tensor, kernel: Kernel, steps: int = 10) -> tuple[list[list[Interval]], Tensor]:
    """The velocities along the geodesics, case by case, and the energies; arguments and errors as for `shoot`.

    Returns:
        per case the velocities `(1, D, *S)` in voxels per unit time with their durations, in the order of time, and the
        energies `(B, steps + 1)`.
    """
    check_field("shoot", momentum, "momentum")
    if steps < 1:
        raise ValueError(f"shoot: steps must be at least 1, got {steps}")
    # How finely time is divided depends on the case, and must not depend on its company.
    cases = [_geodesic(case, kernel, steps) for case in torch.split(momentum.to(at_least_float32(momentum)), 1)]
    return [path for path, _ in cases], torch.cat([energies for _, energies in cases])


def kinetic_energy(momentum: Tensor, velocity: Tensor) -> Tensor:
    """`<m, v> / 2` as a mean over the grid, `(B,)`, of `(B, D, *S)` each."""
    return (momentum * velocity).flatten(1).sum(dim=1) / (2 * math.prod(velocity.shape[2:]))


def _geodesic(m: Tensor, kernel: Kernel, steps: int) -> tuple[list[Interval], Tensor]:
    """Velocities and energies `(1, steps + 1)` of one case."""
    path: list[Interval] = []
    v = kernel(m)
    energies = [kinetic_energy(m, v)]
    for _ in range(steps):
        parts = _divisions(v, steps)
        duration = 1 / (steps * parts)
        for _ in range(parts):
            m, middle = _runge_kutta_step(m, v, kernel, duration)
            path.append((middle, duration))
            v = kernel(m)
        energies.append(kinetic_energy(m, v))
    return path, torch.stack(energies, dim=1)


def _divisions(v: Tensor, steps: int) -> int:
    motion = float(v.detach().abs().flatten(2).amax(dim=2).sum()) / steps
    if not motion < 1e4:
        raise ValueError(f"shoot: momentum must be finite and moderate, got a motion of {motion:g} voxels in a step")
    return max(1, math.ceil(motion / _MOST_MOTION))


def _runge_kutta_step(m: Tensor, v: Tensor, kernel: Kernel, duration: float) -> tuple[Tensor, Tensor]:
    """The momentum after a step, and the velocity in the middle of it."""
    a = coadjoint(v, m)
    at = m - a * (duration / 2)
    b = coadjoint(kernel(at), at)
    at = m - b * (duration / 2)
    middle = kernel(at)
    c = coadjoint(middle, at)
    at = m - c * duration
    d = coadjoint(kernel(at), at)
    return m - (a + 2 * b + 2 * c + d) * (duration / 6), middle

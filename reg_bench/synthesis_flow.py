"""Random diffeomorphisms with their inverse. Units: voxels of the grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reg_bench import field
from reg_bench.synthesis_noise import Array, gaussian_field, random_generator


def random_diffeomorphism(
    spatial: Sequence[int],
    *,
    seed: int,
    max_displacement: float,
    smoothness: float,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """A random diffeomorphism of the grid and its inverse, both `(1, D, *S)` in voxels.

    The exponential of a smooth random stationary velocity that vanishes at the border of the grid (Arsigny et
    al., MICCAI 2006), so that no point leaves it.

    Args:
        spatial: grid size, 2-D or 3-D.
        seed: of the velocity.
        max_displacement: largest length of a displacement vector in voxels, met to rounding; 0 gives zeros.
        smoothness: standard deviation of the velocity's Gaussian bumps in voxels. `max_displacement /
            smoothness` decides how strong the local deformation is: 0.3 is moderate, 0.7 is the most that goes.
        dtype: of the result.

    Returns:
        `u` and `u_inverse`: as continuous maps, interpolated linearly, `u o u_inverse` is the identity at every
        voxel to 1e-3, and `u_inverse o u` as well as linear interpolation between the voxels of the inverse
        allows: 0.05 voxel up to a ratio of 0.25, 0.1 at 0.6.

    Raises:
        ValueError: the deformation would fold; says so rather than returning it.
    """
    generator = random_generator("diffeomorphism", seed)
    noise = gaussian_field(spatial, smoothness=smoothness, generator=generator, channels=len(spatial))
    velocity = saturated(noise) * border_window(spatial, width=1.5 * smoothness)
    u, inverse = diffeomorphism(torch.from_numpy(velocity)[None], max_displacement=max_displacement)
    return u.to(dtype), inverse.to(dtype)


def diffeomorphism(velocity: Tensor, *, max_displacement: float) -> tuple[Tensor, Tensor]:
    """`(u, u_inverse)` of `flow(velocity)`; arguments, units and errors as there."""
    u, scaled = _flow(velocity, max_displacement)
    if not bool(u.any()):
        return u, torch.zeros_like(u)
    return u, _refined_inverse(u, field.exponential(-scaled.float()).to(u.dtype))


def flow(velocity: Tensor, *, max_displacement: float) -> Tensor:
    """The exponential of that multiple of `velocity` whose largest vector is `max_displacement` voxels.

    Args:
        velocity: `(1, D, *S)` float64; only its direction and shape matter.
        max_displacement: in voxels, met to rounding; 0 gives zeros.

    Raises:
        ValueError: negative `max_displacement`, or the deformation would fold.
    """
    return _flow(velocity, max_displacement)[0]


def _flow(velocity: Tensor, max_displacement: float) -> tuple[Tensor, Tensor]:
    """`u` and the scaled velocity of which it is the exponential."""
    if max_displacement < 0:
        raise ValueError(f"max_displacement must not be negative, got {max_displacement}")
    if max_displacement == 0 or not bool(velocity.any()):
        return torch.zeros_like(velocity), torch.zeros_like(velocity)
    velocity = velocity * (_flow_scale(velocity, max_displacement) / max_length(velocity))
    u = field.exponential(velocity.float()).to(velocity.dtype)
    # What the search on the coarse grid left is a few per cent: taken up by a plain factor.
    u *= max_displacement / max_length(u)
    smallest = float(field.jacobian_determinant(u).min())
    if smallest <= 0.05:
        raise ValueError(
            f"a displacement of {max_displacement:g} voxels folds this velocity field (smallest Jacobian "
            f"{smallest:.3f}): use a smaller max_displacement or a larger smoothness"
        )
    return u, velocity


def max_length(u: Tensor) -> float:
    """Length of the longest vector of `u` `(B, D, *S)`."""
    return float(torch.linalg.vector_norm(u, dim=1).max())


def saturated(vectors: Array, limit: float = 2.5) -> Array:
    """`vectors` `(D, *S)` with lengths pressed below `limit`, so that motion is spread rather than peaked."""
    length = np.sqrt((vectors**2).sum(axis=0, keepdims=True))
    return np.asarray(vectors / np.sqrt(1 + (length / limit) ** 2))


def border_window(spatial: Sequence[int], *, width: float) -> Array:
    """`(*S)` factor that rises smoothly from 0 at the border of the grid to 1 at `width` voxels from it."""
    window = np.ones(tuple(spatial))
    for axis, n in enumerate(spatial):
        distance = np.minimum(np.arange(n), np.arange(n)[::-1]) / min(max(width, 1.0), max((n - 1) / 3, 1.0))
        ramp = np.sin(0.5 * np.pi * np.clip(distance, 0, 1)) ** 2
        window *= ramp.reshape([-1 if a == axis else 1 for a in range(len(spatial))])
    return window


def _flow_scale(velocity: Tensor, target: float) -> float:
    """Largest velocity whose exponential reaches `target` voxels, from a search on every second voxel."""
    every_second = (slice(None), slice(None), *[slice(None, None, 2)] * (velocity.ndim - 2))
    coarse = velocity[every_second].float()
    coarse = coarse / (2 * max_length(coarse))
    scale = target
    for _ in range(4):
        scale *= target / (2 * max_length(field.exponential(scale * coarse)))
    return scale


def _refined_inverse(u: Tensor, guess: Tensor, iterations: int = 30, tolerance: float = 5e-4) -> Tensor:
    """The inverse of `u` on the grid by Newton iteration from `guess`."""
    inverse = guess
    # The Jacobian of the inverse is I + d(inverse)/dx, on the very grid where the residual stands.
    slopes = torch.stack([torch.stack(torch.gradient(c)) for c in guess[0]])
    for _ in range(iterations):
        residual = inverse + field.warp(u, inverse)
        if max_length(residual) < tolerance:
            return inverse
        inverse = inverse - residual - torch.einsum("cd...,bd...->bc...", slopes, residual)
    raise ValueError(f"the inverse did not converge: {max_length(residual):.3g} voxels left")

"""Random fields and noise, drawn from a seed and from nothing else.

NumPy's PCG64 in float64 on the CPU, so the same seed gives the same arrays in every process. Lengths are in
voxels of the grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]

# Lattice nodes per smoothness length: at 1.5 the random field is stationary to better than 1 %.
_NODES_PER_LENGTH = 1.5


def random_generator(*key: str | int) -> np.random.Generator:
    """A generator that depends on all of `key` and on nothing else (not on process, order or platform)."""
    digest = hashlib.sha256("/".join(str(k) for k in key).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32).tolist())


def torch_generator(*key: str | int) -> torch.Generator:
    """A CPU torch generator that depends on all of `key` and on nothing else."""
    seed = int(random_generator(*key).integers(2**62))
    return torch.Generator().manual_seed(seed)


def gaussian_field(
    spatial: Sequence[int], *, smoothness: float, generator: np.random.Generator, channels: int = 1
) -> Array:
    """`(channels, *S)` Gaussian random fields of mean 0 and variance 1, infinitely smooth.

    A sum of Gaussian bumps of standard deviation `smoothness` voxels on a lattice, with independent normal
    weights: the correlation at distance `d` is `exp(-d^2 / (4 smoothness^2))`. Each axis is one small matrix
    product, so the cost does not grow with `smoothness`.
    """
    if smoothness <= 0:
        raise ValueError(f"smoothness must be positive, got {smoothness}")
    bases = [_bump_basis(n, smoothness) for n in spatial]
    values = generator.standard_normal((channels, *(b.shape[1] for b in bases)))
    for axis, basis in enumerate(bases, start=1):
        values = np.moveaxis(np.tensordot(basis, values, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(values)


def _bump_basis(size: int, smoothness: float) -> Array:
    """`(size, nodes)` weights of the lattice nodes at each voxel; every row has unit Euclidean norm."""
    step = smoothness / _NODES_PER_LENGTH
    nodes = np.arange(-4 * smoothness, size - 1 + 4 * smoothness + step, step)
    basis: Array = np.exp(-0.5 * ((np.arange(size)[:, None] - nodes[None]) / smoothness) ** 2)
    basis /= np.sqrt((basis**2).sum(axis=1, keepdims=True))
    return basis


def smooth_noise(spatial: Sequence[int], *, smoothness: float, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """`(*S)` Gaussian random field of mean 0 and variance 1; `smoothness` in voxels as in `gaussian_field`."""
    noise = gaussian_field(spatial, smoothness=smoothness, generator=random_generator("smooth_noise", seed))
    return torch.from_numpy(noise[0]).to(dtype)


def rician(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """`image` with Rician noise: the modulus of a complex signal with normal noise `sigma` on both parts.

    Args:
        image: non-negative magnitudes, any shape.
        sigma: standard deviation of either part, in units of the image; 0 returns the image itself.
        generator: where the noise comes from.

    Reference: Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", 1995.
    """
    if sigma < 0:
        raise ValueError(f"sigma must not be negative, got {sigma}")
    if sigma == 0:
        return image
    real, imaginary = (
        torch.randn(image.shape, generator=generator, dtype=image.dtype, device=image.device) for _ in range(2)
    )
    return torch.hypot(image + sigma * real, sigma * imaginary)

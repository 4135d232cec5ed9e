"""Polynomial fields with their physical derivatives, and grids to put them on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

GRIDS = [((7, 6), (1.0, 1.0)), ((6, 9), (0.7, 2.1)), ((5, 6, 4), (1.0, 1.0, 1.0)), ((4, 5, 6), (3.0, 0.8, 1.4))]


def edges(spacing: tuple[float, ...]) -> Array:
    """Voxel edges in units of their geometric mean."""
    h = np.asarray(spacing)
    return h / np.prod(h) ** (1 / len(h))


def coordinates(shape: tuple[int, ...]) -> Array:
    return np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"))


def quadratic(shape: tuple[int, ...], linear: Array, bend: Array | None = None, constant: float = 0.0) -> Tensor:
    """`u_c = constant + linear[c] . x + 1/2 x^T bend[c] x`, voxels: `(1, D, *S)` float64."""
    x = coordinates(shape)
    u = constant + np.einsum("ca,a...->c...", linear, x)
    if bend is not None:
        u = u + 0.5 * np.einsum("cab,a...,b...->c...", bend, x, x)
    return torch.from_numpy(u)[None]


def random_bend(dims: int, seed: int) -> Array:
    """Symmetric `(D, D, D)`."""
    half = np.random.default_rng(seed).normal(size=(dims, dims, dims))
    return half + half.transpose(0, 2, 1)


def spacing_of(spacing: tuple[float, ...], batch: int = 1) -> Tensor:
    return torch.tensor([spacing] * batch, dtype=torch.float64)

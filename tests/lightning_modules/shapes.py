"""Pairs whose motion is known in closed form, for the tests of the methods."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.types import RegistrationPair

Array = NDArray[np.float64]


def picture(where: Array, centre: Array) -> Array:
    """A textured unsymmetric object, a function of the position `(D, *S)` in mm."""
    p = where - np.reshape(centre, (-1, *(1,) * (where.ndim - 1)))
    waves = (((0.45, 0.15, 0.30), 0.3), ((-0.20, 0.50, 0.10), 1.0), ((0.25, -0.30, 0.45), 2.0))
    texture = sum(np.cos(np.tensordot(wave[: len(p)], p, axes=1) + phase) for wave, phase in waves)
    stretched = p * np.reshape((1.0, 1.25, 1.1)[: len(p)], (-1, *(1,) * (where.ndim - 1)))
    envelope = np.exp(-0.5 * (stretched**2).sum(0) / 10.0**2)
    return np.asarray((4.0 + texture) * envelope)


def pair_of(
    shape: tuple[int, ...],
    to_moving: Callable[[Array], Array],
    spacing: tuple[float, ...] | None = None,
    *,
    contrast: Callable[[Array], Array] = lambda v: v,
    moving_shape: tuple[int, ...] | None = None,
    moving_spacing: tuple[float, ...] | None = None,
) -> tuple[RegistrationPair, Tensor]:
    """A pair and its true displacement in voxels; `to_moving` maps fixed positions `(D, *S)` in mm to moving ones."""
    s = np.reshape(spacing or (1.0,) * len(shape), (-1, *(1,) * len(shape)))
    t = np.reshape(moving_spacing, s.shape) if moving_spacing else s
    fixed_mm = np.indices(shape) * s
    centre = (np.array(shape) - 1) / 2 * s.ravel()
    there = to_moving(fixed_mm)
    # Fixed is sampled at the mapped positions: moving(T(x)) = fixed(x) holds exactly, nothing is interpolated.
    moving_mm = np.indices(moving_shape or shape) * t
    fixed, moving = picture(there, centre), contrast(picture(moving_mm, centre))
    tensors = [torch.from_numpy(v)[None, None].float() for v in (fixed, moving)]
    known = spacing is not None
    pair = RegistrationPair(
        ("case",),
        *tensors,
        fixed_spacing_mm=torch.tensor([spacing]) if known else None,
        moving_spacing_mm=torch.tensor([moving_spacing or spacing]) if known else None,
    )
    return pair, torch.from_numpy(there / t - np.indices(shape))[None].float()


def shifted(*shift_mm: float) -> Callable[[Array], Array]:
    """Positions moved by `shift_mm`."""
    return lambda x: x + np.reshape(shift_mm, (-1, *(1,) * len(shift_mm)))


def linear(matrix: Array, centre: Array) -> Callable[[Array], Array]:
    """Positions mapped by `matrix` about `centre`."""

    def mapped(x: Array) -> Array:
        middle = np.reshape(centre, (-1, *(1,) * (x.ndim - 1)))
        return np.tensordot(matrix, x - middle, axes=1) + middle

    return mapped


def rotation(degrees: float) -> Array:
    """A 2-D rotation."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def error_in_object(u: Tensor, truth: Tensor, pair: RegistrationPair) -> float:
    """Mean end-point error in voxels where the fixed image is bright."""
    where = pair.fixed[0, 0] > 0.15 * pair.fixed.max()
    return float(torch.linalg.vector_norm(u - truth, dim=1)[0][where].mean())

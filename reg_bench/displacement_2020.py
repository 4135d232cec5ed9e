"""The array form of fields in Learn2Reg 2020: float16, mostly at half resolution.

Values are voxels of the full grid always; only the grid is coarser. Both ways go by a spline of order 2 with the end
points aligned, as the evaluation of 2020 and the teams' writers do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.errors import DataError


def half_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The grid of half resolution: what `scipy.ndimage.zoom` makes of it with the factor 0.5."""
    return tuple(max(1, round(n * 0.5)) for n in shape)


def as_float16(array: NDArray[Any], name: str) -> NDArray[np.float16]:
    """The array in half precision.

    Raises:
        DataError: a value that does not fit; `name` stands in the message.
    """
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    if not np.isfinite(small).all():
        raise DataError(f"{name}: displacements up to {np.abs(array).max():.4g} voxels do not fit into float16")
    return small


def encode_2020(u: NDArray[Any], *, half: bool, name: str) -> NDArray[np.float16]:
    """A field `(D, *S)` in voxels as the challenge of 2020 stored it, `(D, *S')`.

    Raises:
        DataError: a value beyond float16.
    """
    u = u.astype(np.float32)
    if half:
        u = _zoomed(u, half_shape(u.shape[1:]))
    return as_float16(u, name)


def decode_2020(array: NDArray[np.float16], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What the evaluation of 2020 makes of a stored array: `(D, *S)` float32 on the full grid `shape`."""
    u: NDArray[np.float32] = array.astype(np.float32)
    return u if u.shape[1:] == shape else _zoomed(u, shape)


def _zoomed(u: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    from scipy.ndimage import zoom

    factors = [n / m for n, m in zip(shape, u.shape[1:], strict=True)]
    return np.stack([zoom(component, factors, order=2) for component in u])


def stored_2020(u: Tensor, *, half: bool, name: str) -> Tensor:
    """The field `(1, D, *S)` that is left after it was stored in the form of 2020: what that evaluation scores.

    Raises:
        DataError: a value beyond float16.
    """
    full = tuple(u.shape[2:])
    stored = encode_2020(u[0].detach().cpu().numpy(), half=half, name=name)
    return torch.from_numpy(np.ascontiguousarray(decode_2020(stored, full)))[None].to(u.device)

"""The forms in which the pure functions take their arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.types import DisplacementField


def label_array(name: str, *maps: Any) -> tuple[NDArray[np.integer], ...]:
    """Label maps as integer arrays of equal spatial shape; leading axes `(1, 1)` are dropped.

    Raises:
        ValueError: shapes that differ, several cases or channels, or values that are not integers.
    """
    arrays = tuple(_spatial(name, m.detach().cpu().numpy() if isinstance(m, Tensor) else np.asarray(m)) for m in maps)
    if len({a.shape for a in arrays}) > 1:
        raise ValueError(f"{name}: label maps of different shapes {[a.shape for a in arrays]}")
    return arrays


def _spatial(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: label maps must be integers, got {array.dtype}")
    if array.ndim in (4, 5) and array.shape[:2] == (1, 1):
        array = array[0, 0]
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"{name}: a label map must have 2 or 3 axes, or (1, 1) in front of them, got {array.shape}")
    return array


def one_field(name: str, field: DisplacementField | Tensor) -> Tensor:
    """`(D, *S)` of a field of one case, on the CPU.

    Raises:
        ValueError: not `(1, D, *S)`.
    """
    u = field.u if isinstance(field, DisplacementField) else field
    if u.ndim not in (4, 5) or u.shape[0] != 1 or u.shape[1] != u.ndim - 2:
        raise ValueError(f"{name}: expected the field of one case (1, D, *spatial), got shape {tuple(u.shape)}")
    return u[0].detach().cpu()


def one_mask(name: str, mask: Tensor | None, spatial: tuple[int, ...]) -> Tensor | None:
    """`(*S)` bool mask of one case, given as `(*S)` or `(1, 1, *S)`; `None` stays `None`.

    Raises:
        ValueError: another shape.
    """
    if mask is None:
        return None
    if tuple(mask.shape) not in (spatial, (1, 1, *spatial)):
        raise ValueError(f"{name}: the mask has shape {tuple(mask.shape)}, expected {spatial} or (1, 1, *{spatial})")
    return mask.reshape(spatial).bool().cpu()


def scale_of(name: str, spacing: Any, dims: int) -> Tensor:
    """`(D,)` float64 of a spacing given as numbers, `(D,)` or `(1, D)`; ones for `None`.

    Raises:
        ValueError: another number of values, or values that are not positive.
    """
    if spacing is None:
        return torch.ones(dims, dtype=torch.float64)
    given = spacing.detach().cpu() if isinstance(spacing, Tensor) else spacing
    scale = np.array(given, dtype=np.float64).reshape(-1)
    if scale.shape != (dims,) or not min(scale.tolist()) > 0:
        raise ValueError(f"{name}: the spacing must be {dims} positive numbers, got {scale.tolist()}")
    return torch.from_numpy(scale)

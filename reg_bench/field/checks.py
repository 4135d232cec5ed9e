"""What every function of fields checks of its arguments, and the dtype it computes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("border", "zeros")


def check_options(name: str, mode: str, padding: str) -> None:
    if mode not in MODES:
        raise ValueError(f"{name}: mode must be one of {MODES}, got {mode!r}")
    if padding not in PADDINGS:
        raise ValueError(f"{name}: padding must be one of {PADDINGS}, got {padding!r}")


def check_field(name: str, u: Tensor, argument: str = "u") -> None:
    dims = u.ndim - 2
    if dims not in (2, 3) or u.shape[1] != dims or not u.is_floating_point():
        raise ValueError(
            f"{name}: {argument} must be a floating point field (B, D, *spatial) with D = 2 or 3 spatial axes "
            f"and D channels, got {u.dtype} {tuple(u.shape)}"
        )
    if 0 in u.shape[2:]:
        raise ValueError(f"{name}: {argument} has an empty spatial axis, got shape {tuple(u.shape)}")


def check_image(name: str, image: Tensor, batch: int, dims: int, argument: str = "image") -> None:
    if image.ndim != dims + 2 or image.shape[0] != batch or 0 in image.shape[2:]:
        raise ValueError(
            f"{name}: {argument} must be (B, C, *spatial) with B = {batch} and {dims} non-empty spatial axes, "
            f"got shape {tuple(image.shape)}"
        )


def at_least_float32(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: the widest of the tensors and never below float32, which positions need."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def needs_graph(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def identity_grid(
    spatial: Sequence[int],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The voxel coordinates of a grid: `(D, *spatial)`, entry `c` is the index along axis `c`."""
    axes = [torch.arange(n, device=device, dtype=dtype) for n in spatial]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def is_outside(positions: Tensor, spatial: Sequence[int]) -> Tensor:
    """Where positions `(..., D)` lie outside `[0, n - 1]` on any axis: `(...)` bool."""
    upper = positions.new_tensor([n - 1 for n in spatial])
    return ((positions < 0) | (positions > upper)).any(dim=-1)


def mark_nan(name: str, out: Tensor, bad: Tensor) -> Tensor:
    """`out (B, C, ...)` with NaN where `bad (B, ...)`: nothing is invented for a position that is not a number."""
    if not bool(bad.any()):
        return out
    if not out.is_floating_point():
        raise ValueError(f"{name}: {int(bad.sum())} positions are NaN, which {out.dtype} values cannot show")
    return out.masked_fill(bad[:, None], torch.nan)

"""Values of images and fields at points, by gathering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32, check_image, check_options, is_outside, mark_nan, needs_graph
from reg_bench.gather import linear_at


def _keys_weights(fraction: Tensor) -> Tensor:
    """Weights `(..., 4)` of the taps at -1, 0, 1, 2 for a fraction in `[0, 1)`.

    Cubic convolution with a = -1/2, third-order accurate: Keys, IEEE Trans. ASSP 29 (1981), equation 15.
    """
    t = fraction
    t2, t3 = t * t, t * t * t
    return torch.stack(
        (-0.5 * t3 + t2 - 0.5 * t, 1.5 * t3 - 2.5 * t2 + 1.0, -1.5 * t3 + 2.0 * t2 + 0.5 * t, 0.5 * t3 - 0.5 * t2),
        dim=-1,
    )


def taps_of(positions: Tensor, last: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Indices and weights `(..., K)` of the voxels along an axis that make up the value at `positions`.

    The position is clamped to the axis, whose last index is `last` (broadcast), and indices beyond its ends repeat
    the border voxel. NaN positions keep NaN weights.
    """
    clamped = torch.clamp(positions, torch.zeros_like(last), last)
    base = clamped.detach().floor()
    fraction = clamped - base
    first = base.nan_to_num(0.0).long()
    end = last.long()[..., None]
    if mode == "linear":
        indices = torch.stack((first, first + 1), dim=-1)
        return torch.minimum(indices, end), torch.stack((1 - fraction, fraction), dim=-1)
    indices = first[..., None] + torch.arange(-1, 3, device=positions.device)
    return torch.minimum(indices.clamp_(min=0), end), _keys_weights(fraction)


def strides_of(spatial: Sequence[int]) -> list[int]:
    strides = [1]
    for n in reversed(spatial[1:]):
        strides.append(strides[-1] * n)
    return strides[::-1]


def interpolate_at(values: Tensor, positions: Tensor, mode: str) -> Tensor:
    """Linear or cubic interpolation of `values (B, C, *S)` at `positions (B, N, D)` by gathering: `(B, C, N)`."""
    spatial = values.shape[2:]
    batch, channels = values.shape[:2]
    taps, weights = taps_of(positions, positions.new_tensor([n - 1 for n in spatial]), mode)
    taps = taps * torch.tensor(strides_of(spatial), device=positions.device)[:, None]
    # Sums of indices and products of weights over all combinations of taps, one axis after the other.
    index, weight = taps[:, :, 0], weights[:, :, 0]
    for axis in range(1, len(spatial)):
        index = (index[..., None] + taps[:, :, axis, None]).flatten(2)
        weight = (weight[..., None] * weights[:, :, axis, None]).flatten(2)
    flat = index.flatten(1)[:, None].expand(-1, channels, -1)
    corners = values.flatten(2).gather(2, flat).reshape(batch, channels, *index.shape[1:])
    return (corners.to(weight.dtype) * weight[:, None]).sum(dim=-1)


def _linear_on_cpu(values: Tensor, positions: Tensor) -> Tensor | None:
    """`interpolate_at` for linear interpolation, fast for few points.

    `None` where it does not apply: a graph, another device, strided memory, or NaN positions.
    """
    if values.device.type != "cpu" or positions.device.type != "cpu" or not values.is_contiguous():
        return None
    if values.dtype not in (torch.float32, torch.float64) or needs_graph(values, positions):
        return None
    where = positions.detach().numpy()
    if np.isnan(where.sum()):
        return None
    cases = [linear_at(image, at) for image, at in zip(values.detach().numpy(), where, strict=True)]
    return torch.from_numpy(np.stack(cases))


def _nearest_at(values: Tensor, positions: Tensor) -> Tensor:
    """`values` at `floor(x + 0.5)`, clamped to the grid: `(B, C, N)` in the dtype of `values`."""
    spatial = values.shape[2:]
    index = torch.zeros(positions.shape[:2], dtype=torch.long, device=positions.device)
    for axis, (n, stride) in enumerate(zip(spatial, strides_of(spatial), strict=True)):
        rounded = (positions[..., axis] + 0.5).floor_().clamp_(0, n - 1)
        index += rounded.nan_to_num_(0.0).long() * stride
    return values.flatten(2).gather(2, index[:, None].expand(-1, values.shape[1], -1))


def sample(values: Tensor, points: Tensor, mode: str = "linear", padding: str = "border") -> Tensor:
    """The values of an image or field at points, never rounded to voxels.

    Args:
        values: `(B, C, *S)`.
        points: `(B, N, D)` voxel coordinates.
        mode: `linear`, `nearest` (at `floor(x + 0.5)`) or `cubic` (Keys' kernel, a = -1/2).
        padding: what lies outside the grid: `border` repeats the border voxel, `zeros` gives 0 at every
            position outside `[0, n - 1]` on any axis.

    Returns:
        `(B, N, C)`; `nearest` in the dtype of `values`, else in the wider of both dtypes and float32. NaN
        points give NaN.

    Raises:
        ValueError: shapes that do not fit, an unknown option, or NaN points where integers are to be returned.
    """
    check_options("sample", mode, padding)
    dims = values.ndim - 2
    if points.ndim != 3 or points.shape[2] != dims or not points.is_floating_point():
        raise ValueError(
            f"sample: points must be floating point (B, N, {dims}) voxels for values of shape "
            f"{tuple(values.shape)}, got {points.dtype} {tuple(points.shape)}"
        )
    check_image("sample", values, points.shape[0], dims, "values")
    positions = points.to(at_least_float32(points) if mode == "nearest" else at_least_float32(points, values))
    if mode == "nearest":
        out = _nearest_at(values, positions)
        out = mark_nan("sample", out, positions.isnan().any(dim=-1))
    else:
        fast = _linear_on_cpu(values, positions) if mode == "linear" else None
        out = interpolate_at(values, positions, mode) if fast is None else fast
    if padding == "zeros":
        out = out.masked_fill(is_outside(positions, values.shape[2:])[:, None], 0)
    return out.transpose(1, 2)

"""Displacement fields on tensors: warping, sampling, composition, inversion, exponential, resizing, Jacobian.

Convention (DESIGN.md section 2): an image is `(B, C, *S)`; a displacement `u` is `(B, D, *S)` on the fixed
grid, in **voxels**, channel `c` along spatial axis `c`; it pulls back, `warped(x) = image(x + u(x))`. This is
the only module that calls `grid_sample` or `interpolate` on images and fields, always with
`align_corners=True`, so that voxel centres are the same points everywhere.

All functions take 2-D and 3-D tensors on any device and are differentiable where the mathematics is
(linear and cubic interpolation in both image and field, composition, exponential, resizing, Jacobian).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("border", "zeros")


def _check_options(name: str, mode: str, padding: str) -> None:
    if mode not in MODES:
        raise ValueError(f"{name}: mode must be one of {MODES}, got {mode!r}")
    if padding not in PADDINGS:
        raise ValueError(f"{name}: padding must be one of {PADDINGS}, got {padding!r}")


def _check_field(name: str, u: Tensor, argument: str = "u") -> None:
    dims = u.ndim - 2
    if dims not in (2, 3) or u.shape[1] != dims or not u.is_floating_point():
        raise ValueError(
            f"{name}: {argument} must be a floating point field (B, D, *spatial) with D = 2 or 3 spatial axes "
            f"and D channels, got {u.dtype} {tuple(u.shape)}"
        )
    if 0 in u.shape[2:]:
        raise ValueError(f"{name}: {argument} has an empty spatial axis, got shape {tuple(u.shape)}")


def _check_image(name: str, image: Tensor, batch: int, dims: int, argument: str = "image") -> None:
    if image.ndim != dims + 2 or image.shape[0] != batch or 0 in image.shape[2:]:
        raise ValueError(
            f"{name}: {argument} must be (B, C, *spatial) with B = {batch} and {dims} non-empty spatial axes, "
            f"got shape {tuple(image.shape)}"
        )


def _at_least_float32(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: the widest of the tensors and never below float32, which positions need."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def identity_grid(
    spatial: Sequence[int],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The voxel coordinates of a grid: `(D, *spatial)`, entry `c` is the index along axis `c`."""
    axes = [torch.arange(n, device=device, dtype=dtype) for n in spatial]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _outside(positions: Tensor, spatial: Sequence[int]) -> Tensor:
    """Where positions `(..., D)` lie outside `[0, n - 1]` on any axis: `(...)` bool."""
    upper = positions.new_tensor([n - 1 for n in spatial])
    return ((positions < 0) | (positions > upper)).any(dim=-1)


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


def _taps(positions: Tensor, last: Tensor, mode: str) -> tuple[Tensor, Tensor]:
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


def _strides(spatial: Sequence[int]) -> list[int]:
    strides = [1]
    for n in reversed(spatial[1:]):
        strides.append(strides[-1] * n)
    return strides[::-1]


def _interpolate_at(values: Tensor, positions: Tensor, mode: str) -> Tensor:
    """Linear or cubic interpolation of `values (B, C, *S)` at `positions (B, N, D)` by gathering: `(B, C, N)`."""
    spatial = values.shape[2:]
    batch, channels = values.shape[:2]
    taps, weights = _taps(positions, positions.new_tensor([n - 1 for n in spatial]), mode)
    taps = taps * torch.tensor(_strides(spatial), device=positions.device)[:, None]
    # Sums of indices and products of weights over all combinations of taps, one axis after the other.
    index, weight = taps[:, :, 0], weights[:, :, 0]
    for axis in range(1, len(spatial)):
        index = (index[..., None] + taps[:, :, axis, None]).flatten(2)
        weight = (weight[..., None] * weights[:, :, axis, None]).flatten(2)
    flat = index.flatten(1)[:, None].expand(-1, channels, -1)
    corners = values.flatten(2).gather(2, flat).reshape(batch, channels, *index.shape[1:])
    return (corners.to(weight.dtype) * weight[:, None]).sum(dim=-1)


def _nearest_at(values: Tensor, positions: Tensor) -> Tensor:
    """`values` at `floor(x + 0.5)`, clamped to the grid: `(B, C, N)` in the dtype of `values`."""
    spatial = values.shape[2:]
    index = torch.zeros(positions.shape[:2], dtype=torch.long, device=positions.device)
    for axis, (n, stride) in enumerate(zip(spatial, _strides(spatial), strict=True)):
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
    _check_options("sample", mode, padding)
    dims = values.ndim - 2
    if points.ndim != 3 or points.shape[2] != dims or not points.is_floating_point():
        raise ValueError(
            f"sample: points must be floating point (B, N, {dims}) voxels for values of shape "
            f"{tuple(values.shape)}, got {points.dtype} {tuple(points.shape)}"
        )
    _check_image("sample", values, points.shape[0], dims, "values")
    positions = points.to(_at_least_float32(points) if mode == "nearest" else _at_least_float32(points, values))
    if mode == "nearest":
        out = _nearest_at(values, positions)
        out = _mark_nan("sample", out, positions.isnan().any(dim=-1))
    else:
        out = _interpolate_at(values, positions, mode)
    if padding == "zeros":
        out = out.masked_fill(_outside(positions, values.shape[2:])[:, None], 0)
    return out.transpose(1, 2)


def _mark_nan(name: str, out: Tensor, bad: Tensor) -> Tensor:
    """`out (B, C, ...)` with NaN where `bad (B, ...)`: nothing is invented for a position that is not a number."""
    if not bool(bad.any()):
        return out
    if not out.is_floating_point():
        raise ValueError(f"{name}: {int(bad.sum())} positions are NaN, which {out.dtype} values cannot show")
    return out.masked_fill(bad[:, None], torch.nan)


def warp(image: Tensor, u: Tensor, mode: str = "linear", padding: str = "border") -> Tensor:
    """An image pulled onto the grid of a field: `out(x) = image(x + u(x))`.

    Args:
        image: `(B, C, *S_image)`, any dtype; its grid may differ in size from the field's: both count voxels
            from the same first voxel.
        u: `(B, D, *S)` in voxels.
        mode, padding: as in `sample`.

    Returns:
        `(B, C, *S)`; `nearest` keeps the dtype of `image`, the others return the wider of both dtypes.

    Raises:
        ValueError: shapes that do not fit, an unknown option, or a field with NaN on an integer image.
    """
    _check_options("warp", mode, padding)
    _check_field("warp", u)
    _check_image("warp", image, u.shape[0], u.ndim - 2)
    if mode == "nearest" or not _needs_graph(image, u):
        return _warp_blocks(image, u, mode, padding)
    work = _at_least_float32(image, u)
    positions = (identity_grid(u.shape[2:], u.device, work) + u).movedim(1, -1)
    if mode == "linear":
        out = _mark_nan("warp", _grid_sample(image.to(work), positions), positions.isnan().any(dim=-1))
    else:
        out = _interpolate_at(image, positions.flatten(1, -2), mode).reshape(*image.shape[:2], *u.shape[2:])
    if padding == "zeros":
        out = out.masked_fill(_outside(positions, image.shape[2:])[:, None], 0)
    return out.to(torch.promote_types(image.dtype, u.dtype))


def _needs_graph(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _grid_sample(image: Tensor, positions: Tensor) -> Tensor:
    """Linear interpolation of `image (B, C, *S)` at voxel `positions (B, *S', D)`, border repeated."""
    half = positions.new_tensor([max(n - 1, 1) / 2 for n in image.shape[2:]])
    grid = (positions / half - 1).flip(-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def compose(u: Tensor, v: Tensor) -> Tensor:
    """The field that warps by `u` first and by `v` on the result.

    `w(x) = v(x) + u(x + v(x))`, so that `warp(warp(m, u), v) == warp(m, w)` up to interpolation; as maps
    `id + w = (id + u) o (id + v)`. Beyond its grid `u` continues with its border values.

    Args:
        u: `(B, D, *S_u)`, voxels.
        v: `(B, D, *S)`, voxels of the grid of the result.
    """
    _check_field("compose", v, "v")
    _check_field("compose", u)
    if _needs_graph(u, v):
        return v + warp(u, v)
    w = warp(u, v)
    return w.add_(v) if w.dtype == torch.promote_types(w.dtype, v.dtype) else v + w


def invert(u: Tensor, iterations: int = 50, tolerance: float = 1e-3) -> tuple[Tensor, Tensor]:
    """The inverse field and how far it is from being one.

    Solves `v(x) = -u(x + v(x))`: first everywhere by the fixed-point iteration of Chen et al., Medical Physics 35
    (2008), with a step that each voxel halves where the error grew; then, where `u` changes too fast for it, by
    damped Newton steps voxel by voxel. A worse value is never accepted.

    Args:
        u: `(B, D, *S)`, voxels. Beyond its grid it continues with its border values.
        iterations: most steps in all, of which the fixed-point iteration takes at most half.
        tolerance: a voxel is solved when its error is at most this, in voxels.

    Returns:
        `v (B, D, *S)` and the error `|u(x + v(x)) + v(x)|` `(B, 1, *S)` in voxels. Where `u` folds, several inverses
        exist or none is found; then the error stays large. It is NaN where `u` is. A gradient flows through the
        last fixed-point step only.
    """
    _check_field("invert", u)
    with torch.no_grad():
        inverse, error = _fixed_point_inverse(u.detach(), iterations // 2, tolerance)
        for case in range(u.shape[0]):
            _newton_inverse(u.detach()[case], inverse[case], error[case, 0], iterations - iterations // 2, tolerance)
    if _needs_graph(u):
        inverse = -warp(u, inverse)
        error = torch.linalg.vector_norm(warp(u, inverse) + inverse, dim=1, keepdim=True)
    return inverse, error


def _fixed_point_inverse(u: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Inverse and error after damped fixed-point steps on the whole grid."""
    inverse = torch.zeros_like(u)
    residual = u.clone()
    error = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
    step = torch.ones_like(error)
    for _ in range(iterations):
        if bool((error <= tolerance).all()):
            break
        trial = inverse - step * residual
        trial_residual = warp(u, trial) + trial
        trial_error = torch.linalg.vector_norm(trial_residual, dim=1, keepdim=True)
        better = trial_error < error
        inverse = torch.where(better, trial, inverse)
        residual = torch.where(better, trial_residual, residual)
        error = torch.where(better, trial_error, error)
        step = torch.where(better, (step * 1.25).clamp_(max=1.0), step * 0.5)
    return inverse, error


_NEWTON_POINTS = 1 << 15


def _newton_inverse(u: Tensor, inverse: Tensor, error: Tensor, iterations: int, tolerance: float) -> None:
    """Improves `inverse (D, *S)` and `error (*S)` of one case in place, at the voxels that are not solved."""
    for voxels in torch.split(torch.nonzero(error > tolerance), _NEWTON_POINTS):
        where = tuple(voxels.T)
        x = voxels.to(u.dtype)[None]
        v, best = inverse[(slice(None), *where)].T[None], error[where][None, :, None]
        step = torch.ones_like(best)
        for _ in range(iterations):
            if bool((best <= tolerance).all()):
                break
            residual = sample(u[None], x + v) + v
            trial = v - step * _newton_step(u, x + v, residual)
            distance = torch.linalg.vector_norm(sample(u[None], x + trial) + trial, dim=2, keepdim=True)
            better = distance < best
            v, best = torch.where(better, trial, v), torch.where(better, distance, best)
            step = torch.where(better, (step * 2).clamp_(max=1.0), step * 0.5)
        inverse[(slice(None), *where)] = v[0].T
        error[where] = best[0, :, 0]


def _newton_step(u: Tensor, points: Tensor, residual: Tensor) -> Tensor:
    """`(I + du/dx)^-1 residual` at `points (1, N, D)`; the residual itself where that does not exist."""
    dims = points.shape[2]
    half = torch.eye(dims, dtype=points.dtype, device=points.device) / 2
    columns = [sample(u[None], points + h) - sample(u[None], points - h) for h in half]
    matrix = torch.stack(columns, dim=-1) + 2 * half
    solution = torch.linalg.solve_ex(matrix, residual[..., None])[0][..., 0]
    return torch.where(solution.isfinite().all(dim=2, keepdim=True), solution, residual)


def exponential(velocity: Tensor, steps: int = 7) -> Tensor:
    """The displacement of a stationary velocity field after unit time, by scaling and squaring.

    `exp(v) = exp(v / 2^steps)` composed with itself `steps` times: Arsigny et al., MICCAI 2006. The first
    step is Euler's, so the relative error is about `|grad v| / 2^(steps + 1)`.

    Args:
        velocity: `(B, D, *S)`, voxels per unit time.
        steps: number of squarings, at least 0.

    Returns:
        `(B, D, *S)` voxels; `exponential(-v)` is the inverse.
    """
    _check_field("exponential", velocity, "velocity")
    if steps < 0:
        raise ValueError(f"exponential: steps must be at least 0, got {steps}")
    u = velocity / 2**steps
    for _ in range(steps):
        u = compose(u, u)
    return u


def _check_size(name: str, size: Sequence[int], dims: int) -> tuple[int, ...]:
    if len(size) != dims or any(n < 1 for n in size):
        raise ValueError(f"{name}: size must hold {dims} positive lengths, got {tuple(size)}")
    return tuple(int(n) for n in size)


def resize(u: Tensor, size: Sequence[int]) -> Tensor:
    """A field on another grid over the same extent, linearly interpolated, in voxels of the new grid.

    First and last voxel of both grids coincide, so a voxel shrinks by `(n' - 1) / (n - 1)` and the values grow
    by the same factor.

    Args:
        u: `(B, D, *S)`, voxels.
        size: the new spatial shape.

    Raises:
        ValueError: a wrong size, or an axis of length 1 that should become longer: it has no extent to share.
    """
    _check_field("resize", u)
    size = _check_size("resize", size, u.ndim - 2)
    factors = []
    for axis, (old, new) in enumerate(zip(u.shape[2:], size, strict=True)):
        if old == 1 and new > 1:
            raise ValueError(f"resize: axis {axis} has length 1 and no extent that {new} voxels could share")
        factors.append(1.0 if old == new else (new - 1) / (old - 1))
    scale = torch.tensor(factors, dtype=u.dtype, device=u.device).reshape(1, -1, *(1,) * len(size))
    return resize_image(u, size) * scale


def resize_image(image: Tensor, size: Sequence[int], mode: str = "linear") -> Tensor:
    """An image on another grid over the same extent (first and last voxel coincide); values unchanged.

    Args:
        image: `(B, C, *S)`; `nearest` keeps its dtype, the others return floating point.
        size: the new spatial shape.
        mode: `linear`, `nearest` (`floor(x + 0.5)`) or `cubic` (Keys' kernel). No low-pass filter is applied.
    """
    _check_options("resize_image", mode, "border")
    _check_image("resize_image", image, image.shape[0], image.ndim - 2)
    size = _check_size("resize_image", size, image.ndim - 2)
    if mode != "nearest":
        image = image if image.is_floating_point() else image.float()
    if mode == "linear":
        kind = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        return F.interpolate(image, size=size, mode=kind, align_corners=True)
    for axis, new in enumerate(size):
        old = image.shape[axis + 2]
        if new != old:
            ratio = (old - 1) / (new - 1) if new > 1 else 0.0
            where = torch.arange(new, device=image.device, dtype=torch.float64) * ratio
            image = _resize_axis(image, axis + 2, where, mode)
    return image


def _resize_axis(image: Tensor, dim: int, where: Tensor, mode: str) -> Tensor:
    """`image` at the positions `where (n',)` along one axis, by nearest or cubic interpolation."""
    last = image.shape[dim] - 1
    if mode == "nearest":
        return image.index_select(dim, (where + 0.5).floor().long().clamp_(0, last))
    taps, weights = _taps(where, where.new_tensor(last), mode)
    shape = [1] * image.ndim
    shape[dim] = -1
    parts = (
        image.index_select(dim, taps[:, k]) * weights[:, k].to(image.dtype).reshape(shape) for k in range(taps.shape[1])
    )
    return torch.stack(list(parts)).sum(dim=0)


def _difference(f: Tensor, dim: int) -> Tensor:
    """Derivative along `dim` in voxels as `numpy.gradient`: central inside, one-sided at both ends."""
    n = f.shape[dim]
    if n == 1:
        return torch.zeros_like(f)
    first = f.narrow(dim, 1, 1) - f.narrow(dim, 0, 1)
    if n == 2:
        return torch.cat((first, first), dim=dim)
    inner = (f.narrow(dim, 2, n - 2) - f.narrow(dim, 0, n - 2)) / 2
    last = f.narrow(dim, n - 1, 1) - f.narrow(dim, n - 2, 1)
    return torch.cat((first, inner, last), dim=dim)


def _determinant(rows: list[list[Tensor]]) -> Tensor:
    """Determinant of a 2x2 or 3x3 matrix whose entries are tensors of one shape."""
    if len(rows) == 2:
        (a, b), (c, d) = rows
        return a * d - b * c
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


# Voxels of a slab: its dozen temporaries should stay in the cache, and too thin slabs cost overhead.
_SLAB_VOXELS = 1 << 17


def jacobian_slabs(u: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The Jacobian determinant of one field, slab by slab along the first axis.

    Statistics over a volume then need no temporary of its size.

    Args:
        u: `(D, *S)`, voxels.

    Yields:
        a slice of the first spatial axis and `det(I + du/dx)` there, `(k, *S[1:])`; derivatives as in
        `jacobian_determinant`. Together the slices cover the axis once, in order.
    """
    if u.ndim not in (3, 4) or u.shape[0] != u.ndim - 1:
        raise ValueError(f"jacobian_slabs: u must be one field (D, *spatial), got shape {tuple(u.shape)}")
    length = u.shape[1]
    planes = max(1, _SLAB_VOXELS // max(1, u[0, 0].numel()))
    for start in range(0, length, planes):
        stop = min(length, start + planes)
        yield slice(start, stop), _slab_determinant(u, start, stop)


def _slab_determinant(u: Tensor, start: int, stop: int) -> Tensor:
    """`det(I + du/dx)` of the planes from `start` to `stop`."""
    length, dims = u.shape[1], u.shape[0]
    low, high = max(0, start - 1), min(length, stop + 1)
    inside = slice(start - low, stop - low)
    slab = u[:, low:high]
    if not _needs_graph(u):
        return _slab_determinant_in_place(slab, inside)
    rows = []
    for axis in range(dims):
        parts = [_difference(slab[axis], 0)[inside]]
        parts += [_difference(slab[axis, inside], dim) for dim in range(1, dims)]
        parts[axis] = parts[axis] + 1
        rows.append(parts)
    return _determinant(rows)


def _slab_determinant_in_place(slab: Tensor, inside: slice) -> Tensor:
    """The same without a graph: differences are left doubled, so that the determinant is divided once."""
    dims = slab.shape[0]
    work = torch.promote_types(slab.dtype, torch.float32)
    slab = slab.to(work)
    rows = []
    for axis in range(dims):
        parts = [_doubled_difference(slab[axis], 0, inside)]
        parts += [_doubled_difference(slab[axis, inside], dim, slice(None)) for dim in range(1, dims)]
        parts[axis].add_(2.0)
        rows.append(parts)
    if dims == 2:
        (a, b), (c, d) = rows
        return a.mul_(d).addcmul_(b, c, value=-1).mul_(0.25)
    (a, b, c), (d, e, f), (g, h, i) = rows
    minor = torch.mul(e, i).addcmul_(f, h, value=-1)
    out = a.mul_(minor)
    torch.mul(d, i, out=minor).addcmul_(f, g, value=-1)
    out.addcmul_(b, minor, value=-1)
    torch.mul(d, h, out=minor).addcmul_(e, g, value=-1)
    return out.addcmul_(c, minor).mul_(0.125)


def _doubled_difference(f: Tensor, dim: int, keep: slice) -> Tensor:
    """Twice the derivative of `_difference`, of the indices `keep` along the first axis if that is `dim`."""
    n = f.shape[dim]
    first, stop, _ = keep.indices(n) if dim == 0 else (0, n, 1)
    shape = list(f.shape)
    shape[dim] = stop - first
    if n == 1:
        return f.new_zeros(shape)
    out = f.new_empty(shape)
    low, high = max(first, 1), min(stop, n - 1)
    if high > low:
        count = high - low
        torch.sub(f.narrow(dim, low + 1, count), f.narrow(dim, low - 1, count), out=out.narrow(dim, low - first, count))
    if first == 0:
        torch.sub(f.narrow(dim, 1, 1), f.narrow(dim, 0, 1), out=out.narrow(dim, 0, 1)).mul_(2)
    if stop == n:
        last = out.narrow(dim, stop - first - 1, 1)
        torch.sub(f.narrow(dim, n - 1, 1), f.narrow(dim, n - 2, 1), out=last).mul_(2)
    return out


def jacobian_determinant(u: Tensor, *, interior: bool = False) -> Tensor:
    """`det(I + du/dx)` of the map `x + u(x)`, in voxels.

    Central differences inside and one-sided ones at the border, as `numpy.gradient`; an axis of length 1
    contributes no derivative.

    Args:
        u: `(B, D, *S)`, voxels.
        interior: without the outermost layer of voxels, so that every difference is central; axes of length 1
            stay.

    Returns:
        `(B, 1, *S)`, or `(B, 1, *(S - 2))` for the interior.
    """
    _check_field("jacobian_determinant", u)
    if _needs_graph(u):
        out = torch.stack([torch.cat([slab for _, slab in jacobian_slabs(case)]) for case in u])[:, None]
    else:
        out = u.new_empty((u.shape[0], 1, *u.shape[2:]))
        for case, target in zip(u, out, strict=True):
            for where, slab in jacobian_slabs(case):
                target[0, where] = slab
    if interior:
        for dim in range(2, out.ndim):
            if out.shape[dim] > 1:
                out = out.narrow(dim, 1, max(0, out.shape[dim] - 2))
    return out


# ---------------------------------------------------------------------------------------------- by blocks
#
# Without a graph to record, a warp runs block by block: the coordinates of a block stay in the cache instead of
# making temporaries of several times the image, whose page faults cost more than the arithmetic.

_Block = tuple[slice, ...]
_Reader = Callable[[Tensor, Tensor, _Block, list[tuple[float, float]]], Tensor]
# A window of up to 129 voxels has normalised coordinates that float32 resolves to 1e-5 voxel.
_BLOCK_LENGTH = 96
_BLOCK_VOXELS = {"linear": 1 << 18, "nearest": 1 << 18, "cubic": 1 << 13}


def _blocks(spatial: Sequence[int], voxels: int) -> Iterator[_Block]:
    """Slices that cover a grid; all axes but the first are cut evenly into lengths up to `_BLOCK_LENGTH`."""
    lengths = [-(-n // -(-n // _BLOCK_LENGTH)) for n in spatial]
    lengths[0] = max(1, min(_BLOCK_LENGTH, voxels // math.prod(lengths[1:])))
    starts = (range(0, n, k) for n, k in zip(spatial, lengths, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + k, n)) for a, k, n in zip(corner, lengths, spatial, strict=True))


def _warp_blocks(image: Tensor, u: Tensor, mode: str, padding: str) -> Tensor:
    """`warp` without a graph."""
    image, u = image.detach(), u.detach()
    dtype = image.dtype if mode == "nearest" else torch.promote_types(image.dtype, u.dtype)
    out = image.new_empty((*image.shape[:2], *u.shape[2:]), dtype=dtype)
    work = _at_least_float32(u) if mode == "nearest" else _at_least_float32(image, u)
    image = image.contiguous() if mode == "nearest" else image.to(work)
    read = {"linear": _read_linear, "nearest": _read_nearest, "cubic": _read_cubic}[mode]
    for case, motion, target in zip(image, u, out, strict=True):
        for block in _blocks(u.shape[2:], _BLOCK_VOXELS[mode]):
            part = motion[(slice(None), *block)].to(work).contiguous()
            target[(slice(None), *block)] = _warp_block(case, part, block, read, padding)
    return out


def _warp_block(case: Tensor, part: Tensor, block: _Block, read: _Reader, padding: str) -> Tensor:
    """The warped values `(C, *block)` of one block from `case (C, *S)` and its displacement `part (D, *block)`."""
    spatial = case.shape[1:]
    ranges = []
    for motion, along in zip(part, block, strict=True):
        low, high = torch.aminmax(motion)
        ranges.append((float(low) + along.start, float(high) + along.stop - 1))
    values = read(case, part, block, ranges)
    if not all(math.isfinite(bound) for limits in ranges for bound in limits):
        values = _mark_nan("warp", values[None], part.isnan().any(dim=0)[None])[0]
    if padding == "zeros":
        for axis, ((low, high), n) in enumerate(zip(ranges, spatial, strict=True)):
            if not (low >= 0 and high <= n - 1):
                place = part[axis] + _index_along(block, axis, part)
                values.masked_fill_((place < 0) | (place > n - 1), 0)
    return values


def _index_along(block: _Block, axis: int, like: Tensor) -> Tensor:
    """The voxel indices of a block along one axis, shaped to broadcast over the block."""
    index = torch.arange(block[axis].start, block[axis].stop, dtype=like.dtype, device=like.device)
    return index.reshape([-1 if a == axis else 1 for a in range(len(block))])


def _window(low: float, high: float, n: int) -> tuple[int, int]:
    """First voxel and length of the piece of an axis that holds all positions from `low` to `high`.

    If there is room the length is `2^k + 1`: normalised coordinates of whole voxels are then exact.
    """
    first = min(max(math.floor(low), 0), n - 1) if math.isfinite(low) else 0
    last = min(max(math.floor(high) + 1, 0), n - 1) if math.isfinite(high) else n - 1
    length = last - first + 1
    exact = (1 << max(0, length - 2).bit_length()) + 1
    length = exact if exact <= n else length
    return min(first, n - length), length


def _read_linear(case: Tensor, part: Tensor, block: _Block, ranges: list[tuple[float, float]]) -> Tensor:
    """Linear interpolation by `grid_sample` in the window of the image that a block reads."""
    dims = part.shape[0]
    grid = part.new_empty((1, *part.shape[1:], dims))
    window = [slice(None)]
    for axis, ((low, high), n) in enumerate(zip(ranges, case.shape[1:], strict=True)):
        start, length = _window(low, high, n)
        window.append(slice(start, start + length))
        coordinate = grid[0, ..., dims - 1 - axis]
        if length == 1:
            coordinate.fill_(-1.0)
            continue
        scale = 2.0 / (length - 1)
        first = (_index_along(block, axis, part) - start) * scale - 1.0
        torch.add(first, part[axis], alpha=scale, out=coordinate)
    return F.grid_sample(case[tuple(window)][None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]


def _read_nearest(case: Tensor, part: Tensor, block: _Block, ranges: list[tuple[float, float]]) -> Tensor:
    """The voxel at `floor(x + 0.5)`.

    With whole `x`, `floor(x + u + 0.5) = x + floor((floor(2 u) + 1) / 2)`, and every step of that is exact in
    floating point: the result is that of the official evaluation of Learn2Reg, which computes in float64.
    """
    spatial = case.shape[1:]
    index = torch.zeros(part.shape[1:], dtype=_index_dtype(spatial), device=part.device)
    for axis, ((low, high), n, stride) in enumerate(zip(ranges, spatial, _strides(spatial), strict=True)):
        place = part[axis].mul(2).floor_().add_(1).mul_(0.5).floor_().add_(_index_along(block, axis, part))
        if not (low >= 0 and high <= n - 1):
            place.clamp_(0, n - 1)
        if math.isnan(low):
            place.nan_to_num_(0.0)
        index.add_(place.to(index.dtype), alpha=stride)
    flat = index.flatten()
    # One channel at a time: index_select is several times slower along the last axis of a matrix.
    return torch.stack([channel.flatten().index_select(0, flat) for channel in case]).reshape(-1, *index.shape)


def _index_dtype(spatial: Sequence[int]) -> torch.dtype:
    return torch.int32 if math.prod(spatial) < 2**31 else torch.int64


def _read_cubic(case: Tensor, part: Tensor, block: _Block, ranges: list[tuple[float, float]]) -> Tensor:
    """Cubic convolution by gathering."""
    positions = torch.stack([part[axis] + _index_along(block, axis, part) for axis in range(len(part))], dim=-1)
    return _interpolate_at(case[None], positions.reshape(1, -1, len(part)), "cubic").reshape(-1, *part.shape[1:])

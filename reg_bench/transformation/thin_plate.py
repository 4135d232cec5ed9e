"""Thin-plate splines through scattered points, as a function: thesis eqs. 2.9–2.10; Bookstein, IEEE PAMI 11 (1989)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reg_bench.field.checks import needs_graph

# Distances of a block of places to all control points: what stays in the cache.
_BLOCK_DISTANCES = 1 << 18


@dataclass(frozen=True)
class ThinPlate:
    """The spline `f(x) = a + B y + sum_i w_i U(|y - q_i|)` with `y = (x - centre) / scale`.

    Attributes:
        centre, scale: `(B, 1, D)` and `(B, 1, 1)`, what brings the control points near the unit ball.
        points: the control points `q (B, N, D)`.
        weights: `w (B, N, C)`; their sum and their first moment over the points are zero.
        polynomial: `a` and the columns of `B`, `(B, D + 1, C)`.

    All are float64.
    """

    centre: Tensor
    scale: Tensor
    points: Tensor
    weights: Tensor
    polynomial: Tensor

    def at(self, places: Tensor) -> Tensor:
        """The values `(B, M, C)` at `places (B, M, D)` in the unit of the source points, in the dtype of `places`."""
        batch, _, dims = self.points.shape
        if places.ndim != 3 or places.shape[0] != batch or places.shape[2] != dims:
            raise ValueError(f"ThinPlate.at: places must be ({batch}, M, {dims}), got {tuple(places.shape)}")
        y = (places.to(torch.float64) - self.centre) / self.scale
        blocks = torch.split(y, max(1, _BLOCK_DISTANCES // self.points.shape[1]), dim=1)
        return torch.cat([self._sparing(self._at_block, block) for block in blocks], dim=1).to(places.dtype)

    def on_grid(self, shape: Sequence[int], edges: Tensor, dtype: torch.dtype) -> Tensor:
        """The values at the voxels `x` of a grid, which lie at `x * edges`.

        Args:
            shape: of the grid.
            edges: `(B, D)`, what a voxel measures along each axis in the unit of the source points.
            dtype: of the result and of the arithmetic of the kernel.

        Returns:
            `(B, C, *S)`.
        """
        axes = []
        for k, n in enumerate(shape):
            index = torch.arange(n, device=edges.device, dtype=torch.float64)
            axes.append(((index * edges[:, k : k + 1] - self.centre[:, :, k]) / self.scale[:, :, 0]).to(dtype))
        plane = math.prod(shape[1:]) * self.points.shape[1]
        blocks = torch.split(axes[0], max(1, _BLOCK_DISTANCES // plane), dim=1)
        return torch.cat([self._sparing(self._on_block, block, *axes[1:]) for block in blocks], dim=1).movedim(-1, 1)

    def _sparing(self, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """The result of `function`, whose distances are computed again for the gradient rather than kept."""
        if needs_graph(self.points, self.weights, self.polynomial, *arguments):
            result: Tensor = checkpoint(function, *arguments, use_reentrant=False)
            return result
        return function(*arguments)

    def _at_block(self, y: Tensor) -> Tensor:
        squared = (y[:, :, None] - self.points[:, None]).square().sum(dim=-1)
        linear = self.polynomial[:, :1] + y @ self.polynomial[:, 1:]
        return kernel(squared, y.shape[2]) @ self.weights + linear

    def _on_block(self, *axes: Tensor) -> Tensor:
        """The values `(B, *S, C)` where the axes `(B, n)` cross. Squared distances to a point add up over the axes."""
        dims, dtype = len(axes), axes[0].dtype
        points, polynomial = self.points.to(dtype), self.polynomial.to(dtype)
        squared = (axes[0][:, :, None] - points[:, None, :, 0]).square()
        linear = polynomial[:, None, 0] + axes[0][:, :, None] * polynomial[:, None, 1]
        for k, axis in enumerate(axes[1:], start=1):
            broadcast = (len(axis), *(1,) * k, axis.shape[1])
            apart = (axis[:, :, None] - points[:, None, :, k]).square()
            squared = squared[..., None, :] + apart.reshape(*broadcast, -1)
            step = axis[:, :, None] * polynomial[:, None, 1 + k]
            linear = linear[..., None, :] + step.reshape(*broadcast, -1)
        value = kernel(squared, dims).flatten(1, -2) @ self.weights.to(dtype)
        return value.reshape(linear.shape) + linear


def thin_plate_spline(source: Tensor, target: Tensor, lam: float | Tensor = 0.0) -> ThinPlate:
    """The smoothest function that takes (nearly) the values `target` at the points `source`.

    It minimises `sum_i |f(p_i) - t_i|^2 + lam E(f)` with the bending energy `E` up to the constant of its kernel.

    Args:
        source: `(B, N, D)` distinct points in an isotropic unit, not all on one line (plane). An axis along which all
            of them are equal is left out.
        target: `(B, N, C)`, anything: places in another image, or displacements.
        lam: 0 interpolates exactly; added to the diagonal of the kernel matrix, as in `scipy.interpolate`. One for all
            points or `(B, N)`, one for each.

    Returns:
        the spline, differentiable in `source` and `target`; solved in float64.

    Raises:
        ValueError: shapes that do not fit, a negative `lam`, or points that do not determine the spline.
    """
    _check_points(source, target, lam)
    batch, count, dims = source.shape
    p = source.to(torch.float64)
    centre = p.mean(dim=1, keepdim=True)
    scale = (p - centre).detach().square().sum(dim=2).amax(dim=1).sqrt().clamp(min=1e-300)[:, None, None]
    q = (p - centre) / scale
    squared = (q[:, :, None] - q[:, None]).square().sum(dim=-1)
    basis = torch.cat((torch.ones_like(q[:, :, :1]), q), dim=2)
    flat = (q == q[:, :1]).all(dim=1)
    exact = bool((lam == 0).any()) if isinstance(lam, Tensor) else lam == 0
    _check_determined(squared.detach(), basis.detach(), flat, exact)
    # Scaling the points by s scales the kernel by s^2 (2-D, up to what the side conditions cancel) or s (3-D).
    held = lam[:, :, None].to(p.dtype) if isinstance(lam, Tensor) else lam
    smoothing = held / scale.square() if dims == 2 else held / scale
    eye = torch.eye(count, dtype=p.dtype, device=p.device)
    corner = torch.diag_embed(torch.cat((torch.zeros_like(flat[:, :1]), flat), dim=1).to(p.dtype))
    upper = torch.cat((kernel(squared, dims) + smoothing * eye, basis), dim=2)
    lower = torch.cat((basis.transpose(1, 2), corner), dim=2)
    values = torch.cat((target.to(p.dtype), p.new_zeros((batch, dims + 1, target.shape[2]))), dim=1)
    solution = torch.linalg.solve(torch.cat((upper, lower), dim=1), values)
    return ThinPlate(centre, scale, q, solution[:, :count], solution[:, count:])


def kernel(squared: Tensor, dims: int) -> Tensor:
    """`U` of squared distances: `r^2 log r` in 2-D and `-r` in 3-D.

    The thesis writes `r`: the sign is free as long as the spline interpolates; with smoothing it has to be this one.
    """
    if dims == 2:
        return squared * squared.clamp(min=torch.finfo(squared.dtype).tiny).log() / 2
    # The derivative of the root is infinite at 0, where it is multiplied by a difference of 0.
    return -squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()


def _check_points(source: Tensor, target: Tensor, lam: float | Tensor) -> None:
    if source.ndim != 3 or source.shape[2] not in (2, 3) or not source.is_floating_point():
        raise ValueError(f"thin_plate_spline: source must be floating point (B, N, D), got {tuple(source.shape)}")
    if target.ndim != 3 or target.shape[:2] != source.shape[:2]:
        raise ValueError(
            f"thin_plate_spline: target must be {(*source.shape[:2], 'C')} for source {tuple(source.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if isinstance(lam, Tensor) and lam.shape != source.shape[:2]:
        raise ValueError(
            f"thin_plate_spline: lam must be a number or {tuple(source.shape[:2])}, got {tuple(lam.shape)}"
        )
    least, most = (float(lam.min()), float(lam.max())) if isinstance(lam, Tensor) else (lam, lam)
    if not (least >= 0 and math.isfinite(most)):
        raise ValueError(f"thin_plate_spline: lam must be finite and at least 0, got {least if least < 0 else most}")
    if not bool(source.isfinite().all()):
        raise ValueError("thin_plate_spline: source must be finite, got NaN or infinity")


def _check_determined(squared: Tensor, basis: Tensor, flat: Tensor, exact: bool) -> None:
    """Raises `ValueError` if points coincide while they must be interpolated, or do not span the polynomials."""
    count = squared.shape[1]
    apart = squared + torch.eye(count, dtype=squared.dtype, device=squared.device)
    if exact and bool((apart == 0).any()):
        raise ValueError("thin_plate_spline: source must hold distinct points to interpolate (lam = 0)")
    rank = torch.linalg.matrix_rank(basis, rtol=1e-9)
    needed = basis.shape[2] - flat.sum(dim=1)
    if bool((rank < needed).any()):
        raise ValueError(
            f"thin_plate_spline: source must hold {basis.shape[2]} or more points that do not lie on one line (plane), "
            f"got {count} points that span {rank.tolist()} of {needed.tolist()} functions"
        )

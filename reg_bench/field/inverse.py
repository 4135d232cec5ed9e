"""The inverse of a displacement field, with its error."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.field.checks import check_field, needs_graph
from reg_bench.field.points import sample
from reg_bench.field.warping import warp


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
    check_field("invert", u)
    with torch.no_grad():
        inverse, error = _fixed_point_inverse(u.detach(), iterations // 2, tolerance)
        for case in range(u.shape[0]):
            _newton_inverse(u.detach()[case], inverse[case], error[case, 0], iterations - iterations // 2, tolerance)
    if needs_graph(u):
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

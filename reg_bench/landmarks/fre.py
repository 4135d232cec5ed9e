"""How far corresponding landmarks lie apart after registration (thesis eq. 2.32)."""

from __future__ import annotations

from torch import Tensor

from reg_bench.field import sample


def squared_distance(mapped: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of the squared distances of corresponding points, the objective of landmark registration.

    Args:
        mapped, target: `(B, N, D)` in one unit.
        weights: `(B, N)`, at least 0, not all zero; 0 leaves a point out, so that sets of unequal size share a batch.

    Returns:
        `(B,)` in squared units, differentiable: `sum_i w_i |p_i - q_i|^2 / sum_i w_i`.

    Raises:
        ValueError: shapes that do not fit, no points, negative weights or only zeros.
    """
    w = check_points("squared_distance", mapped, target, weights)
    # A point of weight 0 may be anything, NaN included.
    distance = (mapped - target).masked_fill(w[..., None] == 0, 0.0).square().sum(2)
    return (w * distance).sum(1) / w.sum(1)


def fiducial_registration_error(mapped: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Root of the weighted mean squared distance of corresponding points (thesis eq. 2.32): `(B,)`, same unit.

    The error on the points that a transform was fitted to; on points kept out of the fit it is the target
    registration error. Arguments as of `squared_distance`, which is what to minimise: the root has no gradient at 0.
    """
    return squared_distance(mapped, target, weights).sqrt()


def landmark_energy(
    u: Tensor, fixed: Tensor, moving: Tensor, weights: Tensor | None = None, spacing_mm: Tensor | None = None
) -> Tensor:
    """`squared_distance` between `x + u(x)` at fixed landmarks `x` and the moving ones, for fields.

    Args:
        u: `(B, D, *S)` voxels.
        fixed, moving: `(B, N, D)` voxels of the common grid.
        weights: `(B, N)`.
        spacing_mm: `(B, D)` voxel edges; without it the energy is in squared voxels.

    Returns:
        `(B,)` in mm² or squared voxels, differentiable in `u`.
    """
    mapped = fixed + sample(u, fixed)
    scale = 1.0 if spacing_mm is None else spacing_mm.to(u)[:, None]
    return squared_distance(mapped * scale, moving * scale, weights)


def check_points(name: str, source: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """The weights `(B, N)` of two corresponding sets of points `(B, N, D)`; ones where none are given."""
    if source.ndim != 3 or source.shape != target.shape or not source.is_floating_point():
        raise ValueError(
            f"{name}: expected two equal floating point shapes (B, N, D), got {source.dtype} "
            f"{tuple(source.shape)} and {tuple(target.shape)}"
        )
    if source.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one point, got shape {tuple(source.shape)}")
    if weights is None:
        return source.new_ones(source.shape[:2])
    if weights.shape != source.shape[:2]:
        raise ValueError(f"{name}: weights must be {tuple(source.shape[:2])}, got shape {tuple(weights.shape)}")
    if not bool((weights >= 0).all() and (weights.sum(1) > 0).all()):
        raise ValueError(f"{name}: weights must be at least 0 and not all 0 in a case, got {weights.tolist()}")
    return weights.to(source.dtype)

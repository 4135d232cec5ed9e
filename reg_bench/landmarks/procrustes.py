"""The affine map that carries one set of points onto another best, in closed form."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reg_bench.landmarks.affine_map import AffineMap
from reg_bench.landmarks.fre import check_points

Kind = Literal["translation", "rigid", "similarity", "affine"]
KINDS: tuple[Kind, ...] = ("translation", "rigid", "similarity", "affine")

# Far above the rounding errors of float64, far below what any point tells.
_UNDECIDED = 1e-10
# Points that extend less than this share of their extent across a plane lie in it, up to rounding in float32.
_FLAT = 1e-6


def least_points(kind: Kind, dims: int) -> int:
    """How many points in general position determine a map of this kind in `dims` dimensions."""
    _check_kind("least_points", kind)
    return {"translation": 1, "rigid": dims, "similarity": dims, "affine": dims + 1}[kind]


def _check_kind(name: str, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"{name}: kind must be one of {KINDS}, got {kind!r}")


def fit(source: Tensor, target: Tensor, kind: Kind = "rigid", weights: Tensor | None = None) -> AffineMap:
    """The map `T` of a kind that minimises `sum_i w_i |T(source_i) - target_i|^2` (thesis eq. 2.32).

    Rigid: Kabsch, Acta Crystallographica A32 (1976); similarity: Umeyama, IEEE Trans. PAMI 13 (1991), both without
    reflections; affine: weighted least squares. What points in special position leave open stays as it is: an affine
    map of points in a plane keeps the direction across it.

    Args:
        source, target: `(B, N, D)` in one isotropic unit (mm where the spacing is known).
        kind: of the map.
        weights: `(B, N)` as in `squared_distance`.

    Returns:
        one map per case in the dtype of the points, computed in float64; differentiable where the singular values
        are distinct.

    Raises:
        ValueError: an unknown kind, or points and weights that do not fit.
    """
    _check_kind("fit", kind)
    dtype = source.dtype
    w = check_points("fit", source, target, weights)
    share = (w.double() / w.double().sum(1, keepdim=True))[..., None]
    left_out = share == 0
    source, target = (p.masked_fill(left_out, 0.0).double() for p in (source, target))
    centres = [(share * points).sum(1) for points in (source, target)]
    a, b = (share.sqrt() * (points - c[:, None]) for points, c in zip((source, target), centres, strict=True))
    if kind == "translation":
        matrix = torch.eye(a.shape[2], dtype=a.dtype, device=a.device).expand(len(a), -1, -1)
    else:
        matrix = _affine(a, b) if kind == "affine" else _orthogonal(a, b, scaled=kind == "similarity")
    return AffineMap(matrix.to(dtype), (centres[1] - (matrix @ centres[0][..., None])[..., 0]).to(dtype))


def _affine(a: Tensor, b: Tensor) -> Tensor:
    """`M (B, D, D)` nearest to the identity among the minimisers of `|M a - b|`."""
    eye = torch.eye(a.shape[2], dtype=a.dtype, device=a.device)
    return eye + (torch.linalg.pinv(a, rtol=_FLAT) @ (b - a)).mT


def _orthogonal(a: Tensor, b: Tensor, scaled: bool) -> Tensor:
    """The rotation `(B, D, D)` that minimises `|R a - b|`, times the best scale."""
    covariance = b.mT @ a
    size = covariance.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(a.dtype).tiny)
    # A trace of the identity decides what the points leave open, such as the turn about a line of points.
    eye = torch.eye(a.shape[2], dtype=a.dtype, device=a.device)
    u, s, vt = torch.linalg.svd(covariance / size + _UNDECIDED * eye)
    # Of the best orthogonal matrices the one without reflection: the least singular value changes its sign.
    sign = torch.ones_like(s)
    sign[:, -1] = torch.where(torch.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * sign[:, None]) @ vt
    if not scaled:
        return rotation
    spread = a.square().sum((1, 2))
    tiny = torch.finfo(a.dtype).tiny
    # Points that all coincide have no scale: 1.
    scale = torch.where(spread > tiny, (rotation * covariance).sum((1, 2)) / spread.clamp_min(tiny), 1.0)
    return rotation * scale[:, None, None]

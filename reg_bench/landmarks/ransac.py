"""Maps fitted to corresponding points of which some are wrong: random sample consensus."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.landmarks.affine_map import AffineMap
from reg_bench.landmarks.procrustes import Kind, fit, least_points

# Refitting to the inliers changes them a few times at most before they repeat.
_MOST_REFITS = 20
# Trials evaluated at once, times points: what stays in the cache.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Consensus:
    """The map of one case and the points that agree with it.

    Attributes:
        map: fitted to the inliers, batch of one.
        inliers: `(N,)` bool.
    """

    map: AffineMap
    inliers: Tensor


def ransac(
    source: Tensor, target: Tensor, threshold: float, kind: Kind = "affine", *, trials: int = 1000, seed: int = 0
) -> Consensus:
    """The map with which most of the corresponding points agree (Fischler and Bolles, Comm. ACM 24, 1981).

    Maps through the fewest points that determine one are scored by `sum_i min(|T(p_i) - q_i|^2, threshold^2)` (MSAC:
    Torr and Zisserman, CVIU 78, 2000); the best is fitted to its inliers until they no longer change. With a share
    `w` of right points one of the trials draws none but right ones with probability `1 - (1 - w^k)^trials`,
    `k <= D + 1`: practically always for half of the points wrong.

    Args:
        source, target: `(N, D)` of one case in one isotropic unit (mm where the spacing is known).
        threshold: largest distance of an inlier, in that unit.
        kind: of the map, see `fit`.
        trials: samples drawn.
        seed: of the draws, which depend on nothing else.

    Returns:
        map and inliers. Fewer points than determine a map are all inliers.

    Raises:
        ValueError: points that do not fit, or a threshold or number of trials that is not positive.
    """
    if source.ndim != 2 or source.shape != target.shape or not len(source):
        raise ValueError(
            f"ransac: expected two equal shapes (N, D) with N of at least 1, got {tuple(source.shape)} "
            f"and {tuple(target.shape)}"
        )
    if not (threshold > 0 and math.isfinite(threshold)) or trials < 1:
        raise ValueError(f"ransac: threshold and trials must be positive, got {threshold} and {trials}")
    size = least_points(kind, source.shape[1])
    everything = torch.ones(len(source), dtype=torch.bool, device=source.device)
    if len(source) <= size:
        return Consensus(fit(source[None], target[None], kind), everything)
    best = _best_sample(source, target, threshold, kind, _samples(len(source), size, trials, seed).to(source.device))
    return _refined(source, target, threshold, kind, best, size)


def _samples(count: int, size: int, trials: int, seed: int) -> Tensor:
    """`(T, k)` distinct indices per row, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.ones(1, count).expand(trials, -1)
    return torch.multinomial(weights, size, replacement=False, generator=generator)


def _best_sample(source: Tensor, target: Tensor, threshold: float, kind: Kind, samples: Tensor) -> AffineMap:
    """The map through a sample that has the least truncated squared distance."""
    best, least = None, math.inf
    for chunk in torch.split(samples, max(1, _CHUNK // len(source))):
        maps = fit(source[chunk], target[chunk], kind)
        scores = (maps(source) - target).square().sum(2).clamp(max=threshold**2).sum(1)
        winner = int(scores.argmin())
        if best is None or float(scores[winner]) < least:
            least = float(scores[winner])
            best = AffineMap(maps.matrix[winner : winner + 1], maps.offset[winner : winner + 1])
    assert best is not None
    return best


def _refined(source: Tensor, target: Tensor, threshold: float, kind: Kind, start: AffineMap, size: int) -> Consensus:
    """Fit and inliers in turn until the inliers repeat."""
    found = Consensus(start, _agreeing(start, source, target, threshold))
    for _ in range(_MOST_REFITS):
        if int(found.inliers.sum()) < size:
            break
        better = fit(source[found.inliers][None], target[found.inliers][None], kind)
        inliers = _agreeing(better, source, target, threshold)
        if int(inliers.sum()) < size:
            break
        same = torch.equal(inliers, found.inliers)
        found = Consensus(better, inliers)
        if same:
            break
    return found


def _agreeing(found: AffineMap, source: Tensor, target: Tensor, threshold: float) -> Tensor:
    return torch.linalg.vector_norm(found(source[None])[0] - target, dim=1) <= threshold

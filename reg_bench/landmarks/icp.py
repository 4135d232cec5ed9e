"""Iterative closest points: surfaces without known correspondence (thesis eq. 2.33)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reg_bench.landmarks.affine_map import AffineMap
from reg_bench.landmarks.procrustes import Kind, fit
from reg_bench.landmarks.ransac import ransac

Points = NDArray[np.float64]

# What `robust_icp` leaves out before it knows better, and its draws: most pairs are right by then.
_FIRST_TRIM, _TRIALS = 0.4, 300
# Where one of several starts ends shows long before it ends there.
_COARSE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Alignment:
    """What iterative closest points found.

    Attributes:
        map: from source to target, batch of one, float64.
        energies: mean squared distance of the kept pairs before each fit and after the last; never increasing.
        converged: whether the last fit changed the energy by less than the tolerance.
    """

    map: AffineMap
    energies: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class _Pairs:
    """Corresponding points `(N, D)` under the present map, their distances, and which of them are kept."""

    source: Points
    target: Points
    squared: NDArray[np.float64]
    kept: NDArray[np.bool_]

    @property
    def energy(self) -> float:
        return float(self.squared[self.kept].mean())


def surface_distance(source: Sequence[Points], target: Sequence[Points], found: AffineMap | None = None) -> float:
    """Root mean square distance between surfaces, each point to the nearest of the other surface, both ways.

    The disparity (2.33) with the nearest point as correspondence operator.

    Args:
        source, target: per structure `(N, D)` and `(M, D)`; points correspond within their structure only.
        found: carries source onto target; none: as they lie.

    Returns:
        the distance in the unit of the points.
    """
    _check("surface_distance", source, target)
    start = found or AffineMap.identity(1, source[0].shape[1])
    return float(np.sqrt(_Matcher(source, target, 0.0).pairs(start).energy))


def icp(
    source: Sequence[Points],
    target: Sequence[Points],
    kind: Kind = "rigid",
    *,
    start: AffineMap | None = None,
    iterations: int = 200,
    tolerance: float = 1e-6,
    trim: float = 0.0,
) -> Alignment:
    """The map that carries surfaces onto each other (Besl and McKay, IEEE Trans. PAMI 14, 1992).

    Each point is paired with the nearest one of the other surface, both ways, since one way alone lets a similarity
    or affine map shrink a surface into its partner; then the map is fitted to all pairs, and so on. Both steps
    minimise the same mean of squared distances, which therefore never increases. It ends in the minimum nearest to the
    start: turn or scale must not be far off.

    Args:
        source, target: per structure `(N, D)` and `(M, D)` in one isotropic unit; points correspond within their
            structure only.
        kind: of the map, see `fit`.
        start: map to begin with; by default no motion, and the translation and the rigid motion that bring the centres
            of the structures together, of which the one that comes nearest is carried on.
        iterations: most fits.
        tolerance: ends when the energy falls by less than this share.
        trim: share of the farthest pairs of each direction that is left out of each fit, 0 up to below 1: parts that
            the other image does not show (Chetverikov et al., Image and Vision Computing 23, 2005).

    Raises:
        ValueError: empty or unequal lists, a structure without points, or an option out of range.
    """
    _check("icp", source, target)
    if not 0 <= trim < 1 or iterations < 1 or tolerance < 0:
        raise ValueError(
            "icp: expected 0 <= trim < 1, iterations of at least 1 and tolerance of at least 0, "
            f"got {trim}, {iterations} and {tolerance}"
        )
    matcher = _Matcher(source, target, trim)
    if start is not None:
        return _iterate(matcher, start, kind, iterations, tolerance)
    coarse = max(tolerance, _COARSE_TOLERANCE)
    tried = [_iterate(matcher, begin, kind, iterations, coarse) for begin in _starts(matcher, kind)]
    best = min(tried, key=lambda alignment: alignment.energies[-1])
    spent = len(best.energies) - 1
    if spent >= iterations:
        return best
    rest = _iterate(matcher, best.map, kind, iterations - spent, tolerance)
    return replace(rest, energies=(*best.energies, *rest.energies[1:]))


def robust_icp(
    source: Sequence[Points],
    target: Sequence[Points],
    kind: Kind,
    threshold: float,
    *,
    iterations: int = 200,
    tolerance: float = 1e-6,
    trim: float = 0.0,
    seed: int = 0,
    rounds: int = 5,
) -> Alignment:
    """`icp` on those points whose pairs agree with one map, for surfaces that differ in part.

    `icp` with the farthest 40 % of the pairs trimmed comes first. Then RANSAC over the pairs of all points chooses
    those that agree within `threshold`, `icp` on them alone gives better pairs, and so on until the choice repeats.
    What differs (a defect, a badly drawn contour) must be the lesser part and farther off than the threshold, which
    must not be below the distance of neighbouring points. A structure of which no point agrees is left out.

    Args:
        source, target, kind, iterations, tolerance, trim: as of `icp`.
        threshold: largest distance of a pair that agrees, in the unit of the points.
        seed: of RANSAC.
        rounds: most choices.

    Returns:
        the alignment of the last round; its energies are those of the chosen points.
    """
    found = icp(source, target, kind, iterations=iterations, tolerance=tolerance, trim=max(trim, _FIRST_TRIM))
    matcher, chosen = _Matcher(source, target, trim), None
    for _ in range(rounds):
        pairs = matcher.pairs(found.map)
        tensors = torch.from_numpy(pairs.source), torch.from_numpy(pairs.target)
        consensus = ransac(*tensors, threshold, kind, trials=_TRIALS, seed=seed)
        agreeing = consensus.inliers.numpy()
        kept = matcher.restricted(agreeing)
        if not kept[0] or (chosen is not None and np.array_equal(agreeing, chosen)):
            break
        chosen = agreeing
        found = icp(*kept, kind, start=consensus.map, iterations=iterations, tolerance=tolerance, trim=trim)
    return found


def _check(name: str, source: Sequence[Points], target: Sequence[Points]) -> None:
    shapes = [np.shape(p) for p in (*source, *target)]
    fits = len(source) == len(target) > 0 and all(len(s) == 2 and s[0] > 0 and s[1] == shapes[0][1] for s in shapes)
    if not fits:
        raise ValueError(f"{name}: expected as many source as target structures of (N, D) points each, got {shapes}")


def _starts(matcher: _Matcher, kind: Kind) -> list[AffineMap]:
    """No motion, and the translation and the rigid motion that bring the centres of the structures together."""
    a, b = (
        torch.from_numpy(np.stack([p.mean(0) for p in points]))[None] for points in (matcher.source, matcher.target)
    )
    kinds: tuple[Kind, ...] = ("translation",) if kind == "translation" or a.shape[1] == 1 else ("translation", "rigid")
    return [AffineMap.identity(1, a.shape[2]), *(fit(a, b, simple) for simple in kinds)]


def _iterate(matcher: _Matcher, start: AffineMap, kind: Kind, iterations: int, tolerance: float) -> Alignment:
    found, pairs = start, matcher.pairs(start)
    energies, converged = [pairs.energy], False
    while len(energies) <= iterations and not converged:
        source, target = (torch.from_numpy(p[pairs.kept])[None] for p in (pairs.source, pairs.target))
        trial = fit(source, target, kind)
        after = matcher.pairs(trial)
        if after.energy > energies[-1]:
            # Only rounding can make it worse, or a start that is not of this kind.
            return Alignment(found, tuple(energies), True)
        converged = energies[-1] - after.energy <= tolerance * energies[-1]
        found, pairs = trial, after
        energies.append(pairs.energy)
    return Alignment(found, tuple(energies), converged)


class _Matcher:
    """Pairs the points of two surfaces by nearest neighbours in both directions."""

    def __init__(self, source: Sequence[Points], target: Sequence[Points], trim: float) -> None:
        self.source = [np.asarray(s, dtype=np.float64) for s in source]
        self.target = [np.asarray(t, dtype=np.float64) for t in target]
        self.trees = [cKDTree(t) for t in self.target]
        self.trim = trim

    def pairs(self, found: AffineMap) -> _Pairs:
        """All forward pairs, structure after structure, then all backward ones."""
        matrix, offset = found.matrix[0].double().numpy(), found.offset[0].double().numpy()
        mapped = [s @ matrix.T + offset for s in self.source]
        ahead = [tree.query(m)[1] for tree, m in zip(self.trees, mapped, strict=True)]
        back = [cKDTree(m).query(t)[1] for m, t in zip(mapped, self.target, strict=True)]
        chosen_target = [t[k] for t, k in zip(self.target, ahead, strict=True)]
        chosen_source = [s[k] for s, k in zip(self.source, back, strict=True)]
        chosen_mapped = [m[k] for m, k in zip(mapped, back, strict=True)]
        target = np.concatenate([*chosen_target, *self.target])
        squared = ((np.concatenate([*mapped, *chosen_mapped]) - target) ** 2).sum(1)
        count = sum(map(len, mapped))
        kept = np.concatenate([self._nearest(squared[:count]), self._nearest(squared[count:])])
        return _Pairs(np.concatenate([*self.source, *chosen_source]), target, squared, kept)

    def _nearest(self, squared: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Marks the pairs that are left when the farthest are trimmed."""
        if self.trim == 0:
            return np.ones(len(squared), bool)
        count = max(1, round(len(squared) * (1 - self.trim)))
        kept = np.zeros(len(squared), bool)
        kept[np.argsort(squared, kind="stable")[:count]] = True
        return kept

    def restricted(self, agreeing: NDArray[np.bool_]) -> tuple[list[Points], list[Points]]:
        """The structures with those points only whose own pair, in the order of `pairs`, agrees."""
        ends = np.cumsum([len(p) for p in (*self.source, *self.target)])[:-1]
        masks = np.split(agreeing, ends)
        count = len(self.source)
        parts = [
            (s[here], t[there])
            for s, t, here, there in zip(self.source, self.target, masks[:count], masks[count:], strict=True)
        ]
        parts = [(s, t) for s, t in parts if len(s) and len(t)]
        return [s for s, _ in parts], [t for _, t in parts]

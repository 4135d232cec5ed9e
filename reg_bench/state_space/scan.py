"""Kalman filter and linear recurrences by associative scans: O(log T) steps of batched products.

Särkkä and García-Fernández, Temporal parallelization of Bayesian smoothers, IEEE Transactions on Automatic Control
66(1), 2021. A filtering element `(A, C, J)` says how a stretch of observations acts on what is known before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reg_bench.state_space.covariances import Covariances, check_innovations
from reg_bench.state_space.gaussian import symmetric
from reg_bench.state_space.groups import Groups, spread
from reg_bench.state_space.model import LinearGaussianModel

Elements = tuple[Tensor, ...]


def associative_scan(combine: Callable[[Elements, Elements], Elements], elements: Elements) -> Elements:
    """`e_1`, `e_1 * e_2`, `e_1 * e_2 * e_3`, … along axis 1, with an associative `combine(earlier, later)`."""
    length = elements[0].shape[1]
    if length < 2:
        return elements
    even = tuple(e[:, ::2] for e in elements)
    odd = tuple(e[:, 1::2] for e in elements)
    pairs = associative_scan(combine, combine(tuple(e[:, : length // 2] for e in even), odd))
    rest = (length - 1) // 2
    between = combine(tuple(p[:, :rest] for p in pairs), tuple(e[:, 1:] for e in even)) if rest else None
    result = []
    for k, (first, at_odd) in enumerate(zip(even, pairs, strict=True)):
        at_even = first[:, :1] if between is None else torch.cat([first[:, :1], between[k]], dim=1)
        woven = torch.stack([at_even[:, : length // 2], at_odd], dim=2).flatten(1, 2)
        result.append(torch.cat([woven, at_even[:, length // 2 :]], dim=1))
    return tuple(result)


def parallel_covariances(model: LinearGaussianModel, groups: Groups) -> Covariances:
    """As `sequential_covariances`."""
    count, length = groups.observed.shape
    weight = groups.observed.to(model.A.dtype)[..., None, None]
    predicted = groups.covariance.expand(count, -1, -1)[:, None]
    if length > 1:
        # The first element is what is known after the first observation, the others are as if nothing was before them.
        gain, keep, lower = _gains(model, model.Q, weight[:, 1:])
        seen = torch.linalg.solve_triangular(lower, model.C @ model.A, upper=False)
        first = _update(model, predicted, *_gains(model, predicted, weight[:, :1])[:2])
        elements = (
            torch.cat([torch.zeros_like(first), keep @ model.A], dim=1),
            torch.cat([first, _update(model, model.Q, gain, keep)], dim=1),
            torch.cat([torch.zeros_like(first), (seen.mT @ seen) * weight[:, 1:]], dim=1),
        )
        known = associative_scan(_combine_filtering, elements)[1]
        ahead = symmetric(model.A @ known[:, :-1] @ model.A.mT + model.Q)
        predicted = torch.cat([predicted, ahead], dim=1)
    gain, keep, lower = _gains(model, predicted, weight)
    return Covariances(predicted, _update(model, predicted, gain, keep), gain, keep, lower, tuple(range(length)))


def _gains(model: LinearGaussianModel, covariance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gain, `I - K C` and Cholesky factor of the innovation; the gain is zero where `weight` is."""
    across = model.C @ covariance
    lower, info = torch.linalg.cholesky_ex(across @ model.C.mT + model.R)
    check_innovations(info)
    gain = torch.cholesky_solve(across, lower).mT * weight
    return gain, torch.eye(model.states, dtype=gain.dtype, device=gain.device) - gain @ model.C, lower


def _update(model: LinearGaussianModel, covariance: Tensor, gain: Tensor, keep: Tensor) -> Tensor:
    """Joseph's form."""
    return symmetric(keep @ covariance @ keep.mT + gain @ model.R @ gain.mT)


def _combine_filtering(earlier: Elements, later: Elements) -> Elements:
    (a, c, j), (a2, c2, j2) = earlier, later
    size = a.shape[-1]
    eye = torch.eye(size, dtype=a.dtype, device=a.device)
    solved = torch.linalg.solve(eye + c @ j2, torch.cat([a, c], dim=-1))
    through, left = solved[..., :size], solved[..., size:]
    return a2 @ through, symmetric(a2 @ left @ a2.mT + c2), symmetric(a.mT @ j2 @ through + j)


def parallel_recurrence(
    matrices: Tensor, place: Sequence[int], start: Tensor, inputs: Tensor, index: Tensor | None
) -> Tensor:
    """As `linear_recurrence`."""
    if not place:
        return start[:, None]

    def combine(earlier: Elements, later: Elements) -> Elements:
        (f, x), (f2, x2) = earlier, later
        return f2 @ f, (spread(f2, index, len(x)) @ x[..., None])[..., 0] + x2

    # The start as the first input: what its matrix is does not matter.
    padded = matrices[:, (place[0], *place)]
    return associative_scan(combine, (padded, torch.cat([start[:, None], inputs], dim=1)))[1]


def parallel_covariance_recurrence(matrices: Tensor, place: Sequence[int], start: Tensor, noise: Tensor) -> Tensor:
    """`P_0 = start (G, n, n)` and `P_k = F P_{k-1} F^T + N` for all of `place`, `(G, K + 1, n, n)`."""
    if not place:
        return start[:, None]

    def combine(earlier: Elements, later: Elements) -> Elements:
        (f, p), (f2, p2) = earlier, later
        return f2 @ f, f2 @ p @ f2.mT + p2

    padded = matrices[:, (place[0], *place)]
    return associative_scan(combine, (padded, torch.cat([start[:, None], noise[:, tuple(place)]], dim=1)))[1]

"""Linear recurrences `x_k = F_k x_{k-1} + b_k` over sequences that share their matrices in groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from reg_bench.state_space.groups import spread, unfolded
from reg_bench.state_space.settling import Settling


def times(matrices: Tensor, place: tuple[int, ...], vectors: Tensor, index: Tensor | None) -> Tensor:
    """`matrices (G, U, m, n)` of groups, at every time that at its place, times `vectors (B, T, n)`: `(B, T, m)`."""
    if len(matrices) > 1:
        return (spread(unfolded(matrices, place), index, len(vectors)) @ vectors[..., None])[..., 0]
    # All sequences are the columns of one matrix. At first every time has a matrix of its own, later runs share one.
    alone = next((k for k, at in enumerate(place) if at != k), len(place))
    parts = [(matrices[0, :alone] @ vectors[:, :alone].permute(1, 2, 0)).permute(2, 0, 1)]
    for k, run in groupby(range(alone, len(place)), lambda t: place[t]):
        at = list(run)
        parts.append(vectors[:, at[0] : at[-1] + 1] @ matrices[0, k].mT)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def linear_recurrence(
    matrices: Tensor, place: Sequence[int], start: Tensor, inputs: Tensor, index: Tensor | None
) -> Tensor:
    """`x_0 .. x_K`, `(B, K + 1, n)`, one after the other.

    Args:
        matrices: `(G, U, n, n)` of groups, the different ones.
        place: which of the `U` stands at each of `K` steps.
        start: `(B, n)`, `x_0`.
        inputs: `(B, K, n)`.
        index: the group of every sequence, see `groups.spread`.
    """
    if len(matrices) == 1:
        # All sequences are the columns of one matrix: one product per step for all of them.
        state = start.mT
        found = [state]
        steps = matrices[0].unbind()
        for k, shift in zip(place, inputs.permute(1, 2, 0).unbind(), strict=True):
            state = torch.addmm(shift, steps[k], state)
            found.append(state)
        return torch.stack(found).permute(2, 0, 1)
    state = start[..., None]
    found = [state]
    steps = spread(matrices, index, len(start)).unbind(1)
    for k, shift in zip(place, inputs[..., None].unbind(1), strict=True):
        state = torch.baddbmm(shift, steps[k], state)
        found.append(state)
    return torch.stack(found, dim=1)[..., 0]


def covariance_recurrence(
    matrices: Tensor, place: Sequence[int], start: Tensor, inputs: Tensor, noise: Tensor, settling: Settling | None
) -> tuple[Tensor, tuple[int, ...]]:
    """`P_0` and `P_k = F (P_{k-1} + noise) F^T + N` for all of `place`, one after the other.

    Args:
        matrices: `(G, U, n, n)`, the different `F`.
        place: which of the `U` stands at each of `K` steps.
        start: `(G, n, n)`, `P_0`.
        inputs: `(G, U, n, n)`, the different `N`.
        noise: `(n, n)`.
        settling: looks where the rest of steps with the same `F` changes nothing; `None` for all steps.

    Returns:
        The different results `(G, V, n, n)`, and the place of each of `K + 1` among them.
    """
    flat = len(matrices) == 1
    product, fused = (torch.mm, torch.addmm) if flat else (torch.bmm, torch.baddbmm)
    steps, shifts = ((x[0].unbind() if flat else x.unbind(1)) for x in (matrices, inputs))
    state = start[0] if flat else start
    found, places = [state], [0]
    before = -1
    for k in place:
        if settling is not None:
            if k != before:
                settling.reset()
            elif settling.settled:
                places.append(places[-1])
                continue
        previous, before = state, k
        state = fused(shifts[k], product(steps[k], state + noise), steps[k].mT)
        places.append(len(found))
        found.append(state)
        if settling is not None:
            settling.look(previous, state)
    return torch.stack(found)[None] if flat else torch.stack(found, dim=1), tuple(places)

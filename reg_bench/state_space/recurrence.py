"""Linear recurrences `x_k = F_k x_{k-1} + b_k` over sequences that share their matrices in groups."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.state_space.groups import spread


def times(matrices: Tensor, vectors: Tensor, index: Tensor | None) -> Tensor:
    """`matrices (G, T, m, n)` of groups times `vectors (B, T, n)`: `(B, T, m)`."""
    if len(matrices) == 1:
        return (matrices[0] @ vectors.permute(1, 2, 0)).permute(2, 0, 1)
    return (spread(matrices, index, len(vectors)) @ vectors[..., None])[..., 0]


def linear_recurrence(matrices: Tensor, start: Tensor, inputs: Tensor, index: Tensor | None) -> Tensor:
    """`x_0 .. x_K`, `(B, K + 1, n)`, one after the other.

    Args:
        matrices: `(G, K, n, n)` of groups.
        start: `(B, n)`, `x_0`.
        inputs: `(B, K, n)`.
        index: the group of every sequence, see `groups.spread`.
    """
    if len(matrices) == 1:
        # All sequences are the columns of one matrix: one product per step for all of them.
        state = start.mT
        found = [state]
        for matrix, shift in zip(matrices[0].unbind(), inputs.permute(1, 2, 0).unbind(), strict=True):
            state = torch.addmm(shift, matrix, state)
            found.append(state)
        return torch.stack(found).permute(2, 0, 1)
    state = start[..., None]
    found = [state]
    each = spread(matrices, index, len(start))
    for matrix, shift in zip(each.unbind(1), inputs[..., None].unbind(1), strict=True):
        state = torch.baddbmm(shift, matrix, state)
        found.append(state)
    return torch.stack(found, dim=1)[..., 0]


def covariance_recurrence(matrices: Tensor, start: Tensor, inputs: Tensor) -> Tensor:
    """`P_0 = start (G, n, n)` and `P_k = F_k P_{k-1} F_k^T + N_k`, `(G, K + 1, n, n)`, one after the other."""
    flat = len(matrices) == 1
    fused = torch.addmm if flat else torch.baddbmm
    steps = (matrices[0].unbind(), inputs[0].unbind()) if flat else (matrices.unbind(1), inputs.unbind(1))
    state = start[0] if flat else start
    found = [state]
    for matrix, noise in zip(*steps, strict=True):
        state = fused(noise, matrix @ state, matrix.mT)
        found.append(state)
    return torch.stack(found)[None] if flat else torch.stack(found, dim=1)

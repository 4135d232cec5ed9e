"""The diagonal of an operator as its preconditioner."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.optimization.algebra import largest, per_case
from reg_bench.optimization.normal_equations import Map, Preconditioner

_LEAST = 1e-3


class Jacobi(Preconditioner):
    """Division by the diagonal, which random signs estimate: `z * A z` averaged over probes `z`; Bekas et al. (2007).

    A probe fills one channel, so that the components of a displacement at one voxel, which images couple most, do not
    disturb one another. The probes are the same for every case and call.
    """

    def __init__(self, probes: int = 2, seed: int = 0) -> None:
        """
        Args:
            probes: per channel, at least 1.
            seed: of the signs.
        """
        if probes < 1:
            raise ValueError(f"Jacobi: probes must be at least 1, got {probes}")
        self.probes, self.seed = probes, seed

    def bind(self, operator: Map, like: Tensor) -> Map:
        diagonal = estimated_diagonal(operator, like, self.probes, self.seed)
        floor = _LEAST * largest(diagonal)
        floor = torch.where(floor > 0, floor, torch.ones_like(floor))
        inverse = 1 / torch.maximum(diagonal, per_case(floor, diagonal))
        return lambda v: inverse * v


def estimated_diagonal(operator: Map, like: Tensor, probes: int, seed: int) -> Tensor:
    """The estimate `(B, *P)` of the diagonal; exact for an operator that couples no two entries of a channel."""
    generator = torch.Generator().manual_seed(seed)
    shape = like.shape[1:]
    channels = shape[0] if len(shape) > 1 else 1
    total = torch.zeros_like(like)
    for _ in range(probes):
        signs = (2 * torch.randint(0, 2, shape, generator=generator) - 1).to(device=like.device, dtype=like.dtype)
        for channel in range(channels):
            probe = signs
            if channels > 1:
                probe = torch.zeros_like(signs)
                probe[channel] = signs[channel]
            total += probe * operator(probe.expand_as(like))
    return total / probes

"""The unit that points of a pair are compared in."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.types import RegistrationPair


def voxel_edges(pair: RegistrationPair) -> tuple[Tensor, Tensor]:
    """Lengths of the fixed and the moving voxel edges, `(B, D)` float64 on the CPU: mm, or ones where one is unknown.

    Voxels times edges are coordinates in an isotropic unit, voxel 0 of both grids at the origin.
    """
    if pair.fixed_spacing_mm is None or pair.moving_spacing_mm is None:
        ones = torch.ones(pair.batch_size, pair.dimension, dtype=torch.float64)
        return ones, ones.clone()
    return pair.fixed_spacing_mm.double().cpu(), pair.moving_spacing_mm.double().cpu()

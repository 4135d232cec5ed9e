"""Maps and points for the tests of landmarks."""

from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from reg_bench.landmarks import AffineMap


def points(count: int, dims: int, *, batch: int = 1, seed: int = 0, spread: float = 20.0) -> Tensor:
    """`(B, N, D)` float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, dims, generator=generator, dtype=torch.float64) * spread


def rotation(dims: int, degrees: float) -> Tensor:
    """`(D, D)`; in 3-D about an oblique axis."""
    axis = [0.0, 0.0, 1.0] if dims == 2 else [0.48, 0.6, 0.64]
    matrix = Rotation.from_rotvec(degrees * torch.tensor(axis).numpy(), degrees=True).as_matrix()
    return torch.from_numpy(matrix)[:dims, :dims].contiguous()


def true_map(kind: str, dims: int, degrees: float = 25.0) -> AffineMap:
    """A map of that kind, batch of one."""
    shear = torch.eye(dims, dtype=torch.float64)
    shear[0, 1], shear[1, 1] = 0.2, 0.8
    matrix = {
        "translation": torch.eye(dims, dtype=torch.float64),
        "rigid": rotation(dims, degrees),
        "similarity": 1.3 * rotation(dims, degrees),
        "affine": rotation(dims, degrees) @ shear,
    }[kind]
    return AffineMap(matrix[None], torch.tensor([[3.0, -5.0, 2.0][:dims]], dtype=torch.float64))

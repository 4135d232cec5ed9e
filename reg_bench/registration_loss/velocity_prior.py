"""What keeps the distribution of a velocity near a smooth prior: the KL term of the probabilistic VoxelMorph."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reg_bench.registration_loss.base import LossTerm
from reg_bench.registration_network import NetworkOutput
from reg_bench.types import RegistrationPair


class VelocityPrior(LossTerm):
    """Kullback-Leibler divergence of the velocity's posterior from a smooth prior, per voxel, up to a constant.

    The posterior is normal with the network's mean and diagonal variance, the prior normal with mean 0 and precision
    `precision` times the graph Laplacian `L` of the grid (Dalca et al., Medical Image Analysis 57, 2019, equation 5):
    half of `sum_i (precision d_i var_i - log var_i) + precision mean' L mean` for each component, where voxel `i` has
    `d_i` neighbours. `None` where a network has no variance.

    Args:
        precision: the paper's lambda.
        weight: of the term.
    """

    def __init__(self, precision: float = 10.0, weight: float = 1.0) -> None:
        super().__init__()
        if not precision > 0:
            raise ValueError(f"VelocityPrior: precision must be positive, got {precision}")
        self.precision, self.weight = precision, weight

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        mean, log_variance = output.velocity, output.log_variance
        if mean is None or log_variance is None:
            return None
        spatial = mean.shape[2:]
        neighbours = _neighbours(spatial, mean)
        variances = (self.precision * neighbours * log_variance.exp() - log_variance).sum()
        # mean' L mean is the sum over neighbours of their squared difference.
        rough = torch.stack([mean.diff(dim=axis).square().sum() for axis in range(2, mean.ndim)]).sum()
        return self.weight * 0.5 * (variances + self.precision * rough) / (len(mean) * math.prod(spatial))


def _neighbours(spatial: torch.Size, like: Tensor) -> Tensor:
    """How many neighbours every voxel has along the axes: `spatial`."""
    count = like.new_zeros(spatial)
    for axis, n in enumerate(spatial):
        along = like.new_full((n,), 2.0)
        along[0] -= 1
        along[-1] -= 1
        count = count + along.reshape([-1 if a == axis else 1 for a in range(len(spatial))])
    return count

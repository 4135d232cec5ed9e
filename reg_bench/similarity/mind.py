"""Difference of self-similarity descriptors."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import Analytic, Evaluate, Similarity, check_fixed, mean_weights
from reg_bench.similarity.box_sums import Slab
from reg_bench.similarity.self_similarity import Mind, within


class MIND(Similarity):
    """The mean squared difference of the images' self-similarity descriptors (`mind_descriptor`), over all entries.

    For images of different modalities: a descriptor tells which parts of a neighbourhood look alike, not what they
    look like. The bounds of a descriptor's variance, which hold in flat parts, are constants in the derivative.

    Args:
        radius: of the patches, voxels.
        dilation: distance of the neighbours, voxels.

    Raises:
        ValueError: a negative radius, or a dilation below 1.
    """

    def __init__(self, radius: int = 2, dilation: int = 2) -> None:
        super().__init__()
        self.radius, self.dilation = radius, dilation
        self._mind((1, 1))

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Analytic:
        check_fixed("MIND", fixed)
        weights = mean_weights("MIND", mask, fixed, at_least_float32(fixed))
        return Analytic("MIND", fixed, self._evaluate(weights, fixed), partial(self._evaluate, weights))

    def _mind(self, shape: tuple[int, ...]) -> Mind:
        return Mind(shape, self.radius, self.dilation)

    @torch.no_grad()
    def _evaluate(self, weights: Tensor | None, fixed: Tensor) -> Evaluate:
        mind = self._mind(tuple(fixed.shape[2:]))
        dtype = at_least_float32(fixed)
        wanted = mind.exponents(fixed.detach().to(dtype).flatten(0, 1)).values.neg_().exp_()
        each = wanted.new_tensor(1 / fixed[0, 0].numel()) if weights is None else weights
        shares = (each / (mind.count * fixed.shape[1])).expand(fixed.shape).flatten(0, 1)

        def evaluate(warped: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
            volumes = warped.to(dtype).flatten(0, 1)
            exponents = mind.exponents(volumes)
            energy = volumes.new_zeros(len(volumes))

            def slope(slab: Slab) -> Tensor:
                """The derivative in the exponents of a slab, whose energy it adds to the rest on the way."""
                entries = within(exponents.values, slab).neg().exp_()
                difference = entries - within(wanted, slab)
                weighted = difference * shares[slab.cases, None, slab.start : slab.stop]
                energy[slab.cases] += difference.mul_(weighted).flatten(1).sum(dim=1)
                return weighted.mul_(entries).mul_(-2)

            gradient = None
            if with_gradient:
                gradient = mind.pull_back(volumes, exponents, slope).reshape(warped.shape).to(warped.dtype)
            else:
                for slab in mind.slabs(len(volumes), volumes.device):
                    for piece in mind.pieces(slab):
                        slope(piece)
            return energy.reshape(warped.shape[:2]).sum(dim=1), gradient

        return evaluate

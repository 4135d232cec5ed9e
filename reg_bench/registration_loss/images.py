"""Similarity of the images under the final field."""

from __future__ import annotations

from torch import Tensor

from reg_bench.field import warp
from reg_bench.registration_loss.base import LossTerm
from reg_bench.registration_loss.levels import fitted
from reg_bench.registration_network import NetworkOutput
from reg_bench.similarity import LNCC, Similarity
from reg_bench.types import RegistrationPair


class ImageSimilarity(LossTerm):
    """How badly the warped image fits the fixed one.

    Args:
        similarity: by default LNCC in a window of 9 voxels.
        weight: of the term.
        masked: only the pair's mask counts, where it has one.
    """

    def __init__(self, similarity: Similarity | None = None, weight: float = 1.0, masked: bool = True) -> None:
        super().__init__()
        self.similarity = LNCC(9) if similarity is None else similarity
        self.weight, self.masked = weight, masked

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        similarity = fitted(self.similarity, pair.fixed.shape[2:])
        mask = pair.mask if self.masked else None
        return self.weight * similarity(pair.fixed, warp(pair.moving, output.u), mask).mean()

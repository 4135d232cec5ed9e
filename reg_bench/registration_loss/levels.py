"""Terms that every level of a network has: similarity, regularity, and how far affine steps are from the identity.

Levels have weights that depend on their resolution: `weight ratio^l`, where voxels of level `l` are `2^l` times as long
as those of the image. So the weights of a level stay what they are if a network leaves out finer ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from reg_bench.field import resize_image, warp
from reg_bench.registration_loss.base import LossTerm
from reg_bench.registration_network import LevelFlow, NetworkOutput
from reg_bench.regularization import Diffusion
from reg_bench.regularization.base import Regularizer
from reg_bench.similarity import LNCC, Similarity
from reg_bench.types import RegistrationPair


def level_number(level: LevelFlow, output: NetworkOutput) -> float:
    """`l`, if the image has `2^l` times as many voxels along its longest axis."""
    axis = max(range(2, output.u.ndim), key=lambda a: output.u.shape[a])
    return math.log2(output.u.shape[axis] / level.u.shape[axis])


class LevelSimilarity(LossTerm):
    """How badly the warped image fits at every level, on images resized to it: `sum_l weight ratio^l D_l`.

    Args:
        similarity: by default LNCC in a window of 9 voxels. The window of an LNCC is cut to the level's size.
        weight: of the finest level; the paper's is 5.
        ratio: of the weights of a level and the next finer one; the paper's is 1/2.
        masked: only the pair's mask counts, where it has one.
    """

    def __init__(
        self, similarity: Similarity | None = None, weight: float = 1.0, ratio: float = 0.5, masked: bool = True
    ) -> None:
        super().__init__()
        self.similarity = LNCC(9) if similarity is None else similarity
        self.weight, self.ratio, self.masked = weight, ratio, masked

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        mask = pair.mask if self.masked else None

        def energy(level: LevelFlow) -> Tensor:
            shape = level.u.shape[2:]
            fixed, moving = (resize_image(image, shape) for image in (pair.fixed, pair.moving))
            weights = None if mask is None else resize_image(mask.float(), shape)
            return fitted(self.similarity, shape)(fixed, warp(moving, level.u), weights)

        return sum_over_levels(output, self.weight, self.ratio, energy)


class LevelRegularity(LossTerm):
    """How irregular the field of every level is: `sum_l weight ratio^l R(u_l)`, u in voxels of its level.

    The paper's term, the mean of squared differences over all components and axes, is `2 / D^2` times `Diffusion`.

    Args:
        regularizer: by default `Diffusion`.
        weight, ratio: as of `LevelSimilarity`; the paper has 1 and 1/2 for its own term.
        field: the displacement, or the stationary velocity, where a network has one.
        physical: derivatives respect the spacing of the voxels.
    """

    def __init__(
        self,
        regularizer: Regularizer | None = None,
        weight: float = 1.0,
        ratio: float = 0.5,
        field: Literal["displacement", "velocity"] = "displacement",
        physical: bool = False,
    ) -> None:
        super().__init__()
        self.regularizer = Diffusion() if regularizer is None else regularizer
        self.weight, self.ratio, self.field, self.physical = weight, ratio, field, physical

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        spacing_mm = pair.fixed_spacing_mm if self.physical else None

        def energy(level: LevelFlow) -> Tensor | None:
            values = level.u if self.field == "displacement" else level.velocity
            return None if values is None else self.regularizer(values, spacing_mm)

        return sum_over_levels(output, self.weight, self.ratio, energy)


class LevelAffine(LossTerm):
    """How far the affine step of every level is from the identity: `sum_l weight ratio^l ||a_l||^2`.

    The norm is a mean over voxels and components of the step's displacement in voxels of the level, or over the
    entries of its matrix where the step has no field.

    Args:
        weight: of the finest level; the paper's is 1.
        ratio: of the weights of a level and the next finer one; the paper's is 2.
        norm: `field` as above; `matrix`, always of the entries; `entries`, the sum of their absolute values, of which
            the code of the paper has 0.1 (with `ratio` 1) beside the square.
    """

    def __init__(
        self, weight: float = 1.0, ratio: float = 2.0, norm: Literal["field", "matrix", "entries"] = "field"
    ) -> None:
        super().__init__()
        self.weight, self.ratio, self.norm = weight, ratio, norm

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        def energy(level: LevelFlow) -> Tensor | None:
            if level.affine is not None and self.norm == "field":
                return level.affine.square().flatten(1).mean(dim=1)
            if level.matrix is None:
                return None
            entries = level.matrix.flatten(1)
            return entries.abs().sum(dim=1) if self.norm == "entries" else entries.square().mean(dim=1)

        return sum_over_levels(output, self.weight, self.ratio, energy)


def fitted(similarity: Similarity, shape: torch.Size) -> Similarity:
    """An LNCC with its window cut to the largest odd one that fits into `shape`; others as they are."""
    if not isinstance(similarity, LNCC):
        return similarity
    window = similarity.window
    extents = (window,) * len(shape) if isinstance(window, int) else tuple(window)
    cut = tuple(min(w, max(n - 1 + n % 2, 3)) for w, n in zip(extents, shape, strict=True))
    return LNCC(cut, signed=similarity.signed, border=similarity.border, floor=similarity.floor)


def sum_over_levels(
    output: NetworkOutput, weight: float, ratio: float, energy: Callable[[LevelFlow], Tensor | None]
) -> Tensor | None:
    """The mean over the batch of the weighted sum over levels of energies `(B,)`; `None` where no level has one."""
    terms = list(_weighted(output, weight, ratio, energy))
    return torch.stack(terms).sum() if terms else None


def _weighted(
    output: NetworkOutput, weight: float, ratio: float, energy: Callable[[LevelFlow], Tensor | None]
) -> Iterator[Tensor]:
    for level in output.levels:
        value = energy(level)
        if value is not None:
            yield weight * ratio ** level_number(level, output) * value.mean()

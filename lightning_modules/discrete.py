"""Discrete registration: all displacements of a window compete, on self-similarity descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reg_bench.discrete import CoupledConvex, Regularization, Search, coarse_to_fine, search_levels
from reg_bench.field import gaussian, warp
from reg_bench.intensities import unit_range
from reg_bench.method import RegistrationModule
from reg_bench.pyramid import same_proportions
from reg_bench.similarity import mind_descriptor
from reg_bench.types import DisplacementField, RegistrationPair


class Discrete(RegistrationModule):
    """Searches windows of displacements at control points from coarse to fine, on MIND descriptors.

    Every displacement of a window is tried at every control point, so that large motion and wrong minima do no harm,
    and no derivative of the image is needed (thesis 2.4.1, equation 2.44). Costs are squared differences of
    self-similarity descriptors (Heinrich et al., MICCAI 2013), which do not depend on the modality. Neighbours are made
    to agree by coupled-convex alternation or by message passing; the result is finer than the steps of the window. In
    the manner of deeds (Heinrich et al., IEEE TMI 32(7), 2013) and ConvexAdam.

    Args:
        regularization: `CoupledConvex` or `MessagePassing` of `reg_bench.discrete`.
        shrink_factors: of the images, round after round, coarse to fine. Thick axes shrink less.
        radii: of the windows, in voxels of each round.
        cell_voxels: voxels per control point, in each round.
        smoothing: standard deviation of the Gaussian that smooths each increment, in distances of control points.
        symmetric: both images move half way towards each other, so that exchanging them gives the inverse field; about
            twice the time.
        descriptor_radius: of the patches that a descriptor compares, in voxels of each round.
        descriptor_dilation: distance of the neighbours whose patches are compared.
        image_sigma: standard deviation of a Gaussian that smooths the images of each round, in voxels.
        smallest_size: no axis is shrunk below this many voxels.
    """

    def __init__(
        self,
        regularization: Regularization | None = None,
        shrink_factors: Sequence[float] = (6.0, 3.0, 2.0, 1.0, 1.0),
        radii: Sequence[int] = (3, 3, 3, 1, 1),
        cell_voxels: Sequence[float] = (8.0, 8.0, 27.0, 64.0, 27.0),
        smoothing: float = 0.5,
        symmetric: bool = True,
        descriptor_radius: int = 0,
        descriptor_dilation: int = 1,
        image_sigma: float = 0.5,
        smallest_size: int = 16,
    ) -> None:
        super().__init__()
        if not len(shrink_factors) == len(radii) == len(cell_voxels) or not shrink_factors:
            raise ValueError(
                "discrete: shrink_factors, radii and cell_voxels need one entry per round, "
                f"got {list(shrink_factors)}, {list(radii)} and {list(cell_voxels)}"
            )
        if (
            list(shrink_factors) != sorted(shrink_factors, reverse=True)
            or min(*shrink_factors, *radii, *cell_voxels) < 1
        ):
            raise ValueError(
                "discrete: shrink_factors must descend to 1 or more, radii and cell_voxels be at least 1, "
                f"got {list(shrink_factors)}, {list(radii)} and {list(cell_voxels)}"
            )
        if min(smoothing, image_sigma) < 0 or smallest_size < 2:
            raise ValueError(
                "discrete: smoothing and image_sigma must be at least 0 and smallest_size at least 2, "
                f"got {smoothing}, {image_sigma} and {smallest_size}"
            )
        self.shrink_factors, self.radii, self.cell_voxels = tuple(shrink_factors), tuple(radii), tuple(cell_voxels)
        self.descriptor_radius, self.descriptor_dilation = descriptor_radius, descriptor_dilation
        self.image_sigma, self.smallest_size = image_sigma, smallest_size
        self.regularization = CoupledConvex() if regularization is None else regularization
        self.smoothing, self.symmetric = smoothing, symmetric

    def features(self, image: Tensor) -> Tensor:
        """The descriptors `(B, C K, *S)` of images `(B, C, *S)`."""
        return mind_descriptor(gaussian(image, self.image_sigma), self.descriptor_radius, self.descriptor_dilation)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """All rounds; cases of different proportions one by one."""
        if not same_proportions(pair.fixed_spacing_mm):
            return DisplacementField.for_pair(torch.cat([self._displacement(case) for case in pair.split()]), pair)
        return DisplacementField.for_pair(self._displacement(pair), pair)

    def _displacement(self, pair: RegistrationPair) -> Tensor:
        fixed, moving = unit_range(pair.fixed), unit_range(pair.moving)
        if moving.shape != fixed.shape:
            moving = warp(moving, fixed.new_zeros(len(fixed), pair.dimension, *fixed.shape[2:]))
        edges = None if pair.fixed_spacing_mm is None else pair.fixed_spacing_mm[0]
        levels = search_levels(
            fixed.shape[2:],
            self.shrink_factors,
            self.radii,
            self.cell_voxels,
            edges=edges,
            smallest_size=self.smallest_size,
        )
        search = Search(self.features, self.regularization, self.smoothing, self.symmetric)
        return coarse_to_fine(fixed, moving, levels, search)

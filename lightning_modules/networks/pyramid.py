"""The deformable registration pyramid of Paper II (PAPERS.md 2.1), in 2-D and 3-D, and its variants by configuration.

Gunnarsson, Sjölund, Schön: Learning a deformable registration pyramid, MICCAI 2020 challenge on Learn2Reg.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_modules.networks.pyramid_affine import AffineEstimator
from lightning_modules.networks.pyramid_blocks import Normalisation, full_precision
from lightning_modules.networks.pyramid_estimator import ContextNetwork, DenseEstimator
from lightning_modules.networks.pyramid_features import LaplacianFeatures, LearnedFeatures
from lightning_modules.networks.pyramid_level import AffineMode, Motion, PyramidLevel, match_width, per_level
from lightning_modules.networks.pyramid_upsampling import Doubling, Upsampling
from reg_bench.field import resize
from reg_bench.registration_network import LevelFlow, NetworkOutput, RegistrationNetwork

_CONTEXT_FILTERS, _DILATIONS = (64, 64, 64, 32, 16, 8), (1, 2, 4, 8, 16, 1)
_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


class RegistrationPyramid(RegistrationNetwork):
    """Estimates the displacement from coarse to fine, at every level by the features of that size.

    A level warps the moving features by the displacement so far, estimates an affine step from the means of both
    feature maps, warps the features again by both, compares them in a cost volume, and estimates the displacement
    anew. What it has learnt is upsampled for the next finer level. The defaults are the network of the paper as its
    8.6 million parameters prove it (PAPERS.md 2.2, 4.2); the affine step acts on coordinates as the paper says.

    Args:
        dimension: 2 or 3.
        channels: of each image.
        filters: channels of the features of levels 1, 2, ...; level 0 is the image. As many levels as there are.
        blocks: convolutions per level of features.
        features: `learned`, or `laplacian` for the bands of the image's Laplacian pyramid.
        radius: of the cost volume, in voxels of its level, or one per level, finest first (from `finest` on); 0 or
            `None`: the estimator reads the warped features themselves.
        growth: channels of the blocks of the estimator.
        carried: channels that go from one estimator to the next.
        affine: the affine step maps `coordinates`, or `vectors` as in the code of the paper, or is left out.
        velocity: the flow is a stationary velocity, and the displacement its exponential. The affine step is then
            added to the velocity, as the generator of an affine map.
        steps: squarings of the exponential.
        residual: estimates are added to the flow instead of replacing it.
        doubling: how the flow is upsampled.
        context: dilated convolutions add to the flow at the `coarsest` level (as in the code of the paper), the
            `finest`, or not at all.
        normalisation: over the `batch`, over each `instance`, or `None`.
        finest: the finest level that is estimated; its displacement is interpolated to the size of the image.
        active_levels: how many levels are estimated, counted from the coarsest; may be changed while training, to
            train level by level.
        checkpointing: activations of the estimators are computed again for the gradient instead of being kept.
        channels_last: the channels of a voxel lie beside each other in memory, which makes narrow layers faster.
    """

    def __init__(
        self,
        dimension: int = 3,
        channels: int = 1,
        filters: Sequence[int] = (16, 32, 32, 32),
        blocks: int = 3,
        features: Literal["learned", "laplacian"] = "learned",
        radius: int | Sequence[int] | None = 2,
        growth: Sequence[int] = (64, 64, 32, 16, 8),
        carried: int = 32,
        affine: AffineMode | None = "coordinates",
        velocity: bool = False,
        steps: int = 7,
        residual: bool = False,
        doubling: Doubling = "convolution",
        context: Literal["coarsest", "finest"] | None = "coarsest",
        normalisation: Normalisation | None = "batch",
        finest: int = 0,
        active_levels: int | None = None,
        checkpointing: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        depth = len(filters)
        if not 0 <= finest <= depth or min((*filters, *growth, blocks), default=0) < 1:
            raise ValueError(
                "RegistrationPyramid: needs filters, growth and blocks of at least 1 and finest in "
                f"0..{depth}, got {tuple(filters)}, {tuple(growth)}, {blocks} and {finest}"
            )
        self.dimension, self.channels, self.multiple = dimension, channels, 2**depth
        # A single voxel has no extent that finer levels could share, nor a variance to be normalised by.
        self.least = 2 * self.multiple
        self.finest, self.coarsest = finest, depth
        self._by_batch = normalisation == "batch"
        self.features = (
            LearnedFeatures(dimension, channels, filters, blocks, normalisation)
            if features == "learned"
            else LaplacianFeatures(channels, depth)
        )
        layout = _LAYOUTS[dimension] if channels_last else torch.contiguous_format
        radii = per_level(radius, depth - finest + 1, "radius")
        self.levels = nn.ModuleDict()
        for level in range(depth, finest - 1, -1):
            width = self.features.widths[level]
            reach = radii[level - finest]
            inputs = match_width(reach, dimension, width) + width + dimension + (carried if level < depth else 0)
            estimator = DenseEstimator(dimension, inputs, growth, normalisation)
            has_context = level == {"coarsest": depth, "finest": finest, None: None}[context]
            self.levels[str(level)] = PyramidLevel(
                None if affine is None else AffineEstimator(dimension, width),
                affine or "coordinates",
                reach,
                estimator,
                ContextNetwork(dimension, estimator.outputs, _CONTEXT_FILTERS, _DILATIONS, normalisation)
                if has_context
                else None,
                Upsampling(dimension, estimator.outputs, carried, doubling) if level > finest else None,
                velocity=velocity,
                steps=steps,
                residual=residual,
                checkpointing=checkpointing,
                memory_format=layout,
            )
        self.to(memory_format=layout)
        self.active_levels = active_levels

    @property
    def active_levels(self) -> int:
        """How many levels are estimated, counted from the coarsest."""
        return self._active

    @active_levels.setter
    def active_levels(self, count: int | None) -> None:
        count = len(self.levels) if count is None else count
        if not 1 <= count <= len(self.levels):
            raise ValueError(f"RegistrationPyramid: active_levels must be in 1..{len(self.levels)}, got {count}")
        self._active = count

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        self._check(fixed, moving)
        of_fixed, of_moving = self._features(fixed, moving)
        estimates: list[LevelFlow] = []
        motion: Motion | None = None
        for level in range(self.coarsest, self.coarsest - self.active_levels, -1):
            estimate, motion = self.levels[str(level)](of_fixed[level], of_moving[level], motion)
            estimates.insert(0, estimate)
        u = estimates[0].u
        if u.shape[2:] != fixed.shape[2:]:
            with full_precision(u):
                u = resize(u, fixed.shape[2:])
        return NetworkOutput(u, tuple(estimates), estimates[0].velocity)

    def _features(self, fixed: Tensor, moving: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        if self.training and self._by_batch:
            # As in the paper each image has statistics of its own.
            return self.features(fixed), self.features(moving)
        # As one batch: torch has no fast convolution for a single image with few channels.
        both = [level.chunk(2) for level in self.features(torch.cat((fixed, moving)))]
        return [f for f, _ in both], [m for _, m in both]

    def parts(self) -> dict[str, nn.Module]:
        """The parts that PAPERS.md 2.2 counts parameters of, by name, levels from the coarsest."""
        names = {"affine": "affine", "estimator": "deform", "upsampling": "upsampling", "context": "context"}
        of_levels = {
            f"{name}, level {level}": getattr(module, attribute)
            for attribute, name in names.items()
            for level, module in self.levels.items()
            if getattr(module, attribute) is not None
        }
        return {"pyramid": self.features, **of_levels}

    def _check(self, fixed: Tensor, moving: Tensor) -> None:
        expected = (len(fixed), self.channels, *fixed.shape[2:])
        sizes = fixed.shape[2:]
        if (
            fixed.ndim != self.dimension + 2
            or tuple(fixed.shape) != expected
            or fixed.shape != moving.shape
            or any(n % self.multiple or n < self.least for n in sizes)
        ):
            raise ValueError(
                f"RegistrationPyramid: fixed and moving must be (B, {self.channels}, *spatial) of one shape with "
                f"{self.dimension} axes that are multiples of {self.multiple} and at least {self.least}, "
                f"got {tuple(fixed.shape)} and {tuple(moving.shape)}"
            )

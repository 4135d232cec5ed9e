"""Variational registration: a transformation model, a similarity, a regularizer, an optimizer and a hierarchy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from reg_bench.field import compose, resize_image, warp
from reg_bench.intensities import unit_range
from reg_bench.method import RegistrationModule
from reg_bench.optimization import GaussNewton, LevenbergMarquardt, Objective, Optimizer, Stopping
from reg_bench.pyramid import distinct_levels, level_shapes, same_proportions, shrink
from reg_bench.registration_energy import Energy, ImageObjective, Images, SquaredDifferences
from reg_bench.regularization import Regularizer
from reg_bench.similarity import SSD, Similarity
from reg_bench.transformation import Domain, Transformation
from reg_bench.types import DisplacementField, RegistrationPair

Pyramid = Literal["gaussian", "laplacian"]


@dataclass(frozen=True)
class Stage:
    """One choice of every part of variational registration (thesis chapter 2).

    Attributes:
        transformation: the model; its class docstring gives units of its settings.
        similarity: what is compared.
        optimizer: who minimises.
        regularizer: of the displacement, or of the velocity of a flow; `None` for none.
        weight: of the regularizer against the similarity, in voxels of each level.
        shrink_factors: of the levels, coarse to fine; thick axes shrink less, levels that come out equal run once.
        iterations: most iterations per level, or one number for all.
        tolerance: a level has converged when the energy falls by less than this share in five iterations, or in
            twenty of an optimizer that is not monotone.
        pyramid: `gaussian`, or `laplacian`: each level compares what it holds beyond the next coarser one.
        smallest_size: no axis is shrunk below this many voxels.
        symmetric: compares in both directions, by the map and its inverse, so that exchanging fixed and moving image
            gives the inverse field; for models that have an inverse, at twice the cost.
    """

    transformation: Transformation
    similarity: Similarity
    optimizer: Optimizer  # type: ignore[type-arg]
    regularizer: Regularizer | None = None
    weight: float = 1.0
    shrink_factors: Sequence[float] = (4.0, 2.0, 1.0)
    iterations: Sequence[int] | int = 100
    tolerance: float = 1e-4
    pyramid: Pyramid = "gaussian"
    smallest_size: int = 16
    symmetric: bool = False

    def __post_init__(self) -> None:
        factors = list(self.shrink_factors)
        if not factors or min(factors) < 1 or factors != sorted(factors, reverse=True):
            raise ValueError(f"variational: shrink_factors must descend to 1 or more, got {factors}")
        if not isinstance(self.iterations, int) and len(self.iterations) != len(factors):
            raise ValueError(
                "variational: iterations must be one number or one per level, got "
                f"{list(self.iterations)} for shrink_factors {factors}"
            )
        if self.weight < 0 or self.smallest_size < 2:
            raise ValueError("variational: weight must be at least 0 and smallest_size at least 2")
        if self.needs_squares and not isinstance(self.similarity, SSD):
            raise ValueError(
                f"variational: {type(self.optimizer).__name__} minimises sums of squares and needs the similarity "
                f"SSD, got {type(self.similarity).__name__}"
            )
        invertible = type(self.transformation).inverse_displacement is not Transformation.inverse_displacement
        if self.symmetric and (self.needs_squares or not invertible):
            raise ValueError(
                "variational: symmetric needs a transformation with an inverse and an optimizer of any energy, got "
                f"{type(self.transformation).__name__} and {type(self.optimizer).__name__}"
            )

    @property
    def needs_squares(self) -> bool:
        """Whether the optimizer linearises residuals."""
        return isinstance(self.optimizer, GaussNewton | LevenbergMarquardt)

    def stopping(self, level: int) -> Stopping:
        """The rule of level `level`."""
        count = self.iterations if isinstance(self.iterations, int) else self.iterations[level]
        # The first steps of an optimizer that is not monotone raise the energy, and would end the level.
        return Stopping(count, self.tolerance) if self.optimizer.monotone else Stopping(count, self.tolerance, 20)


class Variational(RegistrationModule):
    """Minimises similarity plus regularizer over a transformation model, coarse to fine, stage after stage.

    Thesis equations 2.1-2.4 and 2.21: every stage is a free choice of model, similarity, regularizer and optimizer,
    each a small class of `reg_bench.transformation`, `.similarity`, `.regularization` and `.optimization` (or your
    own). Several stages make a hierarchy of models, e.g. affine, then B-spline, then dense: each starts from the moving
    image warped by the stages before, and all displacements are composed. Intensities are scaled to 0..1 by their
    percentiles 0.1 and 99.9. Labels and points are never looked at.

    Args:
        stages: at least one.
        use_mask: whether the similarity counts voxels of the pair's mask only, where it has one.
        energies: whether the course of the energy is kept in `course` for `reg-bench register` to write and plot.
    """

    optimises: ClassVar[bool] = True

    def __init__(self, stages: Sequence[Stage], use_mask: bool = False, energies: bool = True) -> None:
        super().__init__()
        if not stages:
            raise ValueError("variational: needs at least one stage")
        self.stages = tuple(stages)
        self.use_mask = use_mask
        self.energies = energies
        self.course: list[dict[str, Any]] = []
        """The energy after every iteration of the last call: `stage, level, case, iteration, energy, seconds`."""

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """All stages on all levels; cases of different proportions one by one."""
        self.course = []
        if not same_proportions(pair.fixed_spacing_mm):
            fields = [self._displacement(case) for case in pair.split()]
            return DisplacementField.for_pair(torch.cat(fields), pair)
        return DisplacementField.for_pair(self._displacement(pair), pair)

    def _displacement(self, pair: RegistrationPair) -> Tensor:
        fixed, moving = unit_range(pair.fixed), unit_range(pair.moving)
        domain = Domain.of(fixed, pair.fixed_spacing_mm)
        total = fixed.new_zeros(domain.field_shape)
        if moving.shape != fixed.shape:
            moving = warp(moving, total)
        mask = pair.mask if self.use_mask else None
        images = Images(fixed, moving, None if mask is None else mask.to(fixed), domain)
        for number, stage in enumerate(self.stages):
            between = images if number == 0 else replace(images, moving=warp(moving, total))
            u = self._run(number, stage, between, pair.case_ids)
            total = u if number == 0 else compose(total, u)
        return total

    def _run(self, number: int, stage: Stage, images: Images, case_ids: Sequence[str]) -> Tensor:
        """The displacement `(B, D, *S)` that one stage finds."""
        domain, theta = images.domain, None
        edges = None if domain.spacing_mm is None else domain.spacing_mm[0]
        energy = Energy(stage.transformation, stage.similarity, stage.regularizer, stage.weight, stage.symmetric)
        shapes = level_shapes(domain.shape, stage.shrink_factors, edges, stage.smallest_size)
        before = domain
        for level, shape in distinct_levels(shapes):
            shrunk = _level(images, shape, stage.pyramid)
            now = shrunk.domain
            start = (
                stage.transformation.identity(now)
                if theta is None
                else stage.transformation.resampled(theta, before, now)
            )
            objective = _objective(stage, energy, shrunk)
            theta, record = stage.optimizer.minimise(objective, start, stage.stopping(level))
            before = now
            if self.energies:
                where = {"stage": number, "level": level}
                rows = record.table()
                self.course += [{**where, **row, "case": case_ids[row["case"]]} for row in rows]
        assert theta is not None
        if before.shape != domain.shape:
            theta = stage.transformation.resampled(theta, before, domain)
        with torch.no_grad():
            return stage.transformation.displacement(theta, domain)


def _objective(stage: Stage, energy: Energy, images: Images) -> Objective:
    return SquaredDifferences(energy, images) if stage.needs_squares else ImageObjective(energy, images)


def _level(images: Images, shape: tuple[int, ...], pyramid: Pyramid) -> Images:
    """The images on the grid of one level; fixed and moving share it."""
    domain = images.domain
    now = domain if shape == domain.shape else domain.resized(shape)
    fixed, moving = (_band(image, shape, pyramid) for image in (images.fixed, images.moving))
    mask = images.mask if images.mask is None or shape == domain.shape else shrink(images.mask, shape)
    return Images(fixed, moving, mask, now)


def _band(image: Tensor, shape: tuple[int, ...], pyramid: Pyramid) -> Tensor:
    """The image on a level, or what it holds there beyond the next coarser one (thesis equation 2.46)."""
    smooth = image if shape == tuple(image.shape[2:]) else shrink(image, shape)
    if pyramid == "gaussian":
        return smooth
    coarser = tuple(max(-(-n // 2), min(n, 2)) for n in shape)
    return smooth - resize_image(shrink(smooth, coarser), shape)

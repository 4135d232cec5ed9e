"""Everything that several metrics of one case share, computed once and only when asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench import field as fields
from reg_bench.metrics.base import Profile
from reg_bench.metrics.jacobian import JacobianStatistics, jacobian_statistics
from reg_bench.metrics.label_maps import CodedLabels, Codes, Overlap, encode, overlap, warp_linear, warp_nearest
from reg_bench.types import DisplacementField, RegistrationPair


class ScoringContext:
    """One case with the field to be scored.

    Args:
        pair: a batch of one.
        field: the displacement field on its fixed grid.
        backward: the field of the swapped pair, on the moving grid, for inverse consistency.
        official: which rules of Learn2Reg the profile of that name follows, `2022` (and later) or `2020`.
        masked: whether Learn2Reg's SDlogJ is restricted to the mask; by default it is where there is one.
        label_interpolation: `nearest`, or `linear`: each label is warped as a mask of its own, inside above one half.

    Raises:
        ValueError: a batch of several cases, a field of another shape, or unknown rules or interpolation.
    """

    def __init__(
        self,
        pair: RegistrationPair,
        field: DisplacementField,
        *,
        backward: DisplacementField | None = None,
        official: str = "2022",
        masked: bool | None = None,
        label_interpolation: str = "nearest",
    ) -> None:
        name = ", ".join(pair.case_ids)
        if pair.batch_size != 1:
            raise ValueError(f"{name}: cases are scored one at a time, got a batch of {pair.batch_size}")
        if tuple(field.u.shape) != (1, pair.dimension, *pair.spatial_shape):
            raise ValueError(
                f"{name}: the field has shape {tuple(field.u.shape)}, expected (B, D, *spatial) = "
                f"{(1, pair.dimension, *pair.spatial_shape)}"
            )
        moving_shape = tuple(pair.moving.shape[2:])
        if backward is not None and tuple(backward.u.shape) != (1, pair.dimension, *moving_shape):
            raise ValueError(
                f"{name}: the backward field has shape {tuple(backward.u.shape)}, expected "
                f"{(1, pair.dimension, *moving_shape)}, the moving grid"
            )
        if official not in ("2020", "2022"):
            raise ValueError(f"official rules are '2020' or '2022', got {official!r}")
        if label_interpolation not in ("nearest", "linear"):
            raise ValueError(f"label_interpolation must be 'nearest' or 'linear', got {label_interpolation!r}")
        self.label_interpolation = label_interpolation
        self.pair = pair.to("cpu")
        self.u = field.u.detach().to("cpu")
        self.backward = None if backward is None else backward.u.detach().to("cpu")
        self.official = official
        self.masked = pair.mask is not None if masked is None else masked

    def has(self, need: str) -> bool:
        """Whether the pair, or the context, has what a metric needs."""
        return (self.backward if need == "backward" else getattr(self.pair, need)) is not None

    @cached_property
    def spacing_mm(self) -> NDArray[np.float64] | None:
        """Spacing of the fixed grid, `None` where unknown."""
        return _spacing(self.pair.fixed_spacing_mm)

    @cached_property
    def moving_spacing_mm(self) -> NDArray[np.float64] | None:
        """Spacing of the moving grid, `None` where unknown."""
        return _spacing(self.pair.moving_spacing_mm)

    @property
    def length_unit(self) -> str:
        """`mm` where the fixed spacing is known, else `voxel`."""
        return "voxel" if self.spacing_mm is None else "mm"

    @cached_property
    def mask(self) -> Tensor | None:
        """`(*S)` bool tissue mask."""
        return None if self.pair.mask is None else self.pair.mask[0, 0]

    @cached_property
    def labels(self) -> CodedLabels:
        """Both label maps as small integers."""
        fixed, moving = self.pair.fixed_labels, self.pair.moving_labels
        assert fixed is not None
        assert moving is not None
        return encode(fixed[0, 0].numpy(), moving[0, 0].numpy())

    @cached_property
    def warped_labels(self) -> Codes:
        """The moving labels on the fixed grid, background outside; by nearest neighbour alike in both profiles."""
        if self.label_interpolation == "linear":
            return warp_linear(self.labels.moving, self.u)
        return warp_nearest(self.labels.moving, self.u[0].numpy())

    @cached_property
    def overlap(self) -> Overlap:
        """Voxel counts of the fixed and the warped labels."""
        return overlap(self.labels.fixed, self.warped_labels, len(self.labels.values))

    @cached_property
    def in_fixed(self) -> NDArray[np.bool_]:
        """Per code: whether the fixed map holds it."""
        return self.overlap.fixed > 0

    @cached_property
    def in_moving(self) -> NDArray[np.bool_]:
        """Per code: whether the moving map, before the warp, holds it."""
        present = self.overlap.warped > 0
        missing = np.flatnonzero(~present)
        if missing.size:
            counts = np.bincount(self.labels.moving.reshape(-1), minlength=len(present))
            present[missing] = counts[missing] > 0
        return present

    def stands_in(self, label: int) -> tuple[bool, bool]:
        """Whether the fixed map, and the moving map before the warp, hold a label."""
        code = self.labels.code_of(label)
        return (False, False) if code is None else (bool(self.in_fixed[code]), bool(self.in_moving[code]))

    @cached_property
    def scored_labels(self) -> list[int]:
        """The label values that count: those named by the pair, else every non-zero one in either map."""
        if self.pair.label_names is not None:
            return sorted(int(label) for label in self.pair.label_names if int(label) != 0)
        present = self.in_fixed | self.in_moving
        present[0] = False
        return sorted(int(label) for label in self.labels.values[present])

    @cached_property
    def jacobian(self) -> JacobianStatistics:
        """Determinant statistics of both profiles from one pass."""
        masked = self.mask if self.masked else None
        return jacobian_statistics(self.u[0], self.mask, shifted=True, shifted_mask=masked)

    @cached_property
    def warped(self) -> Tensor:
        """`(1, C, *S)` the moving image on the fixed grid, linear, border values outside."""
        return fields.warp(self.pair.moving, self.u.to(self.pair.moving.dtype), mode="linear", padding="border")

    def tre_spacing_mm(self, profile: Profile) -> NDArray[np.float64] | None:
        """The spacing that turns point errors into mm: of the moving grid; of the fixed one in Learn2Reg 2020."""
        if profile == "learn2reg" and self.official == "2020":
            return self.spacing_mm
        return self.moving_spacing_mm


def _spacing(spacing: Tensor | None) -> NDArray[np.float64] | None:
    return None if spacing is None else spacing[0].to(torch.float64).numpy()

"""One level of the registration pyramid: warp, affine step, warp, match, estimate, and on to the next finer level."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_modules.networks.pyramid_affine import AffineEstimator, affine_field, mapped_vectors
from lightning_modules.networks.pyramid_blocks import full_precision
from lightning_modules.networks.pyramid_estimator import ContextNetwork, DenseEstimator
from lightning_modules.networks.pyramid_upsampling import Upsampling
from reg_bench.cost_volume import cost_volume
from reg_bench.field import compose, exponential, warp
from reg_bench.field.checks import at_least_float32
from reg_bench.registration_network import LevelFlow

AffineMode = Literal["coordinates", "vectors"]

# Of the rectifier of the cost volume, below zero.
_MATCH_SLOPE = 0.1


@dataclass(frozen=True)
class Motion:
    """What a level hands on.

    Attributes:
        flow: `(B, D, *S)`, the displacement or velocity in voxels.
        carried: `(B, C, *S)`, features of the estimator before, where there are any.
    """

    flow: Tensor
    carried: Tensor | None = None


class PyramidLevel(nn.Module):
    """The estimate of one level. What it is made of is given; see `RegistrationPyramid` for what the choices mean.

    Args:
        affine: the affine step, or `None`.
        mode: what the affine step acts on.
        radius: of the cost volume; 0: the warped features themselves instead of it.
        estimator: reads match, fixed features, flow and carried features.
        context: what is added to the flow, or `None`.
        upsampling: to the next finer level, or `None` at the finest.
        velocity: whether the flow is a stationary velocity.
        steps: of its exponential.
        residual: whether the estimate is added to the flow instead of replacing it.
        checkpointing: whether the estimator's activations are computed again for the gradient instead of kept.
        memory_format: of the estimator's activations.
    """

    def __init__(
        self,
        affine: AffineEstimator | None,
        mode: AffineMode,
        radius: int,
        estimator: DenseEstimator,
        context: ContextNetwork | None,
        upsampling: Upsampling | None,
        *,
        velocity: bool,
        steps: int,
        residual: bool,
        checkpointing: bool,
        memory_format: torch.memory_format,
    ) -> None:
        super().__init__()
        self.affine, self.estimator, self.context, self.upsampling = affine, estimator, context, upsampling
        self.mode, self.radius, self.velocity, self.steps = mode, radius, velocity, steps
        self.residual, self._checkpointing, self._memory_format = residual, checkpointing, memory_format

    def forward(self, fixed: Tensor, moving: Tensor, before: Motion | None) -> tuple[LevelFlow, Motion | None]:
        """The estimate from features `(B, C, *S)` and what the coarser level handed on, and what this one hands on."""
        flow, about = self._affine_step(fixed, moving, None if before is None else before.flow)
        if flow is None:
            flow = fixed.new_zeros(len(fixed), fixed.ndim - 2, *fixed.shape[2:], dtype=at_least_float32(fixed))
        arguments = (fixed, moving, flow, None if before is None else before.carried)
        if self._checkpointing and torch.is_grad_enabled():
            contexts = lambda: (nullcontext(), _StatisticsKept(self))  # noqa: E731
            flow, upsampled = checkpoint(
                self._estimate, *arguments, use_reentrant=False, context_fn=contexts, preserve_rng_state=False
            )
        else:
            flow, upsampled = self._estimate(*arguments)
        level = LevelFlow(self._displacement(flow), **about, velocity=flow if self.velocity else None)
        return level, None if upsampled is None else Motion(*upsampled)

    def _affine_step(
        self, fixed: Tensor, moving: Tensor, flow: Tensor | None
    ) -> tuple[Tensor | None, dict[str, Tensor | None]]:
        """The flow after the affine step, and what is to be said of that step."""
        if self.affine is None:
            return flow, {}
        u = None if flow is None else self._displacement(flow)
        offset = self.affine(fixed, moving if u is None else warp(moving, u))
        shape = fixed.shape[2:]
        with full_precision(fixed):
            if self.mode == "vectors":
                flow = offset.new_zeros(len(fixed), len(shape), *shape) if flow is None else flow
                return mapped_vectors(offset, flow), {"affine_input": u, "matrix": offset}
            step = affine_field(offset, shape)
            if flow is None:
                moved = step
            # A velocity that is linear in the coordinates flows to an affine map: velocities are added.
            elif self.velocity:
                moved = flow + step
            else:
                moved = compose(flow, step)
        return moved, {"affine": step, "affine_input": u, "matrix": offset}

    def _estimate(
        self, fixed: Tensor, moving: Tensor, flow: Tensor, carried: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor | None] | None]:
        """The new flow, and flow and features upsampled if there is a finer level."""
        warped = warp(moving, self._displacement(flow))
        match = cost_volume(fixed, warped, self.radius) if self.radius else warped
        parts = [match, fixed, flow] if carried is None else [match, fixed, flow, carried]
        known = torch.cat([part.to(_layer_dtype(fixed)) for part in parts], dim=1)
        if self.radius:
            # In place, or the largest part would be kept twice for the gradient.
            F.leaky_relu_(known[:, : match.shape[1]], _MATCH_SLOPE)
        estimate, features = self.estimator(known.contiguous(memory_format=self._memory_format))
        estimate = estimate.to(at_least_float32(estimate))
        if self.context is not None:
            estimate = estimate + self.context(torch.cat(features, dim=1))
        if self.residual:
            estimate = flow + estimate
        return estimate, None if self.upsampling is None else self.upsampling(estimate, features)

    def _displacement(self, flow: Tensor) -> Tensor:
        """`(B, D, *S)` voxels."""
        return exponential(flow, self.steps) if self.velocity else flow


class _StatisticsKept:
    """Running statistics of a module do not change while it is computed again: they have seen these values."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
        self._kept: list[tuple[float | None, Tensor]] = []

    def __enter__(self) -> None:
        self._kept = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in self._layers]
        for layer in self._layers:
            layer.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for layer, (momentum, count) in zip(self._layers, self._kept, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(count)


def _layer_dtype(features: Tensor) -> torch.dtype:
    """What layers compute in: under mixed precision the halved one."""
    device = features.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype


def match_width(radius: int, dimension: int, width: int) -> int:
    """Channels of what the estimator is told about how the features of `width` channels match."""
    return (2 * radius + 1) ** dimension if radius else width


def per_level(value: int | Sequence[int] | None, count: int, name: str) -> tuple[int, ...]:
    """One number per level, finest first, from one for all or a number for each; `None` is 0."""
    values = (value or 0,) * count if value is None or isinstance(value, int) else tuple(value)
    if len(values) != count or min(values) < 0:
        raise ValueError(f"RegistrationPyramid: {name} must be one or {count} numbers of at least 0, got {value}")
    return values

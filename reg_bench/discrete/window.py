"""The search window of the discrete optimiser, and the displacement of least cost in it (thesis 2.4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.cost_volume import window_offsets


@dataclass(frozen=True)
class Window:
    """The displacements that a discrete search tries: a box of `K` of them around zero, first axis slowest.

    Attributes:
        radius: displacements on each side of zero, per axis.
        step: voxels between neighbouring displacements.

    Raises:
        ValueError: a negative radius, or a step below 1.
    """

    radius: tuple[int, ...]
    step: int = 1

    def __post_init__(self) -> None:
        if not self.radius or min(self.radius) < 0 or self.step < 1:
            raise ValueError(
                "Window: radius must hold whole numbers of at least 0 and step must be at least 1, "
                f"got {self.radius} and {self.step}"
            )

    @property
    def labels(self) -> tuple[int, ...]:
        """Number of displacements along each axis."""
        return tuple(2 * r + 1 for r in self.radius)

    @property
    def count(self) -> int:
        """Number of displacements, `K`."""
        return math.prod(self.labels)

    def offsets(self, like: Tensor) -> Tensor:
        """The displacements `(K, D)` in voxels, in the dtype and on the device of `like`."""
        offsets = window_offsets(self.radius, len(self.radius), self.step)
        return torch.tensor(offsets, dtype=like.dtype, device=like.device)


def lowest(costs: Tensor, window: Window) -> Tensor:
    """The displacement of least cost at each point, finer than the steps of the window.

    Along every axis the lowest point of the parabola through the least cost and its two neighbours, at most half a step
    away; none where a neighbour lies outside the window.

    Args:
        costs: `(B, K, *M)`, unary costs or min-marginals.

    Returns:
        `(B, D, *M)`, voxels.
    """
    check_costs("lowest", costs, window)
    flat = costs.flatten(2)
    least, index = flat.min(dim=1)
    found = window.offsets(costs)[index].movedim(-1, 1)
    stride = window.count
    for axis, labels in enumerate(window.labels):
        stride //= labels
        place = index // stride % labels
        neighbour = stride * ((place > 0) & (place < labels - 1))
        below, above = (flat.gather(1, (index + side * neighbour)[:, None])[:, 0] for side in (-1, 1))
        bend = below - 2 * least + above
        found[:, axis] += torch.where(bend > 0, (below - above) / (2 * bend), 0.0) * window.step
    return found.reshape(len(costs), -1, *costs.shape[2:])


def check_costs(name: str, costs: Tensor, window: Window) -> None:
    """`costs` must be floating point `(B, K, *M)` with one entry for each displacement of `window`."""
    if costs.ndim != len(window.radius) + 2 or costs.shape[1] != window.count or not costs.is_floating_point():
        raise ValueError(
            f"{name}: costs must be floating point (B, {window.count}, *control) with {len(window.radius)} axes for a "
            f"window of radius {window.radius}, got {costs.dtype} {tuple(costs.shape)}"
        )

"""The search window of the discrete optimiser, and the displacement of least cost in it (thesis 2.4.1)."""

from __future__ import annotations

import itertools
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

    The lowest point of the parabola whose derivatives, mixed ones included, are differences of the costs around the
    least; if it has none, or further than a step away, that of the parabolas along each axis alone, at most half a step
    away. An axis on which a neighbour lies outside the window is left as it is.

    Args:
        costs: `(B, K, *M)`, unary costs or min-marginals.

    Returns:
        `(B, D, *M)`, voxels.
    """
    check_costs("lowest", costs, window)
    flat = costs.flatten(2)
    index = flat.argmin(dim=1)
    slope, bend, inside = _derivatives(flat, index, window)
    curvature = bend.diagonal(dim1=-2, dim2=-1)
    alone = torch.where(inside & (curvature > 0), -slope / curvature, 0.0)
    factor, failed = torch.linalg.cholesky_ex(bend)
    joint = -torch.cholesky_solve(slope[..., None], factor)[..., 0]
    # Not finite where there is no factor, so that the comparison fails as well.
    near = (joint.abs() <= 1).all(dim=-1) & (failed == 0)
    found = window.offsets(costs)[index] + torch.where(near[..., None], joint, alone) * window.step
    return found.movedim(-1, 1).reshape(len(costs), -1, *costs.shape[2:])


def _derivatives(flat: Tensor, index: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes `(B, N, D)` and second derivatives `(B, N, D, D)`, per step, of costs `(B, K, N)` at the labels `index`.

    Third, where there are any, `(B, N, D)`: elsewhere the slope is 0 and the second derivative 1.
    """
    labels = window.labels
    strides = [math.prod(labels[a + 1 :]) for a in range(len(labels))]
    places = torch.stack([index // s % n for s, n in zip(strides, labels, strict=True)], dim=-1)
    inside = (places > 0) & (places < places.new_tensor(labels) - 1)
    steps = (inside * places.new_tensor(strides)).unbind(-1)

    def at(shift: Tensor) -> Tensor:
        return flat.gather(1, (index + shift)[:, None])[:, 0]

    ends = [(at(-step), at(step)) for step in steps]
    slope = torch.stack([(high - low) / 2 for low, high in ends], dim=-1)
    least = at(torch.zeros_like(index))
    bend = torch.diag_embed(torch.stack([low - 2 * least + high for low, high in ends], dim=-1))
    for a, b in itertools.combinations(range(len(labels)), 2):
        along, across = steps[a] + steps[b], steps[a] - steps[b]
        mixed = (at(along) - at(across) - at(-across) + at(-along)) / 4
        bend[..., a, b] = bend[..., b, a] = torch.where(inside[..., a] & inside[..., b], mixed, 0.0)
    bend += torch.diag_embed((~inside).to(bend.dtype))
    return slope, bend, inside


def check_costs(name: str, costs: Tensor, window: Window) -> None:
    """`costs` must be floating point `(B, K, *M)` with one entry for each displacement of `window`."""
    if costs.ndim != len(window.radius) + 2 or costs.shape[1] != window.count or not costs.is_floating_point():
        raise ValueError(
            f"{name}: costs must be floating point (B, {window.count}, *control) with {len(window.radius)} axes for a "
            f"window of radius {window.radius}, got {costs.dtype} {tuple(costs.shape)}"
        )

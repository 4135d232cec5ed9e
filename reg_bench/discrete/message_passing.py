"""Message passing on a control grid: the discrete optimiser with pairwise costs (thesis 2.4.1, equation 2.44).

The energy of a labelling `o` of the control points is

    sum_p cost_p(o_p) + sum_(p,q) min(sum_a weight_a (o_p - o_q)_a^2, truncation)

over the pairs of neighbours along the axes, 4 in 2-D and 6 in 3-D. Min-sum belief propagation sweeps along one axis
after the other, forwards and backwards, vectorised over all other axes, labels and cases: Felzenszwalb and
Huttenlocher, IJCV 70(1), 2006. On a chain one pair of sweeps is exact; on a grid with loops it is an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.discrete.control_grid import ControlGrid
from reg_bench.discrete.regularization import Regularization
from reg_bench.discrete.window import Window, check_costs, lowest


@dataclass(frozen=True)
class MessagePassing(Regularization):
    """The displacement that belief propagation finds best, with a price on the difference of neighbours.

    Attributes:
        weight: price of a difference of one (shortest) voxel edge between the closest neighbours, squared; neighbours
            that are further apart pay less, by the square of the distance.
        truncation: the most that a pair of neighbours pays, so that motion may be discontinuous; infinite for never.
        sweeps: along every axis, forwards and backwards.
        pull: price of a displacement itself, per voxel edge squared: small, it decides where images show nothing.
    """

    weight: float = 0.003
    truncation: float = math.inf
    sweeps: int = 2
    pull: float = 1e-5

    def __post_init__(self) -> None:
        if min(self.weight, self.truncation, self.pull) < 0 or self.sweeps < 1:
            raise ValueError(f"MessagePassing: needs weights of at least 0 and at least one sweep, got {self}")

    def __call__(self, costs: Tensor, window: Window, grid: ControlGrid) -> Tensor:
        metric = costs.new_tensor([e**2 for e in grid.edges])
        lengths = (window.offsets(costs).square() @ metric).reshape(-1, *(1,) * len(grid.shape))
        weights = [[self.weight * c**2 * e**2 for e in grid.edges] for c in grid.closeness]
        beliefs = min_marginals(
            costs + self.pull * lengths, window, weights, truncation=self.truncation, sweeps=self.sweeps
        )
        return lowest(beliefs, window)


def min_marginals(
    costs: Tensor,
    window: Window,
    weights: Sequence[Sequence[float]],
    *,
    truncation: float = math.inf,
    sweeps: int = 2,
) -> Tensor:
    """The beliefs of all control points: the least energy, up to a constant, with the point at each label.

    Args:
        costs: `(B, K, *M)`, unary.
        window: the displacements of the `K` labels.
        weights: `weights[g][a]` is the price of a difference of one voxel squared along axis `a` of the displacement
            between neighbours along axis `g` of the grid.
        truncation: the most that a pair of neighbours costs.
        sweeps: along every axis, forwards and backwards. One is exact where the grid is a chain.

    Returns:
        `(B, K, *M)`; their argmin over `K` is the labelling.

    Raises:
        ValueError: costs that do not fit the window, negative weights or truncation, no sweep.
    """
    check_costs("min_marginals", costs, window)
    dims = len(window.radius)
    if len(weights) != dims or any(len(row) != dims or min(row) < 0 for row in weights):
        raise ValueError(f"min_marginals: weights must be {dims} rows of {dims} numbers of at least 0, got {weights}")
    if not truncation >= 0 or sweeps < 1:
        raise ValueError(
            f"min_marginals: truncation must be at least 0 and sweeps at least 1, got {truncation}, {sweeps}"
        )
    belief = costs.unflatten(1, window.labels).clone()  # type: ignore[no-untyped-call]
    axes = [g for g in range(dims) if costs.shape[2 + g] > 1]
    told = {(g, d): torch.zeros_like(belief) for g in axes for d in (1, -1)}
    for _ in range(sweeps):
        for g in axes:
            steps = [w * window.step**2 for w in weights[g]]
            for direction in (1, -1):
                _sweep(belief, told[g, direction], told[g, -direction], (1 + dims + g, direction), steps, truncation)
    return belief.flatten(1, dims)


def _sweep(
    belief: Tensor, sent: Tensor, returned: Tensor, way: tuple[int, int], weights: Sequence[float], truncation: float
) -> None:
    """Messages from each layer to the next, along an axis in a direction; updates `belief` and `sent` in place.

    `sent` and `returned` hold, at the receiver, the messages along and against the direction.
    """
    axis, direction = way
    length = belief.shape[axis]
    for layer in range(length - 1) if direction == 1 else range(length - 1, 0, -1):
        told = message(belief.select(axis, layer) - returned.select(axis, layer), weights, truncation)
        receiver, before = belief.select(axis, layer + direction), sent.select(axis, layer + direction)
        receiver.add_(told).sub_(before)
        before.copy_(told)


def message(belief: Tensor, weights: Sequence[float], truncation: float = math.inf) -> Tensor:
    """What a point tells its neighbour: `min_i belief(i) + min(sum_a w_a (i_a - j_a)^2, truncation)`, less its minimum.

    Args:
        belief: `(B, *labels, …)` of the point, without what the neighbour told it.
        weights: price of one label squared, per label axis.
        truncation: the most that a pair costs.
    """
    least = belief.amin(tuple(range(1, 1 + len(weights))), keepdim=True)
    out = min_convolution(belief, weights)
    if math.isfinite(truncation):
        out = torch.minimum(out, least + truncation)
    return out.sub_(least)


def min_convolution(costs: Tensor, weights: Sequence[float], first_axis: int = 1) -> Tensor:
    """The lower envelope of parabolas over the label axes: `min_i costs(i) + sum_a w_a (i_a - j_a)^2` for every `j`.

    Separable, one label axis after the other, as the distance transform of Felzenszwalb and Huttenlocher (Theory of
    Computing 8, 2012). A window has few labels along an axis, so that trying all shifts, vectorised over everything
    else, beats following the envelope from label to label.

    Args:
        costs: any shape; the label axes are `first_axis, first_axis + 1, …`, as many as `weights`.
        weights: price of one label squared, per label axis, at least 0.

    Returns:
        the shape of `costs`.
    """
    for axis, weight in enumerate(weights, start=first_axis):
        source, costs = costs, costs.clone(memory_format=torch.contiguous_format)
        for shift in range(1, source.shape[axis]):
            raised, length = source + weight * shift**2, source.shape[axis] - shift
            for to, start in ((shift, 0), (0, shift)):
                target = costs.narrow(axis, to, length)
                torch.minimum(target, raised.narrow(axis, start, length), out=target)
    return costs

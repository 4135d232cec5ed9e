"""Whether points move with their neighbours: trackers that went astray are told by it, whatever their response."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_neighbours(points: Tensor, count: int) -> Tensor:
    """Indices `(B, N, K)` of the nearest other points of `points (B, N, D)`, `K` the smaller of `count` and `N - 1`."""
    apart = torch.cdist(points, points)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return apart.topk(min(count, points.shape[1] - 1), dim=2, largest=False).indices


def neighbour_prediction(
    points: Tensor, values: Tensor, neighbours: Tensor, weights: Tensor, scale: float = 1.0, iterations: int = 4
) -> Tensor:
    """What the neighbours of each point say of its value: `(B, N, C)`.

    An affine function is fitted to the values of the neighbours, weighted by closeness and by how well they fit
    (Cauchy's weights `1 / (1 + (r / scale)^2)`, first from their median at three times the scale, then iteratively),
    and read at the point.

    Args:
        points: `(B, N, D)`.
        values: `(B, N, C)`, displacements.
        neighbours: indices `(B, N, K)`.
        weights: `(B, N)` of the values, at least 0.
        scale: residual of a neighbour at which it counts half.
        iterations: fits.
    """
    near = _gathered(points, neighbours) - points[:, :, None]
    known = _gathered(values, neighbours)
    squared = near.square().sum(-1)
    # Half the weight at the mean distance of the neighbours.
    closeness = 1 / (1 + squared / squared.mean(-1, keepdim=True).clamp(min=1e-6))
    prior = closeness * (_gathered(weights[..., None], neighbours)[..., 0] + 1e-3)
    size = squared.mean(-1, keepdim=True).clamp(min=1e-6).sqrt()[..., None]
    basis = torch.cat((torch.ones_like(near[..., :1]), near / size), dim=-1)
    # Slopes are held back a little: neighbours on a line, or hardly any, leave them open.
    ridge = torch.diag(torch.tensor([1e-6, *[1e-3] * near.shape[-1]], dtype=near.dtype, device=near.device))
    doubt = (known - known.median(dim=2, keepdim=True).values).square().sum(-1)
    weight = prior / (1 + doubt / (3 * scale) ** 2)
    solution = known.new_zeros(*known.shape[:2], basis.shape[-1], known.shape[-1])
    for _ in range(iterations):
        weighted = basis * weight[..., None]
        normal = weighted.transpose(-1, -2) @ basis
        mass = weight.sum(-1)[..., None, None]
        solution = torch.linalg.solve(normal + mass * ridge, weighted.transpose(-1, -2) @ known)
        residual = (known - basis @ solution).square().sum(-1)
        weight = prior / (1 + residual / scale**2)
    return solution[..., 0, :]


def consistency(points: Tensor, values: Tensor, neighbours: Tensor, weights: Tensor, scale: float) -> Tensor:
    """`1 / (1 + (r / scale)^2)`, `(B, N)`, of the difference `r` between each value and what its neighbours say.

    1 where a point has fewer than three neighbours. Arguments as for `neighbour_prediction`.
    """
    if neighbours.shape[2] < 3:
        return torch.ones_like(weights)
    predicted = neighbour_prediction(points, values, neighbours, weights, scale)
    return 1 / (1 + (values - predicted).square().sum(-1) / scale**2)


def _gathered(values: Tensor, neighbours: Tensor) -> Tensor:
    """`(B, N, K, C)` of `values (B, N, C)`."""
    batch, count, near = neighbours.shape
    index = neighbours.reshape(batch, -1, 1).expand(-1, -1, values.shape[2])
    return values.gather(1, index).reshape(batch, count, near, -1)

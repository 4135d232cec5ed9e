"""Material points: landmarks spread over tissue, and where a closed-form motion takes them. Units: voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from reg_bench.synthesis_noise import Array, random_generator


def grid_points(spatial: Sequence[int]) -> Array:
    """`(D, *S)` voxel coordinates."""
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in spatial), indexing="ij"))


def sample_linear(values: Array, points: Array) -> Array:
    """Channels of `values` `(C, *S)` at `points` `(D, ...)`, linear, the border continued; `(C, ...)`."""
    return np.stack([ndimage.map_coordinates(v, points, order=1, mode="nearest") for v in values])


def landmarks_in(mask: Tensor, n: int, seed: int) -> Tensor:
    """`(n, D)` float32 points in voxels, spread evenly over `mask`, off the voxel centres.

    Candidates are drawn at random; each point is the candidate farthest from those already chosen (Mitchell's
    best-candidate sampling). A point lies within 0.4 voxel of a voxel of `mask` along each axis.

    Args:
        mask: bool `(*S)`, or with leading axes of length 1.
        n: number of points.
        seed: of the draw.

    Raises:
        ValueError: the mask has fewer than `n` voxels.
    """
    inside = mask.detach().cpu().numpy().astype(bool)
    while inside.ndim > 3 or (inside.ndim == 3 and inside.shape[0] == 1):
        if inside.shape[0] != 1:
            raise ValueError(f"mask must be (*S) with leading axes of length 1, got {tuple(mask.shape)}")
        inside = inside[0]
    voxels = np.argwhere(inside)
    if len(voxels) < n:
        raise ValueError(f"cannot place {n} landmarks in a mask of {len(voxels)} voxels")
    generator = random_generator("landmarks", seed)
    pool = voxels[generator.permutation(len(voxels))[: max(20 * n, 200)]].astype(np.float64)
    chosen = np.empty((n, inside.ndim))
    distance = np.full(len(pool), np.inf)
    for i in range(n):
        best = int(np.argmax(distance))
        chosen[i] = pool[best]
        distance = np.minimum(distance, ((pool - pool[best]) ** 2).sum(axis=1))
    chosen += generator.uniform(-0.4, 0.4, chosen.shape)
    return torch.from_numpy(np.clip(chosen, 0, np.array(inside.shape) - 1.0)).float()


def solve_points(
    displacement: Callable[[Array], Array], targets: Array, *, iterations: int = 200, tolerance: float = 1e-6
) -> Array:
    """Points `x` with `x + displacement(x) = targets`, both `(N, D)` in voxels.

    Newton's method with the Jacobian from differences, each step halved until the residual shrinks, so that
    the answer is exact to `tolerance` wherever the map is a homeomorphism.

    Raises:
        ValueError: some point does not converge.
    """
    points = targets.copy()
    residual = points + displacement(points) - targets
    dims, h = targets.shape[1], 1e-4
    for _ in range(iterations):
        error = np.linalg.norm(residual, axis=1)
        if error.max(initial=0.0) < tolerance:
            return points
        columns = [((displacement(points + h * e) - displacement(points - h * e)) / (2 * h) + e) for e in np.eye(dims)]
        step = np.linalg.solve(np.stack(columns, axis=2), residual[:, :, None])[:, :, 0]
        scale = np.ones((len(points), 1))
        for _ in range(12):
            candidate = points - scale * step
            new = candidate + displacement(candidate) - targets
            worse = np.linalg.norm(new, axis=1) >= error
            if not worse.any():
                break
            scale[worse] *= 0.5
        better = np.linalg.norm(new, axis=1) < error
        points[better], residual[better] = candidate[better], new[better]
        # Where no step of Newton helps (a kink between two cells) a plain fixed-point step moves on.
        points[~better] -= 0.5 * residual[~better]
        residual[~better] = (points + displacement(points) - targets)[~better]
    raise ValueError(f"{int((error >= tolerance).sum())} of {len(points)} points did not converge")

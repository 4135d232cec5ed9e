"""From what the decoder of the Kalman VAE gives to a displacement: as it is, or by one of the paper's outlooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from reg_bench.field import exponential, gaussian, resize_image
from reg_bench.transformation.bspline import control_shape, evaluate_bspline
from reg_bench.transformation.thin_plate import thin_plate_spline

Kind = Literal["dense", "bspline", "thin-plate"]
#: Standard normal numbers of the shape of a tensor, whose first axis holds the cases of a batch, M times over.
Draw = Callable[[Tensor], Tensor]


class FieldOutput(nn.Module):
    """The displacement `(N, 2, *S)` in pixels of a decoder's map `(N, 2, h, w)`, also in pixels.

    Args:
        kind: `dense`: the map is the field, resized if it is coarser; `bspline`: the map holds the values of a cubic
            B-spline's coefficients on a regular grid over the image; `thin-plate`: the displacements at a regular grid
            of points, between which a thin-plate spline passes.
        smoothing: standard deviation in pixels of the Gaussian that smooths the field (equation 15); 0 for none.
        velocity: whether the field so far is a stationary velocity, whose exponential is the displacement.
        steps: of scaling and squaring.

    Raises:
        ValueError: an unknown kind, a negative smoothing, or no steps.
    """

    def __init__(self, kind: Kind = "dense", smoothing: float = 0.0, velocity: bool = False, steps: int = 5) -> None:
        super().__init__()
        if kind not in get_args(Kind) or smoothing < 0 or steps < 1:
            raise ValueError(
                f"FieldOutput: kind must be one of {', '.join(get_args(Kind))}, smoothing at least 0, steps at least "
                f"1, got {kind!r}, {smoothing} and {steps}"
            )
        self.kind, self.smoothing, self.velocity, self.steps = kind, smoothing, velocity, steps

    def forward(self, decoded: Tensor, shape: Sequence[int]) -> Tensor:
        """`(N, 2, h, w)` to `(N, 2, *shape)`."""
        u = self._spread(decoded.contiguous(), shape)
        if self.smoothing > 0:
            u = gaussian(u, self.smoothing)
        return exponential(u, self.steps) if self.velocity else u

    def _spread(self, decoded: Tensor, shape: Sequence[int]) -> Tensor:
        if self.kind == "bspline":
            intervals = [n - (control_shape([1])[0] - 1) for n in decoded.shape[2:]]
            return evaluate_bspline(decoded, intervals, shape)
        if self.kind == "thin-plate":
            return _thin_plate(decoded, shape)
        # The values are pixels of the image already: only their places change.
        return decoded if decoded.shape[2:] == tuple(shape) else resize_image(decoded, shape)


@lru_cache(maxsize=8)
def _thin_plate_matrix(points: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """What every point of a regular grid over the image adds to every pixel, `(H * W, h * w)`."""
    axes = [torch.linspace(0, n - 1, h, dtype=torch.float64) for h, n in zip(points, shape, strict=True)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
    # The spline is linear in its values: those of one point at a time give the columns.
    spline = thin_plate_spline(places[None], torch.eye(len(places), dtype=torch.float64)[None])
    edges = torch.ones(1, 2, dtype=torch.float64)
    return spline.on_grid(shape, edges, torch.float64)[0].flatten(1).mT.float().contiguous()


def _thin_plate(decoded: Tensor, shape: Sequence[int]) -> Tensor:
    rows, columns = shape
    matrix = _thin_plate_matrix((decoded.shape[2], decoded.shape[3]), (rows, columns)).to(decoded)
    return (decoded.flatten(2) @ matrix.mT).unflatten(2, (rows, columns))


class FieldNoise(nn.Module):
    """Samples of p(phi | x) about its mean: independent in every pixel, or smooth.

    With a `stiffness` the precision is `(I + stiffness L) / std^2`, where L is the Laplacian of the grid of pixels
    (without flow over its border): neighbours move together, and roughness is improbable.

    Args:
        std: in pixels; that of the constant part where there is a stiffness.
        stiffness: 0 for none, in square pixels.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, std: float = 0.01, stiffness: float = 0.0) -> None:
        super().__init__()
        if std < 0 or stiffness < 0:
            raise ValueError(f"FieldNoise: std and stiffness must be at least 0, got {std} and {stiffness}")
        self.std, self.stiffness = std, stiffness

    def forward(self, mean: Tensor, draw: Draw = torch.randn_like) -> Tensor:
        """One sample about every mean `(..., H, W)`; `draw` gives the standard normal numbers."""
        noise = self.std * draw(mean)
        if not self.stiffness:
            return mean + noise
        rows, columns = (_cosines(n, mean) for n in mean.shape[-2:])
        eigenvalues = _eigenvalues(mean.shape[-2], mean)[:, None] + _eigenvalues(mean.shape[-1], mean)
        shrunk = noise * torch.rsqrt(1 + self.stiffness * eigenvalues)
        return mean + rows @ shrunk @ columns.mT


def _cosines(length: int, like: Tensor) -> Tensor:
    """Orthonormal eigenvectors of the Laplacian of a path of pixels, as columns `(length, length)`."""
    k = torch.arange(length, dtype=torch.float64, device=like.device)
    basis = torch.cos(torch.pi * (k[:, None] + 0.5) * k / length)
    return (basis / basis.norm(dim=0)).to(like.dtype)


def _eigenvalues(length: int, like: Tensor) -> Tensor:
    k = torch.arange(length, dtype=torch.float64, device=like.device)
    return (2 - 2 * torch.cos(torch.pi * k / length)).to(like.dtype)

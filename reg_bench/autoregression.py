"""Linear autoregression of a few coefficients over time, as forecasts of breathing and heart beat use it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Autoregression:
    """`x_t = A_1 x_{t-1} + … + A_p x_{t-p}` and noise.

    Attributes:
        matrices: `(p, r, r)`, from the last time back; diagonal where every coefficient follows its own past alone.
        noise: `(r, r)`, covariance of what they leave over.
    """

    matrices: Tensor
    noise: Tensor

    @property
    def order(self) -> int:
        """The number of times that are looked back, `p`."""
        return len(self.matrices)

    def companion(self) -> Tensor:
        """`(p r, p r)`, which moves the last `p` values, newest first, on by one time."""
        p, r = self.matrices.shape[:2]
        below = torch.eye((p - 1) * r, p * r, dtype=self.matrices.dtype, device=self.matrices.device)
        return torch.cat([self.matrices.transpose(0, 1).reshape(r, p * r), below])

    def stable(self, radius: float = 1.0) -> Autoregression:
        """This, or if it grows without bound the one whose eigenvalues are shrunk until none is above `radius`."""
        largest = float(torch.linalg.eigvals(self.companion()).abs().max())
        if largest <= radius:
            return self
        powers = torch.arange(1, self.order + 1, dtype=self.matrices.dtype, device=self.matrices.device)
        # Coefficients times s^k have eigenvalues times s.
        return Autoregression(self.matrices * ((radius / largest) ** powers)[:, None, None], self.noise)

    def predict(self, past: Tensor, steps: int) -> Tensor:
        """The `steps` values `(steps, r)` expected after `past (T, r)`, of which the last `p` count.

        Raises:
            ValueError: fewer than `p` values.
        """
        if len(past) < self.order:
            raise ValueError(f"autoregression: {self.order} values of the past are needed, got {len(past)}")
        values = list(past[-self.order :])
        for _ in range(steps):
            recent = torch.stack(values[: -self.order - 1 : -1])
            values.append(torch.einsum("pij,pj->i", self.matrices, recent))
        return torch.stack(values[self.order :]) if steps else past[:0]

    def after(self, past: Tensor, steps: float) -> Tensor:
        """`(r,)`, `steps` times after the last of `past (T, r)`; between two whole ones linear."""
        ahead = math.ceil(steps)
        if not ahead:
            return past[-1]
        values = torch.cat([past[-1:], self.predict(past, ahead)])
        return torch.lerp(values[ahead - 1], values[ahead], steps - (ahead - 1))


def fit_autoregression(
    series: Tensor | Sequence[Tensor], order: int, *, ridge: float = 1e-4, coupled: bool = False
) -> Autoregression:
    """Least squares over all times of `series` that have a whole past.

    Args:
        series: `(T, r)` of mean zero, or several of them.
        order: how far it looks back, `p`.
        ridge: weight of the squared matrices, relative to the mean square of the series times the number of equations.
        coupled: whether every coefficient is predicted from the past of all.

    Raises:
        ValueError: an order below 1, or a series of no more than `order` times.
    """
    several = [series] if isinstance(series, Tensor) else list(series)
    if order < 1 or not several or any(x.ndim != 2 or len(x) <= order for x in several):
        raise ValueError(
            f"autoregression: series (T, r) longer than the order, at least 1, are needed, got "
            f"{', '.join(str(tuple(x.shape)) for x in several) or 'none'} and order {order}"
        )
    target = torch.cat([x[order:] for x in several])
    shifted = [torch.stack([x[order - k : len(x) - k] for k in range(1, order + 1)], dim=1) for x in several]
    past, size = torch.cat(shifted), target.shape[1]
    if coupled:
        matrices = _ridge(past.flatten(1), target, ridge).reshape(order, size, size).mT
    else:
        columns = [_ridge(past[:, :, i], target[:, i : i + 1], ridge) for i in range(size)]
        matrices = torch.diag_embed(torch.cat(columns, dim=1))
    left = target - torch.einsum("pij,tpj->ti", matrices, past)
    return Autoregression(matrices, left.mT @ left / len(left))


def _ridge(design: Tensor, target: Tensor, ridge: float) -> Tensor:
    """`W` with the least `|design W - target|^2 + weight |W|^2`, by an orthogonal decomposition."""
    weight = ridge * design.square().mean() * len(design) + torch.finfo(design.dtype).tiny
    eye = torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    q, r = torch.linalg.qr(torch.cat([design, weight.sqrt() * eye]))
    zeros = target.new_zeros(design.shape[1], target.shape[1])
    return torch.linalg.solve_triangular(r, q.mT @ torch.cat([target, zeros]), upper=True)

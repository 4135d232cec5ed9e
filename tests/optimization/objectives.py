"""Small objectives with known minima."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reg_bench.optimization import LeastSquares, Objective


class Quadratic(Objective):
    """`1/2 x^T Q x - b^T x` per case, `x` of any shape."""

    def __init__(self, matrix: Tensor, right: Tensor) -> None:
        self.matrix, self.right = matrix, right
        self.evaluations = 0

    def energy(self, theta: Tensor) -> Tensor:
        self.evaluations += 1
        x = theta.flatten(1)
        return 0.5 * torch.einsum("bi,bij,bj->b", x, self.matrix, x) - (self.right * x).sum(dim=1)

    def solution(self) -> Tensor:
        return torch.linalg.solve(self.matrix, self.right)

    def case(self, index: int) -> Quadratic:
        return Quadratic(self.matrix[index : index + 1], self.right[index : index + 1])


def quadratic(batch: int, count: int, condition: float = 50.0, seed: int = 0) -> Quadratic:
    """Positive definite matrices with eigenvalues from 1 to `condition`."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(batch, count, count, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, torch.tensor(condition).log10().item(), count, dtype=torch.float64)
    matrix = basis @ torch.diag_embed(values.expand(batch, -1)) @ basis.mT
    return Quadratic(matrix, torch.randn(batch, count, generator=generator, dtype=torch.float64))


class Function(Objective):
    """Any function of the parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def energy(self, theta: Tensor) -> Tensor:
        return self.function(theta)


def rosenbrock(theta: Tensor) -> Tensor:
    """Minimum 0 at ones; `(B, n)`."""
    x, y = theta[:, :-1], theta[:, 1:]
    return (100 * (y - x.square()).square() + (1 - x).square()).sum(dim=1)


class Rosenbrock(LeastSquares):
    """The same as a sum of squares."""

    def residuals(self, theta: Tensor) -> Tensor:
        x, y = theta[:, :-1], theta[:, 1:]
        return torch.cat((10 * (y - x.square()), 1 - x), dim=1)


class Linear(LeastSquares):
    """`|M x - d|^2 + weight |x|^2` per case."""

    def __init__(self, matrix: Tensor, data: Tensor, weight: float = 0.0) -> None:
        self.matrix, self.data, self.weight = matrix, data, weight

    def residuals(self, theta: Tensor) -> Tensor:
        return (self.matrix @ theta.flatten(1)[..., None])[..., 0] - self.data

    def penalty(self, theta: Tensor) -> Tensor | None:
        return self.weight * theta.flatten(1).square().sum(dim=1) if self.weight else None

    def solution(self) -> Tensor:
        count = self.matrix.shape[2]
        normal = self.matrix.mT @ self.matrix + self.weight * torch.eye(count, dtype=self.matrix.dtype)
        return torch.linalg.solve(normal, (self.matrix.mT @ self.data[..., None])[..., 0])


def linear(batch: int, rows: int, count: int, weight: float = 0.0, seed: int = 0) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(batch, rows, count, generator=generator, dtype=torch.float64)
    return Linear(matrix, torch.randn(batch, rows, generator=generator, dtype=torch.float64), weight)

"""The linear systems of Gauss–Newton and Levenberg–Marquardt, small and formed or large and matrix-free."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot, kept, norm, per_case
from reg_bench.optimization.linearisation import Linearisation, explicit_jacobian
from reg_bench.optimization.objective import LeastSquares, Objective

Map = Callable[[Tensor], Tensor]
Solver = Literal["auto", "explicit", "matrix-free"]
FEW = 64
"""Up to this many parameters per case the matrix is formed when the choice is automatic."""


class Preconditioner(ABC):
    """A cheap approximation of the inverse of a symmetric positive definite operator."""

    @abstractmethod
    def bind(self, operator: Map, like: Tensor) -> Map:
        """The approximate inverse of `operator`, both from `(B, *P)` to `(B, *P)` and symmetric positive definite.

        Args:
            operator: case by case; it is applied a few times.
            like: a tensor of the shape, dtype and device of the parameters.
        """


@dataclass(frozen=True)
class NormalOptions:
    """How the systems are solved.

    Attributes:
        solver: `explicit` forms the matrix column by column and inverts it, `matrix-free` takes conjugate gradients,
            `auto` the former up to 64 parameters per case.
        iterations, tolerance: of the conjugate gradients: at most so many, until the residual has fallen so far.
        preconditioner: of the conjugate gradients.
    """

    solver: Solver = "auto"
    iterations: int = 100
    tolerance: float = 1e-2
    preconditioner: Preconditioner | None = None

    def __post_init__(self) -> None:
        if self.solver not in ("auto", "explicit", "matrix-free"):
            raise ValueError(f"solver must be auto, explicit or matrix-free, got {self.solver!r}")
        if self.iterations < 1 or not 0 < self.tolerance < 1:
            raise ValueError(
                f"needs iterations >= 1 and tolerance in (0, 1) of the conjugate gradients, got "
                f"{self.iterations} and {self.tolerance}"
            )


@dataclass(frozen=True)
class NormalEquations:
    """`(A + eta I) p = -g` with `g` the gradient and `A = 2 J^T J + H` the Gauss–Newton matrix, per case.

    Attributes:
        gradient: `g (B, *P)`.
        product: `v (B, *P)` to `A v`.
        solve: `eta (B,)` to `p (B, *P)`; the least-norm solution where the formed matrix is singular.
    """

    gradient: Tensor
    product: Map
    solve: Map


def as_least_squares(name: str, objective: Objective) -> LeastSquares:
    """Raises `ValueError` for an objective that is no sum of squares."""
    if not isinstance(objective, LeastSquares):
        raise ValueError(f"{name}: needs a LeastSquares objective, got {type(objective).__name__}")
    return objective


def normal_equations(objective: LeastSquares, theta: Tensor, active: Tensor, options: NormalOptions) -> NormalEquations:
    """The system at `theta (B, *P)`; cases that are not `active (B,)`, or not finite, get `p = 0`."""
    system = objective.linearise(theta)
    slope = _penalty_gradient(objective, theta)
    gradient = 2 * system.pull(system.residuals)
    gradient = gradient if slope is None else gradient + slope
    usable = active & norm(gradient).isfinite()
    gradient = kept(usable, gradient)
    curvature = None if slope is None else _penalty_curvature(objective, theta)

    def product(v: Tensor) -> Tensor:
        out = 2 * system.pull(system.push(v))
        return kept(usable, out if curvature is None else out + curvature(v))

    few = theta[0].numel() <= FEW
    if options.solver == "explicit" or (options.solver == "auto" and few):
        matrix = _matrix(system, curvature, theta)
        usable = usable & matrix.flatten(1).isfinite().all(dim=1)
        matrix, gradient = kept(usable, matrix), kept(usable, gradient)
        return NormalEquations(gradient, _times(matrix), _inverted(matrix, gradient))
    return NormalEquations(gradient, product, _conjugate(product, gradient, options))


def _penalty_gradient(objective: LeastSquares, theta: Tensor) -> Tensor | None:
    """The gradient of the penalty, `None` where there is none."""
    with torch.enable_grad():
        leaf = theta.detach().requires_grad_()
        penalty = objective.penalty(leaf)
        if penalty is None or not penalty.requires_grad:
            return None
        return torch.autograd.grad(penalty.sum(), leaf)[0]


def _penalty_curvature(objective: LeastSquares, theta: Tensor) -> Map:
    """The product with the Hessian of the quadratic penalty: its gradient, less that at zero."""
    offset = _penalty_gradient(objective, torch.zeros_like(theta))

    def product(v: Tensor) -> Tensor:
        gradient = _penalty_gradient(objective, v)
        assert gradient is not None
        assert offset is not None
        return gradient - offset

    return product


def _matrix(system: Linearisation, curvature: Map | None, theta: Tensor) -> Tensor:
    """`A (B, P, P)`."""
    jacobian = explicit_jacobian(system, theta)
    matrix = 2 * jacobian.mT @ jacobian
    if curvature is not None:
        count = matrix.shape[1]
        units = torch.eye(count, dtype=theta.dtype, device=theta.device)
        columns = [curvature(unit.expand(theta.shape[0], -1).reshape(theta.shape)).flatten(1) for unit in units]
        matrix = matrix + torch.stack(columns, dim=2)
    return (matrix + matrix.mT) / 2


def _times(matrix: Tensor) -> Map:
    return lambda v: (matrix @ v.flatten(1)[..., None]).reshape(v.shape)


def _inverted(matrix: Tensor, gradient: Tensor) -> Map:
    """Solutions for any damping from one eigendecomposition."""
    values, vectors = torch.linalg.eigh(matrix)
    least = matrix.shape[1] * torch.finfo(matrix.dtype).eps * values[:, -1:].clamp(min=0)
    right = -(vectors.mT @ gradient.flatten(1)[..., None])[..., 0]

    def solve(eta: Tensor) -> Tensor:
        damped = values.clamp(min=0) + eta[:, None]
        parts = torch.where((values > least) | (damped > least), right / damped, torch.zeros_like(right))
        return (vectors @ parts[..., None]).reshape(gradient.shape)

    return solve


def _conjugate(product: Map, gradient: Tensor, options: NormalOptions) -> Map:
    """Solutions by conjugate gradients from zero, so that one that is cut short still descends."""
    chosen = options.preconditioner
    inverse = None if chosen is None else chosen.bind(product, gradient)

    def solve(eta: Tensor) -> Tensor:
        def damped(v: Tensor) -> Tensor:
            return product(v).addcmul(per_case(eta, v), v)

        return conjugate_gradients(damped, -gradient, options.iterations, options.tolerance, inverse)

    return solve


def conjugate_gradients(
    operator: Map, right: Tensor, iterations: int, tolerance: float, inverse: Map | None = None
) -> Tensor:
    """The solution `(B, *P)` of `operator(x) = right` per case, by preconditioned conjugate gradients from zero.

    A case stops when its residual is at most `tolerance` times `right`, or at a direction without positive curvature.

    Args:
        operator: symmetric positive semi-definite, case by case.
        inverse: the preconditioner.
    """
    x, r = torch.zeros_like(right), right.clone()
    z = r if inverse is None else inverse(r)
    p, rz, goal = z.clone(), dot(r, z), tolerance * norm(right)
    active = norm(right) > 0
    for _ in range(iterations):
        if not bool(active.any()):
            break
        q = operator(p)
        bend = dot(p, q)
        active = active & (bend > 0)
        alpha = torch.where(active, rz / bend, 0)
        x.addcmul_(per_case(alpha, p), p)
        r.addcmul_(per_case(alpha, q), q, value=-1)
        active = active & (norm(r) > goal)
        z = r if inverse is None else inverse(r)
        following = dot(r, z)
        p = torch.addcmul(z, per_case(torch.where(active, following / rz, 0), p), p)
        rz = following
    return x

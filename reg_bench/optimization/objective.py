"""What an optimizer minimises: an energy per case, or a sum of squared residuals with a quadratic penalty."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from reg_bench.optimization.linearisation import Linearisation, linearise


class Objective(ABC):
    """An energy of the parameters of a batch; each case depends on its own row only."""

    @abstractmethod
    def energy(self, theta: Tensor) -> Tensor:
        """The energy `(B,)` of the parameters `theta (B, *P)`, differentiable; lower is better."""

    def energy_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The energy `(B,)` and its gradient `(B, *P)`, without a graph.

        Raises:
            ValueError: an energy of a wrong shape, or one that does not depend on `theta`.
        """
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            energy = self.energy(leaf)
            check_energy(energy, theta)
            if not energy.requires_grad:
                raise ValueError(
                    f"{type(self).__name__}: the energy does not depend on theta, its gradient is undefined"
                )
            # Rows are independent, so the gradient of the sum holds the gradient of every case.
            (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        return energy.detach(), gradient


class LeastSquares(Objective):
    """`energy = sum of squared residuals + penalty`, the form that Gauss–Newton and Levenberg–Marquardt need."""

    @abstractmethod
    def residuals(self, theta: Tensor) -> Tensor:
        """The residuals `(B, N)` of `theta (B, *P)`, differentiable; their squares add up to the energy."""

    def penalty(self, theta: Tensor) -> Tensor | None:
        """A quadratic function of `theta`, `(B,)`, differentiable once; `None` for zero."""
        return None

    def energy(self, theta: Tensor) -> Tensor:
        energy = self.residuals(theta).square().sum(dim=1)
        penalty = self.penalty(theta)
        return energy if penalty is None else energy + penalty

    def linearise(self, theta: Tensor) -> Linearisation:
        """The residuals at `theta` with the products of their Jacobian `J`.

        Override it where `J` is known in closed form: for images compared voxel by voxel it is the image gradient times
        the derivative of the displacement (`linearisation.through_displacement`).
        """
        return linearise(self.residuals, theta)


def check_energy(energy: Tensor, theta: Tensor) -> None:
    """Raises `ValueError` unless there is one energy per case."""
    if tuple(energy.shape) != (theta.shape[0],):
        raise ValueError(f"energy must have shape (B,) = ({theta.shape[0]},), got {tuple(energy.shape)}")

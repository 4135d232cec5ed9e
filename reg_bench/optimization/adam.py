"""Adam, case by case."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.optimization.algebra import kept, largest, per_case
from reg_bench.optimization.base import Optimizer
from reg_bench.optimization.descent import Descent, begin
from reg_bench.optimization.objective import Objective


@dataclass
class _Moments(Descent):
    """With running means of the gradient and of its square `(B, *P)`, and the number of steps."""

    mean: Tensor
    square: Tensor
    count: int


class Adam(Optimizer[_Moments]):
    """Adam: Kingma & Ba (2015). Each parameter moves by about `rate` per step, whatever the scale of the energy.

    The small number under the fraction is relative to the largest root mean square gradient of the case: gradients of
    dense fields are as small as 1e-8, for which an absolute one would stop Adam, and none would move the background.
    Not monotone: the best parameters met are returned. An energy that is not finite ends a case.
    """

    def __init__(
        self,
        rate: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.999,
        decay: float = 1.0,
        decay_every: int = 1,
        epsilon: float = 1e-4,
    ) -> None:
        """
        Args:
            rate: of the first step, in units of the parameters (voxels), above 0.
            beta1, beta2: memory of the means, in [0, 1).
            decay: factor of the rate every `decay_every` steps, in (0, 1].
            decay_every: at least 1.
            epsilon: parameters whose gradients are below this share of the largest move less, at least 0.
        """
        if not rate > 0 or not 0 <= beta1 < 1 or not 0 <= beta2 < 1:
            raise ValueError(f"Adam: needs rate > 0 and betas in [0, 1), got {rate}, {beta1} and {beta2}")
        if not 0 < decay <= 1 or decay_every < 1:
            raise ValueError(f"Adam: needs decay in (0, 1] and decay_every >= 1, got {decay} and {decay_every}")
        if not epsilon >= 0:
            raise ValueError(f"Adam: needs epsilon >= 0, got {epsilon}")
        self.rate, self.beta1, self.beta2 = rate, beta1, beta2
        self.decay, self.decay_every, self.epsilon = decay, decay_every, epsilon

    @property
    def monotone(self) -> bool:
        return False

    def start(self, objective: Objective, theta: Tensor) -> _Moments:
        state = begin(objective, theta)
        return _Moments(**vars(state), mean=torch.zeros_like(theta), square=torch.zeros_like(theta), count=0)

    def step(self, objective: Objective, state: _Moments) -> _Moments:
        count = state.count + 1
        gradient = kept(state.active, state.gradient)
        mean = state.mean.lerp_(gradient, 1 - self.beta1)
        square = state.square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        rate = self.rate * self.decay ** (state.count // self.decay_every) / (1 - self.beta1**count)
        root = (square / (1 - self.beta2**count)).sqrt_()
        least = (self.epsilon * largest(root)).clamp(min=torch.finfo(root.dtype).tiny)
        root.add_(per_case(least, root))
        theta = torch.addcdiv(state.theta, mean, root, value=-rate)
        energy, gradient = objective.energy_and_gradient(theta)
        return replace(state, theta=theta, energy=energy, gradient=gradient, count=count)

"""BFGS with a dense inverse Hessian, for few parameters."""

from __future__ import annotations

from torch import Tensor

from reg_bench.optimization.algebra import dot
from reg_bench.optimization.base import Optimizer
from reg_bench.optimization.objective import Objective
from reg_bench.optimization.quasi_newton import DenseNewton, check_search, start_dense, step_dense


class BFGS(Optimizer[DenseNewton]):
    """Broyden, Fletcher, Goldfarb and Shanno's quasi-Newton method: thesis equation 2.43; Nocedal & Wright, 6.1."""

    def __init__(self, size: float = 1.0, curvature: float = 0.9, trials: int = 12, limit: int = 5000) -> None:
        """
        Args:
            size: of the first step, in units of the parameters (voxels), above 0.
            curvature: in (1e-4, 1): the slope left at the end of a search, as a share of that at its start.
            trials: most evaluations of a search.
            limit: most parameters per case, each of which costs a row of the matrix.
        """
        check_search("BFGS", size, curvature, trials)
        self.size, self.curvature, self.trials, self.limit = size, curvature, trials, limit

    def start(self, objective: Objective, theta: Tensor) -> DenseNewton:
        return start_dense("BFGS", objective, theta, self.limit)

    def step(self, objective: Objective, state: DenseNewton) -> DenseNewton:
        return step_dense(objective, state, bfgs_update, self.size, self.curvature, self.trials)


def bfgs_update(inverse: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """`(I - s y^T / s^T y) H (I - y s^T / s^T y) + s s^T / s^T y`: symmetric, maps `y` to `s`.

    Args:
        inverse: `H (B, P, P)`, symmetric positive definite.
        s, y: `(B, P)` with `s^T y > 0`, under which the result is positive definite too.
    """
    curvature = dot(s, y)[:, None]
    hy = (inverse @ y[..., None])[..., 0]
    # H - (s hy^T + hy s^T) / c + (1 + y^T hy / c) s s^T / c, as one symmetric product of w and s.
    w = (0.5 * (1 + dot(y, hy)[:, None] / curvature) * s - hy) / curvature
    outer = w[:, :, None] * s[:, None, :]
    return inverse + outer + outer.mT

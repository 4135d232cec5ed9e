"""DFP with a dense inverse Hessian, for few parameters."""

from __future__ import annotations

from torch import Tensor

from reg_bench.optimization.algebra import dot
from reg_bench.optimization.base import Optimizer
from reg_bench.optimization.objective import Objective
from reg_bench.optimization.quasi_newton import DenseNewton, check_search, start_dense, step_dense


class DFP(Optimizer[DenseNewton]):
    """Quasi-Newton after Davidon, Fletcher and Powell: thesis equation 2.43; Nocedal & Wright, equation 6.15.

    It recovers from a poor inverse Hessian more slowly than BFGS, so its search is nearly exact by default.
    """

    def __init__(self, size: float = 1.0, curvature: float = 0.1, trials: int = 12, limit: int = 5000) -> None:
        """
        Args:
            size: of the first step, in units of the parameters (voxels), above 0.
            curvature: in (1e-4, 1): the slope left at the end of a search, as a share of that at its start.
            trials: most evaluations of a search.
            limit: most parameters per case, each of which costs a row of the matrix.
        """
        check_search("DFP", size, curvature, trials)
        self.size, self.curvature, self.trials, self.limit = size, curvature, trials, limit

    def start(self, objective: Objective, theta: Tensor) -> DenseNewton:
        return start_dense("DFP", objective, theta, self.limit)

    def step(self, objective: Objective, state: DenseNewton) -> DenseNewton:
        return step_dense(objective, state, dfp_update, self.size, self.curvature, self.trials)


def dfp_update(inverse: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """`H - H y y^T H / y^T H y + s s^T / s^T y`: symmetric, maps `y` to `s`.

    Args:
        inverse: `H (B, P, P)`, symmetric positive definite.
        s, y: `(B, P)` with `s^T y > 0`, under which the result is positive definite too.
    """
    hy = (inverse @ y[..., None])[..., 0]
    lost = hy[:, :, None] * hy[:, None, :] / dot(y, hy)[:, None, None]
    return inverse - lost + s[:, :, None] * s[:, None, :] / dot(s, y)[:, None, None]

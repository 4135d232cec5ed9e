"""The linear Gaussian state-space model (thesis, equations 3.14 to 3.16)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearGaussianModel:
    """`z_1 ~ N(mean, covariance)`, `z_t = A z_{t-1} + N(0, Q)`, `y_t = C z_t + N(0, R)`.

    `n` is the number of states, `p` of observations. Covariances must be symmetric, and those of what is observed
    positive definite; that is found out when they are inverted.

    Attributes:
        A: `(n, n)`, transition.
        C: `(p, n)`, emission.
        Q: `(n, n)`, covariance of the transition's noise.
        R: `(p, p)`, covariance of the observation's noise.
        mean: `(n,)`, or `(B, n)` for every sequence its own, of the first state.
        covariance: `(n, n)` or `(B, n, n)`, of the first state.

    Raises:
        ValueError: shapes that do not fit, or tensors of different or of no floating-point type.
    """

    A: Tensor
    C: Tensor
    Q: Tensor
    R: Tensor
    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        n, p = self.A.shape[-1], self.C.shape[0]
        expected = {"A": (n, n), "C": (p, n), "Q": (n, n), "R": (p, p), "mean": (n,), "covariance": (n, n)}
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            batch = name in ("mean", "covariance") and len(found) == len(shape) + 1
            if (found[1:] if batch else found) != shape:
                each = f" or {('B', *shape)}".replace("'", "") if name in ("mean", "covariance") else ""
                raise ValueError(f"state-space model: {name} must be {shape}{each} beside A and C, got {found}")
        kinds = {(t.dtype, t.device) for t in (getattr(self, f.name) for f in fields(self))}
        if len(kinds) > 1 or not self.A.is_floating_point():
            raise ValueError(f"state-space model: tensors must be of one floating-point type and device, got {kinds}")
        if self.mean.ndim == 2 and self.covariance.ndim == 3 and len(self.mean) != len(self.covariance):
            raise ValueError(
                f"state-space model: mean is of {len(self.mean)} sequences, covariance of {len(self.covariance)}"
            )

    def to(self, dtype: torch.dtype) -> LinearGaussianModel:
        """The model with tensors of that type."""
        if self.A.dtype == dtype:
            return self
        return replace(self, **{f.name: getattr(self, f.name).to(dtype) for f in fields(self)})

    @property
    def states(self) -> int:
        """The number of states, `n`."""
        return self.A.shape[0]

    @property
    def observations(self) -> int:
        """The number of observations at a time, `p`."""
        return self.C.shape[0]

    @property
    def sequences(self) -> int | None:
        """`B`, where the first state is of every sequence its own; else `None`."""
        own = [len(t) for t, shared in ((self.mean, 1), (self.covariance, 2)) if t.ndim > shared]
        return own[0] if own else None

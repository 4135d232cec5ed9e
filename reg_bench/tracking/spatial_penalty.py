"""A penalty on filters that grows with the distance from the centre (Danelljan et al., ICCV 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from reg_bench.tracking.band import Band


@dataclass(frozen=True)
class SpatialPenalty:
    """`sum over pixels of w(r)^2 f(r)^2` with `w^2 = least + edge q^2` and `q = sin^2(pi r_1 / P) + sin^2(pi r_2 / P)`.

    Near the centre `q` is quadratic in the distance, and its spectrum has five coefficients only: the penalty costs a
    few additions per frequency, where a window in pixels would cost two transforms. `P` is the period of the band.

    Attributes:
        band: of the filters.
        least: at the centre.
        edge: what comes in the middle of the edges of the patch.
    """

    band: Band
    least: float = 1e-2
    edge: float = 1.0

    def __post_init__(self) -> None:
        if not self.least > 0 or self.edge < 0:
            raise ValueError(f"SpatialPenalty: needs least > 0 and edge >= 0, got {self.least} and {self.edge}")

    def times(self, filters: Tensor) -> Tensor:
        """Half the gradient: the spectra `(..., 2 m + 1, m + 1)` of `w^2 f`, within the band."""
        if self.edge == 0:
            return self.least * filters
        return self.least * filters + self.edge * self._quadratic(self._quadratic(filters))

    @property
    def mean(self) -> float:
        """Of `w^2` over the patch, which is what a preconditioner needs."""
        return self.least + self.edge * 1.25

    def _quadratic(self, filters: Tensor) -> Tensor:
        """The spectra of `q f`: differences of neighbouring frequencies."""
        first, second, mirror = _neighbours(self.band.limit, filters.real.dtype, filters.device)
        real = torch.view_as_real(filters)
        down = torch.einsum("ij,...jkc->...ikc", first, real)
        across = torch.einsum("...jkc,kl->...jlc", real, second)
        out = torch.view_as_complex((down + across).contiguous())
        # The frequency on the other side of column 0 is the mirrored conjugate of column 1.
        out[..., 0] -= filters[..., mirror, 1].conj() / 4
        return out


@lru_cache(maxsize=32)
def _neighbours(limit: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`sin^2` as matrices over the frequencies of both axes, and where the negative of each first frequency stands."""
    rows = [*range(limit + 1), *range(-1, -limit - 1, -1)]
    first = torch.tensor([[_between(a, b) for b in rows] for a in rows], dtype=dtype, device=device)
    second = torch.tensor([[_between(a, b) for b in range(limit + 1)] for a in range(limit + 1)], dtype=dtype)
    mirror = torch.tensor([rows.index(-k) for k in rows], device=device)
    return first, second.to(device), mirror


def _between(a: int, b: int) -> float:
    """The coefficient of `sin^2 = (1 - cos) / 2` between two frequencies."""
    return 0.5 if a == b else -0.25 if abs(a - b) == 1 else 0.0

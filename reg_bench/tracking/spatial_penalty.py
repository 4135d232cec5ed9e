"""A penalty on filters that grows with the distance from the centre (Danelljan et al., ICCV 2015)."""

from __future__ import annotations

from dataclasses import dataclass

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
        """The spectra of `q f`: `f` less a quarter of each neighbouring frequency."""
        m, quarter = self.band.limit, -0.25
        out = filters.clone()
        out[..., 1:].add_(filters[..., :-1], alpha=quarter)
        out[..., :-1].add_(filters[..., 1:], alpha=quarter)
        # The frequency on the other side of column 0 is the mirrored conjugate of column 1.
        mirrored = torch.cat((filters[..., :1, 1], filters[..., m + 1 :, 1], filters[..., 1 : m + 1, 1]), dim=-1)
        out[..., 0].add_(mirrored.conj(), alpha=quarter)
        # Along the first axis 0..m and -1..-m are neighbours each in turn, and 0 and -1 of one another.
        for low, high in ((0, m), (m + 1, 2 * m)):
            out[..., low + 1 : high + 1, :].add_(filters[..., low:high, :], alpha=quarter)
            out[..., low:high, :].add_(filters[..., low + 1 : high + 1, :], alpha=quarter)
        out[..., 0, :].add_(filters[..., m + 1, :], alpha=quarter)
        out[..., m + 1, :].add_(filters[..., 0, :], alpha=quarter)
        return out

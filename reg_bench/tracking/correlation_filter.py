"""Correlation filters in closed form, one equation per frequency (Paper I, equation 1).

With the spectra `x` of a sample and `y` of the wished response, the filter `h` minimises `|sum_k h_k* x_k - y|^2 + lam
sum_k |h_k|^2` over all pixels of the (periodic) patch.
"""

from __future__ import annotations

from torch import Tensor


def numerator(sample: Tensor, label: Tensor) -> Tensor:
    """`y* x`, `(M, K, ...)` of `sample (M, K, ...)` and `label (M, ...)`."""
    return sample * label.conj()[:, None]


def energy(sample: Tensor) -> Tensor:
    """`sum_k |x_k|^2`, `(M, ...)` real."""
    return (sample.real.square() + sample.imag.square()).sum(1)


def respond(filters: Tensor, sample: Tensor) -> Tensor:
    """The spectra `(M, ...)` of the response `sum_k h_k* x_k`; both arguments are `(M, K, ...)`."""
    return (filters.conj() * sample).sum(1)


def ridge_filter(sample: Tensor, label: Tensor, lam: float) -> Tensor:
    """The filter `(M, K, ...)` of one sample: `h_k = y* x_k / (sum_j |x_j|^2 + lam)`.

    Exact for one sample of any number of channels; and for several samples of one channel, with sums over the samples
    in numerator and denominator (Bolme et al., CVPR 2010; Danelljan et al., BMVC 2014).
    """
    if not lam > 0:
        raise ValueError(f"ridge_filter: lam must be positive, got {lam}")
    return numerator(sample, label) / (energy(sample) + lam)[:, None]


def blend(old: Tensor, new: Tensor, rate: Tensor) -> Tensor:
    """`(1 - rate) old + rate new` with a rate `(M,)` for each tracker."""
    return old + rate.reshape(-1, *(1,) * (old.ndim - 1)) * (new - old)

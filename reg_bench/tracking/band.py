"""Windowed patches as low-frequency spectra, and back: the transforms that all trackers share.

Only frequencies up to a limit are computed, by two matrix products with the window in them: half the time of a full
transform of 48 x 48 pixels, and every sum over frequencies afterwards is shorter as well. Phases count from the centre
of the patch, so that a shift of the content is a phase, whatever fraction of a pixel it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Band:
    """The frequencies of a square patch up to a limit, under a cosine window.

    Spectra are `(..., 2 m + 1, m + 1)` complex: frequencies `0..m, -1..-m` along the first axis, `0..m` along the
    second; the rest of a real signal follows by symmetry. Pixels lie at `-size / 2 .. size / 2 - 1` from the centre.

    Attributes:
        size: edge of the patch in pixels, even; the period of the spectra.
        limit: highest frequency `m`, in periods per patch.
        window: width of the cosine (Hann) window in pixels; 0 beyond.
    """

    size: int = 48
    limit: int = 15
    window: float = 45.0

    def __post_init__(self) -> None:
        if self.size < 4 or self.size % 2 or not 1 <= self.limit < self.size // 2 or not 2 < self.window <= self.size:
            raise ValueError(
                "Band: size must be even and at least 4, limit in 1..size / 2 - 1 and window in 2..size, "
                f"got {self.size}, {self.limit} and {self.window}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Of a spectrum."""
        return 2 * self.limit + 1, self.limit + 1

    def taper(self, centres: Tensor) -> Tensor:
        """The windows `(M, 2, size)` along both axes whose middles lie at `centres (M, 2)` from that of the patch."""
        place = _tables(self, centres.dtype, centres.device)[0] - centres[..., None]
        return torch.cos(place * (math.pi / self.window)).square() * (place.abs() < self.window / 2)

    def window_spectrum(self, centres: Tensor) -> Tensor:
        """The spectra `(M, 1, 2 m + 1, m + 1)` of those windows."""
        return self.spectrum(centres.new_ones(len(centres), 1, self.size, self.size), centres)

    def spectrum(self, patches: Tensor, centres: Tensor | None = None) -> Tensor:
        """The spectra `(M, K, 2 m + 1, m + 1)` of real patches `(M, K, size, size)` under the window.

        The window of each of `M` lies at `centres (M, 2)` from the centre of the patch, in pixels; `None`: there.
        """
        if patches.ndim != 4 or patches.shape[2:] != (self.size, self.size) or not patches.is_floating_point():
            raise ValueError(
                f"Band.spectrum: patches must be floating point (M, K, {self.size}, {self.size}), "
                f"got {patches.dtype} {tuple(patches.shape)}"
            )
        count, channels, n = *patches.shape[:2], self.limit + 1
        _, across, down = _tables(self, patches.dtype, patches.device)
        tapers = self.taper(patches.new_zeros(1, 2) if centres is None else centres)
        rows = patches.reshape(count, -1, self.size) @ (across * tapers[:, 1, :, None])
        rows = rows.reshape(count, channels, self.size, 2 * n) * tapers[:, 0, None, :, None]
        parts = (down @ rows.reshape(-1, self.size, 2 * n)).reshape(-1, 2, n, n, 2)
        cosine, sine = torch.view_as_complex(parts).unbind(1)
        out = cosine.new_empty(len(cosine), *self.shape)
        torch.add(cosine, sine, alpha=-1j, out=out[:, :n])
        torch.add(cosine[:, 1:], sine[:, 1:], alpha=1j, out=out[:, n:])
        return out.reshape(count, channels, *self.shape)

    def frequencies(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Angular frequencies `(2 m + 1,)` and `(m + 1,)` in radians per pixel, in the real dtype of `like`."""
        return _frequencies(self, like.real.dtype, like.device)[:2]

    def multiplicity(self, like: Tensor) -> Tensor:
        """How often each column stands in the whole spectrum, `(m + 1,)`: once, then twice."""
        return _frequencies(self, like.real.dtype, like.device)[2]

    def energy(self, spectra: Tensor) -> Tensor:
        """Sums of squares `(...)` over the pixels of the signals `(..., 2 m + 1, m + 1)`."""
        # All columns but the first stand twice in a whole spectrum.
        both, once = (torch.view_as_real(x).square().sum((-3, -2, -1)) for x in (spectra, spectra[..., :1]))
        return (2 * both - once) / self.size**2

    def inner(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products `(...)` over pixels of two real signals given by their spectra."""
        return ((a.conj() * b).real.sum(-2) @ self.multiplicity(a)) / self.size**2

    def shifted(self, spectrum: Tensor, offset: Tensor) -> Tensor:
        """`spectrum (..., 2 m + 1, m + 1)` of the content moved by `offset (..., 2)` pixels."""
        first, second = (torch.polar(torch.ones_like(p), p) for p in self._phases(spectrum, -offset))
        return spectrum * first[..., :, None] * second[..., None, :]

    def gaussian(self, sigma: float, like: Tensor) -> Tensor:
        """The spectrum of a periodic Gaussian of height 1 at the centre, `sigma` in pixels."""
        first, second = self.frequencies(like)
        height = 2 * math.pi * sigma**2
        decay = torch.exp(-(first[:, None].square() + second[None].square()) * (sigma**2 / 2))
        return torch.complex(height * decay, torch.zeros_like(decay))

    def grid(self, spectrum: Tensor, radius: float, step: float = 1.0) -> Tensor:
        """Values `(..., 2 n + 1, 2 n + 1)` of the signal up to `radius = n step` pixels from the centre."""
        count = int(radius / step)
        places = torch.arange(-count, count + 1, dtype=spectrum.real.dtype, device=spectrum.device) * step
        first, second = (
            torch.polar(torch.ones_like(p), p) for p in (places[:, None] * f for f in self.frequencies(spectrum))
        )
        weighted = second * (self.multiplicity(spectrum) / self.size**2)
        rows = first @ spectrum
        return rows.real @ weighted.real.T - rows.imag @ weighted.imag.T

    def derivatives(self, spectrum: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values `(M,)`, gradients `(M, 2)` and second derivatives `(M, 2, 2)` of signals at `offset (M, 2)`."""
        waves = []
        for frequency, phase in zip(self.frequencies(spectrum), self._phases(spectrum, offset), strict=True):
            wave = torch.polar(torch.ones_like(phase), phase)
            waves.append(torch.stack((wave, 1j * frequency * wave, -frequency.square() * wave), dim=1))
        second = waves[1] * (self.multiplicity(spectrum) / self.size**2)
        table = (waves[0] @ spectrum @ second.transpose(1, 2)).real
        gradient = torch.stack((table[:, 1, 0], table[:, 0, 1]), dim=1)
        bend = torch.stack((table[:, 2, 0], table[:, 1, 1], table[:, 1, 1], table[:, 0, 2]), dim=1)
        return table[:, 0, 0], gradient, bend.reshape(-1, 2, 2)

    def _phases(self, spectrum: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.frequencies(spectrum)
        return offset[..., :1] * first, offset[..., 1:] * second


@lru_cache(maxsize=32)
def _tables(band: Band, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Distances of the pixels from the centre, and the matrices of the transform without its window.

    `(size, 2 (m + 1))`, real and imaginary parts in turn, and `(2 (m + 1), size)`, cosines then sines.
    """
    place = torch.arange(band.size, dtype=torch.float64) - band.size // 2
    angle = place[:, None] * torch.arange(band.limit + 1, dtype=torch.float64) * (2 * math.pi / band.size)
    across = torch.stack((angle.cos(), -angle.sin()), dim=2).flatten(1)
    down = torch.cat((angle.cos(), angle.sin()), dim=1).T
    return tuple(t.to(device, dtype).contiguous() for t in (place, across, down))  # type: ignore[return-value]


@lru_cache(maxsize=32)
def _frequencies(band: Band, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The angular frequencies of both axes, and how often the columns stand in the whole spectrum."""
    second = torch.arange(band.limit + 1, dtype=dtype, device=device) * (2 * math.pi / band.size)
    count = torch.full_like(second, 2.0)
    count[0] = 1
    return torch.cat((second, -second[1:])), second, count

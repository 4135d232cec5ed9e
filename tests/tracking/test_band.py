"""Low-frequency spectra against torch.fft, and signals read back from them against sums of cosines."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reg_bench.tracking import Band, find_peak, sidelobe_ratio

BAND = Band(16, 5, 13.0)


def patches(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cut_out(full: Tensor, limit: int) -> Tensor:
    """The rows `0..m, -1..-m` and columns `0..m` of a whole spectrum."""
    rows = [*range(limit + 1), *range(-1, -limit - 1, -1)]
    return full[..., rows, : limit + 1]


def test_spectrum_is_of_fft_under_the_window() -> None:
    x = patches(3, 2, 16, 16)
    window = torch.tensor([math.cos(math.pi * (i - 8) / 13) ** 2 if abs(i - 8) < 6.5 else 0.0 for i in range(16)])
    windowed = torch.fft.ifftshift(x * window.double()[:, None] * window.double(), dim=(-2, -1))
    expected = cut_out(torch.fft.fft2(windowed), 5)
    torch.testing.assert_close(BAND.spectrum(x), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(BAND.taper(x.new_zeros(1, 2)), window.double().expand(1, 2, 16), atol=1e-6, rtol=0)


def test_windows_lie_at_the_points() -> None:
    centres = torch.tensor([[1.0, -2.0], [0.3, 0.4]], dtype=torch.float64)
    tapers = BAND.taper(centres)
    torch.testing.assert_close(tapers[0, 0], BAND.taper(centres * 0)[0, 0].roll(1), atol=1e-12, rtol=0)
    x = patches(2, 1, 16, 16)
    plain = x * tapers[:, None, 0, :, None] * tapers[:, None, 1, None]
    expected = cut_out(torch.fft.fft2(torch.fft.ifftshift(plain, dim=(-2, -1))), 5)
    torch.testing.assert_close(BAND.spectrum(x, centres), expected)


def band_limited(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Spectra `(4, ...)` of real signals within the band, and the signals by a whole inverse transform."""
    full = torch.fft.fft2(patches(4, 16, 16, seed=seed))
    rows = torch.fft.fftfreq(16, 1 / 16).abs() <= 5
    full = full * (rows[:, None] & rows[None])
    return cut_out(full, 5), torch.fft.fftshift(torch.fft.ifft2(full).real, dim=(-2, -1))


def test_grid_is_the_inverse_and_energy_that_of_the_pixels() -> None:
    spectrum, signal = band_limited()
    torch.testing.assert_close(BAND.grid(spectrum, 7), signal[:, 1:, 1:])
    torch.testing.assert_close(BAND.grid(spectrum, 3, 0.5)[:, ::2, ::2], signal[:, 5:12, 5:12])
    torch.testing.assert_close(BAND.energy(spectrum), signal.square().sum((1, 2)))
    torch.testing.assert_close(BAND.inner(spectrum[:2], spectrum[2:]), (signal[:2] * signal[2:]).sum((1, 2)))


def test_derivatives_are_those_of_the_signal() -> None:
    spectrum, signal = band_limited()
    offset = torch.tensor([[0.3, -1.2], [2.0, 0.5], [-3.0, 1.0], [0.0, 0.0]], dtype=torch.float64)

    def value(place: Tensor) -> Tensor:
        return BAND.derivatives(spectrum, place)[0].sum()

    values, gradient, bend = BAND.derivatives(spectrum, offset)
    torch.testing.assert_close(values[2:], torch.stack((signal[2, 5, 9], signal[3, 8, 8])))
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(value, offset))
    hessian = torch.autograd.functional.hessian(value, offset)
    torch.testing.assert_close(bend, torch.stack([hessian[k, :, k] for k in range(4)]))


def test_shifts_are_circular_shifts() -> None:
    spectrum, signal = band_limited()
    moved = BAND.shifted(spectrum, torch.tensor([[2.0, -3.0]] * 4, dtype=torch.float64))
    torch.testing.assert_close(BAND.grid(moved, 7), signal.roll((2, -3), (1, 2))[:, 1:, 1:])


def test_gaussian_has_height_one_and_its_width() -> None:
    band = Band(48, 23, 45.0)
    values = band.grid(band.gaussian(1.5, torch.zeros(1, dtype=torch.complex128)), 5)
    places = torch.arange(-5, 6, dtype=torch.float64)
    expected = torch.exp(-(places[:, None] ** 2 + places[None] ** 2) / (2 * 1.5**2))
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_peaks_are_found_between_pixels(dtype: torch.dtype) -> None:
    band = Band(48, 12, 45.0)
    places = (torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 20 - 10).to(dtype)
    label = band.gaussian(1.5, torch.zeros(1, dtype=torch.promote_types(dtype, torch.complex64)))
    found, ratios = find_peak(band, band.shifted(label, places), 14)
    torch.testing.assert_close(found, places, atol=1e-4, rtol=0)
    assert bool((ratios > 15).all())
    coarse, _ = find_peak(band, band.shifted(label, places), 14, newton_steps=0)
    torch.testing.assert_close(coarse, places.round())


def test_sidelobe_ratio_by_hand() -> None:
    values = patches(2, 15, 17)
    first, second = torch.tensor([7, 0]), torch.tensor([8, 16])
    expected = []
    for k in range(2):
        i, j = int(first[k]), int(second[k])
        away = [values[k, a, b] for a in range(15) for b in range(17) if max(abs(a - i), abs(b - j)) > 2]
        side = torch.stack(away)
        expected.append((values[k, i, j] - side.mean()) / side.std(correction=0))
    torch.testing.assert_close(sidelobe_ratio(values, first, second, 5), torch.stack(expected))
    assert sidelobe_ratio(torch.ones(1, 9, 9), first[1:], first[1:]).item() == 0


def test_bad_bands_are_named() -> None:
    for size, limit, window in ((15, 3, 9.0), (16, 8, 9.0), (16, 3, 17.0)):
        with pytest.raises(ValueError, match=f"got {size}, {limit} and {window}"):
            Band(size, limit, window)
    with pytest.raises(ValueError, match=r"patches must be floating point \(M, K, 16, 16\)"):
        BAND.spectrum(torch.zeros(1, 1, 16, 15))

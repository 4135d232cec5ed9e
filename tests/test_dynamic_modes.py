"""Dynamic mode decomposition of known linear systems, and against PyDMD."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.dynamic_modes import delayed, dynamic_modes

SHAPE = (2, 6, 5)


def system(eigenvalues: list[complex], seed: int = 0) -> Tensor:
    """A real map `(n, n)` with those eigenvalues, conjugates included, in random coordinates."""
    g = torch.Generator().manual_seed(seed)
    blocks = [
        torch.tensor([[z.real, -z.imag], [z.imag, z.real]]) if z.imag else torch.tensor([[z.real]]) for z in eigenvalues
    ]
    A = torch.block_diag(*blocks).double()
    change = torch.randn(len(A), len(A), generator=g, dtype=torch.float64)
    return change @ A @ torch.linalg.inv(change)


def snapshots(A: Tensor, length: int, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Tensor:
    """Images `(T, *S)` that are linear in states that follow `A`."""
    g = torch.Generator().manual_seed(seed)
    states = [torch.randn(len(A), generator=g, dtype=torch.float64)]
    for _ in range(length - 1):
        states.append(A @ states[-1])
    lift = torch.randn(len(A), *shape, generator=g, dtype=torch.float64)
    return torch.einsum("tn,n...->t...", torch.stack(states), lift)


def ordered(values: Tensor) -> np.ndarray:
    return np.array(sorted(values.numpy().tolist(), key=lambda z: (round(z.real, 8), z.imag)))


EIGENVALUES = [cmath.rect(0.99, 0.3), cmath.rect(0.95, 1.1), complex(0.8), complex(-0.6)]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("length", [7, 30])
def test_eigenvalues_of_a_known_system(length: int, exact: bool) -> None:
    A = system(EIGENVALUES)
    found = dynamic_modes(snapshots(A, length), exact=exact)
    expected = torch.linalg.eigvals(A)
    assert len(found.eigenvalues) == 6
    np.testing.assert_allclose(ordered(found.eigenvalues), ordered(expected), atol=1e-8)


def test_eigenvalues_of_float32_snapshots() -> None:
    A = system([cmath.rect(0.99, 0.3), cmath.rect(0.9, 1.1)])
    found = dynamic_modes(snapshots(A, 20).float(), 4)
    np.testing.assert_allclose(ordered(found.eigenvalues), ordered(torch.linalg.eigvals(A)), atol=1e-4)


def test_reconstructs_and_forecasts() -> None:
    y = snapshots(system(EIGENVALUES), 40)
    found = dynamic_modes(y[:15], seconds_per_frame=0.02)
    torch.testing.assert_close(found.at(0.02 * torch.arange(40, dtype=torch.float64)), y, rtol=0, atol=1e-7)
    ahead = found.forecast(y[14], 0.02 * torch.arange(26, dtype=torch.float64))
    torch.testing.assert_close(ahead, y[14:], rtol=0, atol=1e-7)


def test_modes_are_eigenvectors_of_the_map_of_snapshots() -> None:
    y = snapshots(system(EIGENVALUES), 12)
    found = dynamic_modes(y)
    flat = y.flatten(1).mT
    F = (flat[:, 1:] @ torch.linalg.pinv(flat[:, :-1])).to(found.modes.dtype)
    modes = found.modes.flatten(1).mT
    torch.testing.assert_close(F @ modes, modes * found.eigenvalues, rtol=0, atol=1e-8)


def test_continuous_form_and_frequencies() -> None:
    seconds, hertz, decay = 0.02, 1.25, 0.5
    t = seconds * torch.arange(60, dtype=torch.float64)
    space = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    angle = 2 * math.pi * hertz * t
    wave = torch.stack([angle.cos(), angle.sin()]) * (-decay * t).exp()
    found = dynamic_modes(torch.einsum("kt,k...->t...", wave, space), seconds_per_frame=seconds)
    np.testing.assert_allclose(np.sort(found.frequency_hz.numpy()), [-hertz, hertz], atol=1e-9)
    np.testing.assert_allclose(found.growth_per_second.numpy(), [-decay, -decay], atol=1e-9)
    between = found.at(t[:5] + seconds / 2)
    shifted = 2 * math.pi * hertz * (t[:5] + seconds / 2)
    expected = torch.stack([shifted.cos(), shifted.sin()]) * (-decay * (t[:5] + seconds / 2)).exp()
    torch.testing.assert_close(between, torch.einsum("kt,k...->t...", expected, space), rtol=0, atol=1e-9)


def test_growth_is_held_in_a_stable_forecast() -> None:
    y = snapshots(system([complex(1.2), cmath.rect(0.9, 0.7)]), 12)
    found = dynamic_modes(y)
    times = torch.arange(30.0)
    assert found.forecast(y[-1], times, stable=False)[-1].abs().max() > 50 * y[-1].abs().max()
    assert found.forecast(y[-1], times)[-1].abs().max() < 3 * y[-1].abs().max()


def test_delays_let_a_standing_wave_swing() -> None:
    """One direction in space: without delays a single real eigenvalue, with them the pair of the oscillation."""
    t = torch.arange(40, dtype=torch.float64)
    y = (0.4 * t).cos()[:, None] * torch.randn(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert len(dynamic_modes(y).eigenvalues) == 1
    assert not dynamic_modes(y).eigenvalues.imag.any()
    stacked = delayed(y, 2)
    torch.testing.assert_close(stacked[5, 1], y[5])
    torch.testing.assert_close(stacked[5, 0], y[6])
    found = dynamic_modes(stacked)
    np.testing.assert_allclose(np.sort(found.eigenvalues.imag.numpy()), [-math.sin(0.4), math.sin(0.4)], atol=1e-9)
    ahead = found.forecast(stacked[-1], torch.tensor([3.0], dtype=torch.float64))[0, 0]
    torch.testing.assert_close(ahead, math.cos(0.4 * 42) / math.cos(0.4 * 39) * y[-1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("rank", [2, 5])
def test_agrees_with_pydmd(rank: int, exact: bool) -> None:
    pydmd = pytest.importorskip("pydmd", reason="PyDMD is in the dev extra")
    g = torch.Generator().manual_seed(4)
    y = snapshots(system(EIGENVALUES), 25)
    y = y + 0.05 * torch.randn(y.shape, generator=g, dtype=torch.float64)
    other = pydmd.DMD(svd_rank=rank, exact=exact)
    other.fit(y.flatten(1).numpy().T)
    found = dynamic_modes(y, rank, exact=exact)
    mine = sorted(range(rank), key=lambda k: (found.eigenvalues[k].real.item(), found.eigenvalues[k].imag.item()))
    theirs = sorted(range(rank), key=lambda k: (other.eigs[k].real, other.eigs[k].imag))
    np.testing.assert_allclose(found.eigenvalues.numpy()[mine], other.eigs[theirs], atol=1e-10)
    # A mode is known up to a factor that its amplitude takes back.
    scaled = (found.modes.flatten(1) * found.amplitudes[:, None]).numpy()[mine]
    np.testing.assert_allclose(scaled, (other.modes * other.amplitudes).T[theirs], atol=1e-8)
    whole = found.at(torch.arange(25, dtype=torch.float64)).flatten(1).numpy().T
    np.testing.assert_allclose(whole, other.reconstructed_data.real, atol=1e-8)


def test_bad_input_is_told() -> None:
    with pytest.raises(ValueError, match="two snapshots"):
        dynamic_modes(torch.ones(1, 4))
    with pytest.raises(ValueError, match="rank must be at least 1"):
        dynamic_modes(torch.ones(3, 4), 0)
    with pytest.raises(ValueError, match="seconds_per_frame"):
        dynamic_modes(torch.ones(3, 4), seconds_per_frame=0)
    with pytest.raises(ValueError, match="4 delays of 3"):
        delayed(torch.ones(3, 2), 4)
    still = dynamic_modes(torch.zeros(4, 3))
    assert not len(still.eigenvalues)
    assert torch.equal(still.at(torch.zeros(2)), torch.zeros(2, 3, dtype=torch.float64))

"""The parts of ECO: interpolation, penalty, memory, solver and projection, against dense or independent answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reg_bench.tracking import Band
from reg_bench.tracking.continuous import cubic_kernel, interpolation_spectrum
from reg_bench.tracking.filter_solver import FilterSystem, begin, descend
from reg_bench.tracking.projection import FirstFrame, principal_projection, project
from reg_bench.tracking.sample_memory import SampleMemory
from reg_bench.tracking.spatial_penalty import SpatialPenalty

BAND = Band(12, 4, 11.0)
PENALTY = SpatialPenalty(BAND, 0.05, 0.8)


def spectra(*shape: int, seed: int = 0) -> Tensor:
    """Spectra of real signals, of which `shape` are the leading sizes."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(*shape, 12, 12, generator=generator, dtype=torch.float64)
    return Band(12, 4, 12.0).spectrum(signal.reshape(1, -1, 12, 12)).reshape(*shape, *BAND.shape)


def places() -> Tensor:
    return torch.arange(12, dtype=torch.float64) - 6


def pixels(spectrum: Tensor) -> Tensor:
    """The signals at all 12 x 12 pixels, by adding up cosines."""
    first, second = BAND.frequencies(spectrum)
    waves = torch.exp(1j * (places()[:, None, None, None] * first[:, None] + places()[:, None, None] * second))
    return torch.einsum("...kl,l,abkl->...ab", spectrum, BAND.multiplicity(spectrum).to(spectrum), waves).real / 144


def test_kernel_is_continuous_interpolates_and_sums_to_one() -> None:
    assert cubic_kernel(torch.tensor([0.0, 1.0, -1.0, 2.0, 3.0])).tolist() == [1, 0, 0, 0, 0]
    shifts = torch.arange(-3, 4, dtype=torch.float64)[:, None] + torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(cubic_kernel(shifts).sum(0), torch.ones(11, dtype=torch.float64))


def test_interpolation_is_a_factor_for_every_frequency() -> None:
    """The kernel drawn through pixels of a wave, analysed at the frequency of the wave."""
    factor = interpolation_spectrum(BAND, torch.zeros(1, dtype=torch.complex128))
    fine = torch.arange(0, 12, 1 / 200, dtype=torch.float64)
    for k in (1, 3):
        wave = torch.cos(2 * math.pi * k * torch.arange(-6, 30, dtype=torch.float64) / 12)
        drawn = (cubic_kernel(fine[:, None] - torch.arange(-6, 30)) * wave).sum(1)
        amplitude = 2 * (drawn * torch.cos(2 * math.pi * k * fine / 12)).mean()
        torch.testing.assert_close(factor[k, 0], amplitude, atol=1e-5, rtol=0)
        torch.testing.assert_close(factor[k, 2], factor[k, 0] * factor[0, 2])
    torch.testing.assert_close(factor[5:, 1], factor[[1, 2, 3, 4], 1].flip(0)[[3, 2, 1, 0]])


def test_penalty_is_a_window_over_the_pixels() -> None:
    f, g = spectra(1, 3), spectra(1, 3, seed=1)
    wave = torch.sin(math.pi * places() / 12).square()
    q = wave[:, None] + wave[None]
    quadratic = SpatialPenalty(BAND, 1e-9, 1.0)
    once = quadratic._quadratic(f)
    torch.testing.assert_close(BAND.inner(g, once), (pixels(g) * q * pixels(f)).sum((-2, -1)))
    expected = 0.05 * BAND.inner(f, f) + 0.8 * BAND.energy(once)
    torch.testing.assert_close(BAND.inner(f, PENALTY.times(f)), expected)
    torch.testing.assert_close(BAND.inner(g, PENALTY.times(f)), BAND.inner(PENALTY.times(g), f))


def test_penalty_holds_a_filter_near_the_centre() -> None:
    near = BAND.gaussian(0.8, torch.zeros(1, dtype=torch.complex128))[None]
    far = BAND.shifted(near, torch.tensor([[5.0, 5.0]], dtype=torch.float64))
    assert BAND.inner(far, PENALTY.times(far)) > 10 * BAND.inner(near, PENALTY.times(near))


def filled(count: int, places: int = 4, share: float = 0.2, seed: int = 0) -> tuple[SampleMemory, Tensor, Tensor]:
    """A memory after `count` samples, the samples and what they weigh when nothing is forgotten."""
    samples = spectra(count, 2, 3, seed=seed)
    memory, weights = SampleMemory.empty(samples[0], places), torch.zeros(count, dtype=torch.float64)
    for k in range(count):
        part = 1.0 if k == 0 else share
        memory = memory.with_sample(BAND, samples[k], torch.full((2,), part, dtype=torch.float64))
        weights = weights * (1 - part)
        weights[k] = part
    return memory, samples, weights


@pytest.mark.parametrize("count", [3, 4, 9])
def test_sums_of_the_memory_are_those_of_its_samples(count: int) -> None:
    memory, samples, weights = filled(count)
    torch.testing.assert_close(memory.weights.sum(1), torch.ones(2, dtype=torch.float64))
    mean = torch.einsum("ml,mlckx->mckx", memory.weights.to(samples), memory.samples)
    torch.testing.assert_close(memory.mean, mean)
    torch.testing.assert_close(mean, torch.einsum("t,tmckx->mckx", weights.to(samples), samples))
    second = torch.einsum("ml,mlckx,mldkx->mcdkx", memory.weights.to(samples), memory.samples, memory.samples.conj())
    torch.testing.assert_close(memory.second_moment, second)
    flat = memory.samples[:, :, None].expand(-1, -1, memory.samples.shape[1], -1, -1, -1)
    products = BAND.inner(flat, flat.transpose(1, 2)).sum(-1)
    torch.testing.assert_close(memory.products, products)


def test_the_nearest_two_are_merged() -> None:
    a, b, c = spectra(3, 1, 2)
    memory = SampleMemory.empty(a, 3)
    for sample, part in ((a, 1.0), (b, 0.5), (a + 0.01 * c, 0.25)):
        memory = memory.with_sample(BAND, sample, torch.tensor([part], dtype=torch.float64))
    assert memory.weights[0].tolist() == [0.375, 0.375, 0.25]
    memory = memory.with_sample(BAND, c, torch.tensor([0.2], dtype=torch.float64))
    torch.testing.assert_close(memory.weights[0], torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    torch.testing.assert_close(memory.samples[0, 0], (a + 0.01 * 0.25 / 0.625 * c)[0])
    torch.testing.assert_close(memory.samples[0, 2], c[0])
    again = memory.with_sample(BAND, b * 1.001, torch.tensor([0.1], dtype=torch.float64))
    torch.testing.assert_close(again.weights[0], torch.tensor([0.45, 0.37, 0.18], dtype=torch.float64))


def test_forgotten_components_give_their_place() -> None:
    memory, samples, _ = filled(4, places=3, share=0.9999)
    assert int((memory.weights[0] < 1e-3).sum()) == 2
    heaviest = int(memory.weights[0].argmax())
    torch.testing.assert_close(memory.samples[0, heaviest], samples[3, 0], rtol=1e-2, atol=1e-2)


def system() -> FilterSystem:
    memory, _, _ = filled(6)
    label = BAND.gaussian(1.0, memory.mean)
    return FilterSystem(memory.second_moment, memory.mean * label, PENALTY)


def coordinates(filters: Tensor) -> Tensor:
    """Real coordinates in which `BAND.inner` is the dot product."""
    weight = (BAND.multiplicity(filters) / BAND.size**2).sqrt()
    return torch.view_as_real(filters * weight).flatten(1)


def test_conjugate_gradients_solve_the_normal_equations() -> None:
    equations = system()
    state = begin(equations, BAND, torch.zeros_like(equations.right))
    errors = []
    for _ in range(5):
        error = coordinates(equations.right - equations.times(state.solution)).norm(dim=1)
        errors.append(error)
        torch.testing.assert_close(coordinates(state.residual).norm(dim=1), error, rtol=1e-6, atol=1e-9)
        state = descend(equations, BAND, state, 15)
    assert (errors[-1] < 1e-6 * errors[0]).all()


def test_conjugate_gradients_are_a_direct_solution() -> None:
    """The matrix of the normal equations, column by column, solved by elimination for both trackers."""
    equations = system()
    solved = descend(equations, BAND, begin(equations, BAND, torch.zeros_like(equations.right)), 150).solution
    size = coordinates(equations.right).shape[1]
    weight = (BAND.multiplicity(equations.right) / BAND.size**2).sqrt()
    for m in range(2):
        one = FilterSystem(equations.second_moment[m : m + 1], equations.right[m : m + 1], PENALTY)

        def column(e: Tensor, one: FilterSystem = one) -> Tensor:
            filters = torch.view_as_complex(e.reshape(*one.right.shape, 2).contiguous()) / weight
            return coordinates(one.times(filters))[0]

        # Column 0 of a spectrum holds every frequency twice, so the coordinates are more than there are of freedom.
        matrix = torch.stack([column(e) for e in torch.eye(size, dtype=torch.float64)], dim=1)
        direct = torch.linalg.solve(matrix, coordinates(one.right)[0])
        torch.testing.assert_close(coordinates(solved[m : m + 1])[0], direct, atol=1e-6, rtol=1e-4)


def test_spreading_iterations_over_calls_changes_nothing() -> None:
    equations = system()
    start = begin(equations, BAND, torch.zeros_like(equations.right))
    once = descend(equations, BAND, start, 6)
    spread = descend(equations, BAND, descend(equations, BAND, start, 2), 4)
    assert torch.equal(once.solution, spread.solution)


def test_trackers_are_solved_each_by_itself() -> None:
    equations = system()
    alone = FilterSystem(equations.second_moment[:1], equations.right[:1], PENALTY)
    both = descend(equations, BAND, begin(equations, BAND, torch.zeros_like(equations.right)), 5)
    one = descend(alone, BAND, begin(alone, BAND, torch.zeros_like(alone.right)), 5)
    torch.testing.assert_close(both.solution[:1], one.solution)


def test_principal_components_keep_the_most_energy() -> None:
    x = spectra(2, 5)
    x[:, 3] = x[:, 0] + 0.01 * x[:, 3]
    projection = principal_projection(BAND, x, 3)
    torch.testing.assert_close(projection.transpose(1, 2) @ projection, torch.eye(3).double().expand(2, 3, 3))
    flat = coordinates(x.reshape(10, 1, *BAND.shape)).reshape(2, 5, -1)
    kept = coordinates(project(x, projection).reshape(6, 1, *BAND.shape)).reshape(2, 3, -1).square().sum((1, 2))
    expected = torch.linalg.svdvals(flat)[:, :3].square().sum(1)
    torch.testing.assert_close(kept, expected)
    with pytest.raises(ValueError, match=r"channels must lie in 1\.\.5, got 6"):
        principal_projection(BAND, x, 6)


def first_frame() -> tuple[FirstFrame, Tensor, Tensor]:
    x = spectra(2, 5)
    frame = FirstFrame(BAND, x, BAND.gaussian(1.0, x), PENALTY, 0.1)
    return frame, 0.1 * spectra(2, 3, seed=3), principal_projection(BAND, x, 3)


def test_gauss_newton_uses_the_gradient_of_the_loss() -> None:
    frame, filters, projection = first_frame()
    missing = frame.label.conj() - frame._response(filters, projection)
    up, across = frame._adjoint(missing, filters, projection)
    along = spectra(2, 3, seed=7)
    ahead, behind = (frame.loss(filters + e * along, projection) for e in (1e-4, -1e-4))
    slope = -2 * BAND.inner(up - PENALTY.times(filters), along).sum(1)
    torch.testing.assert_close((ahead - behind) / 2e-4, slope, atol=1e-6, rtol=1e-6)
    turned = torch.randn(projection.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = (frame.loss(filters, projection + e * turned) for e in (1e-4, -1e-4))
    slope = -2 * ((across - 0.1 * projection) * turned).sum((1, 2))
    torch.testing.assert_close((ahead - behind) / 2e-4, slope, atol=1e-6, rtol=1e-6)


def test_learning_the_projection_lowers_the_loss_below_the_best_filter_of_principal_components() -> None:
    frame, filters, projection = first_frame()
    fixed = SampleMemory.empty(project(frame.samples, projection), 2)
    fixed = fixed.with_sample(BAND, project(frame.samples, projection), torch.ones(2, dtype=torch.float64))
    equations = FilterSystem(fixed.second_moment, fixed.mean * frame.label, PENALTY)
    best = descend(equations, BAND, begin(equations, BAND, torch.zeros_like(filters)), 100).solution
    refined = frame.refined(best, projection, 4, 20)
    assert (frame.loss(*refined) < 0.97 * frame.loss(best, projection)).all()

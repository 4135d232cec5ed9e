"""Correlation filters: against dense least squares, known shifts, batches, states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from reg_bench.tracking import (
    Augmentation,
    Confidence,
    CorrelationFilterTracker,
    EcoTracker,
    Features,
    GradientFeatures,
    NetworkFeatures,
    RegularGrid,
    respond,
    ridge_filter,
)
from reg_bench.tracking.samples import decimated

POINTS = RegularGrid(16.0)


def scene(shift: tuple[float, float] = (0.0, 0.0), size: int = 96, seed: int = 0, sigma: float = 2.5) -> Tensor:
    """`(1, 1, size, size)` texture in 0..1 whose content is moved by `shift` pixels, exactly (by its spectrum)."""
    noise = np.random.default_rng(seed).normal(size=(160, 160))
    spectrum = ndimage.fourier_shift(np.fft.fft2(ndimage.gaussian_filter(noise, sigma, mode="wrap")), shift)
    image = np.fft.ifft2(spectrum).real[:size, :size]
    return torch.from_numpy(0.5 + image / (6 * image.std())).float()[None, None]


def circulant(x: Tensor) -> Tensor:
    """The matrix `(n^2, n^2)` whose product with a flattened filter is its circular correlation with `x (n, n)`."""
    n = x.shape[0]
    index = torch.arange(n)
    rows = (index[:, None] + index[None]) % n
    return x[rows[:, None, :, None], rows[None, :, None, :]].reshape(n * n, n * n)


def test_one_channel_is_dense_least_squares() -> None:
    """Several samples of one channel: sums in numerator and denominator are the exact minimiser."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    blocks = torch.cat([circulant(one) for one in x])
    lam = 0.7
    dense = torch.linalg.solve(blocks.T @ blocks + lam * torch.eye(64, dtype=torch.float64), blocks.T @ y.flatten())
    spectra, labels = torch.fft.fft2(x), torch.fft.fft2(y)
    above, below = (spectra * labels.conj()).sum(0), spectra.abs().square().sum(0)
    torch.testing.assert_close(torch.fft.ifft2(above / (below + lam)).real.flatten(), dense, atol=1e-10, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_sample_is_dense_least_squares(channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, channels, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.randn(1, 8, 8, generator=generator, dtype=torch.float64)
    blocks = torch.cat([circulant(one) for one in x[0]], dim=1)
    dense = torch.linalg.solve(
        blocks.T @ blocks + 0.3 * torch.eye(64 * channels, dtype=torch.float64), blocks.T @ y.flatten()
    )
    spectra = torch.fft.fft2(x)
    filters = ridge_filter(spectra, torch.fft.fft2(y), 0.3)
    torch.testing.assert_close(torch.fft.ifft2(filters).real.flatten(), dense, atol=1e-10, rtol=0)
    response = torch.fft.ifft2(respond(filters, spectra)).real
    torch.testing.assert_close(response.flatten(), blocks @ dense, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("shift", "refinements"), [((0.5, -0.25), 1), ((-3.3, 2.7), 1), ((8.4, -9.6), 2)])
def test_shifted_patches_are_found(shift: tuple[float, float], refinements: int) -> None:
    tracker = CorrelationFilterTracker(refinements=refinements)
    points = POINTS.select(scene())[:, 8:-8] + 0.3
    points = points[:, ((points[0] - 47.5).abs() < 24).all(1)]
    _, tracks = tracker.step(tracker.start(scene(), points), scene(shift))
    error = tracks.positions - points - torch.tensor(shift)
    assert error.abs().max() < 0.1
    assert tracks.confidence.min() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_still_images_leave_points_where_they_are(dtype: torch.dtype) -> None:
    tracker = CorrelationFilterTracker()
    image = scene().to(dtype)
    points = POINTS.select(image)[:, ::2] + 0.4
    state = tracker.start(image, points)
    for _ in range(4):
        state, tracks = tracker.step(state, image)
    assert tracks.positions.dtype == dtype
    wander = (tracks.positions - points).norm(dim=2)
    assert wander.mean() < 0.03
    assert wander.max() < 0.08


def test_batch_is_each_point_alone() -> None:
    tracker = CorrelationFilterTracker(augmentations=[Augmentation(degrees=10, weight=0.2)])
    references = torch.cat((scene(seed=1), scene(seed=2)))
    frames = torch.cat((scene((1.2, -0.7), seed=1), scene((-2.1, 0.4), seed=2)))
    points = POINTS.select(references)
    state, together = tracker.step(tracker.start(references, points), frames)
    _, together = tracker.step(state, frames)
    for case, index in ((0, 0), (0, 14), (1, 35)):
        one = slice(case, case + 1)
        alone = tracker.start(references[one], points[one, index : index + 1])
        for _ in range(2):
            alone, tracks = tracker.step(alone, frames[one])
        torch.testing.assert_close(tracks.positions[0, 0], together.positions[case, index], atol=1e-4, rtol=0)
        torch.testing.assert_close(tracks.confidence[0, 0], together.confidence[case, index], atol=1e-4, rtol=0)


def test_a_state_is_not_changed_by_stepping() -> None:
    tracker = CorrelationFilterTracker(augmentations=[])
    state = tracker.start(scene(), POINTS.select(scene()))
    _, first = tracker.step(state, scene((2.0, 1.0)))
    tracker.step(state, scene((-4.0, 1.0), seed=5))
    _, again = tracker.step(state, scene((2.0, 1.0)))
    assert torch.equal(first.positions, again.positions)
    assert torch.equal(first.confidence, again.confidence)


def test_learning_rate_is_the_share_of_the_new_frame() -> None:
    points, states = torch.tensor([[[40.0, 44.0]]]), []
    for rate in (0.0, 0.3, 1.0):
        tracker = CorrelationFilterTracker(learning_rate=rate, augmentations=[], confidence=Confidence(0.0, 1e-3))
        start = tracker.start(scene(), points)
        states.append(tracker.step(start, scene((3.0, 0.0)))[0])
    old, mixed, new = states
    assert torch.equal(old.numerators, start.numerators)
    torch.testing.assert_close(mixed.numerators, 0.7 * old.numerators + 0.3 * new.numerators)
    torch.testing.assert_close(mixed.energies, 0.7 * old.energies + 0.3 * new.energies)
    again = tracker.start(scene((3.0, 0.0)), points + torch.tensor([3.0, 0.0]))
    assert (new.energies - again.energies).norm() < 0.1 * again.energies.norm()


def test_a_filter_follows_what_changes_slowly() -> None:
    """The content turns by 3 degrees a frame: a filter that learns stays sure, one that does not loses its point."""
    base = scene(size=97, sigma=3.0)[0, 0].numpy()
    points = torch.tensor([[[48.0, 48.0]]])
    found = []
    for rate in (0.2, 0.0):
        tracker = CorrelationFilterTracker(learning_rate=rate, augmentations=[])
        state = tracker.start(torch.from_numpy(base)[None, None], points)
        for k in range(1, 16):
            turned = ndimage.rotate(base, 3.0 * k, reshape=False, order=3, mode="nearest")
            state, tracks = tracker.step(state, torch.from_numpy(turned)[None, None])
        found.append(((tracks.positions - points).norm().item(), tracks.confidence.item()))
    assert found[0][0] < 3.5 < found[1][0]
    assert found[1][1] < 0.4 < 0.6 < found[0][1]


def test_lost_points_stay_where_they_were_expected() -> None:
    tracker = CorrelationFilterTracker(augmentations=[], confidence=Confidence(1e6, 2e6))
    points = torch.tensor([[[40.0, 44.0]]])
    start = tracker.start(scene(), points)
    expected = torch.tensor([[[43.0, 40.0]]])
    state, tracks = tracker.step(start, scene((2.0, 0.0)), expected)
    assert torch.equal(tracks.positions, expected)
    assert tracks.confidence.item() == 0
    assert torch.equal(state.numerators, start.numerators)


def test_expected_places_are_where_the_search_begins() -> None:
    """A motion of 20 pixels is out of reach, unless the search starts near it."""
    tracker = CorrelationFilterTracker(radius=8)
    points = torch.tensor([[[40.0, 60.0]]])
    state = tracker.start(scene(), points)
    _, far = tracker.step(state, scene((20.0, 0.0)))
    _, near = tracker.step(state, scene((20.0, 0.0)), points + torch.tensor([17.0, 0.0]))
    assert (far.positions - points - torch.tensor([20.0, 0.0])).norm() > 3
    assert (near.positions - points - torch.tensor([20.0, 0.0])).norm() < 0.1


def test_moved_trackers_relearn_only_where_asked() -> None:
    tracker = CorrelationFilterTracker(augmentations=[])
    points = POINTS.select(scene())
    first = tracker.start(scene(), points)
    state, _ = tracker.step(first, scene((2.0, 0.0)))
    which = torch.zeros(points.shape[:2], dtype=torch.bool)
    which[0, 3] = True
    new = tracker.moved(state, which, points, relearn=True)
    assert torch.equal(new.positions[0, 3], points[0, 3])
    assert torch.equal(new.positions[0, 4], state.positions[0, 4])
    assert torch.equal(new.numerators[3], first.numerators[3])
    assert torch.equal(new.energies[4], state.energies[4])
    kept = tracker.moved(state, which, points, relearn=False)
    assert torch.equal(kept.numerators, state.numerators)


def test_ten_channels_that_ignore_gain_and_offset() -> None:
    features = GradientFeatures(intensity_weight=0.0)
    image = scene()
    assert (features(0.7 * image + 0.2) - features(image)).abs().mean() < 0.05
    assert (features(scene(seed=1)) - features(image)).abs().mean() > 0.3
    assert GradientFeatures()(image).shape == (1, 10, 96, 96)


def test_orientations_of_stripes() -> None:
    """Stripes fill the bin of the direction of their gradient; those turned by 90 degrees the bin half-way round."""
    wave = torch.sin(torch.arange(64.0) / 3)
    maps = GradientFeatures(orientations=8, intensity_weight=0.0)
    first = maps(wave[:, None].expand(64, 64)[None, None])[0, :, 20:44, 20:44].mean((1, 2))
    second = maps(wave[None].expand(64, 64)[None, None])[0, :, 20:44, 20:44].mean((1, 2))
    assert int(first.argmax()) == 0
    assert int(second.argmax()) == 4
    assert first[2] + first[4] + first[6] < 0.05


class Pooled(nn.Module):
    """Means of intensities and of their squares, over four pixels by four."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(torch.cat((image, image.square()), dim=1), 4)


def test_a_network_of_known_stride_gives_unbiased_motion() -> None:
    features = NetworkFeatures(Pooled(), channels=2, stride=4)
    ramp = torch.arange(40.0)[None, None, :, None].expand(1, 1, 40, 40)
    torch.testing.assert_close(features(ramp)[0, 0, 4:-4], ramp[0, 0, 4:-4])
    tracker = CorrelationFilterTracker(
        features, augmentations=[], limit=8, refinements=6, confidence=Confidence(0.0, 1.0)
    )
    points = torch.tensor([[[40.0, 44.0], [52.0, 48.0]]])
    _, tracks = tracker.step(tracker.start(scene(sigma=5.0), points), scene((4.0, -4.0), sigma=5.0))
    assert (tracks.positions - points - torch.tensor([4.0, -4.0])).abs().max() < 0.1


def test_network_beside_gradients() -> None:
    both = NetworkFeatures(Pooled(), channels=2, stride=4, weight=0.5, beside=GradientFeatures())
    assert both.groups == ((1, 1.0), (9, 1.0), (2, 0.5))
    assert both(scene()).shape == (1, 12, 96, 96)
    with pytest.raises(ValueError, match=r"must return \(1, 3, 24, 24\)"):
        NetworkFeatures(Pooled(), channels=3, stride=4)(scene())


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"radius must lie in 1\.\.23, got 24"):
        CorrelationFilterTracker(radius=24)
    with pytest.raises(ValueError, match=r"learning_rate and anchor in 0\.\.1, got 1\.2, 0\.01, 2\.0"):
        CorrelationFilterTracker(learning_rate=2.0)
    with pytest.raises(ValueError, match=r"lost < sure, got 5\.0 and 4\.0"):
        Confidence(5.0, 4.0)
    with pytest.raises(ValueError, match="scale and weight must be positive"):
        Augmentation(scale=0.0)
    with pytest.raises(ValueError, match="needs orientations or an intensity_weight"):
        GradientFeatures(orientations=0, intensity_weight=0.0)


def test_features_have_one_abstract_parent() -> None:
    assert issubclass(NetworkFeatures, Features)
    assert issubclass(GradientFeatures, Features)


@pytest.mark.parametrize("tracker", [CorrelationFilterTracker, EcoTracker])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.6), (4.5, 7.25), (-8.4, 9.6)])
def test_averaged_pixels_find_smooth_content_between_pixels(
    tracker: type[CorrelationFilterTracker | EcoTracker], shift: tuple[float, float]
) -> None:
    followed = tracker(decimation=2, limit=11, augmentations=[])
    points = torch.tensor([[[40.3, 41.0], [55.0, 60.7], [48.5, 50.2]]])
    _, tracks = followed.step(followed.start(scene(sigma=3.5), points), scene(shift, sigma=3.5))
    error = tracks.positions - points - torch.tensor(shift)
    # One refinement after a wide search leaves a little more where that was far.
    assert error.abs().max() < (0.1 if max(map(abs, shift)) < 8 else 0.15)


def test_decimation_weights_and_place_of_the_pixels() -> None:
    ramp = torch.arange(12.0)[None, None, :, None].expand(1, 1, 12, 5)
    for factor in (2, 3):
        found = decimated(ramp, factor, 2)
        inner = found[0, 0, 1:-1, 0]
        assert found.shape == (1, 1, 12 // factor, 5)
        expected = torch.arange(12 // factor)[1:-1] * factor + (factor - 1) / 2
        torch.testing.assert_close(inner, expected)
    odd = decimated(torch.ones(1, 2, 7, 5), 2, 3)
    torch.testing.assert_close(odd, torch.ones(1, 2, 7, 3))
    with pytest.raises(ValueError, match="multiple of 2 \\* decimation"):
        CorrelationFilterTracker(size=50, decimation=2)

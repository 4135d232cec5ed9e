"""The strong tracker as a whole: known shifts, batches, states, the spreading of its updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from reg_bench.tracking import Augmentation, Confidence, EcoTracker, RegularGrid

POINTS = RegularGrid(16.0)
FEW = [Augmentation(degrees=10, weight=0.2), Augmentation(shift=(5.0, 4.0), weight=0.2)]


def scene(shift: tuple[float, float] = (0.0, 0.0), size: int = 96, seed: int = 0) -> Tensor:
    """`(1, 1, size, size)` texture in 0..1 whose content is moved by `shift` pixels, exactly (by its spectrum)."""
    noise = np.random.default_rng(seed).normal(size=(160, 160))
    spectrum = ndimage.fourier_shift(np.fft.fft2(ndimage.gaussian_filter(noise, 2.5, mode="wrap")), shift)
    image = np.fft.ifft2(spectrum).real[:size, :size]
    return torch.from_numpy(0.5 + image / (6 * image.std())).float()[None, None]


def middle_points() -> Tensor:
    points = POINTS.select(scene())
    return points[:, ((points[0] - 47.5).abs() < 26).all(1)] + 0.3


@pytest.mark.parametrize(("shift", "refinements"), [((0.5, -0.25), 1), ((-3.3, 2.7), 1), ((8.4, -9.6), 3)])
def test_shifted_patches_are_found(shift: tuple[float, float], refinements: int) -> None:
    tracker = EcoTracker(augmentations=FEW, refinements=refinements, confidence=Confidence(0.0, 1.0))
    points = middle_points()
    _, tracks = tracker.step(tracker.start(scene(), points), scene(shift))
    assert (tracks.positions - points - torch.tensor(shift)).abs().max() < 0.1


def test_still_images_leave_points_where_they_are() -> None:
    tracker = EcoTracker(augmentations=FEW)
    points = middle_points()
    state = tracker.start(scene(), points)
    for _ in range(4):
        state, tracks = tracker.step(state, scene())
    assert (tracks.positions - points).norm(dim=2).mean() < 0.03


def test_batch_is_each_point_alone() -> None:
    tracker = EcoTracker(augmentations=FEW, memory=4)
    references = torch.cat((scene(seed=1), scene(seed=2)))
    points = POINTS.select(references)[:, ::5]
    frames = [torch.cat((scene((k, -k), seed=1), scene((-k, 0), seed=2))) for k in (1, 2, 3)]
    state = tracker.start(references, points)
    for frame in frames:
        state, together = tracker.step(state, frame)
    for case, index in ((0, 0), (1, 5)):
        one = slice(case, case + 1)
        alone = tracker.start(references[one], points[one, index : index + 1])
        for frame in frames:
            alone, tracks = tracker.step(alone, frame[one])
        torch.testing.assert_close(tracks.positions[0, 0], together.positions[case, index], atol=2e-3, rtol=0)


def test_a_state_is_not_changed_by_stepping() -> None:
    tracker = EcoTracker(augmentations=[], memory=3)
    state = tracker.start(scene(), middle_points())
    for k in range(3):
        state, _ = tracker.step(state, scene((0.5 * k, 0.0)))
    _, first = tracker.step(state, scene((2.0, 1.0)))
    tracker.step(state, scene((-4.0, 1.0), seed=5))
    _, again = tracker.step(state, scene((2.0, 1.0)))
    assert torch.equal(first.positions, again.positions)


def test_updates_are_spread_over_the_frames() -> None:
    """One iteration in each of three frames is what three iterations on the memory of the first of them are."""
    sure = Confidence(0.0, 1e-3)
    spread = EcoTracker(augmentations=[], update_every=3, iterations=3, confidence=sure)
    at_once = EcoTracker(augmentations=[], update_every=3, iterations=9, confidence=sure)
    states = [t.start(scene(), middle_points()) for t in (spread, at_once)]
    assert torch.equal(states[0].descent.solution, states[1].descent.solution)
    seen = []
    for k in range(3):
        states[0], _ = spread.step(states[0], scene((0.2 * k, 0.0)))
        seen.append(states[0].descent.solution)
    states[1], _ = at_once.step(states[1], scene())
    assert not torch.equal(seen[0], seen[1])
    assert states[0].system is not None
    torch.testing.assert_close(seen[2], states[1].descent.solution, atol=1e-4, rtol=1e-3)


def test_without_iterations_the_filter_stays() -> None:
    tracker = EcoTracker(augmentations=[], iterations=0)
    start = tracker.start(scene(), middle_points())
    state, _ = tracker.step(start, scene((1.0, 0.0)))
    assert torch.equal(state.descent.solution, start.descent.solution)


def test_lost_points_teach_nothing() -> None:
    tracker = EcoTracker(augmentations=[], confidence=Confidence(1e6, 2e6))
    start = tracker.start(scene(), middle_points())
    state, tracks = tracker.step(start, scene((2.0, 0.0)))
    assert torch.equal(tracks.positions, start.positions)
    torch.testing.assert_close(state.memory.mean, start.memory.mean)


def test_moved_trackers_relearn_only_where_asked() -> None:
    tracker = EcoTracker(augmentations=[])
    first = tracker.start(scene(), middle_points())
    state, _ = tracker.step(first, scene((2.0, 0.0)))
    which = torch.zeros(first.positions.shape[:2], dtype=torch.bool)
    which[0, 3] = True
    new = tracker.moved(state, which, first.positions, relearn=True)
    assert torch.equal(new.positions[0, 3], first.positions[0, 3])
    assert torch.equal(new.positions[0, 2], state.positions[0, 2])
    assert torch.equal(new.memory.samples[3], first.memory.samples[3])
    assert torch.equal(new.memory.samples[2], state.memory.samples[2])
    assert torch.equal(new.descent.solution[3], first.descent.solution[3])
    kept = tracker.moved(state, which, first.positions, relearn=False)
    assert kept.memory is state.memory


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="memory must be at least 2"):
        EcoTracker(memory=1)
    with pytest.raises(ValueError, match=r"radius must lie in 1\.\.23, got 30"):
        EcoTracker(radius=30)
    with pytest.raises(ValueError, match=r"learning_rate in 0\.\.1"):
        EcoTracker(learning_rate=1.5)

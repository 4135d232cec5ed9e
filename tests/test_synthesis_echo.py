"""The ultrasound phantom: exact motion, speckle that goes with the tissue and decorrelates, the sector, the rhythm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from reg_bench.synthesis_echo import EchoConfig, echo_sequence
from reg_bench.synthesis_echo_motion import EchoMotion, echo_rhythm, smooth_beat
from reg_bench.synthesis_echo_speckle import Speckle, SpeckleConfig
from reg_bench.synthesis_heart import BEAT
from reg_bench.types import ImageSequence


@pytest.fixture(scope="module")
def hearts() -> list[ImageSequence]:
    return [echo_sequence(EchoConfig(), seed=seed, case_id=str(seed)) for seed in range(3)]


def pulled(image: np.ndarray, u: Tensor, order: int) -> np.ndarray:
    """`image (X, Y)` at `x + u(x)` by SciPy."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"))
    return ndimage.map_coordinates(image, grid + u.double().numpy(), order=order, mode="nearest")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_the_true_field_pulls_the_reference_onto_every_frame(hearts: list[ImageSequence]) -> None:
    for heart in hearts:
        assert heart.labels is not None
        assert heart.true_displacement is not None
        labels, u = heart.labels[0, :, 0].numpy(), heart.true_displacement[0]
        assert float(u[0].abs().max()) == 0.0
        whole, cavity, wall, still = [], [], [], []
        for t in range(heart.length):
            warped = pulled(labels[0], u[t], 0)
            whole.append(dice(warped > 0, labels[t] > 0))
            cavity.append(dice(warped == 1, labels[t] == 1))
            wall.append(dice(warped == 2, labels[t] == 2))
            still.append(dice(labels[0] == 1, labels[t] == 1))
        # Nearest neighbours cost half a pixel here and there, and the wall is all edge.
        assert min(whole) > 0.975
        assert np.mean(cavity) > 0.98
        assert np.mean(wall) > 0.95
        assert min(still) < 0.87


def test_nothing_folds_and_the_wall_keeps_its_volume(hearts: list[ImageSequence]) -> None:
    for heart in hearts:
        assert heart.true_displacement is not None
        u = heart.true_displacement[0].double().numpy()
        (xx, xy), (yx, yy) = (np.gradient(u[:, i], axis=(1, 2)) for i in (0, 1))
        determinant = (1 + xx) * (1 + yy) - xy * yx
        assert determinant.min() > 0.2
    generator = np.random.default_rng(0)
    rhythm = echo_rhythm(50, 0.02, 1.0, generator)
    motion = EchoMotion((112, 112), rhythm, 0.9, generator)
    # About the axis: square of the radius times stretch, of the cylinder between cavity and epicardium.
    volume = (motion._outer**2 - motion._inner**2) * motion._stretch
    assert np.ptp(volume) < 1e-9 * volume.mean()


def test_a_heart_depends_on_its_seed_alone() -> None:
    config = EchoConfig(length=3)
    one = echo_sequence(config, seed=7, case_id="a")
    torch.manual_seed(1)
    np.random.seed(1)
    again, other = echo_sequence(config, seed=7, case_id="a"), echo_sequence(config, seed=8, case_id="a")
    assert torch.equal(one.frames, again.frames)
    assert torch.equal(one.true_displacement, again.true_displacement)
    assert float((one.frames - other.frames).abs().mean()) > 0.05


def test_the_picture_lies_in_the_sector_and_darkens_with_depth(hearts: list[ImageSequence]) -> None:
    for heart in hearts:
        assert heart.mask is not None
        sector = heart.mask[0, 0, 0].numpy()
        assert 0.35 < sector.mean() < 0.75
        assert bool((heart.mask == heart.mask[:, :1]).all())
        assert float(heart.frames[0, :, 0][:, ~torch.from_numpy(sector)].abs().max()) == 0.0
        widths = sector.sum(axis=0)
        top = int(np.flatnonzero(widths)[0])
        assert widths[top + 5] < widths[top + 40] < widths[top + 60]
        assert float(heart.frames.min()) == 0.0
        assert float(heart.frames.max()) <= 1.0
    # The same heart, attenuated more.
    bright, dark = (
        echo_sequence(EchoConfig(length=2, attenuation=a), seed=3, case_id="a").frames[0, 0, 0] for a in (0.0, 0.2)
    )
    loss = (bright - dark).mean(dim=0)
    assert float(loss[90:100].mean()) > 1.5 * float(loss[35:45].mean()) > 0


def test_the_blood_is_darker_than_the_wall(hearts: list[ImageSequence]) -> None:
    for heart in hearts:
        assert heart.labels is not None
        assert heart.mask is not None
        seen = [heart.frames[(heart.labels == k) & heart.mask].mean() for k in (1, 2)]
        assert float(seen[0]) < 0.5 * float(seen[1])


def test_speckle_goes_with_the_tissue_and_decorrelates() -> None:
    config = EchoConfig(speckle=SpeckleConfig(lasting=0.2))
    moving, fixed = [], []
    over_time: dict[int, list[float]] = {}
    for seed in range(3):
        heart = echo_sequence(config, seed=seed, case_id="a")
        assert heart.labels is not None
        assert heart.true_displacement is not None
        assert heart.mask is not None
        frames, sector = heart.frames[0, :, 0].double().numpy(), heart.mask[0, 0, 0].numpy()
        for t in range(1, heart.length, 2):
            u = heart.true_displacement[0, t]
            wall = (heart.labels[0, t, 0].numpy() == 2) & sector
            # Without what is coarser than speckle.
            frame, first = (f - ndimage.gaussian_filter(f, 2.5) for f in (frames[t], frames[0]))
            warped = pulled(first, u, 1)
            over_time.setdefault(t, []).append(np.corrcoef(frame[wall], warped[wall])[0, 1])
            far = wall & (u.norm(dim=0).numpy() > 3)
            if far.sum() > 200:
                moving.append(np.corrcoef(frame[far], warped[far])[0, 1])
                fixed.append(np.corrcoef(frame[far], first[far])[0, 1])
    assert np.mean(moving) > np.mean(fixed) + 0.1
    early, late = ([np.mean(v) for t, v in over_time.items() if (t > 15) == after] for after in (False, True))
    assert np.mean(early[:3]) > np.mean(late) + 0.1


def test_speckle_is_complex_gaussian_with_the_stated_correlation() -> None:
    config = SpeckleConfig(lasting=0.3, decorrelation_s=0.1)
    length, seconds = 26, 0.02
    speckle = Speckle(config, length, seconds, 130, 1.0, np.random.default_rng(0))
    distance = torch.linspace(5, 120, 100)[None, :, None].expand(length, 100, 60).contiguous()
    angle = torch.linspace(-0.9, 0.9, 60)[None, None].expand(length, 100, 60).contiguous()
    # At the nodes of the lattice, where nothing is interpolated.
    distance = (distance / config.axial).round() * config.axial
    step = math.radians(config.lateral)
    angle = ((angle + math.radians(62)) / step).round() * step - math.radians(62)
    signal = speckle(distance, angle).double().numpy()
    assert signal.std() == pytest.approx(1.0, abs=0.03)
    assert abs(signal.mean()) < 0.03
    envelope = np.hypot(signal[:, 0], signal[:, 1])
    # Of a Rayleigh distribution.
    assert envelope.mean() / envelope.std() == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), rel=0.03)
    for frames in (1, 5, 15):
        measured = (signal[frames:] * signal[:-frames]).mean() / (signal**2).mean()
        assert measured == pytest.approx(0.3 + 0.7 * math.exp(-frames * seconds / 0.1), abs=0.04)


def test_rate_and_strength_vary_from_heart_to_heart_and_from_beat_to_beat() -> None:
    starts, periods, peaks = [], [], []
    for seed in range(40):
        rhythm = echo_rhythm(500, 0.02, 1.0, np.random.default_rng(seed))
        top = [
            t
            for t in range(1, 499)
            if rhythm.radial[t] > 0.6 and rhythm.radial[t - 1] < rhythm.radial[t] >= rhythm.radial[t + 1]
        ]
        starts.append(rhythm.radial[0])
        periods.append(np.diff(top) * 0.02)
        peaks.append(rhythm.radial[top])
    means = np.array([p.mean() for p in periods])
    assert 0.6 < means.min() < 0.75 < 0.95 < means.max() < 1.15
    assert np.mean([p.std() / p.mean() for p in periods]) == pytest.approx(0.05, abs=0.025)
    assert np.mean([p.std() for p in peaks]) == pytest.approx(0.08, abs=0.03)
    assert min(starts) < 0.1
    assert max(starts) > 0.8


def test_the_beat_is_the_start_of_the_series_of_that_of_the_heart_in_short_axis() -> None:
    phases = np.linspace(0, 1, 2001)[:-1]
    beat, smooth = BEAT(phases), smooth_beat(phases)
    assert smooth[0] == pytest.approx(0, abs=1e-12)
    spectrum, expected = np.fft.rfft(smooth), np.fft.rfft(beat)
    assert spectrum[1:3] == pytest.approx(expected[1:3], abs=0.3)
    assert np.abs(spectrum[3:]).max() < 1e-9
    assert smooth.max() == pytest.approx(1, abs=0.05)
    assert smooth.min() > -0.03


def test_a_heart_without_strength_moves_only_with_the_probe() -> None:
    heart = echo_sequence(EchoConfig(length=10, strength=(0.0, 0.0)), seed=1, case_id="a")
    assert heart.labels is not None
    area = (heart.labels == 1).sum(dim=(2, 3, 4)).double()
    assert float((area.max() - area.min()) / area.mean()) < 0.03


def test_points_on_the_long_axis_move_with_their_neighbours() -> None:
    generator = np.random.default_rng(0)
    motion = EchoMotion((112, 112), echo_rhythm(30, 0.02, 1.0, generator), 1.0, generator)
    # The axis runs exactly through pixels, where the distance from it is zero.
    motion.base, motion.along, motion.across = np.array([60.0, 70.0]), np.array([0.0, -1.0]), np.array([1.0, 0.0])
    motion.rhythm.swing[:], motion.rhythm.drift[:], motion.rhythm.wave[:] = 0, 0, 0
    u = motion.displacement()[0]
    assert bool(torch.isfinite(u).all())
    middle = (u[:, :, 59] + u[:, :, 61]) / 2
    assert float((u[:, :, 60] - middle).abs().max()) < 0.1


def test_a_traced_heart_has_labels_at_end_diastole_and_end_systole_alone() -> None:
    traced, whole = (
        echo_sequence(EchoConfig(phase=0.0, traced=t, size=(64, 64)), seed=5, case_id="a") for t in (True, False)
    )
    assert torch.equal(traced.frames, whole.frames)
    assert traced.labels is not None
    assert whole.labels is not None
    areas = (whole.labels[0, :, 0] == 1).sum(dim=(1, 2))
    smallest = int(areas.argmin())
    assert traced.labelled_frames == (0, smallest)
    assert torch.equal(traced.labels, whole.labels[:, [0, smallest]])
    # From one end of the beat to the other.
    assert float(areas[0]) > 0.95 * float(areas.max())
    assert float(areas[smallest]) < 0.8 * float(areas[0])


@pytest.mark.parametrize(("size", "length"), [((64, 64), 2), ((96, 128), 4)])
def test_other_sizes(size: tuple[int, int], length: int) -> None:
    heart = echo_sequence(EchoConfig(size=size, length=length), seed=1, case_id="a")
    assert heart.frames.shape == (1, length, 1, *size)
    assert heart.labels is not None
    assert set(heart.labels.unique().tolist()) == {0, 1, 2}

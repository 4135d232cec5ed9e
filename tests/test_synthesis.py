"""Generated fields, noise, deformations and anatomies against closed forms and independent numerics."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from reg_bench import synthesis
from reg_bench.errors import DataError
from reg_bench.synthesis_anatomy import CosineWaves, Texture, scale_to_reach
from reg_bench.synthesis_breathing import BreathingConfig, BreathingMotion, irregular_breathing
from reg_bench.synthesis_heart import HeartConfig, HeartMotion
from reg_bench.synthesis_lung import LungAnatomy, LungConfig, lung_motion
from reg_bench.synthesis_points import grid_points


def composed(u: Tensor, v: Tensor) -> np.ndarray:
    """`v(x) + u(x + v(x))` on the grid by SciPy, `(D, *S)`."""
    a, b = u[0].double().numpy(), v[0].double().numpy()
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in b.shape[1:]), indexing="ij"))
    return b + np.stack([ndimage.map_coordinates(c, grid + b, order=1, mode="nearest") for c in a])


def determinant(u: Tensor) -> np.ndarray:
    """Jacobian determinants by np.gradient and np.linalg."""
    a = u[0].double().numpy()
    rows = np.stack([np.stack(np.gradient(c), axis=-1) for c in a], axis=-2)
    return np.linalg.det(rows + np.eye(len(a)))


def closed_form_determinant(displacement, points: np.ndarray, h: float = 1e-4) -> np.ndarray:
    """2-D determinant of `d(x + displacement)/dx` at `points` `(2, N)`, by central differences of tiny step."""
    columns = [
        (displacement(points + h * e[:, None]) - displacement(points - h * e[:, None])) / (2 * h) + e[:, None]
        for e in np.eye(2)
    ]
    return columns[0][0] * columns[1][1] - columns[1][0] * columns[0][1]


def test_gaussian_field_has_unit_variance_and_the_stated_correlation() -> None:
    field = synthesis.gaussian_field((160, 150), smoothness=4.0, generator=np.random.default_rng(0), channels=6)
    assert field.shape == (6, 160, 150)
    assert field.std() == pytest.approx(1.0, abs=0.05)
    for d in (2, 4, 8):
        measured = (field[:, d:] * field[:, :-d]).mean() / (field**2).mean()
        assert measured == pytest.approx(np.exp(-(d**2) / (4 * 4.0**2)), abs=0.05)
    with pytest.raises(ValueError, match="smoothness"):
        synthesis.gaussian_field((8, 8), smoothness=0.0, generator=np.random.default_rng(0))


def test_smooth_noise_depends_on_its_seed_only() -> None:
    first = synthesis.smooth_noise((20, 30, 10), smoothness=3.0, seed=5)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(first, synthesis.smooth_noise((20, 30, 10), smoothness=3.0, seed=5))
    assert not torch.allclose(first, synthesis.smooth_noise((20, 30, 10), smoothness=3.0, seed=6))


@pytest.mark.parametrize("signal", [0.0, 0.1, 1.0])
def test_rician_has_the_second_moment_of_a_complex_signal(signal: float) -> None:
    noisy = synthesis.rician(torch.full((400, 400), signal), 0.1, torch.Generator().manual_seed(0))
    assert float((noisy**2).mean()) == pytest.approx(signal**2 + 2 * 0.1**2, rel=0.02)
    if signal == 0.0:
        assert float(noisy.mean()) == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)


def test_rician_without_noise_is_the_image_and_negative_noise_an_error() -> None:
    image = torch.rand(4, 5)
    assert torch.equal(synthesis.rician(image, 0.0, torch.Generator()), image)
    with pytest.raises(ValueError, match="sigma"):
        synthesis.rician(image, -1.0, torch.Generator())


def test_landmarks_lie_in_the_mask_and_are_spread() -> None:
    mask = torch.zeros(1, 1, 30, 40, dtype=torch.bool)
    mask[..., 5:25, 10:35] = True
    points = synthesis.landmarks_in(mask, 20, seed=3)
    assert points.shape == (20, 2)
    nearest = (points + 0.5).floor().long()
    assert bool(mask[0, 0, nearest[:, 0], nearest[:, 1]].all())
    gaps = torch.cdist(points, points) + 1e9 * torch.eye(20)
    assert float(gaps.min()) > 2.5
    assert torch.equal(points, synthesis.landmarks_in(mask[0, 0], 20, seed=3))
    assert not torch.equal(points, synthesis.landmarks_in(mask, 20, seed=4))
    with pytest.raises(ValueError, match="501 landmarks in a mask of 500"):
        synthesis.landmarks_in(mask, 501, seed=0)


def test_solve_points_inverts_a_map_that_fixed_point_iteration_cannot() -> None:
    def displacement(x: np.ndarray) -> np.ndarray:
        return np.stack([1.7 * x[:, 0] + np.sin(x[:, 1]), 0.4 * np.cos(x[:, 0])], axis=1)

    targets = np.random.default_rng(0).uniform(-5, 5, (50, 2))
    found = synthesis.solve_points(displacement, targets)
    assert np.abs(found + displacement(found) - targets).max() < 1e-6


@pytest.mark.parametrize(
    ("spatial", "largest", "smoothness"),
    [((96, 80), 6.0, 18.0), ((40, 36, 44), 2.5, 10.0), ((25, 31, 28), 1.0, 6.0)],
)
def test_random_diffeomorphism_is_one_and_has_its_inverse(spatial, largest: float, smoothness: float) -> None:
    u, inverse = synthesis.random_diffeomorphism(spatial, seed=2, max_displacement=largest, smoothness=smoothness)
    assert u.shape == inverse.shape == (1, len(spatial), *spatial)
    assert u.dtype == torch.float32
    assert float(torch.linalg.vector_norm(u, dim=1).max()) == pytest.approx(largest, rel=1e-5)
    assert determinant(u).min() > 0.05
    assert determinant(inverse).min() > 0.05
    assert np.linalg.norm(composed(u, inverse), axis=0).max() < 2e-3
    assert np.linalg.norm(composed(inverse, u), axis=0).max() < 0.05
    other, _ = synthesis.random_diffeomorphism(spatial, seed=3, max_displacement=largest, smoothness=smoothness)
    assert float((u - other).abs().max()) > 0.3 * largest


def test_random_diffeomorphism_of_no_motion_is_exactly_zero() -> None:
    for field in synthesis.random_diffeomorphism((16, 12, 14), seed=0, max_displacement=0.0, smoothness=4.0):
        assert not bool(field.any())


def test_random_diffeomorphism_refuses_to_fold() -> None:
    with pytest.raises(ValueError, match="folds this velocity field"):
        synthesis.random_diffeomorphism((48, 48), seed=0, max_displacement=15.0, smoothness=3.0)
    with pytest.raises(ValueError, match="negative"):
        synthesis.random_diffeomorphism((48, 48), seed=0, max_displacement=-1.0, smoothness=3.0)


def test_texture_interpolates_its_own_grid() -> None:
    texture = Texture((20, 24), 2.0, np.random.default_rng(0))
    assert np.allclose(texture(grid_points((20, 24))), texture.on_grid, atol=1e-9)
    between = texture(np.array([[10.5], [11.0]]))
    assert abs(between[0] - texture.on_grid[10:12, 11].mean()) < 0.2


def test_cosine_waves_never_exceed_unit_length() -> None:
    waves = CosineWaves(3, 10.0, np.random.default_rng(1))
    assert np.linalg.norm(waves(np.random.default_rng(2).uniform(0, 50, (3, 5000))), axis=0).max() <= 1.0


def test_scale_to_reach_finds_the_factor_and_says_when_there_is_none() -> None:
    assert scale_to_reach(lambda a: a**2, 9.0) == pytest.approx(3.0, abs=1e-3)
    with pytest.raises(DataError, match="cannot move by 5 voxels"):
        scale_to_reach(lambda a: 1.0, 5.0)


def test_heart_wall_keeps_its_volume_and_thickens() -> None:
    config = HeartConfig(size=(128, 128), max_motion=7.0, length=10)
    motion = HeartMotion(config, np.random.default_rng(0))
    frame = int(np.argmax(motion.contraction))
    squeeze = motion._amplitude * motion.contraction[frame]
    inner = motion.inner * (1 - motion._shrink * squeeze)
    shortening = 1 - motion._shorten * squeeze
    outer = np.sqrt(inner**2 + (motion.outer**2 - motion.inner**2) / shortening)
    assert outer - inner > 1.15 * motion.wall
    angles = np.linspace(0, 2 * np.pi, 60)
    ring = 0.5 * (inner + outer) * np.stack([np.cos(angles), np.sin(angles)])
    points = motion.centre[:, None] + motion.from_circle @ ring
    area = closed_form_determinant(lambda x: motion._beat(x, squeeze), points)
    # Area factor of the pull-back times longitudinal stretch 1 / shortening is 1: incompressible.
    assert np.allclose(area / shortening, 1.0, atol=0.02)


def test_pleura_maps_onto_itself_and_tissue_slides_along_it() -> None:
    motion = BreathingMotion(BreathingConfig(max_motion=10.0), np.random.default_rng(0))
    frame = int(np.argmax(motion._waveform))
    height = np.linspace(30, 160, 40)
    front, back = motion.walls(height)
    front = front - motion._push(frame, np.stack([front, height]))
    for wall, side in ((front, 0), (back, 1)):
        points = np.stack([wall, height])
        landed = []
        for inside in (True, False):
            material = points + motion.displacement_of(frame, points, np.full(40, inside))
            assert np.abs(material[0] - motion.walls(material[1])[side]).max() < 1e-9
            landed.append(material)
        assert np.abs(landed[0][1] - landed[1][1]).max() > 3.0
    inner = np.stack([np.linspace(60, 120, 200), np.linspace(20, 170, 200)])
    assert closed_form_determinant(lambda x: motion.displacement(frame, x), inner).min() > 0.3


def test_breathing_is_irregular_and_starts_at_rest() -> None:
    depth = irregular_breathing(300, 0.2, np.random.default_rng(0))
    assert depth[0] == 0.0
    peaks = depth[1:-1][(depth[1:-1] > depth[:-2]) & (depth[1:-1] > depth[2:]) & (depth[1:-1] > 0.4)]
    assert 10 < len(peaks) < 25
    assert peaks.std() > 0.05


def test_lung_keeps_its_mass() -> None:
    config = LungConfig(size=(64, 52, 64), max_motion=5.0)
    generator = np.random.default_rng(0)
    anatomy, grid = LungAnatomy(config, generator), grid_points(config.size)
    u = lung_motion(config, generator)[0].numpy()
    _, inhale, share, _ = anatomy.evaluate(grid)
    _, exhale, share_exhale, _ = anatomy.evaluate(grid, u)
    assert (exhale > 0).sum() < 0.92 * (inhale > 0).sum()
    density = 1.0 + (determinant(torch.from_numpy(u)[None]) - 1)
    assert (share_exhale * density).sum() == pytest.approx(share.sum(), rel=0.01)


_HASHES = """
import hashlib, torch
from reg_bench import synthesis
from reg_bench.synthesis_breathing import BreathingConfig, breathing_sequence
from reg_bench.synthesis_heart import HeartConfig, heart_sequence
from reg_bench.synthesis_lung import LungConfig, lung_pair
from reg_bench.synthesis_organs import OrgansConfig, organs_pair
torch.set_num_threads(1)
u, v = synthesis.random_diffeomorphism((24, 20, 22), seed=1, max_displacement=2.0, smoothness=7.0)
heart = heart_sequence(HeartConfig(size=(64, 64), length=3, max_motion=3.0), seed=4, case_id="a")
chest = breathing_sequence(BreathingConfig(size=(64, 64), length=3, max_motion=3.0), seed=4, case_id="a")
parts = [u, v]
for s in (heart, chest):
    parts += [s.frames, s.labels, s.mask, s.true_displacement, *s.points["landmarks"]]
small = dict(size=(32, 28, 30), max_motion=2.0, landmarks=10)
for p in (organs_pair(OrgansConfig(**small), seed=4, case_id="a"), lung_pair(LungConfig(**small), seed=4, case_id="a")):
    parts += [p.fixed, p.moving, p.fixed_labels, p.true_displacement, *p.points["landmarks"].moving]
print(hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in parts)).hexdigest())
"""


def test_two_processes_make_the_same_arrays() -> None:
    root = str(Path(__file__).parents[1])
    hashes = []
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", _HASHES], capture_output=True, text=True, check=True, env=environment, cwd=root
        )
        hashes.append(done.stdout.split()[-1])
    assert hashes[0] == hashes[1]

"""Inhale and exhale of a thorax as CT sees it: 3-D pairs with lung mask, vessels and 100 landmarks.

Moving is inhale, fixed is exhale, as in the lung task of Learn2Reg 2020. The deformation is one smooth
diffeomorphism (descent of the diaphragm, expansion of the chest, local variation): lungs do not slide here.
Where the lung is expanded it is darker: its density follows the Jacobian, so that its mass is preserved.
Array axes are right, anterior, superior (RAS); intensities are Hounsfield units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from reg_bench import field
from reg_bench.synthesis_anatomy import Texture, over, smooth_ramp, soft_step
from reg_bench.synthesis_cases import known_pair
from reg_bench.synthesis_flow import border_window, flow, saturated
from reg_bench.synthesis_noise import Array, Labels, gaussian_field, random_generator, torch_generator
from reg_bench.synthesis_points import grid_points, landmarks_in
from reg_bench.types import RegistrationPair

LABEL_NAMES = {1: "right lung", 2: "left lung"}
_AIR_HU, _PARENCHYMA_HU, _VESSEL_HU, _SOFT_HU, _FAT_HU, _BONE_HU = -1000.0, -840.0, 20.0, 40.0, -95.0, 420.0


@dataclass(frozen=True)
class LungConfig:
    """What to generate.

    Attributes:
        size: voxels per axis.
        spacing_mm: voxel size per axis; may be anisotropic.
        max_motion: largest displacement in voxels; 0 gives the zero field.
        noise_hu: standard deviation of the Gaussian noise.
        density_change: 1 for lung density that follows the volume exactly, 0 for none.
        landmarks: how many, on vessels.
    """

    size: tuple[int, int, int] = (80, 64, 80)
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 4.0)
    max_motion: float = 7.0
    noise_hu: float = 25.0
    density_change: float = 1.0
    landmarks: int = 100


class LungAnatomy:
    """Density and labels of material points, in voxels of the inhale grid."""

    def __init__(self, config: LungConfig, generator: np.random.Generator) -> None:
        self._size, self._half = config.size, (np.array(config.size) - 1) / 2
        self.unit = unit = min(config.size) / 64
        texture = partial(Texture, config.size, generator=generator)
        self._textures = {
            "large": (texture(5.0 * unit), texture(5.0 * unit)),
            "small": (texture(2.6 * unit), texture(2.6 * unit)),
            "grain": (texture(max(1.3 * unit, 1.0)),),
        }
        self._jitter = generator.uniform(-0.03, 0.03, 6)

    def evaluate(self, grid: Array, u: Array | None = None) -> tuple[Array, Labels, Array, Array]:
        """HU, labels, share of parenchyma (0..1) and share of vessel at the material points `grid + u`."""
        points = grid if u is None else grid + u
        half = self._half.reshape(3, 1, 1, 1)
        q = (points - half) / half
        values = {
            key: [t.on_grid if u is None else t(points) for t in textures] for key, textures in self._textures.items()
        }
        (grain,) = values["grain"]
        right, left = self._lungs(q)
        inside = np.maximum(right, left)
        # Where two random fields vanish together there are smooth closed curves: tubes, as vessels are.
        large, small = (values[key][0] ** 2 + values[key][1] ** 2 for key in ("large", "small"))
        depth = smooth_ramp(inside / (14 * self.unit))
        vessel = np.maximum(np.exp(-large / (0.03 + 0.05 * depth)), 0.7 * np.exp(-small / 0.11))
        image = self._wall(q, grain)
        lung = soft_step(inside, 0.7)
        image = over(image, lung, _PARENCHYMA_HU + 22 * grain)
        image = over(image, lung * vessel, _VESSEL_HU)
        labels = np.zeros(grain.shape, dtype=np.uint8)
        labels[right > 0], labels[left > 0] = 1, 2
        return image, labels, lung * (1 - vessel), lung * vessel

    def _lungs(self, q: Array) -> tuple[Array, Array]:
        """Signed distances in voxels into the right and the left lung, roughly."""
        scale = 0.3 * self._half.min()
        lungs = []
        for side, (wide, shift) in ((1, (0.35, 0.0)), (-1, (0.32, 0.01))):
            apex = 0.90 + self._jitter[side]
            narrowing = np.sqrt(np.clip(1 - (np.clip(q[2] + 0.35, 0, None) / (apex + 0.35)) ** 2, 1e-3, None))
            x, y = (q[0] - side * (0.43 + shift)) / wide, (q[1] + 0.02) / 0.64
            radial = (narrowing - np.sqrt(x**2 + y**2)) * scale
            dome = -0.42 + self._jitter[2 + side] + 0.26 * np.clip(1 - 0.8 * x**2 - 0.5 * y**2, 0, None)
            lungs.append(np.minimum(radial, (q[2] - dome) * self._half[2] * 0.9))
        heart = self._ellipsoid(q, (-0.14, 0.22, -0.22), (0.36, 0.36, 0.40))
        return np.minimum(lungs[0], -heart), np.minimum(lungs[1], -heart)

    def _ellipsoid(self, q: Array, centre: tuple[float, ...], axes: tuple[float, ...]) -> Array:
        c, a = (np.array(v).reshape(3, 1, 1, 1) for v in (centre, axes))
        return np.asarray((1 - np.sqrt((((q - c) / a) ** 2).sum(axis=0))) * min(axes) * self._half.min())

    def _wall(self, q: Array, grain: Array) -> Array:
        """Air, skin fat, muscle, ribs, spine, heart, and the abdomen below the diaphragm."""
        body = (1 - np.sqrt((q[0] / 0.95) ** 2 + (q[1] / 0.90) ** 2)) * 0.9 * self._half.min()
        image = over(np.full_like(body, _AIR_HU), soft_step(body, 0.7), _FAT_HU + 12 * grain)
        image = over(image, soft_step(body - 0.06 * self._half.min(), 0.7), _SOFT_HU + 15 * grain)
        ring = np.abs(np.sqrt((q[0] / 0.83) ** 2 + (q[1] / 0.76) ** 2) - 1) * 0.8 * self._half.min()
        height = (q[2] + 0.25 * q[1]) * self._half[2] % (11 * self.unit) - 5.5 * self.unit
        rib = 1.7 * self.unit - np.hypot(ring, height)
        image = over(image, soft_step(rib, 0.7), _BONE_HU + 30 * grain)
        spine = (0.15 - np.hypot(q[0], q[1] + 0.68)) * self._half.min()
        image = over(image, soft_step(spine, 0.7), 0.6 * _BONE_HU + 30 * grain)
        heart = self._ellipsoid(q, (-0.14, 0.22, -0.22), (0.33, 0.33, 0.37))
        return over(image, soft_step(heart, 0.8), _SOFT_HU + 90 + 15 * grain)


def lung_motion(config: LungConfig, generator: np.random.Generator) -> Tensor:
    """`(1, 3, *S)` float64: from exhale to inhale, the diaphragm descends and the chest widens."""
    half = ((np.array(config.size) - 1) / 2).reshape(3, 1, 1, 1)
    q = (grid_points(config.size) - half) / half
    unit = min(config.size) / 64
    chest = smooth_ramp((1.0 - np.sqrt((q[0] / 0.97) ** 2 + (q[1] / 0.92) ** 2)) / 0.30)
    descent = 0.06 + 0.94 * smooth_ramp((0.75 - q[2]) / 1.15)
    below = 1 - 0.7 * smooth_ramp((-0.5 - q[2]) / 0.5)
    velocity = np.stack([0.14 * np.sin(np.pi * q[0] / 2), 0.22 * (0.5 + 0.5 * q[1]), -descent * (0.85 - 0.25 * q[1])])
    velocity *= chest * below
    for length, weight in ((11.0, 0.10), (5.5, 0.035)):
        local = gaussian_field(config.size, smoothness=length * unit, generator=generator, channels=3)
        velocity += weight * saturated(local) * border_window(config.size, width=8 * unit)
    return flow(torch.from_numpy(velocity)[None], max_displacement=config.max_motion)


def lung_pair(config: LungConfig, *, seed: int, case_id: str) -> RegistrationPair:
    """One pair as a batch of one: labels, lung mask, landmarks on vessels and the exact displacement field."""
    generator = random_generator("lung", seed)
    anatomy = LungAnatomy(config, generator)
    u = lung_motion(config, generator).float()
    grid = grid_points(config.size)
    moving, moving_labels, _, _ = anatomy.evaluate(grid)
    fixed, fixed_labels, parenchyma, vessel = anatomy.evaluate(grid, u[0].double().numpy())
    volume = field.jacobian_determinant(u)[0, 0].double().numpy()
    fixed = fixed + parenchyma * config.density_change * (volume - 1) * (_PARENCHYMA_HU - _AIR_HU)
    noise = torch_generator("lung noise", seed)
    images = [_noisy(torch.from_numpy(i).float(), config.noise_hu, noise) for i in (fixed, moving)]
    labels = [torch.from_numpy(i)[None, None] for i in (fixed_labels, moving_labels)]
    points = landmarks_in(torch.from_numpy((vessel > 0.5) & (fixed_labels > 0)), config.landmarks, seed)
    return known_pair(
        case_id,
        images,
        labels,
        u,
        spacing_mm=config.spacing_mm,
        label_names=LABEL_NAMES,
        landmarks=points,
        mask=labels[0] > 0,
    )


def _noisy(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return (image + sigma * torch.randn(image.shape, generator=generator))[None, None]

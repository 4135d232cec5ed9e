"""A trunk with a dozen textured organs, warped by a random diffeomorphism: 3-D pairs with exact truth.

The moving image is the anatomy evaluated at its voxels, the fixed image the same anatomy evaluated at
`x + u(x)`: nothing is interpolated from pixels, so labels and image follow `u` exactly. Array axes are
right, anterior, superior (RAS).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from reg_bench.synthesis_anatomy import Texture, over, soft_step
from reg_bench.synthesis_cases import known_pair
from reg_bench.synthesis_flow import border_window, flow, saturated
from reg_bench.synthesis_noise import Array, Labels, Mask, gaussian_field, random_generator, rician, torch_generator
from reg_bench.synthesis_points import grid_points, landmarks_in
from reg_bench.types import RegistrationPair

# name: centre and half-axes as fractions of half the grid, intensity, strength of the texture.
_ORGANS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float, float]] = {
    "bowel": ((-0.08, 0.30, -0.42), (0.56, 0.26, 0.22), 0.26, 0.09),
    "liver": ((0.36, 0.08, 0.34), (0.42, 0.42, 0.34), 0.55, 0.08),
    "spleen": ((-0.60, -0.14, 0.34), (0.18, 0.27, 0.26), 0.68, 0.06),
    "stomach": ((-0.24, 0.34, 0.30), (0.26, 0.24, 0.26), 0.24, 0.08),
    "right kidney": ((0.44, -0.38, -0.24), (0.18, 0.18, 0.28), 0.74, 0.08),
    "left kidney": ((-0.46, -0.38, -0.18), (0.18, 0.18, 0.28), 0.74, 0.08),
    "pancreas": ((-0.08, -0.02, 0.00), (0.34, 0.13, 0.14), 0.66, 0.08),
    "vertebrae": ((0.00, -0.64, 0.00), (0.19, 0.17, 9.0), 0.86, 0.09),
    "aorta": ((-0.12, -0.34, 0.00), (0.13, 0.13, 9.0), 0.95, 0.04),
    "vena cava": ((0.15, -0.30, 0.00), (0.14, 0.12, 9.0), 0.22, 0.05),
    "gallbladder": ((0.30, 0.42, -0.08), (0.12, 0.12, 0.14), 0.12, 0.04),
    "bladder": ((0.02, 0.18, -0.76), (0.25, 0.24, 0.17), 0.15, 0.03),
}
LABEL_NAMES = dict(enumerate(_ORGANS, start=1))


@dataclass(frozen=True)
class OrgansConfig:
    """What to generate.

    Attributes:
        size: voxels per axis.
        spacing_mm: voxel size per axis; may be anisotropic.
        max_motion: largest displacement in voxels; 0 gives the zero field.
        noise: standard deviation of the Rician noise; organs lie between 0.12 and 0.95.
        drift: relative difference of gain between the two images, stronger on one side.
        landmarks: how many.
    """

    size: tuple[int, int, int] = (64, 64, 64)
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)
    max_motion: float = 6.0
    noise: float = 0.02
    drift: float = 0.06
    landmarks: int = 80


class OrgansAnatomy:
    """Intensity and labels of material points, in voxels of the moving grid."""

    def __init__(self, config: OrgansConfig, generator: np.random.Generator) -> None:
        self._half = (np.array(config.size) - 1) / 2
        unit = min(config.size) / 64
        texture = partial(Texture, config.size, generator=generator)
        self._fine, self._coarse = texture(max(1.5 * unit, 1.0)), texture(4.0 * unit)
        self._jitter = {
            name: (generator.uniform(-0.035, 0.035, 3), generator.uniform(0.92, 1.08, 3), generator.normal(0, 0.04))
            for name in _ORGANS
        }

    def _fraction(self, points: Array) -> Array:
        half = self._half.reshape(3, 1, 1, 1)
        return np.asarray((points - half) / half)

    def _depth(self, q: Array, name: str, roughness: Array) -> Array:
        """Signed distance into an organ in voxels, roughly, its edge modulated by the coarse texture."""
        centre, axes, *_ = _ORGANS[name]
        shift, stretch, _ = self._jitter[name]
        half_axes = np.array(axes) * stretch
        r = (q - (np.array(centre) + shift).reshape(3, 1, 1, 1)) / half_axes.reshape(3, 1, 1, 1)
        # The anisotropic norm is turned into a distance by its gradient (exact to first order at the edge).
        norm = np.sqrt((r**2).sum(axis=0))
        slope = np.sqrt(((r / (half_axes * self._half).reshape(3, 1, 1, 1)) ** 2).sum(axis=0))
        depth = norm * (1 - norm) / np.maximum(slope, 1e-9)
        return np.asarray(depth + 0.04 * half_axes.min() * self._half.min() * roughness)

    def _body(self, q: Array) -> Array:
        radius = np.sqrt((q[0] / 0.93) ** 2 + ((q[1] + 0.02) / 0.88) ** 2)
        return np.asarray((1 - radius) * 0.9 * self._half.min())

    def evaluate(self, grid: Array, u: Array | None = None) -> tuple[Array, Labels, Mask]:
        """Intensity, labels and body at the material points `grid + u` `(3, *S)`."""
        points = grid if u is None else grid + u
        q = self._fraction(points)
        fine = self._fine.on_grid if u is None else self._fine(points)
        coarse = self._coarse.on_grid if u is None else self._coarse(points)
        grain, depth = 0.7 * fine + 0.4 * coarse, self._body(q)
        image = over(np.zeros_like(fine), soft_step(depth, 0.8), 0.80 + 0.05 * grain)
        image = over(image, soft_step(depth - 0.07 * self._half.min() + 0.5 * coarse, 0.9), 0.38 + 0.065 * grain)
        labels = np.zeros(fine.shape, dtype=np.uint8)
        for value, name in LABEL_NAMES.items():
            *_, intensity, strength = _ORGANS[name]
            inside = self._depth(q, name, coarse)
            image = over(image, soft_step(inside, 0.8), intensity + self._jitter[name][2] + strength * grain)
            labels[inside > 0] = value
        return np.clip(image, 0, None), labels, depth > 0


def organs_motion(config: OrgansConfig, generator: np.random.Generator) -> Tensor:
    """`(1, 3, *S)` float64 displacement: a large smooth and a small local deformation, exponentiated together."""
    unit = min(config.size) / 64
    scales = ((13.0, 1.0), (6.0, 0.18))
    velocity = sum(
        weight * gaussian_field(config.size, smoothness=length * unit, generator=generator, channels=3)
        for length, weight in scales
    )
    # The body reaches close to the border: the motion may fade only just before it.
    velocity = saturated(np.asarray(velocity), limit=5.0) * border_window(config.size, width=9 * unit)
    return flow(torch.from_numpy(velocity)[None], max_displacement=config.max_motion)


def organs_pair(config: OrgansConfig, *, seed: int, case_id: str) -> RegistrationPair:
    """One pair as a batch of one, with labels, landmarks, body mask and the exact displacement field."""
    generator = random_generator("organs", seed)
    anatomy = OrgansAnatomy(config, generator)
    u = organs_motion(config, generator).float()
    grid = grid_points(config.size)
    moving, moving_labels, _ = anatomy.evaluate(grid)
    fixed, fixed_labels, body = anatomy.evaluate(grid, u[0].double().numpy())
    across = grid[0] / max(config.size[0] - 1, 1)
    fixed = fixed * (1.0 + config.drift * (0.5 + across))
    noise = torch_generator("organs noise", seed)
    images = [rician(torch.from_numpy(i).float(), config.noise, noise)[None, None] for i in (fixed, moving)]
    labels = [torch.from_numpy(i)[None, None] for i in (fixed_labels, moving_labels)]
    points = landmarks_in(torch.from_numpy(fixed_labels > 0), config.landmarks, seed)
    return known_pair(
        case_id,
        images,
        labels,
        u,
        spacing_mm=config.spacing_mm,
        label_names=LABEL_NAMES,
        landmarks=points,
        mask=torch.from_numpy(body)[None, None],
    )

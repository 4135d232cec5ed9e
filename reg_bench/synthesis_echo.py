"""The ultrasound phantom: an apical view of a beating heart as a sector probe sees it, with its exact motion.

The echogenicity of the tissue (decibels) is a function of the material point; times the speckle that goes with it (see
`reg_bench.synthesis_echo_speckle`), attenuated with depth, under shadows and clutter that stay with the probe and noise
of the receiver, compressed to grey levels within the sector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reg_bench.field import warp
from reg_bench.synthesis_anatomy import Texture
from reg_bench.synthesis_echo_motion import EchoMotion, echo_rhythm
from reg_bench.synthesis_echo_speckle import Speckle, SpeckleConfig
from reg_bench.synthesis_noise import random_generator
from reg_bench.synthesis_points import grid_points
from reg_bench.types import ImageSequence

LABEL_NAMES = {1: "cavity", 2: "wall"}

# The echogenicity is drawn this much finer than the frames, with a rim for what comes into sight.
_FINER, _RIM = 2, 24
_CLUTTER_DEPTH = 9.0


@dataclass(frozen=True)
class EchoConfig:
    """What to generate.

    Attributes:
        size: pixels along x and y.
        length: number of frames; frame 0, in any phase of the beat, is the reference.
        seconds_per_frame: between two frames.
        strength: of the contraction, lowest and highest; 1 takes 0.45 of the width of the cavity and 11 pixels (of 112)
            of its length, 0 is a heart that stands still.
        phase: of the beat in frame 0, 0 at end-diastole; drawn if not given.
        traced: whether only frame 0 carries labels and the frame in which the cavity is smallest.
        attenuation: decibels per pixel of 112 that remain after the compensation for depth.
        noise: of the receiver, decibels below the brightest tissue, near the probe.
        dynamic_range: decibels from black to white.
        spacing_mm: pixel size.
        speckle: of the probe.
    """

    size: tuple[int, int] = (112, 112)
    length: int = 50
    seconds_per_frame: float = 0.02
    strength: tuple[float, float] = (0.5, 1.0)
    phase: float | None = None
    traced: bool = False
    attenuation: float = 0.06
    noise: float = 54.0
    dynamic_range: float = 52.0
    spacing_mm: float = 1.3
    speckle: SpeckleConfig = field(default_factory=SpeckleConfig)


def echo_sequence(config: EchoConfig, *, seed: int, case_id: str) -> ImageSequence:
    """The cine of one heart as a batch of one: labels and exact motion in every frame; the mask is the sector."""
    generator = random_generator("echo", seed)
    unit = min(config.size) / 112
    rhythm = echo_rhythm(config.length, config.seconds_per_frame, unit, generator, config.phase)
    motion = EchoMotion(config.size, rhythm, generator.uniform(*config.strength), generator)
    probe = _Probe(config, motion, generator)
    u, squared, along = motion.displacement()
    labels = torch.zeros(u.shape[0], *config.size, dtype=torch.uint8)
    labels[(squared < motion.outer**2) & (along > 0)] = 2
    labels[(squared < motion.inner**2) & (along > 0)] = 1
    marked = list(range(config.length))
    if config.traced:
        areas = (labels == 1).sum(dim=(1, 2))
        marked = sorted({0, int(areas.argmin())})
    sector = probe.sector.expand(1, config.length, 1, *config.size).contiguous()
    return ImageSequence(
        case_ids=(case_id,),
        frames=probe.frames(u)[None, :, None],
        seconds_per_frame=config.seconds_per_frame,
        spacing_mm=torch.full((1, 2), config.spacing_mm),
        affine=torch.diag(torch.tensor([config.spacing_mm, config.spacing_mm, 1.0], dtype=torch.float64))[None],
        labels=labels[marked][None, :, None],
        labelled_frames=tuple(marked),
        label_names=LABEL_NAMES,
        mask=sector,
        true_displacement=u[None],
    )


class _Probe:
    """What the probe makes of the tissue."""

    def __init__(self, config: EchoConfig, motion: EchoMotion, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        self.config, self.unit, self._generator = config, motion.unit, generator
        self._grid = torch.from_numpy(grid_points(config.size)).float()
        self._place = motion.probe
        self._depth, self._angle = self._polar(self._grid)
        half, reach = math.radians(uniform(37, 44)), config.size[1] - 1 - motion.probe[1] - self.unit * uniform(1, 6)
        self.sector = (self._angle.abs() < half) & (self._depth < reach) & (self._depth > 10 * self.unit)
        depth = self._depth / self.unit
        gain = uniform(-3, 1) - config.attenuation * uniform(0.6, 1.4) * depth - 4 * (self._angle / half) ** 4
        for _ in range(int(generator.integers(0, 3))):
            place, width = uniform(-half, half), math.radians(uniform(2, 5))
            gain = gain - uniform(4, 12) * torch.exp(-(((self._angle - place) / width) ** 2))
        self._gain = gain
        # The compensation for depth amplifies the noise as well.
        self._noise = 10 ** ((-config.noise + 0.09 * depth) / 20)
        self._clutter = 10 ** ((uniform(-14, -4) - depth / _CLUTTER_DEPTH * 8.7) / 20)
        self._echo = echogenicity(config.size, motion, generator)
        far = math.hypot(*config.size) + 16 * self.unit
        self._speckle = Speckle(config.speckle, config.length, config.seconds_per_frame, far, self.unit, generator)

    def frames(self, u: Tensor) -> Tensor:
        """`(T, X, Y)` grey levels 0 to 1."""
        material = u + self._grid
        distance, angle = self._polar(material.transpose(0, 1))
        signal = self._speckle(distance, angle)
        finer = (material + _RIM * self.unit) * _FINER - self._grid
        echo = warp(self._echo.expand(len(u), 1, *self._echo.shape), finer)[:, 0]
        signal.mul_(torch.exp((echo + self._gain) * (math.log(10) / 20))[:, None])
        draw = self._generator.standard_normal
        signal.add_(torch.from_numpy(draw((1, 2, *self.config.size), dtype=np.float32)) * self._clutter)
        signal.add_(torch.from_numpy(draw(tuple(signal.shape), dtype=np.float32)) * self._noise)
        power = signal.square_().sum(dim=1)
        grey = power.clamp_(min=1e-9).log_().mul_(10 / math.log(10) / self.config.dynamic_range).add_(1)
        return grey.clamp_(0, 1).mul_(self.sector)

    def _polar(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels from the probe and radians about it, of points `(2, ...)`."""
        x, y = (points[i] - float(self._place[i]) for i in (0, 1))
        return torch.hypot(x, y), torch.atan2(x, y)


def echogenicity(size: tuple[int, int], motion: EchoMotion, generator: np.random.Generator) -> Tensor:
    """Decibels of the tissue of frame 0 under white, twice as fine as the frames and with a rim around them."""
    u = motion.unit
    wide = tuple(round(_FINER * (n + 2 * _RIM * u)) for n in size)
    texture = Texture(wide, 7 * u * _FINER, generator).on_grid
    coarse = torch.from_numpy(texture).float()
    points = torch.from_numpy(grid_points(wide)).float() / _FINER - _RIM * u
    across, along = motion.in_heart(points)
    radius = motion.squared_radius(across, along).sqrt()
    uniform = generator.uniform
    echo = -19 + 3.5 * coarse
    # Both atria and the right ventricle: blood within a rim of tissue.
    rim, beside = 2.5 * u, motion.outer
    for place, radii in (
        ((0.0, -uniform(19, 24)), (uniform(14, 19), uniform(18, 22))),
        ((-beside / u - uniform(8, 12), -uniform(18, 24)), (uniform(12, 16), uniform(16, 20))),
        ((-beside / u - uniform(9, 13), uniform(8, 14)), (uniform(12, 16), uniform(28, 36))),
    ):
        a, b = (across / u - place[0]) / radii[0], (along / u - place[1]) / radii[1]
        inside = (1 - torch.hypot(a, b)) * min(radii) * u
        echo = _over(echo, inside + rim, u, -11 + 2.5 * coarse)
        echo = _over(echo, inside, u, -43 + coarse)
    below = along < 0
    wall = torch.where(below, -torch.hypot(across.abs() - motion.inner, along), motion.outer - radius)
    cavity = torch.where(below, along, motion.inner - radius)
    pericardium = 1.6 * u - (motion.outer + 1.2 * u - radius).abs()
    echo = _over(echo, torch.where((across > 0) & ~below, pericardium, -9 * u), u, uniform(-6, -2) + coarse)
    echo = _over(echo, wall, u, uniform(-13, -9) + 2.5 * coarse)
    echo = _over(echo, torch.where(below, -9 * u, cavity), u, -44 + coarse)
    valve = 1.0 * u - along.abs()
    echo = _over(echo, torch.where(across.abs() < motion.inner, valve, -9 * u), u, uniform(-18, -12) + coarse)
    for side in (-1, 1):
        gap = torch.hypot(across - side * (motion.inner + 0.4 * motion.wall), along)
        echo = _over(echo, 2.6 * u - gap, u, torch.tensor(uniform(-3, 0)))
    return echo


def _over(echo: Tensor, distance: Tensor, width: float, value: Tensor) -> Tensor:
    """`value` where the signed `distance` into it is positive, over an edge of about `width`."""
    return echo + torch.sigmoid(2 / width * distance) * (value - echo)

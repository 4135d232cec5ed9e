"""How the heart of the ultrasound phantom moves: an apical view of a left ventricle, in closed form.

The ventricle is a capsule round its long axis, narrower towards the apex. Material points are told by where they are in
frame 0, in whatever phase of the beat that is; every frame is mapped onto frame 0 directly, by the difference of the
two states. The wall keeps its volume: at equal longitudinal stretch the squared distance from the long axis changes by
a constant, as in `reg_bench.synthesis_heart`. The base comes down onto the apex, which stays where it is.
Array axes: 0 is x (to the right), 1 is y (down, away from the probe). Lengths are written for 112 x 112 pixels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from reg_bench.synthesis_anatomy import CosineWaves
from reg_bench.synthesis_heart import BEAT
from reg_bench.synthesis_noise import Array
from reg_bench.synthesis_points import grid_points

# Of the beat of the heart in short axis that remain: a volume curve of ultrasound is smooth.
_HARMONICS = 2
# Of the width of the cavity, and pixels by which the base moves, in the strongest contraction.
_MAX_SHRINK, _MAX_EXCURSION = 0.45, 11.0


@dataclass(frozen=True)
class EchoRhythm:
    """The course of one heart over the frames.

    Attributes:
        radial, longitudinal: contraction `(T,)`, 0 at end-diastole, about 1 at the end of a usual systole.
        swing: turn about the probe `(T,)`, rad.
        drift: of everything `(T, 2)`, pixels.
        wave: factor `(T,)` of the motion of the surroundings.
    """

    radial: Array
    longitudinal: Array
    swing: Array
    drift: Array
    wave: Array


def echo_rhythm(
    length: int, seconds_per_frame: float, unit: float, generator: np.random.Generator, phase: float | None = None
) -> EchoRhythm:
    """A heart of 55 to 90 beats a minute that begins at `phase` of its beat, 0 at end-diastole, else anywhere.

    Rate and strength change from beat to beat.

    The long axis follows the short one by 10 to 40 ms. Swing, drift (breathing, the hand that holds the probe) and the
    motion of the surroundings have courses of their own.
    """
    uniform = generator.uniform
    time = np.arange(length) * seconds_per_frame
    period, late, first = uniform(60 / 90, 60 / 55), uniform(0.01, 0.04), uniform(0, 1)
    first = first if phase is None else phase
    beats = 3 + int(np.ceil(1.2 * time[-1] / period)) if length > 1 else 3
    # The beat at hand began before the first frame.
    lengths = period * np.clip(generator.normal(1, 0.05, beats), 0.85, 1.15)
    strengths = np.clip(generator.normal(1, 0.08, beats), 0.75, 1.25)
    ends = np.cumsum(lengths) - first * lengths[0]
    beginnings = ends - lengths
    courses = []
    for at in (time, time - late):
        beat = np.clip(np.searchsorted(ends, at, side="right"), 0, beats - 1)
        # Before the first beat of all there was another like it.
        courses.append(strengths[beat] * smooth_beat(np.mod((at - beginnings[beat]) / lengths[beat], 1.0)))
    breath, shake = uniform(3.0, 5.0), uniform(0.5, 2.0)
    angle, phases = uniform(0, 2 * np.pi), uniform(0, 2 * np.pi, 3)
    along = np.array([np.cos(angle), np.sin(angle)])
    drift = unit * uniform(0.3, 0.8) * np.sin(2 * np.pi * time / breath + phases[0])[:, None] * along
    drift = drift + unit * 0.1 * np.sin(2 * np.pi * time / shake + phases[1])[:, None] * along[::-1]
    swing = np.deg2rad(uniform(0.1, 0.5)) * np.sin(2 * np.pi * time / period + phases[2])
    wave = courses[1] - 0.5 * courses[0] + 0.5 * np.sin(2 * np.pi * time / breath)
    return EchoRhythm(courses[0], courses[1], swing, drift, wave)


@functools.cache
def _harmonics() -> NDArray[np.complex128]:
    """The first coefficients of the Fourier series of the beat."""
    phases = np.arange(1000) / 1000
    return np.asarray(np.fft.rfft(BEAT(phases))[: _HARMONICS + 1] / len(phases))


def smooth_beat(phase: Array) -> Array:
    """Contraction at `phase` 0 to 1 of a beat, 0 at its beginning."""
    coefficients = _harmonics()[1:]
    order = 2j * np.pi * np.arange(1, len(coefficients) + 1)
    waves = np.exp(order * np.asarray(phase)[..., None]) - 1
    return np.asarray(2 * (coefficients * waves).real.sum(axis=-1))


class EchoMotion:
    """Where the tissue of a frame was in frame 0, and what part of the ventricle it belongs to.

    Args:
        size: pixels along x and y.
        rhythm: of the heart.
        strength: of its contraction, 0 to 1; 1 takes 0.45 of the width.
        generator: of shape and place.
    """

    def __init__(
        self, size: tuple[int, int], rhythm: EchoRhythm, strength: float, generator: np.random.Generator
    ) -> None:
        uniform = generator.uniform
        self.size, self.rhythm = size, rhythm
        self.unit = unit = min(size) / 112
        middle = (np.array(size) - 1) / 2
        self.probe = middle * [1, 0] + unit * np.array([uniform(-3, 3), uniform(-12, -5)])
        self.base = middle + unit * np.array([uniform(3, 11), uniform(14, 20)])
        tilt = np.deg2rad(uniform(-12, 12) - 4)
        self.along = np.array([np.sin(tilt), -np.cos(tilt)])
        """Of the long axis, from the base to the apex."""
        self.across = np.array([np.cos(tilt), np.sin(tilt)])
        self.length, self.wall = unit * uniform(43, 51), unit * uniform(6.0, 8.0)
        half = unit * uniform(14.5, 19.0)
        self._taper = uniform(0.1, 0.3)
        self._shrink, self._excursion = _MAX_SHRINK * strength, unit * _MAX_EXCURSION * strength
        self._waves = uniform(0.1, 0.3) * unit, CosineWaves(2, 60 * unit, generator)
        self._inner = half * (1 - self._shrink * rhythm.radial)
        self._stretch = 1 - self._excursion * rhythm.longitudinal / self.length
        self._outer = np.sqrt(self._inner**2 + ((half + self.wall) ** 2 - half**2) / self._stretch)
        self.inner, self.outer = float(self._inner[0]), float(self._outer[0])
        """Radii of the cavity and of the wall about the long axis in frame 0."""
        self._cap = self.length - half

    def in_heart(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """How far points `(2, ...)` are across and along the long axis from the middle of the base in frame 0."""
        x, y = (points[i] - float(self.base[i]) for i in (0, 1))
        across, along = (float(a[0]) * x + float(a[1]) * y for a in (self.across, self.along))
        return across, along

    def squared_radius(self, across: Tensor, along: Tensor) -> Tensor:
        """Squared distance from the capsule's axis of points of frame 0, in the measure in which it tapers."""
        return (across * self._narrowing(along)) ** 2 + (along - along.clamp(max=self._cap)) ** 2

    def displacement(self) -> tuple[Tensor, Tensor, Tensor]:
        """`(T, 2, X, Y)` pixels from every frame to frame 0, and of where that leads the squared radius and the place
        along the long axis, `(T, X, Y)` each."""
        grid = torch.from_numpy(grid_points(self.size)).float()
        across, along = self._turned(grid)
        # The base comes to the apex and takes the atria with it.
        shift = _column(self._excursion * (self.rhythm.longitudinal - self.rhythm.longitudinal[0]))
        along = along - shift * self._pull(across, along)
        across = across * self._narrowing(along)
        axis = along.clamp(max=self._cap)
        beyond = along - axis
        # On the axis itself the factor would be nothing by nothing.
        squared = (across**2 + beyond**2).clamp(min=1e-2)
        here = squared + self._growth(squared) * (1 - _ramp((-along - 3 * self.unit) / (28 * self.unit)))
        factor = (here / squared).sqrt()
        along = axis + beyond * factor
        across = across * factor / self._narrowing(along)
        material = [float(self.base[i]) + float(self.across[i]) * across + float(self.along[i]) * along for i in (0, 1)]
        u = torch.stack([m - g for m, g in zip(material, grid, strict=True)], dim=1)
        # Exactly, not but for rounding.
        u[0] = 0
        return u, here, along

    def _turned(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Surroundings, swing and drift undone: places across and along the long axis, `(T, X, Y)`."""
        size, waves = self._waves
        wave = torch.from_numpy(size * waves(grid.double().numpy())).float()
        r, probe = self.rhythm, torch.from_numpy(self.probe).float()
        course, angle = _column(r.wave - r.wave[0]), _column(r.swing - r.swing[0])
        drift = torch.from_numpy(r.drift - r.drift[0]).float()
        x, y = (grid[i] + course * wave[i] - probe[i] for i in (0, 1))
        cosine, sine = torch.cos(angle), torch.sin(angle)
        turned = torch.stack([cosine * x - sine * y, sine * x + cosine * y])
        return self.in_heart(turned + probe[:, None, None, None] + drift.T[:, :, None, None])

    def _pull(self, across: Tensor, along: Tensor) -> Tensor:
        """1 at the base, 0 at the apex, in the far atria and far to the sides."""
        up, down = self.length + self.wall, 42 * self.unit
        place = torch.where(along > 0, along / up, along / down).clamp(-1, 1)
        fade = 1 - _ramp((across.abs() - 1.6 * self.outer) / (1.8 * self.outer))
        return (0.5 + 0.5 * torch.cos(math.pi * place)) * fade

    def _narrowing(self, along: Tensor) -> Tensor:
        return 1 + self._taper * _ramp(along / self.length)

    def _growth(self, squared: Tensor) -> Tensor:
        """What the squared radius gains on the way to frame 0."""
        inner, outer, stretch = (_column(v) for v in (self._inner, self._outer, self._stretch))
        width = 2.4 * inner * self.unit
        beyond = width * (softplus((squared - inner**2) / width) - softplus(-(inner**2) / width))
        cavity = (self.inner**2 / inner**2 - 1) * (squared - beyond)
        wall = (stretch / float(self._stretch[0]) - 1) * beyond
        return (cavity + wall) * (1 - _ramp((squared.sqrt() - 1.05 * outer) / (1.6 * outer)))


def _column(values: Array) -> Tensor:
    """`(T,)` as `(T, 1, 1)` float32."""
    return torch.from_numpy(np.ascontiguousarray(values)).float()[:, None, None]


def _ramp(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, with two continuous derivatives (Perlin's quintic)."""
    x = x.clamp(0, 1)
    return x * x * x * (x * (6 * x - 15) + 10)

"""A beating, breathing heart in short axis: 2-D cine with its exact motion.

The wall is near-incompressible: at every time the squared radius of a material point changes by a function of
the squared radius alone, `R^2 = r^2 + A(r^2)`, whose area factor `1 + A'` is the longitudinal shortening in
the wall (area preserved in three dimensions), the cavity's expansion inside it, and falls smoothly to 1
outside (Moore et al., "Three-dimensional systolic strain patterns", 2000, for the magnitudes).
Array axes: 0 is x (to the right), 1 is y (down). Lengths are written for 256 x 256 pixels and scale with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from reg_bench.errors import DataError
from reg_bench.synthesis_anatomy import CosineWaves, Texture, over, scale_to_reach, smooth_ramp, soft_step
from reg_bench.synthesis_noise import Array, Labels, Mask, random_generator, rician, torch_generator
from reg_bench.synthesis_points import grid_points, solve_points
from reg_bench.types import ImageSequence

LABEL_NAMES = {1: "blood pool", 2: "myocardium"}

BEAT = PchipInterpolator(
    [0.0, 0.08, 0.22, 0.35, 0.45, 0.58, 0.72, 0.88, 1.0], [0.0, 0.15, 0.80, 1.0, 0.88, 0.40, 0.22, 0.16, 0.0]
)
"""Contraction over one beat: systole, fast filling, diastasis, atrial kick."""


@dataclass(frozen=True)
class HeartConfig:
    """What to generate.

    Attributes:
        size: pixels along x and y.
        length: number of frames; frame 0 is end-diastole and the reference.
        seconds_per_frame: real-time cine has about 10 frames a second.
        max_motion: largest displacement in pixels over all frames, or the first 20 of a shorter sequence; 0 gives
            the zero field.
        noise: standard deviation of the Rician noise; blood is about 0.85.
        drift: relative change of the intensity from the first frame to the last.
        spacing_mm: pixel size.
    """

    size: tuple[int, int] = (256, 256)
    length: int = 20
    seconds_per_frame: float = 0.09
    max_motion: float = 14.0
    noise: float = 0.025
    drift: float = 0.08
    spacing_mm: float = 1.4


class HeartMotion:
    """Where the tissue under a pixel of frame `t` was in frame 0, in closed form."""

    def __init__(self, config: HeartConfig, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        self.unit = unit = min(config.size) / 256
        middle = (np.array(config.size) - 1) / 2
        self.centre = middle + unit * np.array([14.0, -4.0]) + unit * uniform(-4, 4, 2)
        self.inner, self.wall = unit * uniform(25, 28), unit * uniform(9.5, 11)
        self.outer = self.inner + self.wall
        angle, stretch = uniform(0, np.pi), uniform(1.02, 1.06)
        axis = np.array([np.cos(angle), np.sin(angle)])
        # Area-preserving: an ellipse of ratio stretch^2 becomes a circle.
        self.to_circle = np.outer(axis, axis) / stretch + (np.eye(2) - np.outer(axis, axis)) * stretch
        self.from_circle = np.linalg.inv(self.to_circle)
        self._shrink, self._shorten = uniform(0.36, 0.42), uniform(0.10, 0.14)
        self._twist = np.deg2rad(uniform(2.0, 4.0)) * generator.choice([-1, 1])
        self._septal = unit * uniform(4.0, 6.0)
        self._waves = CosineWaves(2, 90 * unit, generator)
        self._background = unit * uniform(1.0, 1.5)
        direction = np.array([uniform(-0.35, 0.0), 1.0])
        self._breath = unit * uniform(9.0, 11.0) * direction / np.linalg.norm(direction)
        self._body = middle, 0.44 * np.array(config.size)
        self.contraction, self.breathing = _rhythm(config, generator)
        self._amplitude = 0.0
        if config.max_motion > 0:
            step = max(1, min(config.size) // 64)
            coarse = grid_points(config.size)[:, ::step, ::step]
            self._amplitude = scale_to_reach(partial(self._longest, coarse), config.max_motion)

    def _longest(self, points: Array, amplitude: float) -> float:
        self._amplitude = amplitude
        frames = range(len(self.contraction))
        return max(float(np.linalg.norm(self.displacement(t, points), axis=0).max()) for t in frames)

    def displacement(self, frame: int, points: Array) -> Array:
        """`(2, ...)` pixels from `points` `(2, ...)` of `frame` to their material points in frame 0."""
        squeeze = self._amplitude * float(self.contraction[frame])
        breath = self._amplitude * float(self.breathing[frame])
        moved = -breath * _along(self._breath, points) * self._mobility(points)
        here = points + moved
        moved = moved + self._background * (0.7 * squeeze + 0.3 * breath) * self._waves(here)
        moved = moved + squeeze * self._right_wall(here)
        return np.asarray(moved + self._beat(points + moved, squeeze))

    def _mobility(self, points: Array) -> Array:
        """1 in the chest, falling to 0.15 at the skin."""
        middle, half = self._body
        radius = np.sqrt((((points - _along(middle, points)) / _along(half, points)) ** 2).sum(axis=0))
        return 1.0 - 0.85 * smooth_ramp((radius - 0.45) / 0.55)

    def _right_wall(self, points: Array) -> Array:
        """The free wall of the right ventricle moves towards the septum."""
        there = self.centre + self.unit * np.array([-72.0, 4.0])
        weight = np.exp(-((points - _along(there, points)) ** 2).sum(axis=0) / (2 * (24 * self.unit) ** 2))
        return _along(np.array([-self._septal, 0.0]), points) * weight

    def _beat(self, points: Array, squeeze: float) -> Array:
        """Contraction and twist about the centre of the left ventricle."""
        q = np.tensordot(self.to_circle, points - _along(self.centre, points), axes=1)
        s = (q**2).sum(axis=0)
        factor = np.sqrt(1.0 + self._squared_growth(s, squeeze) / np.maximum(s, 1e-9))
        twist = squeeze * self._twist * (1 - smooth_ramp((np.sqrt(s) / self.outer - 0.8) / 1.2))
        cosine, sine = factor * np.cos(twist) - 1.0, factor * np.sin(twist)
        turned = np.stack([cosine * q[0] - sine * q[1], sine * q[0] + cosine * q[1]])
        return np.tensordot(self.from_circle, turned, axes=1)

    def _squared_growth(self, s: Array, squeeze: float) -> Array:
        """`A(s) = R^2 - r^2` for squared radii `s` of the current frame."""
        inner = self.inner * (1.0 - self._shrink * squeeze)
        if inner < 0.3 * self.inner:
            raise DataError("the heart cannot contract that far: max_motion is too large for this size")
        shortening = 1.0 - self._shorten * squeeze
        outer = np.sqrt(inner**2 + (self.outer**2 - self.inner**2) / shortening)
        width = 2.0 * inner * 1.6 * self.unit
        beyond = width * (np.logaddexp(0, (s - inner**2) / width) - np.logaddexp(0, -(inner**2) / width))
        cavity = (self.inner**2 / inner**2 - 1.0) * (s - beyond)
        fade = 1.0 - smooth_ramp((np.sqrt(s) - 1.04 * outer) / (1.7 * outer))
        return np.asarray((cavity + (shortening - 1.0) * beyond) * fade)


class HeartAnatomy:
    """Intensity and labels of material points (positions in frame 0)."""

    def __init__(self, config: HeartConfig, motion: HeartMotion, generator: np.random.Generator) -> None:
        self._motion, self._unit = motion, motion.unit
        texture = partial(Texture, config.size, generator=generator)
        self._fine = texture(1.7 * self._unit if self._unit > 0.6 else 1.0)
        self._coarse = texture(5.0 * self._unit)
        self._wiggle = generator.uniform(-1, 1, (2, 4)), generator.uniform(0, 2 * np.pi, (2, 4))
        self._middle, self._half = (np.array(config.size) - 1) / 2, 0.44 * np.array(config.size)
        self._papillary = np.deg2rad(generator.uniform(-15, 15, 2) + np.array([40.0, 140.0]))

    def _polar(self, points: Array) -> tuple[Array, Array, Array]:
        """Radius in the circular frame, and the endo- and epicardial radius in that direction."""
        m = self._motion
        q = np.tensordot(m.to_circle, points - _along(m.centre, points), axes=1)
        angle = np.arctan2(q[1], q[0])
        weights, phases = self._wiggle
        modes = [
            sum(w * np.cos(k * angle + p) for k, w, p in zip((3, 5, 7, 11), weights[i], phases[i], strict=True))
            for i in range(2)
        ]
        return np.hypot(q[0], q[1]), m.inner * (1 + 0.018 * modes[0]), m.outer * (1 + 0.008 * modes[1])

    def _right(self, points: Array) -> Array:
        """Signed distance into the right ventricular crescent, the left ventricle not yet taken away."""
        u = self._unit
        q = points - _along(self._motion.centre + u * np.array([-30.0, 6.0]), points)
        return 44 * u - np.hypot(q[0], 0.95 * q[1])

    def labels(self, points: Array) -> Labels:
        """`(...)` integer labels at material points `(2, ...)`."""
        radius, inner, outer = self._polar(points)
        out = np.zeros(radius.shape, dtype=np.uint8)
        out[radius < outer] = 2
        out[radius < inner] = 1
        return out

    def tissue(self, points: Array) -> Mask:
        """Bool: the left ventricle, the rim of the right one and the fat around them: where texture is."""
        radius, _, outer = self._polar(points)
        rim = np.abs(self._right(points) - 4 * self._unit) < 8 * self._unit
        return np.asarray((radius < outer + 6 * self._unit) | rim)

    def image(self, points: Array) -> Array:
        """`(...)` intensities at material points `(2, ...)`, air 0 and blood about 0.85."""
        u, m = self._unit, self._motion
        fine, coarse = self._fine(points), self._coarse(points)
        grain = 0.6 * fine + 0.4 * coarse
        body = self._body_image(points, grain, fine, coarse)
        radius, inner, outer = self._polar(points)
        right = self._right(points)
        heart = over(body, soft_step(np.maximum(outer + 6 * u - radius, right + 5 * u), 1.5 * u), 0.62 + 0.10 * grain)
        heart = over(heart, soft_step(right, 1.2 * u), 0.30 + 0.07 * grain)
        blood = 0.82 + 0.06 * coarse + 0.04 * fine
        heart = over(heart, soft_step(right - 4 * u - 1.0 * u * fine, 1.4 * u), blood - 0.06)
        heart = over(heart, soft_step(outer - radius, 1.0 * u), 0.30 + 0.11 * grain)
        # Trabeculae: the edge of the blood is rough on a scale finer than the label.
        heart = over(heart, soft_step(inner - radius - 0.8 * u * fine, 1.4 * u), blood)
        for angle in self._papillary:
            place = m.centre + 0.66 * m.inner * np.array([np.cos(angle), np.sin(angle)])
            gap = np.sqrt(((points - _along(place, points)) ** 2).sum(axis=0))
            heart = over(heart, soft_step(4.2 * u - gap + 0.5 * u * coarse, 1.2 * u), 0.36 + 0.06 * grain)
        return np.asarray(np.clip(heart, 0, None))

    def _body_image(self, points: Array, grain: Array, fine: Array, coarse: Array) -> Array:
        """Skin, fat, muscle, lungs, liver, spine and aorta."""
        u = self._unit
        q = (points - _along(self._middle, points)) / _along(self._half, points)
        depth = (1 - (np.abs(q) ** 2.4).sum(axis=0) ** (1 / 2.4)) * self._half.min()
        image = np.zeros_like(depth)
        image = over(image, soft_step(depth, 1.2 * u), 0.72 + 0.06 * grain)
        image = over(image, soft_step(depth - 9 * u + 1.5 * u * coarse, 1.5 * u), 0.26 + 0.06 * grain)
        lung = 0.07 + 0.10 * np.clip(fine - 1.2, 0, None) + 0.02 * coarse
        image = over(image, soft_step(depth - 22 * u, 1.5 * u), lung)
        # The liver's dome rises under the right side of the heart; in this view it lies below left.
        dome = q[1] - 0.48 - 0.35 * (q[0] + 0.5) ** 2
        liver = 0.40 + 0.06 * grain + 0.16 * soft_step(coarse - 1.3, 0.25)
        image = over(image, soft_step(np.minimum(dome * self._half[1], depth - 24 * u), 1.5 * u), liver)
        for (x, y), size, value in (((0.48, 0.47), 9.5, 0.80), ((0.25, 0.70), 17.0, 0.45)):
            gap = np.sqrt(((q - _along(np.array([x, y]), q)) ** 2).sum(axis=0)) * self._half.min()
            image = over(image, soft_step(size * u + 2 * u - gap, 1.2 * u), 0.22 + 0.04 * grain)
            image = over(image, soft_step(size * u - gap, 1.2 * u), value + 0.05 * grain)
        return image

    def landmarks(self) -> Array:
        """`(22, 2)`: six segments at endo-, mid- and epicardium, both insertions, both papillary muscles."""
        m = self._motion
        angles = np.deg2rad(np.arange(0, 360, 60) + 30.0)
        radii = [m.inner + f * m.wall for f in (0.1, 0.5, 0.9)]
        ring = np.array([[r * np.cos(a), r * np.sin(a)] for a in angles for r in radii])
        right = np.deg2rad([125.0, 235.0])
        ring = np.concatenate([ring, m.outer * np.stack([np.cos(right), np.sin(right)], axis=1)])
        places = m.centre + ring @ m.from_circle.T
        papillary = np.stack([np.cos(self._papillary), np.sin(self._papillary)], axis=1)
        return np.concatenate([places, m.centre + 0.66 * m.inner * papillary])


def heart_sequence(config: HeartConfig, *, seed: int, case_id: str) -> ImageSequence:
    """The cine of one heart as a batch of one, with labels, landmarks, mask and exact motion in every frame."""
    generator = random_generator("heart", seed)
    motion = HeartMotion(config, generator)
    anatomy = HeartAnatomy(config, motion, generator)
    grid = grid_points(config.size)
    noise = torch_generator("heart noise", seed)
    displacement = np.stack([motion.displacement(t, grid) for t in range(config.length)])
    frames, labels, masks, marks = [], [], [], []
    for t, u in enumerate(displacement):
        material = grid + u
        clean = anatomy.image(material) * _gain(config, t, grid)
        frames.append(rician(torch.from_numpy(clean).float(), config.noise, noise))
        labels.append(torch.from_numpy(anatomy.labels(material)))
        masks.append(torch.from_numpy(anatomy.tissue(material)))
        marks.append(torch.from_numpy(_material_to_frame(motion, t, anatomy.landmarks())))
    return ImageSequence(
        case_ids=(case_id,),
        frames=torch.stack(frames)[None, :, None],
        seconds_per_frame=config.seconds_per_frame,
        spacing_mm=torch.full((1, 2), config.spacing_mm),
        affine=torch.diag(torch.tensor([config.spacing_mm, config.spacing_mm, 1.0], dtype=torch.float64))[None],
        labels=torch.stack(labels)[None, :, None],
        labelled_frames=tuple(range(config.length)),
        label_names=LABEL_NAMES,
        points={"landmarks": (torch.stack(marks).float(),)},
        mask=torch.stack(masks)[None, :, None],
        true_displacement=torch.from_numpy(displacement).float()[None],
    )


def _material_to_frame(motion: HeartMotion, frame: int, material: Array) -> Array:
    return solve_points(lambda x: motion.displacement(frame, x.T).T, material)


def _gain(config: HeartConfig, frame: int, grid: Array) -> Array:
    """Slow drift of the receive gain, a little stronger on one side."""
    across = grid[0] / max(config.size[0] - 1, 1)
    return np.asarray(1.0 + config.drift * frame / max(config.length - 1, 1) * (0.75 + 0.5 * across))


def _rhythm(config: HeartConfig, generator: np.random.Generator) -> tuple[Array, Array]:
    """Contraction 0..1 and breathing 0..1 of every frame and at least 20, both 0 in frame 0."""
    period, breath = generator.uniform(0.80, 1.0), generator.uniform(3.2, 4.2)
    # At least 1.8 s, so that a short sequence is the beginning of the default one and moves no more.
    time = np.arange(max(config.length, 20)) * config.seconds_per_frame
    beat = np.floor(time / period).astype(int)
    strength = np.r_[1.0, generator.uniform(0.9, 1.05, beat.max() + 1)][beat]
    return np.asarray(strength * BEAT(time / period - beat)), np.sin(np.pi * time / breath) ** 2


def _along(vector: Array, points: Array) -> Array:
    """`vector` `(D,)` shaped to broadcast over points `(D, ...)`."""
    return vector.reshape(-1, *[1] * (points.ndim - 1))

"""Sagittal view of a breathing chest and abdomen, with lung and liver sliding along the chest wall: 2-D cine.

Inside the two pleural surfaces tissue moves along the body axis; the walls themselves move only a little, from
front to back. A point inside is described by its relative position between the walls, which the motion keeps,
and by its height, which it changes: so the pleura is mapped onto itself and the motion is in closed form. The
displacement is **discontinuous across the pleura** (sliding): its Jacobian is positive on either side and
means nothing across. Array axes: 0 is x, from front to back, 1 is y, from head to foot. Lengths are written
for 192 x 192 pixels and scale with the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from reg_bench.synthesis_anatomy import Texture, over, scale_to_reach, smooth_ramp, soft_step
from reg_bench.synthesis_noise import Array, Labels, Mask, random_generator, rician, torch_generator
from reg_bench.synthesis_points import grid_points, solve_points
from reg_bench.types import ImageSequence

LABEL_NAMES = {1: "liver", 2: "lung", 3: "target"}


@dataclass(frozen=True)
class BreathingConfig:
    """What to generate.

    Attributes:
        size: pixels from front to back and from head to foot.
        length: number of frames; frame 0 is end-exhale and the reference.
        seconds_per_frame: an MR-linac images at 5 Hz.
        max_motion: largest displacement in pixels over all frames, or the first 50 of a shorter sequence; 0 gives
            the zero field.
        noise: standard deviation of the Rician noise; the liver is about 0.5.
        drift: relative change of the intensity from the first frame to the last.
        spacing_mm: pixel size.
    """

    size: tuple[int, int] = (192, 192)
    length: int = 50
    seconds_per_frame: float = 0.2
    max_motion: float = 12.0
    noise: float = 0.025
    drift: float = 0.06
    spacing_mm: float = 1.8


class BreathingMotion:
    """Where the tissue under a pixel of frame `t` was in frame 0, in closed form on either side of the pleura."""

    def __init__(self, config: BreathingConfig, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        self.size, self.unit = config.size, min(config.size) / 192
        self.dome = config.size[1] * uniform(0.42, 0.47)
        self._bow = uniform(0.8, 1.2)
        self._front_motion = 0.16
        self._waveform = irregular_breathing(max(config.length, 50), config.seconds_per_frame, generator)
        self._amplitude = 0.0
        if config.max_motion > 0:
            step = max(1, min(config.size) // 96)
            coarse = grid_points(config.size)[:, ::step, ::step]
            self._amplitude = scale_to_reach(partial(self._longest, coarse), config.max_motion, 12 * self.unit)

    def _longest(self, points: Array, amplitude: float) -> float:
        self._amplitude = amplitude
        deepest, shallowest = int(np.argmax(self._waveform)), int(np.argmin(self._waveform))
        return max(float(np.linalg.norm(self.displacement(t, points), axis=0).max()) for t in (deepest, shallowest))

    def walls(self, height: Array) -> tuple[Array, Array]:
        """`x` of the front and back pleura at `height` in frame 0."""
        nx, ny = self.size
        v = height / ny
        front = nx * (0.20 - 0.045 * self._bow * np.sin(np.pi * np.clip(v, 0, 1)))
        back = nx * (0.74 + 0.03 * np.sin(np.pi * np.clip(1.1 * v - 0.1, 0, 1)))
        return front, back

    def inside(self, frame: int, points: Array) -> Mask:
        """Bool: between the pleural surfaces of `frame`."""
        front, back = self.walls(points[1])
        push = self._push(frame, points)
        return np.asarray((points[0] > front - push) & (points[0] < back))

    def _push(self, frame: int, points: Array) -> Array:
        """Pixels by which the front wall stands further forward than in frame 0."""
        height = points[1] / self.size[1]
        shape = 0.4 + 0.6 * smooth_ramp((height - 0.25) / 0.35)
        return np.asarray(self._front_motion * self._amplitude * self._waveform[frame] * shape)

    def displacement(self, frame: int, points: Array) -> Array:
        """`(2, ...)` pixels from `points` `(2, ...)` of `frame` to their material points in frame 0."""
        return self.displacement_of(frame, points, self.inside(frame, points))

    def displacement_of(self, frame: int, points: Array, inside: Mask) -> Array:
        """As `displacement`, the side of the pleura given (either map is smooth on the whole plane)."""
        down, push = self._amplitude * self._waveform[frame], self._push(frame, points)
        front, back = self.walls(points[1])
        across = (points[0] - front + push) / (back - front + push)
        moved_y = -down * self._profile(across, points[1])
        there_front, there_back = self.walls(points[1] + moved_y)
        moved_x = there_front - front + across * (there_back - back - there_front + front) + (1 - across) * push
        # The wall: skin and ribs go forward with the pleura, the back rests on the table.
        depth = (front - push - points[0]) / (0.25 * self.size[0])
        wall_x = np.where(points[0] < 0.5 * self.size[0], push * (1 - 0.3 * smooth_ramp(depth)), 0.0)
        return np.stack([np.where(inside, moved_x, wall_x), np.where(inside, moved_y, 0.0)])

    def _profile(self, across: Array, height: Array) -> Array:
        """Share of the diaphragm's descent: full at the dome, less in front, fading to apex and pelvis."""
        apex, pelvis = 0.06 * self.size[1], 1.05 * self.size[1]
        above = smooth_ramp(0.08 + 0.92 * (height - apex) / (self.dome - apex))
        below = 1 - 0.75 * smooth_ramp((height - 1.5 * self.dome) / (pelvis - 1.5 * self.dome))
        return np.asarray((0.70 + 0.30 * smooth_ramp(across)) * above * below)


class BreathingAnatomy:
    """Intensity and labels of material points (positions in frame 0) and the side of the pleura they are on."""

    def __init__(self, config: BreathingConfig, motion: BreathingMotion, generator: np.random.Generator) -> None:
        self._motion, self._unit, self._size = motion, motion.unit, np.array(config.size)
        texture = partial(Texture, config.size, generator=generator, margin=32)
        self._fine, self._coarse = texture(max(1.6 * motion.unit, 1.0)), texture(4.5 * motion.unit)
        self._vessels = texture(6.0 * motion.unit)
        x, y = generator.uniform(0.42, 0.58), generator.uniform(9, 16)
        self.target = np.array([x * config.size[0], self._dome(np.array(x * config.size[0])) + y * motion.unit])
        self._tilt = generator.uniform(0.75, 0.95)

    def _dome(self, x: Array) -> Array:
        """Height of the diaphragm at `x` in frame 0: higher in front, falling steeply at the back."""
        v = x / self._size[0]
        sag = 0.9 * np.clip(v - 0.47, 0, None) ** 2 / 0.09 + 0.25 * np.clip(0.47 - v, 0, None) ** 2 / 0.09
        return np.asarray(self._motion.dome + 0.16 * self._size[1] * sag)

    def _liver(self, points: Array) -> Array:
        """Signed distance into the liver, roughly."""
        x, y = points / self._unit
        centre_x, top = 0.46 * 192, self._dome(points[0]) / self._unit
        bottom = top + 62 - 0.006 * (x - centre_x) ** 2 - 0.15 * (x - centre_x)
        return np.asarray(np.minimum(y - top, bottom - y) * self._unit)

    def labels(self, points: Array, inside: Mask) -> Labels:
        """`(...)` integer labels at material points `(2, ...)`."""
        out = np.zeros(inside.shape, dtype=np.uint8)
        out[inside & (points[1] < self._dome(points[0])) & (points[1] > 0.05 * self._size[1])] = 2
        out[inside & (self._liver(points) > 0)] = 1
        out[inside & (self._target_depth(points) > 0)] = 3
        return out

    def tissue(self, points: Array, inside: Mask) -> Mask:
        """Bool: liver, bowel and the vessels' zone of the lung above the diaphragm; no air, no chest wall."""
        return np.asarray(inside & (points[1] > self._dome(points[0]) - 12 * self._unit))

    def _target_depth(self, points: Array) -> Array:
        gap = points - self.target.reshape(2, *[1] * (points.ndim - 1))
        return np.asarray(7.0 * self._unit - np.sqrt((gap[0] * self._tilt) ** 2 + gap[1] ** 2))

    def image(self, points: Array, inside: Mask) -> Array:
        """`(...)` intensities at material points `(2, ...)`, air 0 and fat about 0.8."""
        return np.asarray(np.clip(np.where(inside, self._inner(points), self._wall(points)), 0, None))

    def _inner(self, points: Array) -> Array:
        u, fine, coarse = self._unit, self._fine(points), self._coarse(points)
        grain = 0.7 * fine + 0.4 * coarse
        vessel = np.exp(-((self._vessels(points) / 0.16) ** 2))
        below = points[1] - self._dome(points[0])
        lung = 0.07 + 0.20 * vessel * soft_step(coarse + 0.3, 0.4) + 0.03 * np.abs(fine)
        bowel = 0.42 + 0.10 * grain + 0.22 * soft_step(self._vessels(points) - 0.8, 0.2)
        image = over(lung, soft_step(below, 1.1 * u), bowel)
        liver = 0.50 + 0.05 * grain - 0.22 * vessel * soft_step(coarse, 0.5)
        image = over(image, soft_step(self._liver(points), 1.1 * u), liver)
        kidney = self._ellipse(points, (0.66, 0.76), (0.075, 0.10))
        image = over(image, soft_step(kidney, 1.1 * u), 0.70 + 0.07 * grain)
        image = over(image, soft_step(kidney - 6 * u, 1.5 * u), 0.45 + 0.07 * grain)
        return over(image, soft_step(self._target_depth(points), 1.0 * u), 0.82 + 0.06 * grain)

    def _ellipse(self, points: Array, centre: tuple[float, float], axes: tuple[float, float]) -> Array:
        size = self._size.reshape(2, *[1] * (points.ndim - 1))
        c, a = (np.array(v).reshape(2, *[1] * (points.ndim - 1)) for v in (centre, axes))
        return np.asarray((1 - np.sqrt((((points / size - c) / a) ** 2).sum(axis=0))) * min(axes) * self._size.min())

    def _wall(self, points: Array) -> Array:
        """Skin, fat, muscle, ribs in front, vertebrae behind."""
        u, grain = self._unit, 0.7 * self._fine(points) + 0.4 * self._coarse(points)
        front, back = self._motion.walls(points[1])
        skin_front, skin_back = front - (18 + 0.05 * points[1] / u) * u, back + 42 * u
        depth = np.minimum(points[0] - skin_front, skin_back - points[0])
        image = over(np.zeros_like(grain), soft_step(depth, 1.1 * u), 0.78 + 0.06 * grain)
        image = over(image, soft_step(depth - 8 * u + u * self._coarse(points), 1.2 * u), 0.26 + 0.06 * grain)
        rib = 3.2 * u - np.hypot(points[0] - front + 5 * u, (points[1] - 8 * u) % (22 * u) - 11 * u)
        image = over(image, soft_step(rib, 1.0 * u), 0.10 + 0.03 * grain)
        height = (points[1] + 4 * u) % (24 * u) - 12 * u
        bone = np.minimum(9.5 * u - np.abs(height), 11 * u - np.abs(points[0] - back - 14 * u))
        return over(image, soft_step(bone, 1.2 * u), 0.52 + 0.08 * grain)

    def landmarks(self) -> Array:
        """`(24, 2)` points in frame 0, all between the walls: target, dome, liver, kidney, lung."""
        nx, ny = self._size
        xs = np.linspace(0.28, 0.66, 6) * nx
        dome = np.stack([xs, self._dome(xs)], axis=1)
        rows = [dome + np.array([0, offset * self._unit]) for offset in (-14.0, 0.0, 18.0)]
        kidney = np.array([[0.66, 0.66], [0.66, 0.86], [0.60, 0.76], [0.71, 0.76], [0.40, 0.88]]) * [nx, ny]
        return np.concatenate([self.target[None], *rows, kidney])


def breathing_sequence(config: BreathingConfig, *, seed: int, case_id: str) -> ImageSequence:
    """The cine of one breathing subject as a batch of one.

    Point sets: `landmarks` (24, the first is the target) and `target` (1). The mask holds tissue with texture
    inside the pleura. `true_displacement` jumps across the pleura; see the head of this file.
    """
    generator = random_generator("breathing", seed)
    motion = BreathingMotion(config, generator)
    anatomy = BreathingAnatomy(config, motion, generator)
    grid, noise = grid_points(config.size), torch_generator("breathing noise", seed)
    frames, labels, masks, marks, fields = [], [], [], [], []
    for t in range(config.length):
        inside = motion.inside(t, grid)
        u = motion.displacement_of(t, grid, inside)
        clean = anatomy.image(grid + u, inside) * (1 + config.drift * t / max(config.length - 1, 1))
        frames.append(rician(torch.from_numpy(clean).float(), config.noise, noise))
        labels.append(torch.from_numpy(anatomy.labels(grid + u, inside)))
        masks.append(torch.from_numpy(anatomy.tissue(grid + u, inside)))
        marks.append(torch.from_numpy(_material_to_frame(motion, t, anatomy.landmarks())))
        fields.append(torch.from_numpy(u))
    points = torch.stack(marks).float()
    spacing = config.spacing_mm
    return ImageSequence(
        case_ids=(case_id,),
        frames=torch.stack(frames)[None, :, None],
        seconds_per_frame=config.seconds_per_frame,
        spacing_mm=torch.full((1, 2), spacing),
        affine=torch.diag(torch.tensor([spacing, spacing, 1.0], dtype=torch.float64))[None],
        labels=torch.stack(labels)[None, :, None],
        labelled_frames=tuple(range(config.length)),
        label_names=LABEL_NAMES,
        points={"landmarks": (points,), "target": (points[:, :1],)},
        mask=torch.stack(masks)[None, :, None],
        true_displacement=torch.stack(fields).float()[None],
    )


def _material_to_frame(motion: BreathingMotion, frame: int, material: Array) -> Array:
    """Positions in `frame` of material points that lie between the walls."""
    inside = np.ones(len(material), dtype=bool)
    return solve_points(lambda x: motion.displacement_of(frame, x.T, inside).T, material)


def irregular_breathing(length: int, seconds_per_frame: float, generator: np.random.Generator) -> Array:
    """`(length,)` depth of breath, 0 in frame 0 (end-exhale), about 1 at a deep inhale.

    Every breath has its own period, depth and resting level (Lujan et al., Medical Physics 26 (1999), with
    cycle-to-cycle variation), joined by a spline.
    """
    knots, depths, time, rest = [0.0], [0.0], 0.0, 0.0
    while time < length * seconds_per_frame + 8.0:
        period, depth = generator.uniform(3.0, 5.0), generator.uniform(0.55, 1.0)
        next_rest = float(np.clip(rest + generator.normal(0, 0.05), -0.1, 0.15))
        for share, height in ((0.22, 0.5), (0.42, 1.0), (0.62, 0.5), (0.84, 0.08), (1.0, 0.0)):
            knots.append(time + share * period)
            depths.append((rest if share < 0.42 else next_rest) + height * depth)
        time, rest = time + period, next_rest
    curve = CubicSpline(knots, depths)(np.arange(length) * seconds_per_frame)
    return np.asarray(curve - curve[0])

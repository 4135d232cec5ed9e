"""Building blocks of an anatomy that is a function of the material point, not a picture.

An anatomy maps continuous material coordinates to intensities and labels. A frame is the anatomy evaluated at
the material points under its voxels, so image, labels, landmarks and displacement agree exactly, without any
interpolation of a rasterised image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from reg_bench.errors import DataError
from reg_bench.synthesis_noise import Array, gaussian_field

Motion = Callable[[Array], Array]
"""Displacement in voxels at points `(D, ...)` of the fixed frame, to their material points; same shape."""


def soft_step(distance: Array, width: float = 1.0) -> Array:
    """0 outside, 1 inside, 0.5 where the signed `distance` (positive inside) is 0; `width` in voxels."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / width))


def smooth_ramp(x: Array) -> Array:
    """0 below 0, 1 above 1, with two continuous derivatives (Perlin's quintic)."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * x * (x * (6.0 * x - 15.0) + 10.0))


def over(image: Array, coverage: Array, value: Array | float) -> Array:
    """`value` painted over `image` where `coverage` (0..1) is."""
    return np.asarray(image + coverage * (value - image))


class Texture:
    """A Gaussian random field of unit variance as a function of continuous points: a cubic spline, so smooth.

    Args:
        spatial: grid whose points are asked for.
        smoothness: in voxels, as in `gaussian_field`; at least 1.
        generator: of the field.
        margin: voxels around the grid that are also covered; beyond them the field continues mirrored.

    Attributes:
        on_grid: `(*S)`, the field at the voxels themselves, where no spline need be evaluated.
    """

    def __init__(
        self, spatial: Sequence[int], smoothness: float, generator: np.random.Generator, margin: int = 16
    ) -> None:
        field = gaussian_field([n + 2 * margin for n in spatial], smoothness=smoothness, generator=generator)
        self._margin = margin
        inner = tuple(slice(margin, margin + n) for n in spatial)
        self.on_grid: Array = field[0][inner].copy()
        self._coefficients = ndimage.spline_filter(field[0], order=3, mode="mirror")

    def __call__(self, points: Array) -> Array:
        """The field at `points` `(D, ...)` in voxels of the grid; `(...)`."""
        where = points + self._margin
        return np.asarray(ndimage.map_coordinates(self._coefficients, where, order=3, mode="mirror", prefilter=False))


class CosineWaves:
    """A smooth random vector field, a sum of a few plane waves: closed form at any point.

    Args:
        dims: of the space and of the vectors.
        shortest: shortest wavelength in voxels.
        generator: of directions and phases.
        waves: how many.
    """

    def __init__(self, dims: int, shortest: float, generator: np.random.Generator, waves: int = 4) -> None:
        direction = generator.standard_normal((waves, dims))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self._k = 2 * np.pi * direction / (shortest * generator.uniform(1.0, 2.0, (waves, 1)))
        self._phase = generator.uniform(0, 2 * np.pi, waves)
        self._vectors = generator.standard_normal((waves, dims))
        self._vectors /= np.linalg.norm(self._vectors, axis=1).sum()

    def __call__(self, points: Array) -> Array:
        """Vectors of length at most 1 at `points` `(D, ...)`; same shape."""
        phases = np.tensordot(self._k, points, axes=1)
        waves = np.cos(phases + self._phase.reshape(-1, *[1] * (points.ndim - 1)))
        return np.tensordot(self._vectors.T, waves, axes=1)


def scale_to_reach(longest: Callable[[float], float], target: float, start: float = 1.0) -> float:
    """The factor at which `longest(factor)`, which grows with it, reaches `target`: secant, then bisection.

    Raises:
        DataError: the target is out of reach of `longest` within a factor of 4 of `start`.
    """
    low, high = 0.0, start
    while longest(high) < target:
        low, high = high, 1.5 * high
        if high > 4 * start:
            raise DataError(f"the anatomy cannot move by {target:g} voxels without folding")
    for _ in range(14):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if longest(middle) < target else (low, middle)
    return 0.5 * (low + high)

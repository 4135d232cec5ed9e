"""Augmentation of training pairs: intensity by TorchIO, space by flips and affine maps that labels, points and
the true displacement follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from torch import Tensor

from reg_bench import field
from reg_bench.caching import PairTransform
from reg_bench.errors import ConfigError
from reg_bench.synthesis import random_generator
from reg_bench.types import PointPairs, RegistrationPair, collate_pairs

# Order of the polynomial of TorchIO's bias field, and how many coefficients it then has.
_BIAS_ORDER, _BIAS_COEFFICIENTS = 3, 20


class Augmentation(PairTransform):
    """Changes every pair that it is called on, each element of a batch by its own draws.

    Intensity, drawn independently for the fixed and the moving image and each applied with `probability`:
    contrast (gamma), bias field, Gaussian noise, blur (TorchIO). Space, drawn once for both images: flips and
    an affine map about the centre of the grid, in millimetres where the spacing is known. Labels and masks
    follow by nearest neighbour with 0 outside, points and `true_displacement` by the map itself (exactly for
    flips, for affine maps up to linear interpolation of the field). Points that leave an image are dropped.
    The headers stay: the anatomy moves, not the grid.

    Draws follow from `seed` and torch's seed; a training seeds torch for every case that it draws
    (`reg_bench.training_order`). Several calls under one seed draw a sequence.

    Args:
        gamma: largest absolute logarithm of the exponent of the intensities.
        bias: largest absolute coefficient of the bias field's polynomial.
        noise: largest standard deviation of the noise, as a share of the image's range.
        blur: largest standard deviation of the blur in voxels.
        probability: of each of the four.
        flip_axes: spatial axes that are flipped with probability one half each.
        rotation_degrees: largest rotation about each axis.
        scale: largest relative change of size along each axis.
        translation: largest shift as a share of the image's extent along each axis.
        seed: of all draws.

    Raises:
        ConfigError: a negative range, a probability outside 0..1, a scale of 1 or more.
    """

    def __init__(
        self,
        *,
        gamma: float = 0.3,
        bias: float = 0.15,
        noise: float = 0.03,
        blur: float = 0.7,
        probability: float = 0.5,
        flip_axes: tuple[int, ...] = (),
        rotation_degrees: float = 10.0,
        scale: float = 0.1,
        translation: float = 0.03,
        seed: int = 0,
    ) -> None:
        ranges = {
            "gamma": gamma,
            "bias": bias,
            "noise": noise,
            "blur": blur,
            "rotation_degrees": rotation_degrees,
            "scale": scale,
            "translation": translation,
        }
        for argument, value in ranges.items():
            if not value >= 0:
                raise ConfigError(f"augmentation: {argument} must not be negative, got {value}")
        if not 0 <= probability <= 1:
            raise ConfigError(f"augmentation: probability must lie in 0..1, got {probability}")
        if scale >= 1:
            raise ConfigError(f"augmentation: scale must be below 1, got {scale}")
        self.gamma, self.bias, self.noise, self.blur = gamma, bias, noise, blur
        self.probability, self.flip_axes, self.seed = probability, tuple(flip_axes), seed
        self.rotation_degrees, self.scale, self.translation = rotation_degrees, scale, translation
        self._drawn_for: tuple[int, ...] = ()
        self._draw = np.random.default_rng()

    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        """The augmented pair; `pair` itself stays as it is.

        Raises:
            ConfigError: a flip along an axis that the pair does not have.
        """
        wrong = [a for a in self.flip_axes if not 0 <= a < pair.dimension]
        if wrong:
            raise ConfigError(f"augmentation: flip axis {wrong[0]} of a {pair.dimension}-D pair")
        draw = self._generator()
        return collate_pairs([self._element(single, draw) for single in pair.split()])

    def restart(self) -> None:
        self._drawn_for = ()

    def _generator(self) -> np.random.Generator:
        """The generator that belongs to torch's seed of the moment."""
        key = (self.seed, torch.initial_seed())
        if key != self._drawn_for:
            self._drawn_for, self._draw = key, random_generator("augmentation", *key)
        return self._draw

    def _element(self, pair: RegistrationPair, draw: np.random.Generator) -> RegistrationPair:
        flips = [axis for axis in self.flip_axes if draw.random() < 0.5]
        if flips:
            pair = flipped(pair, flips)
        if self.rotation_degrees or self.scale or self.translation:
            pair = moved(pair, *self._affine(pair, draw))
        return replace(pair, fixed=self._intensity(pair.fixed, draw), moving=self._intensity(pair.moving, draw))

    def _affine(
        self, pair: RegistrationPair, draw: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix and shift in millimetres (voxels without spacing), from new to old places."""
        dims = pair.dimension
        angles = np.radians(draw.uniform(-self.rotation_degrees, self.rotation_degrees, 1 if dims == 2 else 3))
        matrix = np.diag(1 + draw.uniform(-self.scale, self.scale, dims))
        planes = [(0, 1), (1, 2), (0, 2)][: len(angles)]
        for angle, (a, b) in zip(angles, planes, strict=True):
            turn = np.eye(dims)
            turn[a, a] = turn[b, b] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            matrix = turn @ matrix
        extent = np.array(pair.spatial_shape) * _spacing(pair.fixed_spacing_mm, dims)
        return matrix, draw.uniform(-self.translation, self.translation, dims) * extent

    def _intensity(self, image: Tensor, draw: np.random.Generator) -> Tensor:
        """`image` `(1, C, *S)` with the drawn changes of contrast, shading, noise and sharpness."""
        # All numbers are drawn whether used or not, so that one switch does not change the other draws.
        used = draw.random(4) < self.probability
        gamma = float(np.exp(draw.uniform(-self.gamma, self.gamma)))
        shading = draw.uniform(-self.bias, self.bias, _BIAS_COEFFICIENTS).tolist()
        noise, seed = draw.uniform(0, self.noise), int(draw.integers(2**31))
        blur = draw.uniform(0, self.blur, 3)
        flat = image.ndim == 4
        values = image[0].detach().cpu()
        # TorchIO knows volumes only: a picture is one of depth 1.
        values = values[..., None] if flat else values
        if flat:
            blur[2] = 0
        low, high = float(values.min()), float(values.max())
        if high == low:
            return image
        values = (values - low) / (high - low)
        # TorchIO throws a die of torch's own even where nothing is left to chance.
        with torch.random.fork_rng(devices=[]):
            if used[0] and self.gamma:
                values = tio.Gamma(gamma=gamma)(values)
            if used[1] and self.bias:
                values = tio.BiasField(coefficients=shading, order=_BIAS_ORDER)(values)
            if used[2] and self.noise:
                values = tio.Noise(mean=0.0, std=float(noise), seed=seed)(values)
            if used[3] and self.blur:
                values = tio.Blur(std=tuple(float(b) for b in blur))(values)
        values = values * (high - low) + low
        return (values[..., 0] if flat else values)[None].to(image)


class Chain(PairTransform):
    """One transform after the other.

    Args:
        transforms: in this order.
    """

    def __init__(self, transforms: Sequence[PairTransform]) -> None:
        self.transforms = list(transforms)

    def restart(self) -> None:
        for transform in self.transforms:
            transform.restart()

    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        for transform in self.transforms:
            pair = transform(pair)
        return pair


def flipped(pair: RegistrationPair, axes: list[int]) -> RegistrationPair:
    """A batch with both images and everything that goes with them reversed along spatial `axes`; exact."""
    dims = [axis + 2 for axis in axes]

    def flip(value: Tensor | None) -> Tensor | None:
        return None if value is None else torch.flip(value, dims)

    def mirror(points: Tensor, shape: tuple[int, ...]) -> Tensor:
        changed = points.clone()
        for axis in axes:
            changed[:, axis] = shape[axis] - 1 - changed[:, axis]
        return changed

    truth, shapes = None, (pair.spatial_shape, tuple(pair.moving.shape[2:]))
    if pair.true_displacement is not None:
        truth = torch.flip(pair.true_displacement, dims)
        for axis in axes:
            # Grids of different length are mirrored about different centres.
            truth[:, axis] = shapes[1][axis] - shapes[0][axis] - truth[:, axis]
    return replace(
        pair,
        fixed=torch.flip(pair.fixed, dims),
        moving=torch.flip(pair.moving, dims),
        fixed_labels=flip(pair.fixed_labels),
        moving_labels=flip(pair.moving_labels),
        mask=flip(pair.mask),
        true_displacement=truth,
        points=None
        if pair.points is None
        else {
            name: PointPairs(
                tuple(mirror(p, shapes[0]) for p in sets.fixed), tuple(mirror(p, shapes[1]) for p in sets.moving)
            )
            for name, sets in pair.points.items()
        },
    )


@dataclass(frozen=True)
class _Map:
    """An affine map of one grid, from new to old voxels: `x -> matrix x + shift`."""

    matrix: Tensor
    shift: Tensor
    shape: tuple[int, ...]

    @classmethod
    def about_centre(
        cls,
        shape: tuple[int, ...],
        spacing: NDArray[np.float64],
        matrix: NDArray[np.float64],
        shift: NDArray[np.float64],
    ) -> _Map:
        """The map that acts as `matrix` and `shift` in millimetres about the centre of the grid."""
        voxels = matrix * spacing[None, :] / spacing[:, None]
        centre = (np.array(shape) - 1) / 2
        offset = centre - voxels @ centre + shift / spacing
        return cls(torch.from_numpy(voxels), torch.from_numpy(offset), shape)

    def grid(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Voxel coordinates `(D, *S)` and where they come from, on the device of `like`, float64."""
        new = field.identity_grid(self.shape, like.device, torch.float64)
        return new, self._apply(self.matrix, new) + self._column(self.shift, new)

    def pull(self, value: Tensor, mode: str, padding: str) -> Tensor:
        """A map `(1, C, *S)` on this grid, resampled."""
        new, old = self.grid(value)
        return field.warp(value, (old - new)[None].float(), mode=mode, padding=padding)

    def to_new(self, places: Tensor) -> Tensor:
        """Old places `(D, ...)` as new ones."""
        return self._apply(torch.linalg.inv(self.matrix), places - self._column(self.shift, places))

    def _apply(self, matrix: Tensor, places: Tensor) -> Tensor:
        return torch.einsum("ij,j...->i...", matrix.to(places), places)

    @staticmethod
    def _column(vector: Tensor, like: Tensor) -> Tensor:
        return vector.to(like).reshape(-1, *[1] * (like.ndim - 1))


def moved(pair: RegistrationPair, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> RegistrationPair:
    """A batch of one with both images seen through an affine map about the centres of their grids.

    New images are `fixed(T x)` and `moving(T x)` with `T` from new to old places, so the new truth is
    `T^-1(T x + u(T x)) - x`. Where a truth has no mask it gets one: beyond the old border it is not known.

    Args:
        matrix: `(D, D)` of `T`, millimetres (voxels where the spacing is unknown).
        shift: `(D,)` of `T`, in the same unit.
    """
    dims = pair.dimension
    here = _Map.about_centre(pair.spatial_shape, _spacing(pair.fixed_spacing_mm, dims), matrix, shift)
    moving_shape = tuple(pair.moving.shape[2:])
    there = _Map.about_centre(moving_shape, _spacing(pair.moving_spacing_mm, dims), matrix, shift)
    mask, truth = pair.mask, pair.true_displacement
    if truth is not None:
        if mask is None:
            mask = torch.ones_like(truth[:, :1], dtype=torch.bool)
        new, old = here.grid(truth)
        reached = old + here.pull(truth, "linear", "border")[0].double()
        truth = (there.to_new(reached) - new)[None].to(truth)
    return replace(
        pair,
        fixed=here.pull(pair.fixed, "linear", "border"),
        moving=there.pull(pair.moving, "linear", "border"),
        fixed_labels=_pulled(here, pair.fixed_labels),
        moving_labels=_pulled(there, pair.moving_labels),
        mask=None if mask is None else here.pull(mask.to(torch.uint8), "nearest", "zeros").bool(),
        true_displacement=truth,
        points=None
        if pair.points is None
        else {name: _moved_points(sets, here, there) for name, sets in pair.points.items()},
    )


def _pulled(through: _Map, labels: Tensor | None) -> Tensor | None:
    return None if labels is None else through.pull(labels, "nearest", "zeros")


def _moved_points(sets: PointPairs, here: _Map, there: _Map) -> PointPairs:
    """Both sets at their new places, without the points that either image has lost."""
    fixed, moving = here.to_new(sets.fixed[0].double().T).T, there.to_new(sets.moving[0].double().T).T
    inside = _inside(fixed, here.shape) & _inside(moving, there.shape)
    return PointPairs((fixed[inside].to(sets.fixed[0]),), (moving[inside].to(sets.moving[0]),))


def _inside(points: Tensor, shape: tuple[int, ...]) -> Tensor:
    return ((points >= 0) & (points <= points.new_tensor(shape) - 1)).all(dim=1)


def _spacing(spacing_mm: Tensor | None, dims: int) -> NDArray[np.float64]:
    """Spacing of a batch of one; 1 where it is not known."""
    if spacing_mm is None:
        return np.ones(dims)
    return np.asarray(spacing_mm[0].detach().cpu().double().numpy())

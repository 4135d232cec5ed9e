"""Random shapes in random contrast under random diffeomorphisms: pairs to learn registration from without any images.

After Hoffmann et al., "SynthMorph: learning contrast-invariant registration without acquired images", IEEE TMI 41(3),
2022: a map of shapes is where which of several smooth random fields is the largest; each image gives every shape an
intensity of its own. Here the shapes have texture as well, which moves with them, a pair may share its contrast, and
the displacement between the two images is known. Lengths are in voxels; "shares" are of the shortest side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reg_bench import field
from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix
from reg_bench.synthesis_noise import random_generator
from reg_bench.types import PointPairs, RegistrationPair

Range = tuple[float, float]

# Standard deviations of a smooth field along an axis per node of the lattice that it is drawn on.
_NODES = 1.25
# Voxels of the grid on which velocities are integrated per standard deviation of the narrowest.
_FLOW_CELL = 0.5


@dataclass(frozen=True)
class ShapesConfig:
    """What is drawn; ranges are the ends of uniform distributions.

    Attributes:
        size: voxels per axis, 2 or 3.
        shapes: how many compete, the background not counted.
        smoothness: of the fields that compete, as shares.
        body: share of pairs whose shapes lie in a body with nothing around it.
        motion: largest velocity of the smooth and of the local part of the flow, as shares; about the largest
            displacement in voxels over the shortest side.
        width: standard deviations of the smooth and of the local part, as shares.
        rotation_degrees, scale, translation: of an affine map after the flow, up to; degrees, relative, as a share.
        same_contrast: share of pairs whose images show the shapes alike.
        texture: amplitude of the texture, relative to the range of the shapes.
        grain: smoothness of the texture in voxels.
        gamma, bias, noise, blur: of each image by itself, up to: logarithm of the exponent, logarithm of the shading,
            standard deviation of the noise, and of the blur in voxels.
        landmarks: points per pair.
    """

    size: tuple[int, ...] = (64, 64, 64)
    shapes: tuple[int, int] = (5, 16)
    smoothness: Range = (0.05, 0.16)
    body: float = 0.6
    motion: tuple[Range, Range] = ((0.0, 0.12), (0.0, 0.05))
    width: tuple[Range, Range] = ((0.15, 0.3), (0.06, 0.1))
    rotation_degrees: float = 8.0
    scale: float = 0.08
    translation: float = 0.06
    same_contrast: float = 0.5
    texture: Range = (0.0, 0.3)
    grain: Range = (1.0, 4.0)
    gamma: float = 0.4
    bias: float = 0.3
    noise: float = 0.05
    blur: float = 1.0
    landmarks: int = 50


def shapes_pair(config: ShapesConfig, *key: int, case_id: str = "shapes") -> RegistrationPair:
    """A pair as a batch of one that follows from `config` and `key` alone.

    The moving image shows the shapes as they were drawn; the fixed one shows them through the displacement, which is
    exact. `mask` holds where it leads to within the moving image.

    Args:
        config: what is drawn.
        key: numbers.
        case_id: of the pair.
    """
    draw = random_generator("shapes", *key)
    labels, inside = _shapes(config, draw)
    u = _displacement(config, draw)
    grain = _smooth(config.size, draw.uniform(*config.grain), draw)
    same = draw.random() < config.same_contrast
    moving_tones, fixed_tones = (_tones(int(labels.max()), draw) for _ in range(2))
    amplitudes = [draw.uniform(*config.texture) * draw.choice((-1, 1)) for _ in range(2)]
    if same:
        fixed_tones, amplitudes[1] = moving_tones, amplitudes[0]
    # Texture ends where the shapes end: air has none.
    texture = grain * inside
    where = labels.long()
    moving = moving_tones[where] + amplitudes[0] * texture
    fixed = field.warp(fixed_tones[where] + amplitudes[1] * texture, u)
    reached = field.identity_grid(config.size)[None] + u
    limits = reached.new_tensor(config.size).reshape(1, -1, *[1] * len(config.size)) - 1
    mask = ((reached >= 0) & (reached <= limits)).all(dim=1, keepdim=True)
    places = draw.uniform(0.1, 0.9, (config.landmarks, len(config.size))) * (np.array(config.size) - 1)
    points = torch.from_numpy(places).float()
    partners = points + field.sample(u, points[None])[0]
    return RegistrationPair(
        case_ids=(case_id,),
        fixed=_imaged(config, fixed, draw),
        moving=_imaged(config, moving, draw),
        fixed_labels=field.warp(labels, u, mode="nearest"),
        moving_labels=labels,
        points={"landmarks": PointPairs((points,), (partners,))},
        mask=mask,
        true_displacement=u,
    )


def _shapes(config: ShapesConfig, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A map of shapes `(1, 1, *S)` uint8, 0 where there is nothing, and where there is something, 0 or 1."""
    shapes = int(draw.integers(config.shapes[0], config.shapes[1] + 1))
    side = min(config.size)
    fields = _smooth(config.size, side * draw.uniform(*config.smoothness), draw, shapes)
    labels = _largest(fields) + 1
    inside = torch.ones_like(fields[:, :1])
    if draw.random() < config.body:
        # An ellipsoid somewhere about the middle, its surface dented.
        grid = field.identity_grid(config.size)[None]
        extent = grid.new_tensor(config.size).reshape(1, -1, *[1] * len(config.size))
        centre = grid.new_tensor(draw.uniform(0.4, 0.6, len(config.size))).reshape(extent.shape)
        axes = grid.new_tensor(draw.uniform(0.28, 0.5, len(config.size))).reshape(extent.shape)
        radius = ((grid / extent - centre) / axes).square_().sum(dim=1, keepdim=True).sqrt_()
        inside = (radius + 0.12 * _smooth(config.size, 0.15 * side, draw) < 1).float()
        labels = labels * inside.to(torch.uint8)
    return labels, inside


def _largest(fields: Tensor) -> Tensor:
    """`(1, 1, *S)` uint8, which channel is the largest; twenty times as fast as `argmax` over channels."""
    best, which = fields[:, :1].clone(), torch.zeros_like(fields[:, :1], dtype=torch.uint8)
    for number in range(1, fields.shape[1]):
        now = fields[:, number : number + 1]
        which.masked_fill_(now > best, number)
        torch.maximum(best, now, out=best)
    return which


def _displacement(config: ShapesConfig, draw: np.random.Generator) -> Tensor:
    """`(1, D, *S)`: the flow of a velocity with a smooth and a local part, then an affine map about the centre."""
    dims, side = len(config.size), min(config.size)
    widths = [side * draw.uniform(*width) for width in config.width]
    lengths = [side * draw.uniform(*motion) for motion in config.motion]
    cell = max(1.0, _FLOW_CELL * widths[1])
    coarse = tuple(max(4, round((n - 1) / cell) + 1) for n in config.size)
    ratio = torch.tensor([(k - 1) / (n - 1) for k, n in zip(coarse, config.size, strict=True)])
    velocity = torch.zeros(1, dims, *coarse)
    for width, length in zip(widths, lengths, strict=True):
        part = _smooth(coarse, width / cell, draw, dims)
        longest = part.square().sum(dim=1).max().sqrt()
        velocity += part * (length / longest) * ratio.reshape(1, -1, *[1] * dims)
    flow = field.resize(field.exponential(velocity), config.size)
    matrix, shift = _affine(config, draw)
    centre = (torch.tensor(config.size, dtype=torch.float32) - 1).div(2).reshape(1, -1, *[1] * dims)
    grid = field.identity_grid(config.size)[None]
    reached = grid + flow - centre
    return torch.einsum("ij,bj...->bi...", matrix, reached) + centre + shift.reshape(centre.shape) - grid


def _affine(config: ShapesConfig, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    dims = len(config.size)
    matrix = np.diag(1 + draw.uniform(-config.scale, config.scale, dims))
    for a, b in ((0, 1), (1, 2), (0, 2))[: 1 if dims == 2 else 3]:
        angle = np.radians(draw.uniform(-config.rotation_degrees, config.rotation_degrees))
        turn = np.eye(dims)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    shift = draw.uniform(-config.translation, config.translation, dims) * min(config.size)
    return torch.from_numpy(matrix).float(), torch.from_numpy(shift).float()


def _tones(shapes: int, draw: np.random.Generator) -> Tensor:
    """An intensity for each shape, and mostly none for the background."""
    tones = draw.uniform(0, 1, shapes + 1)
    if draw.random() < 0.8:
        tones[0] = 0
    return torch.from_numpy(tones).float()


def _imaged(config: ShapesConfig, image: Tensor, draw: np.random.Generator) -> Tensor:
    """`image` as a scanner might show it, 0..1."""
    image = field.gaussian(image, draw.uniform(0, config.blur) + 1e-3)
    image = image - image.min()
    image = image / image.max().clamp(min=1e-6)
    image = image ** float(np.exp(draw.uniform(-config.gamma, config.gamma)))
    shading = _smooth(config.size, 0.4 * min(config.size), draw)
    image = image * torch.exp(draw.uniform(0, config.bias) * shading.clamp(-2, 2) / 2)
    generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
    image = image + draw.uniform(0, config.noise) * torch.randn(image.shape, generator=generator)
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp(min=1e-6)


def _smooth(size: tuple[int, ...], width: float, draw: np.random.Generator, channels: int = 1) -> Tensor:
    """Gaussian random fields `(1, channels, *S)` of variance 1 and standard deviation `width` voxels."""
    matrices = [_bumps(n, round(max(width, 0.3), 2)) for n in size]
    noise = draw.standard_normal((1, channels, *(m.columns for m in matrices)), dtype=np.float32)
    return along_axes(torch.from_numpy(noise), matrices)


@lru_cache(maxsize=1024)
def _bumps(size: int, width: float) -> AxisMatrix:
    """Gaussian bumps on a lattice as in `synthesis_noise.gaussian_field`; rows of unit norm."""
    step = width / _NODES
    nodes = np.arange(-3 * width, size - 1 + 3 * width + step, step)
    basis = np.exp(-0.5 * ((np.arange(size)[:, None] - nodes[None]) / width) ** 2)
    basis /= np.sqrt((basis**2).sum(axis=1, keepdims=True))
    return axis_matrix(basis, torch.float32, torch.device("cpu"))

"""Synthetic pairs with an exact motion, for the conformance checks.

Everything is a closed-form function of the position in millimetres: the picture, its labels, the motion. A
grid of any shape, spacing and direction samples the same physical pair, so nothing is interpolated and the
true displacement is exact on each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reg_bench.types import PointPairs, RegistrationPair

Array = NDArray[np.float64]

# Different in every axis and all well away from 1, so that voxels, millimetres and any mix-up of the axes
# give answers more than 25 % apart.
BASE = {2: ((48, 40), (1.4, 2.1)), 3: ((40, 32, 28), (1.3, 1.65, 2.1))}
ODD = {2: ((45, 37), (1.4, 2.1)), 3: ((37, 29, 25), (1.3, 1.65, 2.1))}
# Semi-axes of the object in mm: the largest sphere round it stays inside every grid, turned ones too.
SEMI_AXES_MM = {2: (24.0, 27.0), 3: (20.0, 19.0, 21.0)}
CENTRE_MM = {2: (11.0, -7.0), 3: (11.0, -7.0, 5.0)}
PIVOT_MM = {2: (4.0, -5.0), 3: (4.0, -3.0, 4.0)}
# One per axis, in voxels: inside the capture range of a local method, each another size.
SHIFT_VOXELS = {2: (3.0, -2.4), 3: (3.0, -2.6, 2.2)}


@dataclass(frozen=True)
class Geometry:
    """A voxel grid in space: `shape` and the affine from index to RAS millimetres, `(D + 1, D + 1)`."""

    shape: tuple[int, ...]
    affine: Array

    @property
    def dimension(self) -> int:
        return len(self.shape)

    @property
    def linear(self) -> Array:
        """The `(D, D)` part that turns displacements from voxels into millimetres."""
        return self.affine[:-1, :-1]

    @property
    def spacing_mm(self) -> Array:
        """Edge lengths of a voxel along the array axes."""
        spacing: Array = np.linalg.norm(self.linear, axis=0)
        return spacing

    def indices(self) -> Array:
        """Every index of the grid, `(N, D)`, in C order."""
        grid = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in self.shape), indexing="ij")
        return np.stack(grid, -1).reshape(-1, self.dimension)

    def to_world(self, index: Array) -> Array:
        """Positions in mm of indices `(N, D)`."""
        world: Array = index @ self.linear.T + self.affine[:-1, -1]
        return world

    def to_index(self, world: Array) -> Array:
        """Indices `(N, D)` of positions in mm."""
        index: Array = (world - self.affine[:-1, -1]) @ np.linalg.inv(self.linear).T
        return index


def centred(shape: tuple[int, ...], linear: Array) -> Geometry:
    """The grid of this shape and linear part whose middle lies on the object's centre."""
    dims = len(shape)
    affine = np.eye(dims + 1)
    affine[:-1, :-1] = linear
    affine[:-1, -1] = np.asarray(CENTRE_MM[dims]) - linear @ ((np.asarray(shape) - 1) / 2)
    return Geometry(shape, affine)


def base_geometry(dims: int, *, odd: bool = False) -> Geometry:
    """The grid of most checks: anisotropic, not cubic, array axes along the world's."""
    shape, spacing = (ODD if odd else BASE)[dims]
    return centred(shape, np.diag(spacing))


def flipped_geometry(dims: int) -> Geometry:
    """The first and the last axis run against the world's."""
    shape, spacing = BASE[dims]
    signs = np.ones(dims)
    signs[[0, -1]] = -1
    return centred(shape, np.diag(spacing * signs))


def permuted_geometry(dims: int) -> Geometry:
    """Array axis `c` runs along world axis `c - 1`; shape and spacing move with it."""
    shape, spacing = BASE[dims]
    order = np.roll(np.arange(dims), 1)
    return centred(tuple(shape[k] for k in order), np.diag(spacing)[:, order])


def oblique_geometry(dims: int) -> Geometry:
    """Axes turned by some 20 degrees against the world's."""
    shape, spacing = BASE[dims]
    return centred(shape, rotation(dims, 20.0) @ np.diag(spacing))


def rotation(dims: int, degrees: float) -> Array:
    """A rotation; in 3-D about an axis that is none of the grid's, so that every component moves."""
    angle = np.deg2rad(degrees)
    if dims == 2:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y, z = np.array([0.48, 0.6, 0.64])
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rodrigues: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rodrigues


@dataclass(frozen=True)
class Motion:
    """The fixed position `p` corresponds to `centre + matrix (p - centre) + shift_mm` in the moving image."""

    matrix: Array
    shift_mm: Array

    def pull(self, world: Array) -> Array:
        """Displacement in mm from fixed to moving positions at fixed positions `(N, D)`: what is asked for."""
        centre = np.asarray(CENTRE_MM[len(self.shift_mm)])
        moved: Array = (world - centre) @ self.matrix.T + centre + self.shift_mm - world
        return moved

    def push(self, world: Array) -> Array:
        """The inverse: displacement in mm from moving to fixed positions at moving positions `(N, D)`."""
        centre = np.asarray(CENTRE_MM[len(self.shift_mm)])
        back = (world - centre - self.shift_mm) @ np.linalg.inv(self.matrix).T + centre
        difference: Array = back - world
        return difference


def still(dims: int) -> Motion:
    """No motion."""
    return Motion(np.eye(dims), np.zeros(dims))


def shifted(geometry: Geometry, voxels: Array) -> Motion:
    """A shift given in voxels along the axes of `geometry`."""
    return Motion(np.eye(geometry.dimension), geometry.linear @ voxels)


def turned(dims: int, degrees: float) -> Motion:
    """A rotation about a point off the centre of the object, so that it holds a little shift as well."""
    matrix = rotation(dims, degrees)
    pivot = np.asarray(PIVOT_MM[dims])
    return Motion(matrix, pivot - matrix @ pivot)


def scaled(dims: int, factor: float) -> Motion:
    """A scale about that point; `factor` above 1 looks further out, so the object shrinks."""
    return Motion(factor * np.eye(dims), (1 - factor) * np.asarray(PIVOT_MM[dims]))


def _radius(world: Array) -> Array:
    """1 on the surface of the object, less inside."""
    dims = world.shape[1]
    radius: Array = np.linalg.norm((world - np.asarray(CENTRE_MM[dims])) / np.asarray(SEMI_AXES_MM[dims]), axis=1)
    return radius


def picture(world: Array, seed: int) -> Array:
    """Intensity 0..1 of the moving anatomy at positions `(N, D)`: a bright object in a textured rim.

    A sum of plane waves, 14 to 50 mm long: more than twice every motion, so that local methods find it, and
    too irregular to fit anywhere else. The rim gives local methods something to hold on to outside the object;
    beyond it nothing is left that a shift could push over the border, which methods that wrap round would miss.
    """
    dims = world.shape[1]
    random = np.random.default_rng([seed, dims])
    count = 40
    direction = random.normal(size=(count, dims))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.exp(random.uniform(np.log(14.0), np.log(50.0), count))
    waves = np.cos(2 * np.pi * (world @ (direction / length[:, None]).T) + random.uniform(0, 2 * np.pi, count))
    texture = waves.sum(1) / np.sqrt(count / 2)
    radius = _radius(world)
    inside = 1 / (1 + np.exp((radius - 1) / 0.05))
    rim = 1 / (1 + np.exp((radius - 1.15) / 0.08))
    intensity: Array = 0.1 + rim * (0.12 + 0.10 * texture) + inside * (0.30 + 0.08 * texture)
    return np.clip(intensity, 0.0, 1.0)


def organs(world: Array) -> NDArray[np.uint8]:
    """Label of each position `(N, D)`: 1 is the object, 2 to 4 are balls in it, 0 the outside."""
    dims = world.shape[1]
    labels = (_radius(world) <= 1).astype(np.uint8)
    relative = (world - np.asarray(CENTRE_MM[dims])) / np.asarray(SEMI_AXES_MM[dims])
    centres = np.array([[-0.4, 0.2, 0.3], [0.4, 0.35, -0.2], [0.1, -0.5, 0.1]])[:, :dims]
    for value, (centre, size) in enumerate(zip(centres, (0.25, 0.3, 0.35), strict=True), start=2):
        labels[np.linalg.norm(relative - centre, axis=1) <= size] = value
    return labels


@dataclass(frozen=True)
class Case:
    """One synthetic pair with its truth.

    Attributes:
        pair: batch of one with labels, points (`landmarks`), mask and `true_displacement`.
        geometry: the grid of both images.
        motion: in millimetres.
        interior: flat indices of voxels well inside the object in both images; only there is a field judged.
    """

    pair: RegistrationPair
    geometry: Geometry
    motion: Motion
    interior: NDArray[np.int64]

    def index(self) -> Array:
        """Indices of the interior voxels, `(N, D)`."""
        return self.geometry.indices()[self.interior]

    def truth(self) -> Array:
        """The displacement asked for at the interior voxels, `(N, D)` in voxels."""
        return self.pull_at(self.index())

    def pull_at(self, index: Array) -> Array:
        """The displacement asked for at indices `(N, D)`, in voxels."""
        return self._in_voxels(self.motion.pull(self.geometry.to_world(index)))

    def push_at(self, index: Array) -> Array:
        """The displacement of the opposite direction, from moving to fixed positions, in voxels."""
        return self._in_voxels(self.motion.push(self.geometry.to_world(index)))

    def _in_voxels(self, displacement_mm: Array) -> Array:
        voxels: Array = displacement_mm @ np.linalg.inv(self.geometry.linear).T
        return voxels


def build_case(name: str, geometry: Geometry, motion: Motion, *, seed: int = 1, header: bool = True) -> Case:
    """The pair `fixed(p) = moving(p + motion(p))` on `geometry`; without spacing and affine if not `header`."""
    dims = geometry.dimension
    world = geometry.to_world(geometry.indices())
    source = world + motion.pull(world)
    displacement = motion.pull(world) @ np.linalg.inv(geometry.linear).T

    def volume(values: NDArray[np.generic], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values.reshape(1, 1, *geometry.shape))).to(dtype)

    landmarks = _landmarks(geometry, motion, dims)
    spacing = torch.from_numpy(geometry.spacing_mm)[None].float() if header else None
    affine = torch.from_numpy(geometry.affine)[None] if header else None
    pair = RegistrationPair(
        case_ids=(name,),
        fixed=volume(picture(source, seed), torch.float32),
        moving=volume(picture(world, seed), torch.float32),
        fixed_spacing_mm=spacing,
        moving_spacing_mm=spacing,
        fixed_affine=affine,
        moving_affine=affine,
        fixed_labels=volume(organs(source), torch.uint8),
        moving_labels=volume(organs(world), torch.uint8),
        label_names={1: "object", 2: "first organ", 3: "second organ", 4: "third organ"},
        points={"landmarks": landmarks},
        mask=volume(_radius(source) <= 1, torch.bool),
        true_displacement=torch.from_numpy(displacement.T.reshape(1, dims, *geometry.shape).copy()).float(),
    )
    interior = np.flatnonzero((_radius(source) <= 0.75) & (_radius(world) <= 0.85))
    return Case(pair, geometry, motion, interior)


def _landmarks(geometry: Geometry, motion: Motion, dims: int) -> PointPairs:
    """Twenty points inside the object, in voxels of the grid, anywhere between voxel centres."""
    random = np.random.default_rng([7, dims])
    direction = random.normal(size=(20, dims))
    direction *= random.uniform(0.1, 0.65, (20, 1)) / np.linalg.norm(direction, axis=1, keepdims=True)
    fixed = np.asarray(CENTRE_MM[dims]) + direction * np.asarray(SEMI_AXES_MM[dims])
    moving = fixed + motion.pull(fixed)
    as_tensor = [torch.from_numpy(geometry.to_index(p)) for p in (fixed, moving)]
    return PointPairs((as_tensor[0],), (as_tensor[1],))

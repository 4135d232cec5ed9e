"""The values that flow through the suite: pairs of images, sequences and displacement fields.

Conventions, obeyed everywhere (DESIGN.md section 2):

* tensors are `(B, C, *spatial)`, `spatial` in the array order of the loaded image;
* a displacement `u` is `(B, D, *spatial)` on the fixed grid, in voxels of that grid, channel `c` along
  spatial axis `c`; `warped(x) = moving(x + u(x))`;
* millimetres only where a name says so; affines are RAS, homogeneous `(B, D + 1, D + 1)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from reg_bench import field as _field

DeviceLike = torch.device | str


def _to(value: Any, device: DeviceLike) -> Any:
    """`value` with every tensor in it on `device`; containers keep their kind."""
    if isinstance(value, Tensor | _OnDevice):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_to(item, device) for item in value)
    return value


class _OnDevice:
    """`.to(device)` for a frozen dataclass: Lightning moves batches by it."""

    def to(self, device: DeviceLike, non_blocking: bool = False) -> Self:
        changes = {f.name: _to(getattr(self, f.name), device) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class PointPairs(_OnDevice):
    """One named set of corresponding points, per case of a batch.

    `fixed[i]` and `moving[i]` are `(N_i, D)` float tensors in **voxels** (index coordinates) of the fixed
    and of the moving grid; row `n` of one corresponds to row `n` of the other.
    """

    fixed: tuple[Tensor, ...]
    moving: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if len(self.fixed) != len(self.moving):
            raise ValueError(f"PointPairs: {len(self.fixed)} fixed sets but {len(self.moving)} moving sets")
        for index, (a, b) in enumerate(zip(self.fixed, self.moving, strict=True)):
            if a.ndim != 2 or a.shape != b.shape:
                raise ValueError(
                    f"PointPairs: case {index} has fixed points {tuple(a.shape)} and moving points "
                    f"{tuple(b.shape)}; expected two equal shapes (N, D)"
                )

    def __len__(self) -> int:
        return len(self.fixed)


@dataclass(frozen=True)
class RegistrationPair(_OnDevice):
    """A batch of fixed and moving images with everything known about them. What is absent is `None`.

    Attributes:
        case_ids: one per element of the batch; `subject/frame` where several cases share a subject.
        fixed, moving: `(B, C, *S)` float32 plain tensors.
        fixed_spacing_mm, moving_spacing_mm: `(B, D)`, or `None` where the source does not know it; distances
            are then in voxels and say so.
        fixed_affine, moving_affine: `(B, D + 1, D + 1)` float64, voxel index to RAS millimetres.
        fixed_labels, moving_labels: `(B, 1, *S)` integer maps, 0 is background.
        label_names: label value to name, for the labels that are to be scored. `None`: every non-zero label
            that stands in either map.
        points: named sets such as `landmarks`, `keypoints`.
        mask: `(B, 1, *S)` bool on the fixed grid: tissue in which errors count.
        true_displacement: `(B, D, *S)` voxels, of a synthetic case.
        frames: frame number of each element where the pair comes from a sequence.
        tasks: name of the dataset that each element comes from, where several are mixed.
        scored: the pair on which the field is scored, where that is not the one that the method sees: the same
            images over the same extent at their full resolution.
    """

    case_ids: tuple[str, ...]
    fixed: Tensor
    moving: Tensor
    fixed_spacing_mm: Tensor | None = None
    moving_spacing_mm: Tensor | None = None
    fixed_affine: Tensor | None = None
    moving_affine: Tensor | None = None
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    label_names: Mapping[int, str] | None = None
    points: Mapping[str, PointPairs] | None = None
    mask: Tensor | None = None
    true_displacement: Tensor | None = None
    frames: tuple[int, ...] | None = None
    tasks: tuple[str, ...] | None = None
    scored: RegistrationPair | None = None

    def __post_init__(self) -> None:
        name = ", ".join(self.case_ids) or "a pair without case ids"
        for field_name in ("fixed", "moving"):
            image = getattr(self, field_name)
            if type(image) is not Tensor:
                raise TypeError(f"{name}: {field_name} must be a plain torch.Tensor, got {type(image).__name__}")
            if image.ndim not in (4, 5):
                raise ValueError(
                    f"{name}: {field_name} must be (B, C, *spatial) with 2 or 3 spatial axes, "
                    f"got shape {tuple(image.shape)}"
                )
        batch, spatial = self.fixed.shape[0], self.fixed.shape[2:]
        dims = len(spatial)
        if len(self.case_ids) != batch:
            raise ValueError(f"{name}: {len(self.case_ids)} case ids for a batch of {batch}")
        if self.moving.ndim != self.fixed.ndim or self.moving.shape[0] != batch:
            raise ValueError(
                f"{name}: fixed {tuple(self.fixed.shape)} and moving {tuple(self.moving.shape)} "
                "must agree in batch size and dimension"
            )
        moving_spatial = self.moving.shape[2:]
        expected = {
            "fixed_spacing_mm": (batch, dims),
            "moving_spacing_mm": (batch, dims),
            "fixed_affine": (batch, dims + 1, dims + 1),
            "moving_affine": (batch, dims + 1, dims + 1),
            "fixed_labels": (batch, 1, *spatial),
            "moving_labels": (batch, 1, *moving_spatial),
            "mask": (batch, 1, *spatial),
            "true_displacement": (batch, dims, *spatial),
        }
        for field_name, shape in expected.items():
            value = getattr(self, field_name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name}: {field_name} has shape {tuple(value.shape)}, expected {shape}")
        for field_name in ("fixed_labels", "moving_labels"):
            value = getattr(self, field_name)
            if value is not None and (value.is_floating_point() or value.is_complex()):
                raise TypeError(f"{name}: {field_name} must be an integer map, got {value.dtype}")
        for set_name, pairs in (self.points or {}).items():
            if len(pairs) != batch or any(p.shape[1] != dims for p in pairs.fixed):
                raise ValueError(f"{name}: points {set_name!r} must hold {batch} sets of (N, {dims})")
        if self.frames is not None and len(self.frames) != batch:
            raise ValueError(f"{name}: {len(self.frames)} frame numbers for a batch of {batch}")
        if self.tasks is not None and len(self.tasks) != batch:
            raise ValueError(f"{name}: {len(self.tasks)} task names for a batch of {batch}")
        if self.scored is not None and (self.scored.case_ids != self.case_ids or self.scored.dimension != dims):
            raise ValueError(f"{name}: the pair it is scored on is of other cases, {', '.join(self.scored.case_ids)}")

    @property
    def batch_size(self) -> int:
        return int(self.fixed.shape[0])

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape of the fixed grid, on which the field lives."""
        return tuple(self.fixed.shape[2:])

    @property
    def dimension(self) -> int:
        return self.fixed.ndim - 2

    @property
    def device(self) -> torch.device:
        return self.fixed.device

    def __getitem__(self, index: int) -> RegistrationPair:
        """Element `index` as a batch of one."""
        if not -self.batch_size <= index < self.batch_size:
            raise IndexError(f"element {index} of a batch of {self.batch_size}")
        index %= self.batch_size
        changes: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor | tuple):
                changes[f.name] = value[index : index + 1]
        if self.points is not None:
            changes["points"] = {
                key: PointPairs(p.fixed[index : index + 1], p.moving[index : index + 1])
                for key, p in self.points.items()
            }
        if self.scored is not None:
            changes["scored"] = self.scored[index]
        return replace(self, **changes)

    def split(self) -> Iterator[RegistrationPair]:
        """The elements as batches of one."""
        return (self[index] for index in range(self.batch_size))

    def swapped(self) -> RegistrationPair:
        """The same pair with fixed and moving exchanged, as inverse consistency needs it.

        The mask and the true displacement live on the fixed grid only and become `None`.
        """
        points = {k: PointPairs(p.moving, p.fixed) for k, p in (self.points or {}).items()} or None
        return replace(
            self,
            fixed=self.moving,
            moving=self.fixed,
            fixed_spacing_mm=self.moving_spacing_mm,
            moving_spacing_mm=self.fixed_spacing_mm,
            fixed_affine=self.moving_affine,
            moving_affine=self.fixed_affine,
            fixed_labels=self.moving_labels,
            moving_labels=self.fixed_labels,
            points=points,
            mask=None,
            true_displacement=None,
            scored=None if self.scored is None else self.scored.swapped(),
        )


def collate_pairs(pairs: Sequence[RegistrationPair]) -> RegistrationPair:
    """Joins pairs of equal shape into one batch; absent fields stay absent.

    Raises:
        ValueError: no pairs, unequal shapes (use a batch size of 1), or a field that only some of them have.
    """
    if not pairs:
        raise ValueError("collate_pairs: an empty list of pairs")
    if len(pairs) == 1:
        return pairs[0]
    first = pairs[0]
    ids = ", ".join(c for p in pairs for c in p.case_ids)
    changes: dict[str, Any] = {}
    for f in fields(RegistrationPair):
        values = [getattr(p, f.name) for p in pairs]
        absent = [v is None for v in values]
        if all(absent):
            continue
        if any(absent):
            raise ValueError(f"cannot batch {ids}: only some of them have {f.name}")
        if isinstance(values[0], Tensor):
            if len({v.shape[1:] for v in values}) > 1:
                shapes = sorted({tuple(v.shape[1:]) for v in values})
                raise ValueError(f"cannot batch {ids}: {f.name} has shapes {shapes}; use batch_size=1")
            changes[f.name] = torch.cat(values)
        elif isinstance(values[0], tuple):
            changes[f.name] = tuple(item for v in values for item in v)
        elif f.name == "scored":
            changes[f.name] = collate_pairs(values)
    if first.points is not None:
        names = {tuple(sorted(p.points or ())) for p in pairs}
        if len(names) > 1:
            raise ValueError(f"cannot batch {ids}: they have different sets of points {sorted(names)}")
        changes["points"] = {
            key: PointPairs(
                tuple(t for p in pairs for t in (p.points or {})[key].fixed),
                tuple(t for p in pairs for t in (p.points or {})[key].moving),
            )
            for key in first.points
        }
    return replace(first, **changes)


@dataclass(frozen=True)
class ImageSequence(_OnDevice):
    """A batch of image sequences of equal length and shape.

    Attributes:
        case_ids: one per sequence.
        frames: `(B, T, C, *S)` float32.
        spacing_mm: `(B, D)` or `None` where unknown.
        seconds_per_frame: time between two frames.
        reference: index of the moving frame; the field of frame `t` lives on frame `t`'s grid and pulls the
            reference onto it.
        affine: `(B, D + 1, D + 1)` RAS or `None`.
        labels: `(B, L, 1, *S)` integer maps of the frames in `labelled_frames` (length `L`, ascending).
        label_names: as in `RegistrationPair`.
        points: named sets, each per case a `(T, N, D)` tensor in voxels: the same material points over time.
        mask: `(B, T, 1, *S)` bool tissue mask of every frame.
        true_displacement: `(B, T, D, *S)` voxels, reference to every frame.
    """

    case_ids: tuple[str, ...]
    frames: Tensor
    seconds_per_frame: float
    reference: int = 0
    spacing_mm: Tensor | None = None
    affine: Tensor | None = None
    labels: Tensor | None = None
    labelled_frames: tuple[int, ...] | None = None
    label_names: Mapping[int, str] | None = None
    points: Mapping[str, tuple[Tensor, ...]] | None = None
    mask: Tensor | None = None
    true_displacement: Tensor | None = None

    def __post_init__(self) -> None:
        name = ", ".join(self.case_ids) or "a sequence without case ids"
        if self.frames.ndim not in (5, 6):
            raise ValueError(f"{name}: frames must be (B, T, C, *spatial), got {tuple(self.frames.shape)}")
        batch, length = self.frames.shape[:2]
        spatial = tuple(self.frames.shape[3:])
        dims = len(spatial)
        if len(self.case_ids) != batch:
            raise ValueError(f"{name}: {len(self.case_ids)} case ids for a batch of {batch}")
        if not 0 <= self.reference < length:
            raise ValueError(f"{name}: reference frame {self.reference} is outside 0..{length - 1}")
        if not self.seconds_per_frame > 0:
            raise ValueError(f"{name}: seconds_per_frame must be positive, got {self.seconds_per_frame}")
        if (self.labels is None) != (self.labelled_frames is None):
            raise ValueError(f"{name}: labels and labelled_frames must be given together")
        marked = len(self.labelled_frames or ())
        expected = {
            "spacing_mm": (batch, dims),
            "affine": (batch, dims + 1, dims + 1),
            "labels": (batch, marked, 1, *spatial),
            "mask": (batch, length, 1, *spatial),
            "true_displacement": (batch, length, dims, *spatial),
        }
        for field_name, shape in expected.items():
            value = getattr(self, field_name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name}: {field_name} has shape {tuple(value.shape)}, expected {shape}")
        if self.labelled_frames is not None and not all(0 <= t < length for t in self.labelled_frames):
            raise ValueError(f"{name}: labelled_frames {self.labelled_frames} outside 0..{length - 1}")
        for set_name, sets in (self.points or {}).items():
            if len(sets) != batch or any(p.ndim != 3 or p.shape[::2] != (length, dims) for p in sets):
                raise ValueError(f"{name}: points {set_name!r} must hold {batch} tensors ({length}, N, {dims})")

    @property
    def length(self) -> int:
        return int(self.frames.shape[1])

    @property
    def dimension(self) -> int:
        return self.frames.ndim - 3

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape of the grid that all frames share."""
        return tuple(self.frames.shape[3:])

    def reference_region(self) -> Tensor | None:
        """`(B, 1, *S)` bool: the labels of the reference frame together, else its mask, `None` without either."""
        labels = self.labels_of(self.reference)
        if labels is not None:
            return labels != 0
        return None if self.mask is None else self.mask[:, self.reference]

    def labels_of(self, frame: int) -> Tensor | None:
        """`(B, 1, *S)` integer map of `frame`, `None` where it carries none."""
        if self.labels is None or self.labelled_frames is None or frame not in self.labelled_frames:
            return None
        return self.labels[:, self.labelled_frames.index(frame)]

    def pair(self, frame: int) -> RegistrationPair:
        """Reference (moving) to `frame` (fixed) as a pair; case ids become `<sequence>/<frame>`.

        Labels are given only when both frames carry one.
        """
        if not 0 <= frame < self.length:
            raise IndexError(f"frame {frame} outside 0..{self.length - 1}")
        fixed_labels, moving_labels = self.labels_of(frame), self.labels_of(self.reference)
        if fixed_labels is None or moving_labels is None:
            fixed_labels = moving_labels = None
        points = {
            key: PointPairs(tuple(p[frame] for p in sets), tuple(p[self.reference] for p in sets))
            for key, sets in (self.points or {}).items()
        } or None
        return RegistrationPair(
            case_ids=tuple(f"{c}/{frame:03d}" for c in self.case_ids),
            fixed=self.frames[:, frame],
            moving=self.frames[:, self.reference],
            fixed_spacing_mm=self.spacing_mm,
            moving_spacing_mm=self.spacing_mm,
            fixed_affine=self.affine,
            moving_affine=self.affine,
            fixed_labels=fixed_labels,
            moving_labels=moving_labels,
            label_names=self.label_names,
            points=points,
            mask=None if self.mask is None else self.mask[:, frame],
            true_displacement=None if self.true_displacement is None else self.true_displacement[:, frame],
            frames=(frame,) * len(self.case_ids),
        )

    def pairs(self) -> Iterator[RegistrationPair]:
        """The reference against every other frame, in order of time."""
        return (self.pair(t) for t in range(self.length) if t != self.reference)


@dataclass(frozen=True)
class DisplacementField(_OnDevice):
    """A displacement field and the grid it lives on.

    Attributes:
        u: `(B, D, *S)` floating point, voxels of the fixed grid; `warped(x) = moving(x + u(x))`.
        spacing_mm: `(B, D)` of the fixed grid, or `None` where unknown.
        affine: `(B, D + 1, D + 1)` RAS of the fixed grid, or `None`.
    """

    u: Tensor
    spacing_mm: Tensor | None = None
    affine: Tensor | None = None

    def __post_init__(self) -> None:
        dims = self.u.ndim - 2
        if dims not in (2, 3) or self.u.shape[1] != dims or not self.u.is_floating_point():
            raise ValueError(
                "a displacement field must be floating point of shape (B, D, *spatial) with D = 2 or 3 equal to "
                f"the number of spatial axes, got {self.u.dtype} {tuple(self.u.shape)}"
            )
        for name, shape in (
            ("spacing_mm", (self.u.shape[0], dims)),
            ("affine", (self.u.shape[0], dims + 1, dims + 1)),
        ):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"displacement field: {name} has shape {tuple(value.shape)}, expected {shape}")

    @classmethod
    def for_pair(cls, u: Tensor, pair: RegistrationPair) -> DisplacementField:
        """The field `u` on the fixed grid of `pair`."""
        return cls(u, pair.fixed_spacing_mm, pair.fixed_affine)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return tuple(self.u.shape[2:])

    def warp(self, moving: Tensor, mode: str = "linear", padding: str = "border") -> Tensor:
        """`moving` `(B, C, *S_moving)` pulled onto the fixed grid; see `reg_bench.field.warp`."""
        return _field.warp(moving, self.u, mode=mode, padding=padding)

    def at(self, points: Tensor) -> Tensor:
        """Displacement in voxels at fixed points `(B, N, D)` or `(N, D)` for a batch of one; same shape."""
        flat = points.ndim == 2
        values = _field.sample(self.u, points[None] if flat else points)
        return values[0] if flat else values

    def compose(self, after: DisplacementField) -> DisplacementField:
        """The field that warps as `self` first and `after` on the result: `(id + self) o (id + after)`."""
        return replace(after, u=_field.compose(self.u, after.u))

    def inverse(self, iterations: int = 50, tolerance: float = 1e-3) -> DisplacementField:
        """The inverse field on the same grid; `reg_bench.field.invert` also returns its error map."""
        return replace(self, u=_field.invert(self.u, iterations=iterations, tolerance=tolerance)[0])

    def jacobian_determinant(self) -> Tensor:
        """`(B, 1, *S)` determinant of `d(x + u)/dx`, central differences, one-sided at the border."""
        return _field.jacobian_determinant(self.u)

    def on(self, pair: RegistrationPair) -> DisplacementField:
        """The same motion on the fixed grid of `pair`, which covers the same extent; see `reg_bench.field.resize`."""
        return DisplacementField.for_pair(_field.resize(self.u, pair.spatial_shape), pair)

    def in_mm(self) -> Tensor:
        """`u` with every channel multiplied by the spacing of its axis.

        Raises:
            ValueError: the spacing is unknown.
        """
        if self.spacing_mm is None:
            raise ValueError("in_mm: this field has no spacing_mm")
        spacing = self.spacing_mm.to(self.u)
        return self.u * spacing.reshape(*spacing.shape, *(1,) * (self.u.ndim - 2))

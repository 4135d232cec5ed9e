"""What the datasets of generated cases share: seeds, records, the pair put together, the sequence in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from reg_bench import field
from reg_bench.errors import DataError
from reg_bench.types import ImageSequence, PointPairs, RegistrationPair

Contrast = Literal["same", "inverted", "non-monotonic"]

_SPLIT_OFFSET = {"train": 0, "val": 1_000_000, "test": 2_000_000}
_SEED_STRIDE = 10_000_000


def case_seed(split: str, seed: int, index: int) -> int:
    """The seed of case `index` of `split`; no two of (split, seed, index) share one.

    Raises:
        DataError: unknown split, or an index beyond the million of its split.
    """
    if split not in _SPLIT_OFFSET or not 0 <= index < 1_000_000:
        raise DataError(f"no case {index} in split {split!r}: splits are {', '.join(_SPLIT_OFFSET)}")
    return seed * _SEED_STRIDE + _SPLIT_OFFSET[split] + index


def pair_records(split: str, seed: int, count: int) -> list[dict[str, Any]]:
    """One record per generated pair; case ids are `<split><number>`."""
    return [{"case_id": f"{split}{i:03d}", "seed": case_seed(split, seed, i)} for i in range(count)]


def frame_records(split: str, seed: int, sequences: int, frames: Sequence[int]) -> list[dict[str, Any]]:
    """One record per generated sequence and frame; case ids are `<split><number>/<frame>`."""
    return [
        {
            "case_id": f"{split}{index:03d}/{frame:03d}",
            "subject": f"{split}{index:03d}",
            "frame": frame,
            "seed": case_seed(split, seed, index),
        }
        for index in range(sequences)
        for frame in frames
    ]


def evenly_spaced(length: int, count: int | None) -> tuple[int, ...]:
    """`count` frames spread over 1..length - 1 (frame 0 is the reference); `None` gives all of them.

    Raises:
        DataError: `count` is not in 1..length - 1.
    """
    if count is None:
        return tuple(range(1, length))
    if not 1 <= count < length:
        raise DataError(f"frames must lie in 1..{length - 1} for sequences of {length} frames, got {count}")
    # Centred in equal bins: a subset sees every phase of the motion, not only its ends.
    return tuple(int(1 + (2 * i + 1) * (length - 1) / (2 * count)) for i in range(count))


def check_positive(dataset: str, **values: float | tuple[float, ...]) -> None:
    """Raises `DataError` naming the option that is not positive."""
    for name, value in values.items():
        if not all(v > 0 for v in (value if isinstance(value, tuple) else (value,))):
            raise DataError(f"{dataset}: {name} must be positive, got {value}")


def check_not_negative(dataset: str, **values: float | None) -> None:
    """Raises `DataError` naming the option that is negative; `None` passes."""
    for name, value in values.items():
        if value is not None and value < 0:
            raise DataError(f"{dataset}: {name} must not be negative, got {value}")


def check_contrast(dataset: str, contrast: str) -> None:
    """Raises `DataError` for a contrast that there is not."""
    if contrast not in get_args(Contrast):
        raise DataError(f"{dataset}: contrast must be one of {', '.join(get_args(Contrast))}, got {contrast!r}")


def recontrasted(pair: RegistrationPair, contrast: Contrast) -> RegistrationPair:
    """`pair` as if its moving image came from another modality; motion, labels and points stay exact.

    With `v` the moving intensity over its maximum, `inverted` shows `w = 1 - v` and `non-monotonic` `|w - 0.3|`, which
    falls and rises again: tissues that differ in one image may look alike in the other.
    """
    if contrast == "same":
        return pair
    top = pair.moving.amax(dim=tuple(range(2, pair.moving.ndim)), keepdim=True).clamp(min=1e-6)
    other = 1 - pair.moving / top
    if contrast == "non-monotonic":
        other = (other - 0.3).abs()
    return replace(pair, moving=other * top)


def known_pair(
    case_id: str,
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    u: Tensor,
    *,
    spacing_mm: Sequence[float],
    label_names: Mapping[int, str],
    landmarks: Tensor,
    mask: Tensor,
) -> RegistrationPair:
    """A generated pair as a batch of one, its grid at the origin of the world.

    Args:
        case_id: of the pair.
        images, labels: fixed and moving, `(1, 1, *S)`.
        u: the exact displacement `(1, D, *S)`, voxels.
        spacing_mm: of both grids.
        label_names: of the labels.
        landmarks: `(N, D)` voxels of the fixed grid; the moving ones are where `u` takes them.
        mask: `(1, 1, *S)` bool.
    """
    spacing = torch.tensor([tuple(spacing_mm)])
    affine = torch.diag(torch.tensor([*spacing_mm, 1.0], dtype=torch.float64))[None]
    return RegistrationPair(
        case_ids=(case_id,),
        fixed=images[0],
        moving=images[1],
        fixed_spacing_mm=spacing,
        moving_spacing_mm=spacing,
        fixed_affine=affine,
        moving_affine=affine,
        fixed_labels=labels[0],
        moving_labels=labels[1],
        label_names=label_names,
        points={"landmarks": PointPairs((landmarks,), (landmarks + field.sample(u, landmarks[None])[0],))},
        mask=mask,
        true_displacement=u,
    )


class LastSequence:
    """Keeps the sequence made last: pairs are asked for frame by frame."""

    def __init__(self, make: Callable[[Mapping[str, Any]], ImageSequence]) -> None:
        self._make = make
        self._key: tuple[Any, ...] | None = None
        self._sequence: ImageSequence | None = None

    def __call__(self, record: Mapping[str, Any]) -> ImageSequence:
        """The sequence of `record`, which is known by everything in it but the frame and the case id."""
        key = tuple(sorted((k, v) for k, v in record.items() if k not in ("frame", "case_id")))
        if self._sequence is None or key != self._key:
            self._sequence, self._key = self._make(record), key
        return self._sequence


def detached_pair(pair: RegistrationPair) -> RegistrationPair:
    """`pair` with memory of its own: a view would carry its whole sequence into every cache and process."""
    changes: dict[str, Any] = {
        f.name: value.clone() for f in fields(pair) if isinstance(value := getattr(pair, f.name), Tensor)
    }
    points = {
        name: PointPairs(tuple(p.clone() for p in sets.fixed), tuple(p.clone() for p in sets.moving))
        for name, sets in (pair.points or {}).items()
    }
    return replace(pair, **changes, points=points or None)

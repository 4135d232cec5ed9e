"""What can be wrong with the values of a case."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reg_bench.types import RegistrationPair


def content_faults(pair: RegistrationPair) -> Iterator[str]:
    """What is wrong with the values of a case, beyond what `RegistrationPair` itself refuses."""
    for role, what, text in contents(pair):
        # The role is in the text of points already.
        yield f"{what}: {text}" if what in (pair.points or {}) else f"{role} {what}: {text}".lstrip()


def contents(pair: RegistrationPair) -> Iterator[tuple[str, str, str]]:
    """Role (`fixed`, `moving` or none), what (`image`, `labels`, …, or the name of a set of points) and fault."""
    if pair.scored is not None:
        yield from contents(pair.scored)
        return
    for role in ("fixed", "moving"):
        image: Tensor = getattr(pair, role)
        if not bool(image.isfinite().all()):
            yield role, "image", f"{int((~image.isfinite()).sum())} voxels are NaN or infinite"
        elif float(image.min()) == float(image.max()):
            yield role, "image", f"constant, every voxel is {float(image.min()):g}"
        yield from _geometry_faults(pair, role)
        yield from _label_faults(pair, role)
        yield from _point_faults(pair, role)
    if pair.mask is not None and not bool(pair.mask.any()):
        yield "", "mask", "empty"
    if pair.true_displacement is not None and not bool(pair.true_displacement.isfinite().all()):
        yield "", "true displacement", "has NaN or infinite values"


def _point_faults(pair: RegistrationPair, role: str) -> Iterator[tuple[str, str, str]]:
    size = tuple(getattr(pair, role).shape[2:])
    for name, sets in (pair.points or {}).items():
        points = getattr(sets, role)[0].double()
        outside = (points.isnan() | (points < -0.5) | (points > torch.tensor(size) - 0.5)).any(dim=1)
        if bool(outside.any()):
            first = int(outside.nonzero()[0])
            yield (
                role,
                name,
                f"{int(outside.sum())} {role} points lie outside the image of {size} voxels, first number {first} at "
                f"{points[first].tolist()}",
            )


def _geometry_faults(pair: RegistrationPair, role: str) -> Iterator[tuple[str, str, str]]:
    spacing, affine = getattr(pair, f"{role}_spacing_mm"), getattr(pair, f"{role}_affine")
    if spacing is not None and not bool(((spacing > 0) & spacing.isfinite()).all()):
        yield role, "spacing", f"{spacing[0].tolist()} mm, expected positive numbers"
    if affine is not None and not abs(float(torch.linalg.det(affine[0].double()))) > 1e-12:
        yield role, "affine", "singular"


def _label_faults(pair: RegistrationPair, role: str) -> Iterator[tuple[str, str, str]]:
    labels: Tensor | None = getattr(pair, f"{role}_labels")
    if labels is None:
        return
    values = torch.unique(labels).tolist()
    if not any(v != 0 for v in values):
        yield role, "labels", "empty, every voxel is background"
    elif pair.label_names is not None and not set(values) & set(pair.label_names):
        yield role, "labels", f"hold {values[:9]}, none of the expected {sorted(pair.label_names)}"

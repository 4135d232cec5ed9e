"""What the array of a submitted field says without its images: type, shape, order, finite values, size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reg_bench import nifti
from reg_bench.displacement_2020 import half_shape
from reg_bench.submission_archive import Stored
from reg_bench.submission_layout import is_half, numbered, stored_shape

Say = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Form:
    """What the file of a field has to be.

    Attributes:
        profile: see `reg_bench.submission_layout`.
        task: name of the task.
        shape: of the fixed image.
    """

    profile: str
    task: str
    shape: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        return stored_shape(self.profile, self.task, self.shape)

    @property
    def most_bytes(self) -> int:
        """What no file of this form exceeds unpacked: float64 at that shape and a generous header."""
        bytes_per_value = 2 if numbered(self.profile) else 8
        return bytes_per_value * int(np.prod(self.stored)) + 65536


def check_array(found: Stored, form: Form, say: Say, note: Callable[[str], None]) -> NDArray[np.floating] | None:
    """Tells everything that is wrong with an array; returns it as `(D, *S)` where its values can be looked at.

    Args:
        say: told kind, message and fix of each fault.
        note: told what only one of the organisers' scripts minds.
    """
    array = found.array
    old = numbered(form.profile)
    if found.keys:
        _check_keys(found, say)
    if array.dtype.kind != "f":
        say(
            "dtype",
            f"values of type {array.dtype}, expected floating point",
            "write displacements, not labels or images",
        )
    elif old and array.dtype != np.float16:
        say("dtype", f"values of type {array.dtype}, expected float16", "cast with astype(numpy.float16)")
    elif array.dtype.itemsize > 4 and not old:
        note(f"float64: {array.nbytes / 1e6:.0f} MB where float32 says the same")
    if found.intent == nifti.INTENT_VECTOR and array.shape != form.stored:
        say(
            "intent",
            f"shape {array.shape} with intent 1007: a field of ITK in LPS mm, expected {form.stored} in voxels",
            "convert it: u = inverse(direction * spacing) applied to each vector, axes (X, Y, Z, 3)",
        )
        return None
    if array.shape != form.stored:
        kind, message, fix = wrong_shape(array.shape, form)
        say(kind, f"shape {array.shape}, expected {form.stored}: {message}", fix)
        return None
    if array.dtype.kind != "f":
        return None
    fields = array if old else np.moveaxis(array, -1, 0)
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        say(
            "nan",
            f"{bad} values are NaN or infinite, expected numbers",
            "replace them before writing; float16 holds at most 65504",
        )
        return None
    _check_length(fields, form, say)
    return fields


def _check_keys(found: Stored, say: Say) -> None:
    how = "numpy.savez_compressed(path, arr_0=field)"
    if len(found.keys) > 1:
        say("keys", f"holds {len(found.keys)} arrays ({', '.join(found.keys)}), expected one, arr_0", how)
    elif found.key != "arr_0":
        say("keys", f"the array is called {found.key!r}, expected arr_0", how)


def wrong_shape(shape: tuple[int, ...], form: Form) -> tuple[str, str, str]:
    """Kind, message and fix of an array whose shape is not that of its form."""
    full, dims = form.shape, len(form.shape)
    half = half_shape(full)
    old = numbered(form.profile)
    first = {"full": (dims, *full), "half": (dims, *half)}
    last = {"full": (*full, dims), "half": (*half, dims)}
    wanted = "half" if old and is_half(form.profile, form.task) else "full"
    own, other = (first, last) if old else (last, first)
    if shape in own.values():
        return "resolution", *_resolution(wanted)
    if shape in other.values():
        where = "first, (3, X, Y, Z)" if old else "last, (X, Y, Z, 3)"
        message = f"the components have to come {where}"
        fix = "numpy.moveaxis(field, -1, 0)" if old else "numpy.moveaxis(field, 0, -1)"
        if shape != other[wanted]:
            more = _resolution(wanted)
            return "channels", f"{message}, and {more[0]}", f"{fix}; {more[1]}"
        return "channels", message, fix
    plain = tuple(n for n in shape if n != 1)
    if plain in own.values() or plain in other.values():
        return "shape", "axes of length 1 too many", "numpy.squeeze(field), then the order of this form"
    if plain in (full, half):
        return "shape", f"one component only, expected {dims}", "stack the displacements along all axes"
    if len(plain) == dims + 1 and any(sorted(plain) == sorted(s) for s in own.values()):
        return (
            "axes",
            f"the axes are in another order than those of the image, {full}",
            "write the field in the order of the axes as nibabel loads the image (SimpleITK's arrays are z, y, x)",
        )
    return "shape", f"the fixed image has {full} voxels", "write the field on the grid of the fixed image"


def _resolution(wanted: str) -> tuple[str, str]:
    if wanted == "half":
        return (
            "full resolution, expected half",
            "scipy.ndimage.zoom(component, 0.5, order=2) for each component, values unchanged",
        )
    return (
        "half resolution, expected full",
        "scipy.ndimage.zoom(component, 2, order=2) for each component, values unchanged",
    )


def _check_length(fields: NDArray[np.floating], form: Form, say: Say) -> None:
    """Displacements that lead out of the image nearly everywhere."""
    limit = np.asarray(form.shape, float).reshape(-1, *(1,) * (fields.ndim - 1))
    leaving = float((np.abs(fields) >= limit).any(axis=0).mean())
    if leaving > 0.25:
        say(
            "size",
            f"{leaving:.0%} of the displacements are longer than the image",
            "write displacements in voxels: not positions, not millimetres, not scaled",
        )

"""Calls a method the way the runner does and says in words what is wrong with the answer's form."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch

from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


@dataclass(frozen=True)
class Outcome:
    """What came back from one call.

    Attributes:
        field: the field in float32 on the CPU where it has the right form, else `None`.
        problem: why there is no field, in words.
        dtype: what the field came in.
        changed_input: whether a tensor of the pair was written to.
        raised: whether `register` raised an exception.
    """

    field: DisplacementField | None
    problem: str = ""
    dtype: torch.dtype = torch.float32
    changed_input: bool = False
    raised: bool = False


def fresh_copy(method: RegistrationModule) -> RegistrationModule:
    """A copy that has seen no case yet; the method itself where it cannot be copied."""
    try:
        return copy.deepcopy(method)
    except Exception:
        return method


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All three random generators seeded, and put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def call(method: RegistrationModule, pair: RegistrationPair, *, seed: int = 0) -> Outcome:
    """The field of `pair`, in inference mode as in `Trainer.predict`; never raises for what the method does."""
    given = _private(pair)
    kept = _private(pair)
    method.eval()
    try:
        with seeded(seed), torch.inference_mode():
            field = method(given)
    except Exception as error:
        return Outcome(None, _describe_exception(error, method, pair), raised=True)
    changed = not _same(given, kept)
    if (problem := form_problem(field, pair)) is not None:
        dtype = field.u.dtype if isinstance(field, DisplacementField) else torch.float32
        return Outcome(None, problem, dtype, changed)
    with torch.inference_mode(False):
        u = torch.from_numpy(field.u.detach().to("cpu", torch.float32).numpy().copy())
    return Outcome(DisplacementField.for_pair(u, pair), "", field.u.dtype, changed)


def form_problem(field: object, pair: RegistrationPair) -> str | None:
    """What is wrong with type, shape, values or header of an answer for `pair`; `None` if nothing is."""
    if not isinstance(field, DisplacementField):
        return f"wrong type: register returned {type(field).__name__}, expected a DisplacementField"
    expected = (pair.batch_size, pair.dimension, *pair.spatial_shape)
    if (found := tuple(field.u.shape)) != expected:
        return shape_problem(found, expected)
    finite = torch.isfinite(field.u)
    if not bool(finite.all()):
        bad = field.u[~finite]
        kind = "NaN" if bool(bad.isnan().any()) else "infinite values"
        return f"{kind}: {bad.numel()} of {field.u.numel()} components are not finite"
    for name, of_pair in (("spacing_mm", pair.fixed_spacing_mm), ("affine", pair.fixed_affine)):
        value = getattr(field, name)
        if value is None or of_pair is None:
            continue
        if not torch.allclose(value.detach().cpu().double(), of_pair.double(), atol=1e-4):
            return (
                f"wrong header: the field's {name} is not the fixed image's; "
                "build it with DisplacementField.for_pair(u, pair)"
            )
    return None


def shape_problem(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """In words how a field's shape misses `(B, D, *spatial)`."""
    message = f"wrong grid size: the field has shape {found}, expected (B, D, *spatial) = {expected}"
    batch, dims, spatial = expected[0], expected[1], expected[2:]
    if found == (batch, *spatial, dims):
        return f"{message}; the components come last, they belong on axis 1"
    if found == expected[1:]:
        return f"{message}; the batch axis is missing"
    if len(found) != len(expected) or found[1] != dims:
        return message
    size = found[2:]
    if found[0] != batch:
        return f"{message}; {found[0]} fields for {batch} pairs"
    orders = [o for o in permutations(range(dims)) if tuple(spatial[k] for k in o) == size]
    if orders:
        return f"{message}; its spatial axes are in the order {orders[0]} (an array transposed and not turned back)"
    ratios = {round(n / m, 1) for n, m in zip(spatial, size, strict=True)}
    if len(ratios) == 1 and (ratio := ratios.pop()) != 1.0:
        return f"{message}; it is on a grid {ratio:g} times coarser: resize it and rescale its values"
    if all(m >= n and m % 4 == 0 for n, m in zip(spatial, size, strict=True)):
        return f"{message}; a padded size? crop inside register"
    return message


def _describe_exception(error: Exception, method: RegistrationModule, pair: RegistrationPair) -> str:
    text = " ".join(str(error).split())[:300]
    # The constructor of DisplacementField refuses such shapes before they can be returned.
    shape = re.search(r"displacement field must be .* got \S+ \(([\d, ]+)\)", text)
    if shape:
        found = tuple(int(n) for n in shape.group(1).replace(",", " ").split())
        return shape_problem(found, (pair.batch_size, pair.dimension, *pair.spatial_shape))
    hint = ""
    if not method.optimises and ("require grad" in text or "nference tensor" in text):
        hint = "; register needs gradients: set the class attribute optimises = True"
    return f"exception: register raised {type(error).__name__}: {text}{hint}"


def _private(pair: RegistrationPair) -> RegistrationPair:
    """A deep copy, so that a method that writes to its input harms nobody."""
    return copy.deepcopy(pair)


def _same(a: RegistrationPair, b: RegistrationPair) -> bool:
    names = ("fixed", "moving", "fixed_labels", "moving_labels", "mask", "true_displacement", "fixed_affine")
    for name in (*names, "moving_affine", "fixed_spacing_mm", "moving_spacing_mm"):
        left, right = getattr(a, name), getattr(b, name)
        if left is not None and not torch.equal(left, right):
            return False
    return True

"""Names the mistake behind a wrong displacement field.

A field is compared with every misreading of the truth that can be put together from the field's usual
mistakes: the opposite direction, axes in another order, another unit, another sign, something added. The
reading that explains all synthetic motions at once is the diagnosis; each mistake in it costs a little, so
that the simplest explanation wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np

from reg_bench.conformance_cases import Array, Case

# What a mistake must save in relative error to be worth assuming.
COST = 0.04
# Above this relative error no reading counts as an explanation; above half of it only as a probable one.
EXPLAINED = 0.3
# A method that stops short of the motion looks like one of these units: they must fit better than others.
SHRINKING = ("1/2", "1/4", "per mm", "spacing order")
SHRINKING_EXPLAINED = 0.17
# Voxels compared per case: plenty for a motion with at most 12 parameters.
SAMPLES = 200
ZERO_VOXELS = 0.01


@dataclass(frozen=True)
class Observation:
    """A case and the field that the method returned at its interior voxels, `(N, D)`."""

    case: Case
    returned: Array


@dataclass(frozen=True)
class Mistake:
    """One misreading: what to call it, and what it means for whoever wrote the method."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Diagnosis:
    """The reading that explains the fields best.

    Attributes:
        mistakes: empty when the convention is right.
        error: relative RMS error that is left under this reading, averaged over the motions.
        error_as_asked: the same when the field is read as it should be.
    """

    mistakes: tuple[Mistake, ...]
    error: float
    error_as_asked: float

    @property
    def explained(self) -> bool:
        """Whether the reading fits well enough to be believed."""
        return self.error <= EXPLAINED

    @property
    def text(self) -> str:
        """The mistakes, named and explained."""
        probably = "probably " if self.error > EXPLAINED / 2 else ""
        return probably + "; ".join(f"{m.name}: {m.meaning}" for m in self.mistakes)


@dataclass(frozen=True)
class _Reading:
    """One combination: `returned = permute(sign * scale * motion) + added`.

    `motion` is one of the stacked fields: `pull`, `push`, or `mirror` with the axes that run backwards.
    """

    motion: str
    order: tuple[int, ...]
    unit: str
    signs: tuple[int, ...]
    added: str
    mistakes: tuple[Mistake, ...]


INVERSE = Mistake(
    "inverse direction (push-forward)",
    "the field maps moving to fixed positions; asked for is fixed to moving, warped(x) = moving(x + u(x))",
)
NEGATED = Mistake("negated", "every component has the opposite sign; asked for is warped(x) = moving(x + u(x))")
ON_MOVING = Mistake(
    "on the moving grid",
    "the displacement of each point is stored where the point lies in the moving image; store it at its fixed position",
)
ZERO = Mistake("zero field", "the method returns zero motion whatever the images show")
ADDED = {
    "constant": Mistake("constant bias", "the same offset is added everywhere, also where nothing moves"),
    "half": Mistake(
        "half-voxel bias",
        "the field is off by 0.5 voxels also where nothing moves: positions were counted from voxel edges, "
        "not from voxel centres",
    ),
    "ramp": Mistake(
        "half-voxel bias growing to the border",
        "coordinates were normalised for align_corners=True and sampled with align_corners=False, or the reverse",
    ),
    "identity": Mistake(
        "identity added",
        "the field holds absolute coordinates x + u(x) instead of the displacement u(x); subtract the identity grid",
    ),
}
UNITS = {
    "voxel": None,
    "mm": Mistake("mm for voxels", "components are in millimetres; divide component c by the spacing of axis c"),
    "per mm": Mistake("divided by the spacing", "a field in voxels was divided by the spacing once more"),
    "spacing order": Mistake("spacing in reversed order", "mm became voxels with the spacing of the opposite axis"),
    "mm, spacing order": Mistake(
        "mm for voxels, spacing in reversed order", "voxels were multiplied by the spacing of the opposite axis"
    ),
    "corners": Mistake(
        "normalised units (-1..1, align_corners=True)", "multiply component c by (size of axis c - 1) / 2"
    ),
    "edges": Mistake("normalised units (-1..1, align_corners=False)", "multiply component c by (size of axis c) / 2"),
    "fraction": Mistake("normalised units (0..1)", "multiply component c by (size of axis c - 1)"),
    "2": Mistake("factor 2", "every component is twice as large as it should be"),
    "1/2": Mistake(
        "factor 1/2", "every component is half as large as it should be: a field of a coarser grid was not rescaled?"
    ),
    "4": Mistake("factor 4", "every component is four times as large as it should be"),
    "1/4": Mistake(
        "factor 1/4", "every component is a quarter of what it should be: a field of a coarser grid was not rescaled?"
    ),
}


def _unit(name: str, case: Case) -> Array:
    """What one voxel along each axis is in this unit, `(D,)`."""
    spacing = case.geometry.spacing_mm
    size = np.asarray(case.geometry.shape, dtype=np.float64)
    one = np.ones_like(spacing)
    table: dict[str, Array] = {
        "voxel": one,
        "mm": spacing,
        "per mm": 1 / spacing,
        "spacing order": spacing / spacing[::-1],
        "mm, spacing order": spacing[::-1],
        "corners": 2 / (size - 1),
        "edges": 2 / size,
        "fraction": 1 / (size - 1),
        "2": 2 * one,
        "1/2": one / 2,
        "4": 4 * one,
        "1/4": one / 4,
    }
    return table[name]


def _axes_mistake(order: tuple[int, ...]) -> Mistake:
    reversed_order = " (reversed axis order)" if order == tuple(reversed(range(len(order)))) else ""
    places = ", ".join(f"component {place} holds axis {axis}" for place, axis in enumerate(order) if place != axis)
    return Mistake(f"swapped axes{reversed_order}", f"{places}; component c must be the motion along array axis c")


def _sign_mistake(signs: tuple[int, ...]) -> Mistake:
    flipped = [str(axis) for axis, sign in enumerate(signs) if sign < 0]
    hint = ", as between LPS and RAS coordinates" if flipped == ["0", "1"] and len(signs) == 3 else ""
    return Mistake(
        f"wrong sign along axis {' and '.join(flipped)}", f"only these components have the opposite sign{hint}"
    )


def _mirror_mistake(axes: tuple[int, ...]) -> Mistake:
    return Mistake(
        f"field flipped along axis {' and '.join(map(str, axes))}",
        "the field is stored from the far end to the near one: an image was flipped and its field not flipped back",
    )


def _mirrors(dims: int) -> list[tuple[int, ...]]:
    """Every non-empty set of axes."""
    return [axes for count in range(1, dims + 1) for axes in combinations(range(dims), count)]


def _readings(dims: int, added: Sequence[str]) -> Iterator[_Reading]:
    """Every combination of at most three mistakes, right first; flipped fields only with right axes and unit."""
    signs = list(product((1, -1), repeat=dims))
    for motion, order, unit, sign, extra in product(("pull", "push"), permutations(range(dims)), UNITS, signs, added):
        mistakes = _mistakes(motion, order, unit, sign, extra)
        if len(mistakes) <= 3:
            yield _Reading(motion, order, unit, sign, extra, mistakes)
    straight = tuple(range(dims))
    for axes, sign in product(_mirrors(dims), signs):
        mistakes = (_mirror_mistake(axes), *_mistakes("pull", straight, "voxel", sign, ""))
        yield _Reading(_mirror_name(axes), straight, "voxel", sign, "", mistakes)


def _mistakes(
    motion: str, order: tuple[int, ...], unit: str, signs: tuple[int, ...], added: str
) -> tuple[Mistake, ...]:
    """What one combination gets wrong, the gravest first."""
    found: list[Mistake] = []
    all_negated = max(signs) < 0
    if motion == "push":
        found.append(ON_MOVING if all_negated else INVERSE)
    elif all_negated:
        found.append(NEGATED)
    if not all_negated and min(signs) < 0:
        found.append(_sign_mistake(signs))
    if order != tuple(range(len(order))):
        found.append(_axes_mistake(order))
    if (unit_mistake := UNITS[unit]) is not None:
        found.append(unit_mistake)
    if added:
        found.append(ADDED[added])
    return tuple(found)


def _mirror_name(axes: tuple[int, ...]) -> str:
    return "mirror " + " ".join(map(str, axes))


@dataclass(frozen=True)
class _Stack:
    """The observations as arrays `(cases, N, D)`; `zero` is the place of the case without motion."""

    cases: tuple[Case, ...]
    index: Array
    motions: dict[str, Array]
    returned: Array
    zero: int | None


def _stack(observations: Sequence[Observation]) -> _Stack:
    cases, indices, returned = [], [], []
    motions: dict[str, list[Array]] = {}
    for observation in observations:
        case = observation.case
        count = len(case.interior)
        pick = np.random.default_rng(0).choice(count, SAMPLES, replace=count < SAMPLES)
        index = case.index()[pick]
        cases.append(case)
        indices.append(index)
        returned.append(observation.returned[pick])
        motions.setdefault("pull", []).append(case.pull_at(index))
        motions.setdefault("push", []).append(case.push_at(index))
        for axes in _mirrors(case.geometry.dimension):
            flipped = index.copy()
            for axis in axes:
                flipped[:, axis] = case.geometry.shape[axis] - 1 - index[:, axis]
            motions.setdefault(_mirror_name(axes), []).append(case.pull_at(flipped))
    still = [k for k, case in enumerate(cases) if not case.pull_at(case.index()[:1]).any()]
    stacked = {name: np.stack(values) for name, values in motions.items()}
    return _Stack(tuple(cases), np.stack(indices), stacked, np.stack(returned), still[0] if still else None)


def _constant(stack: _Stack) -> Array:
    """The offset that the method returns where nothing moves, `(D,)`."""
    bias: Array = stack.returned[stack.zero].mean(0) if stack.zero is not None else np.zeros(stack.index.shape[-1])
    return bias


def _possible_additions(stack: _Stack) -> list[str]:
    """Which additive mistakes the case without motion allows; nothing is tried that it rules out."""
    possible = [""]
    if stack.zero is None:
        return possible
    still = stack.returned[stack.zero]
    rms = float(np.sqrt((still**2).mean()))
    if rms < 0.05:
        # Absolute coordinates in normalised units are never this small over the whole object.
        return possible
    bias = _constant(stack)
    marked = np.abs(bias) > 0.1
    if marked.any() and float(np.abs(still - bias).max()) < 0.25:
        possible.append("half" if np.allclose(np.abs(bias[marked]), 0.5, atol=0.15) else "constant")
    return [*possible, "ramp", "ramp down", "identity"]


def _added(reading: _Reading, stack: _Stack) -> Array | float:
    """What this reading says was added to the motion, `(cases, N, D)` or a scalar."""
    if not reading.added:
        return 0.0
    if reading.added in ("half", "constant"):
        return _constant(stack)
    order = list(reading.order)
    sizes = np.stack([np.asarray(c.geometry.shape, dtype=np.float64) for c in stack.cases])[:, None]
    if reading.added.startswith("ramp"):
        slope = -1.0 if reading.added == "ramp down" else 1.0
        ramp: Array = (slope * (stack.index / (sizes - 1) - 0.5))[..., order]
        return ramp
    grid = (stack.index * np.stack([_unit(reading.unit, c) for c in stack.cases])[:, None])[..., order]
    # The origin is left free: 0 in voxels, -1 in normalised units, the image's own in millimetres.
    assert stack.zero is not None
    absolute: Array = grid + (stack.returned[stack.zero] - grid[stack.zero]).mean(0)
    return absolute


ADDED["ramp down"] = ADDED["ramp"]


def _error(reading: _Reading, stack: _Stack, units: dict[str, Array], added: Array | float) -> float:
    """Relative RMS error under this reading: root of the mean over the motions of the relative squares."""
    expected = (stack.motions[reading.motion] * (units[reading.unit] * np.asarray(reading.signs)))[
        ..., list(reading.order)
    ]
    found = stack.returned - added
    difference = ((found - expected) ** 2).sum((1, 2))
    power = np.maximum((expected**2).sum((1, 2)), (found**2).sum((1, 2)))
    moving = [k for k in range(len(stack.cases)) if k != stack.zero]
    relative = list(difference[moving] / np.maximum(power[moving], 1e-20))
    if stack.zero is not None:
        relative.append(difference[stack.zero] / max(float((expected[moving] ** 2).sum((1, 2)).mean()), 1e-20))
    return float(np.sqrt(np.mean(relative)))


def diagnose(observations: Sequence[Observation]) -> Diagnosis:
    """The simplest reading of the returned fields that explains them all.

    The observations must hold at least one motion; one without motion tells additive mistakes from others.
    Where only shifts are seen, the opposite direction and the opposite sign are one and the same: it is then
    called negated.
    """
    stack = _stack(observations)
    dims = stack.index.shape[-1]
    units = {name: np.stack([_unit(name, c) for c in stack.cases])[:, None] for name in UNITS}
    moving = [k for k in range(len(stack.cases)) if k != stack.zero]
    right = _Reading("pull", tuple(range(dims)), "voxel", (1,) * dims, "", ())
    as_asked = _error(right, stack, units, 0.0)
    if float(np.abs(stack.returned[moving]).max()) < ZERO_VOXELS:
        return Diagnosis((ZERO,), 0.0, as_asked)
    additions: dict[tuple[object, ...], Array | float] = {}
    best, best_error, lowest = right, as_asked, as_asked
    for reading in _readings(dims, _possible_additions(stack)):
        key = (reading.added, reading.order, reading.unit if reading.added == "identity" else "")
        if key not in additions:
            additions[key] = _added(reading, stack)
        error = _error(reading, stack, units, additions[key])
        if reading.unit in SHRINKING and error > SHRINKING_EXPLAINED:
            continue
        price = error + COST * len(reading.mistakes)
        if price < lowest - 1e-9:
            best, best_error, lowest = reading, error, price
    return Diagnosis(best.mistakes, best_error, as_asked)


def diagnose_jointly(observations: Mapping[str, Observation], groups: Sequence[Sequence[str]]) -> Diagnosis | None:
    """The diagnosis of the first group of cases that one reading explains, else that of the first group.

    A method that knows no rotation or scale cannot be judged by them: the later groups leave them out.
    `None` if no group holds a motion.
    """
    first: Diagnosis | None = None
    for group in groups:
        seen = [observations[name] for name in group if name in observations]
        if not any(o.case.pull_at(o.case.index()[:1]).any() for o in seen):
            continue
        found = diagnose(seen)
        if found.explained:
            return found
        first = first or found
    return first

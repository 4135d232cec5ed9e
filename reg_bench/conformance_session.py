"""One method on the synthetic cases: each is built and registered once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from reg_bench import conformance_cases as cases
from reg_bench.conformance_cases import Array, Case
from reg_bench.conformance_diagnosis import Diagnosis, Observation, diagnose_jointly
from reg_bench.conformance_run import Outcome, call, fresh_copy
from reg_bench.conformance_state import SharedState
from reg_bench.method import RegistrationModule
from reg_bench.types import RegistrationPair

ROTATION_DEGREES = 12.0
SCALE = 1.2
OFFSET_VOXELS = {2: (2.0, -1.6), 3: (2.0, -1.7, 1.5)}


@dataclass
class Session:
    """One method in one dimension: every case is built and registered once, each by a fresh copy."""

    method: RegistrationModule
    dims: int
    _cases: dict[str, Case] = field(default_factory=dict)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _diagnosis: Diagnosis | None = None

    def __post_init__(self) -> None:
        self._shared = SharedState(self.method)

    def fresh(self) -> RegistrationModule:
        """A copy of the method that has seen nothing before, in a state of its module that has not either."""
        self._shared.restore()
        return fresh_copy(self.method)

    def case(self, name: str) -> Case:
        """The synthetic pair called `name`."""
        if name not in self._cases:
            self._cases[name] = _build(name, self.dims)
        return self._cases[name]

    def outcome(self, name: str) -> Outcome:
        """What the method answers to it."""
        if name not in self._outcomes:
            self._outcomes[name] = self.again(self.case(name).pair)
        return self._outcomes[name]

    def outcomes(self) -> dict[str, Outcome]:
        """All answers so far."""
        return dict(self._outcomes)

    def again(self, pair: RegistrationPair, seed: int = 0) -> Outcome:
        """The answer of a copy that has seen nothing before."""
        return call(self.fresh(), pair, seed=seed)

    def refusal(self, name: str) -> str | None:
        """Why the method does not accept the case, or `None`."""
        return self.method.accepts(self.case(name).pair)

    def returned(self, name: str) -> Array | None:
        """The displacement at the interior voxels of the case, `(N, D)`, or `None` if there is no usable field."""
        found = self.outcome(name).field
        if found is None:
            return None
        u = found.u[0].reshape(self.dims, -1).numpy().astype(np.float64)
        at_interior: Array = u[:, self.case(name).interior].T
        return at_interior

    def basic(self) -> list[str]:
        """The cases that the joint diagnosis looks at."""
        return ["zero", *(f"shift {k}" for k in range(self.dims)), "rotation", "scale up", "scale down"]

    def diagnosis(self) -> Diagnosis | None:
        """The joint diagnosis of the basic cases, or `None` without a single field of a moving case."""
        if self._diagnosis is None:
            found = {name: self.returned(name) for name in self.basic()}
            seen = {name: Observation(self.case(name), u) for name, u in found.items() if u is not None}
            shifts = ["zero", *(f"shift {k}" for k in range(self.dims))]
            self._diagnosis = diagnose_jointly(seen, (self.basic(), [*shifts, "rotation"], shifts))
        return self._diagnosis


def _build(name: str, dims: int) -> Case:
    base = cases.base_geometry(dims)
    offset = cases.shifted(base, np.asarray(OFFSET_VOXELS[dims]))
    if name.startswith("shift "):
        axis = int(name[6:])
        return cases.build_case(name, base, cases.shifted(base, _along(dims, axis)))
    table: dict[str, Callable[[], Case]] = {
        "zero": lambda: cases.build_case(name, base, cases.still(dims)),
        "rotation": lambda: cases.build_case(name, base, cases.turned(dims, ROTATION_DEGREES)),
        "scale up": lambda: cases.build_case(name, base, cases.scaled(dims, SCALE)),
        "scale down": lambda: cases.build_case(name, base, cases.scaled(dims, 1 / SCALE)),
        "offset": lambda: cases.build_case(name, base, offset),
        "other": lambda: cases.build_case(name, base, cases.shifted(base, -_along(dims, 1)), seed=2),
        "odd": lambda: cases.build_case(name, cases.base_geometry(dims, odd=True), offset),
        "flipped": lambda: cases.build_case(name, cases.flipped_geometry(dims), offset),
        "permuted": lambda: cases.build_case(name, cases.permuted_geometry(dims), offset),
        "oblique": lambda: cases.build_case(name, cases.oblique_geometry(dims), offset),
        "no header": lambda: cases.build_case(name, base, offset, header=False),
    }
    return table[name]()


def _along(dims: int, axis: int) -> Array:
    shift = np.zeros(dims)
    shift[axis] = cases.SHIFT_VOXELS[dims][axis]
    return shift

"""The conformance suite: does a method keep the conventions of displacement fields (DESIGN.md section 2)?

Runs a method on small synthetic pairs with known motion and names what is wrong: axes, sign, unit, direction,
bias, grid, batches, seeds, memory. Meant for every method, ours and others'. Methods of sequences are asked about
pairs as streams of one frame, and then about streams.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from reg_bench import conformance_checks as checks
from reg_bench.conformance_checks import CheckResult
from reg_bench.conformance_session import Session
from reg_bench.conformance_streams import stream_checks
from reg_bench.method import RegistrationModule

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ConformanceReport:
    """All results of one method.

    Attributes:
        method: its name or class.
        results: one per check and dimension, in the order of the checks.
        diagnoses: `(dimension, what is wrong)`, each mistake once.
        seconds: wall time.
    """

    method: str
    results: tuple[CheckResult, ...]
    diagnoses: tuple[tuple[int, str], ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """No check failed and at least one applied."""
        return not any(r.status == "fail" for r in self.results) and any(r.status == "pass" for r in self.results)


# In this order in the table. The checks of form and input look at all calls before them, so they run last.
_BASIC = (checks.check_zero, checks.check_shifts, checks.check_rotation_and_scale, checks.check_convention)
_REST = (
    checks.check_odd_sizes,
    checks.check_headers,
    checks.check_labels_and_points,
    checks.check_export,
    checks.check_batch,
    checks.check_repeatability,
    checks.check_input_untouched,
)


def check_method(
    method: RegistrationModule,
    *,
    name: str | None = None,
    dimensions: tuple[int, ...] = (2, 3),
    progress: Progress = lambda text: None,
) -> ConformanceReport:
    """Runs every check in every dimension.

    Args:
        method: a method that has seen no case yet; each case is given to a fresh copy of it.
        name: what the report calls it.
        dimensions: which to try; those that the method does not accept come out as not applicable.
        progress: told what runs next.
    """
    started = time.perf_counter()
    results: list[CheckResult] = []
    diagnoses: list[tuple[int, str]] = []
    for dims in dimensions:
        session = Session(method, dims)
        refusal = session.refusal("shift 0")
        if refusal is not None:
            results.append(CheckResult("accepts the pair", dims, "not applicable", refusal))
            continue
        found = _run(session, progress)
        results.extend(found)
        diagnoses.extend((dims, text) for text in _diagnoses(session, found))
    label = name or method.name or type(method).__name__
    return ConformanceReport(label, tuple(results), tuple(diagnoses), time.perf_counter() - started)


def _run(session: Session, progress: Progress) -> list[CheckResult]:
    results: list[CheckResult] = []
    for case in session.basic():
        progress(f"{session.dims}-D: {case}")
        session.outcome(case)
    for check in (*_BASIC, *_REST):
        progress(f"{session.dims}-D: {(check.__doc__ or '').splitlines()[0]}")
        results.extend(check(session))
    results += stream_checks(session, progress)
    return [_with_meaning(r, session) for r in checks.check_form(session) + results]


# What a failure means where neither the check itself nor the joint diagnosis says more, by the check's first words.
_MEANINGS = {
    "zero motion": "the method moves images that are equal",
    "known shift": "a shift comes back with the wrong axis, sign or size",
    "rotation": "a rotation is not found",
    "scale": "a scale is not found",
    "axes, sign": "the fields fit no convention that we know",
    "odd sizes": "sizes that are no multiple of a power of two go wrong: pad and crop inside register",
    "no header": "without a header voxels are expected; a method that needs the spacing says so in `needs`",
    "labels": "labels warped by the field do not meet",
    "points": "fixed points moved by the field do not meet their partners",
}


def _with_meaning(result: CheckResult, session: Session) -> CheckResult:
    """A failure in words: its own diagnosis, else the mistake behind all basic cases, else what the check is for."""
    if result.status != "fail":
        return result
    if result.diagnosis:
        return replace(result, meaning=result.diagnosis)
    joint = session.diagnosis()
    if joint is not None and joint.mistakes and joint.explained:
        return replace(result, meaning=" + ".join(m.name for m in joint.mistakes))
    meanings = [text for start, text in _MEANINGS.items() if result.check.startswith(start)]
    return replace(result, meaning=meanings[0] if meanings else "")


def _diagnoses(session: Session, results: list[CheckResult]) -> list[str]:
    """What is wrong, each mistake once; vague remarks only where nothing definite was found."""
    definite = list(dict.fromkeys(r.diagnosis for r in results if r.diagnosis))
    joint = session.diagnosis()
    if joint is not None and joint.mistakes and joint.explained:
        # Header checks fail as well when the convention is wrong; one name for one mistake.
        definite = [d for d in definite if not _is_header(d, results)]
    failed = [r for r in results if r.status == "fail"]
    if definite or not failed:
        return definite
    return [_vague(session, failed)]


def _is_header(diagnosis: str, results: list[CheckResult]) -> bool:
    return all("header" in r.check and "field" not in r.check for r in results if r.diagnosis == diagnosis)


def _vague(session: Session, results: list[CheckResult]) -> str:
    """What can be said when no known mistake fits."""
    pair = session.case("shift 0").pair
    one, other = session.outcome("shift 0").field, session.again(pair, seed=1).field
    if one is not None and other is not None:
        apart = float((one.u - other.u).abs().max())
        if apart > checks.ZERO_RMS_VOXELS:
            return f"random: another seed changes the field by up to {apart:.2g} voxels"
    joint = session.diagnosis()
    if joint is None:
        return "no usable field"
    strength = _strength(session)
    if strength < 0.1:
        return f"hardly any motion: the fields hold {strength:.0%} of the true motion"
    if not joint.mistakes:
        missed = ", ".join(r.check for r in results)
        return (
            "inaccurate: the fields read best as they should (axes, sign, unit, direction) and hold "
            f"{strength:.0%} of the true shifts, but are not precise enough in: {missed}"
        )
    return (
        f"unexplained: no known mistake fits (the best leaves {joint.error:.0%} of the motion); "
        f"the fields hold {strength:.0%} of the true motion"
    )


def _strength(session: Session) -> float:
    """How much of the true motion the fields hold: projection on the truth, averaged over the shifts."""
    shares = []
    for axis in range(session.dims):
        returned, truth = session.returned(f"shift {axis}"), session.case(f"shift {axis}").truth()
        if returned is not None:
            shares.append(float((returned * truth).sum() / (truth**2).sum()))
    return sum(shares) / len(shares) if shares else 0.0

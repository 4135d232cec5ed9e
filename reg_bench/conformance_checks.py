"""The conformance checks themselves: each asks a method about synthetic pairs whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from reg_bench.conformance_cases import Array
from reg_bench.conformance_export import exported_difference
from reg_bench.conformance_run import call
from reg_bench.conformance_session import ROTATION_DEGREES, SCALE, Session
from reg_bench.types import collate_pairs

Status = Literal["pass", "fail", "not applicable"]

RELATIVE_ERROR = 0.25
# Iterative methods wander a little off zero; half a voxel along one axis alone is twice this.
ZERO_RMS_VOXELS = 0.25
SAME_VOXELS = 1e-3
BATCH_VOXELS = 0.02
EXPORT_INTENSITY = 2e-3


@dataclass(frozen=True)
class CheckResult:
    """One line of the table.

    Attributes:
        check: what was asked.
        dimension: 2 or 3.
        status: `pass`, `fail` or `not applicable`.
        detail: what was measured, or why it does not apply.
        diagnosis: the mistake behind a failure, where this check alone tells it.
        meaning: of a failure, for whoever reads the table.
    """

    check: str
    dimension: int
    status: Status
    detail: str
    diagnosis: str = ""
    meaning: str = ""


def relative_error(returned: Array, truth: Array) -> float:
    """RMS of the difference over RMS of the truth."""
    return float(np.sqrt(((returned - truth) ** 2).sum() / (truth**2).sum()))


def vector(values: Array) -> str:
    """A displacement in words: `(3.00, 0.00)`."""
    return "(" + ", ".join(f"{v:.2f}" for v in values + 0.0) + ")"


def check_form(session: Session) -> list[CheckResult]:
    """Type, shape, finite values and header of every answer, and its floating point type."""
    name = "field: shape, finite values, header"
    problems = {o.problem: case for case, o in session.outcomes().items() if o.problem}
    if problems:
        problem, case = next(iter(problems.items()))
        form = CheckResult(name, session.dims, "fail", f"{problem} (case: {case})", problem)
    else:
        form = CheckResult(name, session.dims, "pass", f"{len(session.outcomes())} fields")
    types = {str(o.dtype).removeprefix("torch.") for o in session.outcomes().values() if not o.raised}
    wrong = sorted(types - {"float32"})
    text = f"{wrong[0]}: the field must be float32" if wrong else "float32"
    dtype = CheckResult("field: float32", session.dims, "fail" if wrong else "pass", text, text if wrong else "")
    return [form, dtype]


def _no_field(check: str, session: Session, case: str) -> CheckResult:
    return CheckResult(check, session.dims, "fail", f"no usable field: {session.outcome(case).problem}")


def check_zero(session: Session) -> list[CheckResult]:
    """Equal images: the field must vanish, on the whole grid."""
    name = "zero motion gives the zero field"
    found = session.outcome("zero").field
    if found is None:
        return [_no_field(name, session, "zero")]
    rms = float(found.u.square().sum(1).mean().sqrt())
    mean = found.u[0].flatten(1).mean(1).double().numpy()
    status: Status = "pass" if rms <= ZERO_RMS_VOXELS else "fail"
    return [CheckResult(name, session.dims, status, f"RMS {rms:.3f} voxels, mean {vector(mean)}")]


def check_shifts(session: Session) -> list[CheckResult]:
    """A shift along one axis at a time comes back with its axis, sign and size."""
    return [_shift_along(session, axis) for axis in range(session.dims)]


def _shift_along(session: Session, axis: int) -> CheckResult:
    name, case = f"known shift along axis {axis}", f"shift {axis}"
    returned = session.returned(case)
    if returned is None:
        return _no_field(name, session, case)
    truth = session.case(case).truth()
    error = relative_error(returned, truth)
    detail = f"true {vector(truth[0])}, found {vector(returned.mean(0))} voxels, error {error:.0%}"
    return CheckResult(name, session.dims, "pass" if error <= RELATIVE_ERROR else "fail", detail)


@dataclass(frozen=True)
class _AffineFit:
    """The affine map in mm nearest to a returned field, and what it leaves over in voxels."""

    matrix: Array
    residual_voxels: float
    rms_voxels: float

    @property
    def constant(self) -> bool:
        """A translation, no motion included."""
        return self.residual_voxels < 0.02 and bool(np.abs(self.matrix - np.eye(len(self.matrix))).max() < 2e-3)

    @property
    def rigid(self) -> bool:
        """A rigid motion other than exactly none, which any method may return that found nothing."""
        turned = np.abs(self.matrix.T @ self.matrix - np.eye(len(self.matrix))).max()
        return self.residual_voxels < 0.02 and self.rms_voxels > 1e-4 and bool(turned < 4e-3)


def _fit(session: Session, case: str) -> _AffineFit | None:
    returned = session.returned(case)
    if returned is None:
        return None
    geometry = session.case(case).geometry
    world = geometry.to_world(session.case(case).index())
    design = np.column_stack([world - world.mean(0), np.ones(len(world))])
    moved = returned @ geometry.linear.T
    solution = np.linalg.lstsq(design, moved, rcond=None)[0]
    left = (moved - design @ solution) @ np.linalg.inv(geometry.linear).T
    rms = float(np.sqrt((returned**2).sum(1).mean()))
    dims = session.dims
    return _AffineFit(np.eye(dims) + solution[:dims].T, float(np.sqrt((left**2).sum(1).mean())), rms)


def check_rotation_and_scale(session: Session) -> list[CheckResult]:
    """A rotation and two scales; not applicable to a method that only knows translations or rigid motions.

    The class of motion is read from the fields: all of them, of shifts, rotation and scales, must be exact
    translations, or exact rigid motions. It excuses a method only if it finds the shifts (and, of rigid ones,
    the rotation), so that no motion at all is no excuse.
    """
    rotation = _judged(session, f"rotation by {ROTATION_DEGREES:g} degrees", ("rotation",))
    scale = _judged(session, f"scale by {SCALE:g} and its inverse", ("scale up", "scale down"))
    fits = [_fit(session, case) for case in session.basic() if case != "zero"]
    if all(r.status == "pass" for r in check_shifts(session)):
        if all(f is not None and f.constant for f in fits):
            return [_excused(r, "translations") if r.status == "fail" else r for r in (rotation, scale)]
        if rotation.status == "pass" and scale.status == "fail" and all(f is not None and f.rigid for f in fits):
            return [rotation, _excused(scale, "rigid motions")]
    return [rotation, scale]


def _excused(result: CheckResult, kind: str) -> CheckResult:
    detail = f"the method only returns {kind}; {result.detail}"
    return CheckResult(result.check, result.dimension, "not applicable", detail)


def _judged(session: Session, name: str, names: tuple[str, ...]) -> CheckResult:
    errors = []
    for case in names:
        returned = session.returned(case)
        if returned is None:
            return _no_field(name, session, case)
        errors.append(relative_error(returned, session.case(case).truth()))
    detail = "error " + " and ".join(f"{e:.0%}" for e in errors) + " of the motion"
    return CheckResult(name, session.dims, "pass" if max(errors) <= RELATIVE_ERROR else "fail", detail)


def check_convention(session: Session) -> list[CheckResult]:
    """All basic cases together: axes, sign, unit and direction as the best explanation of the fields."""
    name = "axes, sign, unit and direction together"
    found = session.diagnosis()
    if found is None:
        return [CheckResult(name, session.dims, "fail", "no usable field")]
    if found.mistakes and found.explained:
        detail = f"reads as: {' + '.join(m.name for m in found.mistakes)}"
        return [CheckResult(name, session.dims, "fail", f"{detail} (error {found.error:.0%})", found.text)]
    if found.mistakes:
        return [CheckResult(name, session.dims, "fail", f"no known reading fits (error {found.error:.0%})")]
    status: Status = "pass" if found.explained else "fail"
    return [CheckResult(name, session.dims, status, f"read as it should be (error {found.error:.0%})")]


def check_odd_sizes(session: Session) -> list[CheckResult]:
    """Sizes that no power of two divides."""
    shape = "×".join(map(str, session.case("odd").geometry.shape))
    return [_judged(session, f"odd sizes ({shape})", ("odd",))]


def check_headers(session: Session) -> list[CheckResult]:
    """The same physical pair on other grids: the same motion in mm; and without a header in voxels."""
    names = {"flipped": "flipped", "permuted": "permuted", "oblique": "oblique"}
    results = [_header(session, case, f"{text} header, same motion in mm") for case, text in names.items()]
    refusal = session.refusal("no header")
    if refusal is not None:
        results.append(CheckResult("no header, motion in voxels", session.dims, "not applicable", refusal))
    else:
        results.append(_judged(session, "no header, motion in voxels", ("no header",)))
    return results


def _header(session: Session, case: str, name: str) -> CheckResult:
    returned, reference = session.returned(case), session.returned("offset")
    if returned is None:
        return _no_field(name, session, case)
    geometry = session.case(case).geometry
    truth_mm = session.case(case).truth() @ geometry.linear.T
    found_mm = returned @ geometry.linear.T
    error = relative_error(found_mm, truth_mm)
    detail = f"true {vector(truth_mm[0])}, found {vector(found_mm.mean(0))} mm, error {error:.0%}"
    status: Status = "pass" if error <= RELATIVE_ERROR else "fail"
    if reference is not None and status == "pass":
        base_mm = (reference @ session.case("offset").geometry.linear.T).mean(0)
        apart = float(np.linalg.norm(found_mm.mean(0) - base_mm) / np.linalg.norm(truth_mm[0]))
        if apart > RELATIVE_ERROR / 2:
            status, detail = "fail", f"{detail}; {apart:.0%} away from the answer with a plain header"
    # Where the same motion is missed under a plain header too, the header is not to blame.
    plain = reference is not None and relative_error(reference, session.case("offset").truth()) <= RELATIVE_ERROR
    diagnosis = _header_diagnosis(session, case, returned) if status == "fail" and plain else ""
    return CheckResult(name, session.dims, status, detail, diagnosis)


def _header_diagnosis(session: Session, case: str, returned: Array) -> str:
    """Which frame a field is in that is right under a plain header only."""
    geometry = session.case(case).geometry
    plain = session.case("offset").geometry
    world = session.case(case).truth() @ geometry.linear.T
    to_lps = np.array([-1.0, -1.0, 1.0])[: session.dims]
    readings = {
        "world axes: components run along the world's axes (RAS), not along the array's": world / plain.spacing_mm,
        "world axes: components run along the world's axes (LPS), not along the array's": world
        * to_lps
        / plain.spacing_mm,
        "world axes in mm (RAS): turn the field into voxels with the inverse affine": world,
        "world axes in mm (LPS): turn the field into voxels with the inverse affine": world * to_lps,
        "spacing of the wrong axis: the spacing did not follow the array axes": session.case(case).truth()
        * geometry.spacing_mm
        / plain.spacing_mm,
    }
    errors = {text: relative_error(returned, expected) for text, expected in readings.items()}
    best = min(errors, key=lambda text: errors[text])
    as_asked = relative_error(returned, session.case(case).truth())
    if errors[best] <= RELATIVE_ERROR and errors[best] <= as_asked / 2:
        return best
    if as_asked > 2 * RELATIVE_ERROR:
        return "the header changes the answer: direction or spacing misread"
    # A method that barely finds the motion under a plain header misses it here: no mistake of the header.
    return ""


def check_labels_and_points(session: Session) -> list[CheckResult]:
    """Labels warped by the field overlap, landmarks moved by it meet."""
    found = session.outcome("offset").field
    names = ("labels follow the image", "points follow the image")
    if found is None:
        return [_no_field(name, session, "offset") for name in names]
    pair = session.case("offset").pair
    assert pair.fixed_labels is not None
    assert pair.moving_labels is not None
    assert pair.points is not None
    before = _dice(pair.fixed_labels, pair.moving_labels)
    after = _dice(pair.fixed_labels, found.warp(pair.moving_labels, mode="nearest"))
    labels: Status = "pass" if 1 - after <= 0.6 * (1 - before) else "fail"
    landmarks = pair.points["landmarks"]
    fixed, moving = landmarks.fixed[0], landmarks.moving[0]
    near = float((fixed - moving).norm(dim=1).mean())
    left = float((fixed + found.at(fixed.float()).double() - moving).norm(dim=1).mean())
    points: Status = "pass" if left <= 0.3 * near else "fail"
    return [
        CheckResult(names[0], session.dims, labels, f"Dice {before:.2f} before, {after:.2f} after"),
        CheckResult(names[1], session.dims, points, f"{near:.2f} voxels apart before, {left:.2f} after"),
    ]


def _dice(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean Dice of the labels of `a`."""
    values = [v for v in torch.unique(a).tolist() if v]
    return float(np.mean([2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in values]))


def check_export(session: Session) -> list[CheckResult]:
    """The exported field, read and applied by SimpleITK on an oblique grid, reproduces our warped image."""
    name = "SimpleITK reproduces the warped image from the exported field"
    found = session.outcome("oblique").field
    if found is None:
        return [_no_field(name, session, "oblique")]
    difference, share = exported_difference(session.case("oblique"), found)
    if share == 0.0:
        detail = "the field points out of the image everywhere"
        return [CheckResult(name, session.dims, "not applicable", detail)]
    status: Status = "pass" if difference <= EXPORT_INTENSITY else "fail"
    detail = f"intensities differ by at most {difference:.1e} in {share:.0%} of the voxels"
    return [CheckResult(name, session.dims, status, detail, "" if status == "pass" else f"export: {detail}")]


def check_batch(session: Session) -> list[CheckResult]:
    """A batch of two comes out as two batches of one."""
    name = "a batch of two equals two batches of one"
    singles = [session.outcome(case).field for case in ("shift 0", "other")]
    if singles[0] is None or singles[1] is None:
        return [_no_field(name, session, "shift 0" if singles[0] is None else "other")]
    pair = collate_pairs([session.case(case).pair for case in ("shift 0", "other")])
    together = session.again(pair)
    if together.field is None:
        text = f"batch of two: {together.problem}"
        return [CheckResult(name, session.dims, "fail", text, text)]
    first, second = singles[0].u[0], singles[1].u[0]
    difference = _apart(together.field.u, torch.stack([first, second]))
    tolerance = BATCH_VOXELS
    if difference > tolerance:
        # A method that draws random numbers draws others in a batch: allow what another seed changes.
        reseeded = session.again(session.case("shift 0").pair, seed=1).field
        tolerance = max(tolerance, 3 * _apart(reseeded.u[0], first)) if reseeded is not None else tolerance
    if difference <= tolerance:
        return [CheckResult(name, session.dims, "pass", f"at most {difference:.1e} voxels apart")]
    text = f"batch mixing: {_mixing(together.field.u, first, second)}"
    return [CheckResult(name, session.dims, "fail", f"{difference:.2f} voxels apart; {text}", text)]


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def _mixing(batch: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> str:
    if _apart(batch, torch.stack([second, first])) < 0.05:
        return "the cases of a batch come back in the wrong order"
    if _apart(batch[0], batch[1]) < 0.05:
        return "all cases of a batch get the same field"
    return "the cases of a batch influence one another"


def check_repeatability(session: Session) -> list[CheckResult]:
    """Same seed, same result; and no memory of earlier cases."""
    seed_name, state_name = "same seed, same result", "no memory of earlier cases"
    pair = session.case("shift 0").pair
    first, second = session.outcome("shift 0").field, session.again(pair).field
    if first is None or second is None:
        return [_no_field(n, session, "shift 0") for n in (seed_name, state_name)]
    difference = _apart(first.u, second.u)
    if difference > SAME_VOXELS:
        text = f"not deterministic: two calls with the same seed differ by up to {difference:.2g} voxels"
        return [
            CheckResult(seed_name, session.dims, "fail", text, text),
            CheckResult(state_name, session.dims, "not applicable", "results differ at the same seed anyway"),
        ]
    passed = CheckResult(seed_name, session.dims, "pass", f"at most {difference:.1e} voxels apart")
    text = _memory(session)
    if text:
        return [passed, CheckResult(state_name, session.dims, "fail", text, text)]
    return [passed, CheckResult(state_name, session.dims, "pass", "equal to a copy that has seen nothing")]


def _memory(session: Session) -> str:
    """How one instance that sees several cases answers otherwise than a fresh one; empty if it does not."""
    outcomes = {case: session.outcome(case) for case in ("other", "odd", "shift 0")}
    used = session.fresh()
    for case, fresh in outcomes.items():
        last = call(used, session.case(case).pair)
        if fresh.field is None:
            continue
        if last.field is None:
            return f"hidden state: after other cases the case {case!r} fails: {last.problem}"
        difference = _apart(fresh.field.u, last.field.u)
        if difference > SAME_VOXELS:
            return f"hidden state: after other cases the same case comes out up to {difference:.2g} voxels different"
    return ""


def check_input_untouched(session: Session) -> list[CheckResult]:
    """No call has written to the tensors of its pair."""
    changed = [case for case, o in session.outcomes().items() if o.changed_input]
    name = "the input is left untouched"
    if not changed:
        return [CheckResult(name, session.dims, "pass", f"{len(session.outcomes())} calls")]
    text = f"input overwritten: register writes to the tensors of its pair (case: {changed[0]}); work on a clone"
    return [CheckResult(name, session.dims, "fail", text, text)]

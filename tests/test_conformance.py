"""The conformance suite passes right methods and names what is wrong with the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench import conformance_cases as cases
from reg_bench.conformance import ConformanceReport, check_method
from reg_bench.conformance_diagnosis import Observation, diagnose
from reg_bench.conformance_session import Session
from reg_bench.field import invert, warp
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair
from tests.conformance_methods import RIGHT, build


def failures(report: ConformanceReport) -> str:
    return "; ".join(f"{r.check}: {r.detail}" for r in report.results if r.status == "fail")


def statuses(report: ConformanceReport, start: str) -> list[str]:
    return [r.status for r in report.results if r.check.startswith(start)]


# -------------------------------------------------------------------------------------------------- the cases


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["shift 0", "rotation", "scale up", "odd", "flipped", "permuted", "oblique"])
def test_cases_obey_the_convention(name: str, dims: int) -> None:
    """The moving image, warped by the true field with the package's own warp, is the fixed image."""
    case = Session(RIGHT["exact"](), dims).case(name)
    warped = warp(case.pair.moving, case.pair.true_displacement, mode="cubic")
    difference = (warped - case.pair.fixed).flatten()[torch.from_numpy(case.interior)].abs()
    still = (case.pair.moving - case.pair.fixed).flatten()[torch.from_numpy(case.interior)].abs()
    assert float(difference.mean()) < 0.004 < 0.03 < float(still.mean())
    landmarks = case.pair.points["landmarks"]
    moved = landmarks.fixed[0].numpy() + case.pull_at(landmarks.fixed[0].numpy())
    np.testing.assert_allclose(moved, landmarks.moving[0].numpy(), atol=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_push_is_the_inverse_of_pull(dims: int) -> None:
    case = Session(RIGHT["exact"](), dims).case("rotation")
    index = case.index()[::7]
    there = index + case.pull_at(index)
    np.testing.assert_allclose(there + case.push_at(there), index, atol=1e-9)
    inverse = invert(case.pair.true_displacement)[0][0].flatten(1).T.numpy()[case.interior][::7]
    assert np.abs(inverse - case.push_at(index)).max() < 0.02


@pytest.mark.parametrize("dims", [2, 3])
def test_grids_show_the_same_physical_pair(dims: int) -> None:
    session = Session(RIGHT["exact"](), dims)
    base, permuted = session.case("offset"), session.case("permuted")
    order = np.roll(np.arange(dims), 1)
    expected = base.pair.fixed[0, 0].permute(*order.tolist())
    torch.testing.assert_close(permuted.pair.fixed[0, 0], expected, atol=1e-5, rtol=0)
    flipped = session.case("flipped").pair.fixed[0, 0].flip(0, dims - 1)
    torch.testing.assert_close(flipped, base.pair.fixed[0, 0], atol=1e-5, rtol=0)
    assert len({round(s, 3) for s in base.geometry.spacing_mm}) == dims
    assert len(set(base.geometry.shape)) == dims


# ------------------------------------------------------------------------------------------------ right methods


@pytest.mark.parametrize(
    ("base", "dims"),
    [("exact", 2), ("exact", 3), ("affine", 2), ("demons", 2), ("rigid", 2), ("translation", 2), ("translation", 3)],
)
def test_right_methods_pass(base: str, dims: int) -> None:
    report = check_method(RIGHT[base](), dimensions=(dims,))
    assert report.passed, failures(report)
    assert report.diagnoses == ()
    excused = {r.check.split()[0] for r in report.results if r.status == "not applicable"}
    assert excused == {"rigid": {"scale"}, "translation": {"rotation", "scale"}}.get(base, set())


@pytest.mark.slow
@pytest.mark.parametrize("base", ["affine", "demons", "rigid"])
def test_right_methods_pass_in_3d(base: str) -> None:
    report = check_method(RIGHT[base](), dimensions=(3,))
    assert report.passed, failures(report)


class Flat(RegistrationModule):
    """Takes 2-D only, and only with a spacing."""

    name = "flat"
    dimensions = (2,)
    needs = ("true_displacement", "fixed_spacing_mm")

    def register(self, pair: RegistrationPair) -> DisplacementField:
        assert pair.true_displacement is not None
        return DisplacementField(pair.true_displacement)


def test_what_a_method_does_not_accept_is_not_applicable() -> None:
    report = check_method(Flat())
    assert report.passed, failures(report)
    refused = [r for r in report.results if r.status == "not applicable"]
    assert {(r.dimension, r.check) for r in refused} == {(2, "no header, motion in voxels"), (3, "accepts the pair")}
    assert "registers 2-D, not 3-D" in refused[-1].detail
    nothing = check_method(Flat(), dimensions=(3,))
    assert not nothing.passed


# ------------------------------------------------------------------------------------------------ wrong methods

# What the diagnosis must say, and nothing else: kind -> texts, all of which stand in the only diagnosis.
WRONG = {
    "negated": ["negated:"],
    "order:10": ["swapped axes (reversed axis order)"],
    "order:102": ["swapped axes:", "component 0 holds axis 1, component 1 holds axis 0;"],
    "order:021": ["swapped axes:", "component 1 holds axis 2, component 2 holds axis 1"],
    "order:210": ["swapped axes (reversed axis order)"],
    "order:120": ["swapped axes:", "0 holds axis 1, component 1 holds axis 2, component 2 holds axis 0"],
    "order:201": ["swapped axes:", "0 holds axis 2, component 1 holds axis 0, component 2 holds axis 1"],
    "mm": ["mm for voxels:"],
    "per_mm": ["divided by the spacing"],
    "lps_mm": ["mm for voxels"],
    "corners": ["normalised units (-1..1, align_corners=True)"],
    "edges": ["normalised units (-1..1, align_corners=False)"],
    "corners_reversed": ["swapped axes (reversed axis order)", "normalised units"],
    "grid_sample": ["swapped axes (reversed axis order)", "normalised units", "identity added"],
    "half:0.5": ["half-voxel bias:"],
    "half:-0.5": ["half-voxel bias:"],
    "ramp": ["half-voxel bias growing to the border"],
    "ramp_down": ["half-voxel bias growing to the border"],
    "factor:2": ["factor 2:"],
    "factor:0.5": ["factor 1/2:"],
    "identity_added": ["identity added:"],
    "inverse": ["inverse direction (push-forward):"],
    "flipped": ["flipped along axis 0"],
    "world": ["world axes:"],
    "zero": ["zero field:"],
    "transposed": ["wrong grid size:", "transposed"],
    "half_grid": ["wrong grid size:", "2 times coarser"],
    "cropped": ["wrong grid size:"],
    "padded": ["wrong grid size:", "crop"],
    "channels_last": ["wrong grid size:", "components come last"],
    "nan": ["NaN:"],
    "double": ["float64:"],
    "raises": ["exception:", "the weights are missing"],
    "batch_mean": ["batch mixing:", "same field"],
    "batch_order": ["batch mixing:", "order"],
    "batch_leak": ["batch mixing:", "influence"],
    "batch_first": ["batch of two:", "1 fields for 2 pairs"],
    "state_counter": ["hidden state:"],
    "state_average": ["hidden state:"],
    "state_of_class": ["hidden state:"],
    "state_of_module": ["hidden state:"],
    "state_grid": ["hidden state:"],
    "random": ["not deterministic:"],
    "seeded_noise": ["random:"],
    "overwrites": ["input overwritten:"],
}
# Estimated fields are not exact: kinds whose diagnosis rests on the values of the field.
VALUES = [k for k in list(WRONG)[: list(WRONG).index("zero") + 1] if k != "per_mm"]


def kinds(dims: int, names: list[str]) -> list[str]:
    return [k for k in names if not k.startswith("order:") or len(k) == len("order:") + dims]


def assert_named(kind: str, base: str, dims: int) -> None:
    report = check_method(build(kind, base), dimensions=(dims,))
    assert not report.passed
    assert len(report.diagnoses) == 1, report.diagnoses
    text = report.diagnoses[0][1]
    assert all(part in text for part in WRONG[kind]), text
    assert any(r.meaning for r in report.results if r.status == "fail")


@pytest.mark.parametrize("kind", kinds(2, list(WRONG)))
def test_wrong_fields_are_named_in_2d(kind: str) -> None:
    assert_named(kind, "exact", 2)


@pytest.mark.parametrize("kind", ["order:120", "mm", "inverse"])
def test_some_wrong_fields_are_named_in_3d(kind: str) -> None:
    assert_named(kind, "exact", 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds(3, list(WRONG)))
def test_wrong_fields_are_named_in_3d(kind: str) -> None:
    assert_named(kind, "exact", 3)


@pytest.mark.parametrize("kind", ["inverse", "corners_reversed"])
@pytest.mark.parametrize("base", ["affine", "demons"])
def test_some_wrong_estimates_are_named_in_2d(kind: str, base: str) -> None:
    assert_named(kind, base, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds(2, VALUES))
@pytest.mark.parametrize("base", ["affine", "demons"])
def test_all_wrong_estimates_are_named_in_2d(kind: str, base: str) -> None:
    assert_named(kind, base, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds(3, VALUES))
def test_wrong_demons_are_named_in_3d(kind: str) -> None:
    assert_named(kind, "demons", 3)


def test_a_pure_shift_estimator_is_judged_by_the_shifts() -> None:
    """Rotation and scale, which it cannot express, do not hide the mistake."""
    for kind in ("negated", "order:10", "mm", "half:0.5", "factor:2"):
        assert_named(kind, "translation", 2)


def test_no_motion_is_no_excuse_for_rotation_and_scale() -> None:
    report = check_method(build("zero", "exact"), dimensions=(2,))
    assert statuses(report, "zero motion") == ["pass"]
    assert set(statuses(report, "known shift") + statuses(report, "rotation") + statuses(report, "scale")) == {"fail"}


def test_the_result_does_not_depend_on_the_callers_random_state() -> None:
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    check_method(RIGHT["exact"](), dimensions=(2,))
    assert torch.equal(torch.rand(1), before)


class WrongHeader(Flat):
    """Attaches a spacing that is not the fixed image's."""

    def register(self, pair: RegistrationPair) -> DisplacementField:
        assert pair.true_displacement is not None
        assert pair.fixed_spacing_mm is not None
        return DisplacementField(pair.true_displacement, pair.fixed_spacing_mm.flip(1))


class NotAField(Flat):
    """Returns the bare tensor."""

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return pair.true_displacement  # type: ignore[return-value]


class NeedsGradients(Flat):
    """Optimises without saying so."""

    def register(self, pair: RegistrationPair) -> DisplacementField:
        u = torch.zeros_like(pair.true_displacement).requires_grad_()
        ((u - pair.true_displacement) ** 2).sum().backward()
        return DisplacementField(u.detach() - u.grad)


class Optimises(NeedsGradients):
    """The same, declared."""

    optimises = True

    def register(self, pair: RegistrationPair) -> DisplacementField:
        u = torch.zeros_like(pair.true_displacement).requires_grad_()
        (0.5 * (u - pair.true_displacement) ** 2).sum().backward()
        return DisplacementField(u.detach() - u.grad)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (WrongHeader, "wrong header: the field's spacing_mm"),
        (NotAField, "wrong type: register returned Tensor"),
        (NeedsGradients, "optimises = True"),
    ],
)
def test_wrong_form_is_named(method: type[RegistrationModule], expected: str) -> None:
    report = check_method(method(), dimensions=(2,))
    assert not report.passed
    assert expected in report.diagnoses[0][1]


class Weak(Flat):
    """Stops half way, here more and there less, as an optimiser with too few iterations does."""

    dimensions = (2, 3)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        assert pair.true_displacement is not None
        u = pair.true_displacement
        share = 0.55 + 0.35 * torch.sin(torch.arange(u.shape[2]) / 4).reshape(-1, *(1,) * (u.ndim - 3))
        return DisplacementField(u * share)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_weak_method_is_not_accused_of_a_wrong_unit(dims: int) -> None:
    report = check_method(Weak(), dimensions=(dims,))
    assert not report.passed
    assert len(report.diagnoses) == 1
    assert report.diagnoses[0][1].startswith("inaccurate: the fields read best as they should")


def test_a_method_that_optimises_passes() -> None:
    report = check_method(Optimises(), dimensions=(2,))
    assert report.passed, failures(report)


def test_diagnosis_prefers_the_simplest_explanation_and_admits_ignorance() -> None:
    session = Session(RIGHT["exact"](), 2)
    names = session.basic()
    right = [Observation(session.case(n), session.case(n).truth()) for n in names]
    assert diagnose(right).mistakes == ()
    random = np.random.default_rng(0)
    noise = [Observation(o.case, random.normal(size=o.returned.shape)) for o in right]
    assert not diagnose(noise).explained
    weak = [Observation(o.case, 0.8 * o.returned) for o in right]
    assert diagnose(weak).mistakes == ()
    assert diagnose(weak).error == pytest.approx(0.2, abs=0.02)
    assert cases.BASE[2][0] == session.case("zero").geometry.shape

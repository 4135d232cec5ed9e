"""The checks of streams pass right methods of sequences and name what is wrong with the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import pytest

from reg_bench.conformance import ConformanceReport, check_method
from reg_bench.conformance_checks import CheckResult
from reg_bench.conformance_session import Session
from reg_bench.conformance_streams import stream_checks
from reg_bench.method import SequenceModule
from reg_bench.pairs_as_sequence import PairwiseStream
from reg_bench.sequence_as_pairs import StreamOfOne
from tests.conformance_methods import RIGHT
from tests.fake_streams import Altered, HiddenState, MeansOfBatch, WritesState


def report_of(stream: SequenceModule, dims: int = 2) -> ConformanceReport:
    return check_method(StreamOfOne(stream), dimensions=(dims,))


def streams(results: Iterable[CheckResult]) -> dict[str, str]:
    return {r.check.removeprefix("stream: "): r.status for r in results if r.check.startswith("stream: ")}


def alone(stream: SequenceModule, dims: int = 2) -> list[CheckResult]:
    """The checks of streams without those of pairs."""
    return stream_checks(Session(StreamOfOne(stream), dims), lambda text: None)


@pytest.mark.parametrize(
    ("forecast", "dims"), [("hold", 2), ("velocity", 2), pytest.param("hold", 3, marks=pytest.mark.slow)]
)
def test_right_streams_pass(forecast: Literal["hold", "velocity"], dims: int) -> None:
    results = alone(PairwiseStream(RIGHT["translation"](), forecast), dims)
    assert len(results) == 6
    assert [r.check for r in results if r.status != "pass"] == []


def test_pairs_and_streams_are_checked_together() -> None:
    report = report_of(PairwiseStream(RIGHT["translation"]()))
    assert report.passed, [(r.check, r.detail) for r in report.results if r.status == "fail"]
    assert len(streams(report.results)) == 6
    assert len(report.results) > 20


@pytest.mark.parametrize(
    ("stream", "failing", "text"),
    [
        (HiddenState, "two interleaved streams equal each alone", "hidden state: two streams disturb each other"),
        (lambda: Altered("forgets"), "a missing frame keeps what was known", "missing frame: what was known is lost"),
        (lambda: Altered("drifts"), "duplicated frames give no motion", "drift: the reference again is taken for"),
        (WritesState, "one state stepped twice gives the same twice", "state written to"),
        (MeansOfBatch, "a batch of two equals two streams", "batch mixing: streams of a batch differ"),
        (lambda: Altered("raises"), "a missing frame keeps what was known", "step raised RuntimeError: no frame"),
        (
            lambda: Altered("tuple"),
            "a missing frame keeps what was known",
            "step returned Tensor, expected an Estimate",
        ),
    ],
)
def test_what_is_wrong_with_a_stream_is_named(stream: type[SequenceModule], failing: str, text: str) -> None:
    results = alone(stream())
    assert streams(results)[failing] == "fail"
    assert any(text in r.diagnosis for r in results), [r.diagnosis for r in results]


def test_a_mistake_of_the_convention_is_named_once() -> None:
    report = report_of(Altered("negated"))
    assert streams(report.results)["the motion since the reference at every frame"] == "fail"
    assert [text.split(":")[0] for _, text in report.diagnoses] == ["negated"]


def test_methods_of_pairs_are_asked_about_no_streams() -> None:
    assert streams(check_method(RIGHT["exact"](), dimensions=(2,)).results) == {}

"""`pca`, `dmd` and `ar-pca` on motion whose law is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.ar_pca import AutoregressiveMotion
from lightning_modules.dmd import DynamicModeMotion
from lightning_modules.pca import PrincipalMotion
from reg_bench.discovery import build_module
from reg_bench.errors import ConfigError
from reg_bench.learned_motion import LearnedComponents, learned_components
from reg_bench.method import RegistrationModule, SequenceModule
from reg_bench.motion_history import MotionHistory
from reg_bench.principal_components import principal_components
from reg_bench.types import DisplacementField, ImageSequence, RegistrationPair

SECONDS = 0.04
SHAPE = (12, 10)


def patterns() -> Tensor:
    """Three fields `(3, D, *S)`; the frame of moment `t` carries their weights in its first pixels."""
    return torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))


class ReadsWeights(RegistrationModule):
    """The field whose weights the fixed image carries: exact, and as noisy as the frame."""

    def register(self, pair: RegistrationPair) -> DisplacementField:
        weights = pair.fixed[:, 0, 0, :3]
        return DisplacementField(torch.einsum("bk,kdxy->bdxy", weights, patterns().to(weights)))


def weights(t: float, phase: float = 0.0) -> Tensor:
    """At frame `t`: one pattern swings, the second at twice the rate, the third rests; zero at the reference."""
    angle = 0.35 * t + phase
    at = (math.sin(angle) - math.sin(phase), 0.5 * math.cos(2 * angle) - 0.5 * math.cos(2 * phase), 0.0)
    return torch.tensor(at)


def frame(t: float, batch: int = 1) -> Tensor:
    image = torch.zeros(batch, 1, *SHAPE)
    for b in range(batch):
        image[b, 0, 0, :3] = weights(t, 0.7 * b)
    return image


def truth(t: float, batch: int = 1) -> Tensor:
    return torch.einsum("bk,kdxy->bdxy", torch.stack([weights(t, 0.7 * b) for b in range(batch)]), patterns())


def streamed(method: SequenceModule, frames: int, missing: tuple[int, ...] = (), batch: int = 1) -> Any:
    state = method.start(frame(0, batch), seconds_per_frame=SECONDS)
    for k in range(1, frames):
        state, estimate = method.step(state, None if k in missing else frame(k, batch), k * SECONDS)
        if k not in missing and method.inner.remainder == "hold":
            torch.testing.assert_close(estimate.field.u, truth(k, batch))
    return state


def error(u: Tensor, t: float) -> float:
    """Relative to how far the motion is from what it was at the end of the stream."""
    return float((u - truth(t, len(u))).norm() / (truth(39, len(u)) - truth(t, len(u))).norm())


FORECASTS = {
    "ar-pca": AutoregressiveMotion(ReadsWeights(), rank=3, order=4, ridge=1e-9),
    "ar-pca coupled": AutoregressiveMotion(ReadsWeights(), rank=2, order=3, ridge=1e-9, coupled=True),
    "ar-pca drop": AutoregressiveMotion(ReadsWeights(), rank=3, order=4, ridge=1e-9, remainder="drop"),
    "dmd": DynamicModeMotion(ReadsWeights(), rank=6, delays=4),
    "dmd drop": DynamicModeMotion(ReadsWeights(), rank=6, delays=4, remainder="drop"),
}


@pytest.mark.parametrize("name", FORECASTS)
def test_periodic_motion_goes_on(name: str) -> None:
    method = FORECASTS[name]
    state = streamed(method, 40)
    for ahead in (1, 5, 12):
        assert error(method.forecast(state, ahead * SECONDS).field.u, 39 + ahead) < 0.15
    # Half way between two frames an autoregression is linear, which is a little off.
    assert error(method.forecast(state, 2.5 * SECONDS).field.u, 41.5) < 0.35
    missed, estimate = method.step(state, None, 41 * SECONDS)
    torch.testing.assert_close(estimate.field.u, method.forecast(state, 2 * SECONDS).field.u)
    torch.testing.assert_close(
        method.forecast(missed, SECONDS).field.u, method.forecast(state, 3 * SECONDS).field.u, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", FORECASTS)
def test_cases_of_a_batch_do_not_mix(name: str) -> None:
    method = FORECASTS[name]
    state = streamed(method, 30, batch=2)
    found = method.forecast(state, 4 * SECONDS).field.u
    alone = method.forecast(streamed(method, 30), 4 * SECONDS).field.u
    torch.testing.assert_close(found[:1], alone, rtol=0, atol=1e-4)
    assert (found - truth(33, 2)).norm() < 0.2 * (truth(29, 2) - truth(33, 2)).norm()


@pytest.mark.parametrize("name", FORECASTS)
def test_few_frames_are_held(name: str) -> None:
    """Too few for a model: the last field, never a leap."""
    method = FORECASTS[name]
    for frames in (1, 2, 3):
        state = streamed(method, frames)
        assert method.forecast(state, 20 * SECONDS).field.u.abs().max() <= 2 * truth(2).abs().max()


def test_components_leave_what_is_rare() -> None:
    method = PrincipalMotion(ReadsWeights(), rank=1)
    state = streamed(method, 40)
    found = method.forecast(state, 10 * SECONDS).field.u
    fields = torch.cat([truth(k) for k in range(40)])
    expected = principal_components(fields.double(), 1)
    torch.testing.assert_close(
        found, expected.reconstruct(expected.coefficients(fields[-1:].double())).float(), rtol=0, atol=1e-4
    )
    whole = PrincipalMotion(ReadsWeights(), rank=3)
    torch.testing.assert_close(whole.forecast(streamed(whole, 40), 0.0).field.u, truth(39), rtol=0, atol=1e-4)


def test_gaps_are_filled_linearly() -> None:
    method = FORECASTS["ar-pca"]
    history = streamed(method, 8, missing=(4, 5)).histories[0]
    fields = history.coordinates @ history.basis
    torch.testing.assert_close(fields[3], truth(3).flatten(), rtol=0, atol=1e-5)
    torch.testing.assert_close(fields[6], truth(6).flatten(), rtol=0, atol=1e-5)
    torch.testing.assert_close(fields[5], (truth(3) + 2 * truth(6)).flatten() / 3, rtol=0, atol=1e-5)


def test_history_keeps_the_last_fields_in_few_dimensions() -> None:
    g = torch.Generator().manual_seed(1)
    fields = torch.randn(12, 50, generator=g)
    history = MotionHistory.at_rest(fields[0])
    for field in fields:
        history = history.followed_by(field, 1, limit=5)
        assert len(history.basis) <= 5
        eye = torch.eye(len(history.basis))
        torch.testing.assert_close(history.basis @ history.basis.mT, eye, rtol=0, atol=1e-5)
    torch.testing.assert_close(history.coordinates @ history.basis, fields[-5:], rtol=0, atol=1e-4)
    again = history.followed_by(fields[0], 0, limit=5)
    torch.testing.assert_close(again.field(again.coordinates[-1]), fields[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(again.coordinates[:-1] @ again.basis, fields[-5:-1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["pca", "dmd", "ar-pca"])
def test_named_methods_take_any_method_inside(name: str) -> None:
    method = build_module({"class_path": name, "init_args": {"method": {"class_path": "hold-last"}}})
    assert isinstance(method, SequenceModule)
    state = method.start(torch.rand(1, 1, 16, 16), seconds_per_frame=SECONDS)
    state, estimate = method.step(state, torch.rand(1, 1, 16, 16), SECONDS)
    assert estimate.field.u.shape == (1, 2, 16, 16)


def travelling(phase: float, frames: int = 40) -> Tensor:
    """Fields `(T, D, *S)` of a sequence that begins anywhere in the period; the law is the same for all."""
    return torch.cat([torch.einsum("k,kdxy->dxy", weights(t, phase), patterns())[None] for t in range(frames)])


def learned(rank: int = 3, order: int = 3) -> LearnedComponents:
    sequences = [travelling(0.7 * k) for k in range(9)]
    components = principal_components(torch.cat(sequences), rank)
    return learned_components(components, sequences, order, seconds_per_frame=SECONDS, ridge=1e-9)


def test_learned_components_know_motion_that_the_stream_has_not_shown_yet(tmp_path: Path) -> None:
    learned().save(tmp_path / "motion.pt")
    known = AutoregressiveMotion(ReadsWeights(), checkpoint=str(tmp_path / "motion.pt"))
    state = streamed(known, 6)
    for ahead in (1, 4, 9):
        found = known.forecast(state, ahead * SECONDS).field.u
        assert (found - truth(5 + ahead)).norm() < 0.1 * (truth(5) - truth(5 + ahead)).norm()


def test_learned_components_survive_their_file(tmp_path: Path) -> None:
    model = learned()
    model.save(tmp_path / "motion.pt")
    again = LearnedComponents.load(tmp_path / "motion.pt")
    flat = again.components.components.flatten(1)
    torch.testing.assert_close(flat @ flat.mT, torch.eye(len(flat)), rtol=0, atol=1e-5)
    history = MotionHistory.at_rest(truth(0).flatten()).followed_by(truth(4).flatten(), 1, 10)
    torch.testing.assert_close(again(history, 2.5), model(history, 2.5), rtol=0, atol=2e-2)
    torch.save({"something": 1}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=r"other\.pt: expected components"):
        LearnedComponents.load(tmp_path / "other.pt")


def test_other_sizes_and_rates_are_refused(tmp_path: Path) -> None:
    learned().save(tmp_path / "motion.pt")
    known = AutoregressiveMotion(ReadsWeights(), checkpoint=str(tmp_path / "motion.pt"))
    with pytest.raises(ValueError, match=r"trained on images of 12x10 every 0.04 s, not of 12x11"):
        known.start(torch.zeros(1, 1, 12, 11), seconds_per_frame=SECONDS)
    with pytest.raises(ValueError, match=r"not of 12x10 every 0.05 s"):
        known.start(frame(0), seconds_per_frame=0.05)
    sequence = ImageSequence(("a",), torch.zeros(1, 3, 1, 12, 11), SECONDS)
    assert "12x11" in str(known.accepts(sequence))


def test_bad_settings_are_told() -> None:
    for make in (
        lambda: PrincipalMotion(ReadsWeights(), rank=0),
        lambda: DynamicModeMotion(ReadsWeights(), delays=0),
        lambda: AutoregressiveMotion(ReadsWeights(), order=0),
        lambda: AutoregressiveMotion(ReadsWeights(), remainder="forget"),
        lambda: AutoregressiveMotion(ReadsWeights(), window=2),
    ):
        with pytest.raises(ValueError, match="must be"):
            make()

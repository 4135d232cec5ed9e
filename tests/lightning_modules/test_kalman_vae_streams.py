"""The Kalman VAE as a method of sequences: filtered, bridged, foretold, smoothed, generated; of any size of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lightning_modules.kalman_vae import KalmanVAE
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from lightning_modules.simpleitk_demons import Demons
from reg_bench.errors import ConfigError
from reg_bench.field import warp
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, ImageSequence, RegistrationPair

SMALL: dict[str, Any] = {"size": 16, "latents": 3, "states": 4, "filters": (4, 6), "start": "steady"}
DT = 0.02


def method(**changes: Any) -> KalmanVAE:
    torch.manual_seed(0)
    model = KalmanVAE(KalmanVAENetwork(**{**SMALL, **changes})).eval()
    for dense in (model.network.encoder.mean,):
        torch.nn.init.normal_(dense.weight, std=0.5)
    return model.requires_grad_(False)


def clip(length: int = 6, batch: int = 2, size: tuple[int, int] = (16, 16), seed: int = 0) -> Tensor:
    return torch.rand(batch, length, 1, *size, generator=torch.Generator().manual_seed(seed))


def streamed(model: KalmanVAE, frames: Tensor, observed: list[bool] | None = None) -> list[Tensor]:
    state = model.start(frames[:, 0], seconds_per_frame=DT)
    fields = []
    for t in range(1, frames.shape[1]):
        given = frames[:, t] if observed is None or observed[t] else None
        state, estimate = model.step(state, given, t * DT)
        fields.append(estimate.field.u)
    return fields


@pytest.mark.parametrize("changes", [{}, {"conditioning": "features", "decoder": "bspline", "levels": 1}])
def test_steps_are_the_filter_and_each_case_is_alone(changes: dict[str, Any]) -> None:
    model, frames, observed = method(**changes), clip(), [True, True, False, True, False, False]
    state = model.start(frames[:, 0], seconds_per_frame=DT)
    mask = torch.tensor(observed).expand(2, -1)
    course = model.latent_course(frames, mask)
    expected = model.fields(state, course.mean["filtered"])
    fields = streamed(model, frames, observed)
    for t, u in enumerate(fields, start=1):
        torch.testing.assert_close(u, expected[:, t], rtol=1e-3, atol=1e-4)
    alone = streamed(model, frames[1:], observed)
    torch.testing.assert_close(torch.stack(alone), torch.stack(fields)[:, 1:], rtol=1e-3, atol=1e-4)
    # What no frame was given for is predicted; the spread grows with every one.
    torch.testing.assert_close(course.mean["filtered"][:, 2], course.mean["predicted"][:, 2])
    assert bool((course.std["filtered"][:, 5] > course.std["filtered"][:, 3]).all())
    assert bool((course.std["smoothed"] <= course.std["filtered"] + 1e-5).all())


def test_forecasts_go_on_as_steps_without_frames() -> None:
    model, frames = method(), clip()
    state = model.start(frames[:, 0], seconds_per_frame=DT)
    state, now = model.step(state, frames[:, 1], DT)
    kept = state.latents.mean.clone()
    later, ahead = state, []
    for t in range(2, 5):
        later, estimate = model.step(later, None, t * DT)
        ahead.append(estimate.field.u)
    for k, u in enumerate(ahead, start=1):
        torch.testing.assert_close(model.forecast(state, k * DT).field.u, u, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(model.forecast(state, 0.0).field.u, now.field.u)
    jumped, estimate = model.step(state, None, 4 * DT)
    torch.testing.assert_close(estimate.field.u, ahead[-1], rtol=1e-3, atol=1e-5)
    assert jumped.time_s == 4 * DT
    # The state that was asked is as it was.
    assert torch.equal(state.latents.mean, kept)
    between = model.latents.ahead(state.latents, 1.25)[0]
    one, two = (model.latents.ahead(state.latents, k)[0] for k in (1, 2))
    torch.testing.assert_close(between, 0.75 * one + 0.25 * two)
    half = model.latents.ahead(state.latents, 0.5)[0]
    torch.testing.assert_close(half, (model.latents.observed(state.latents)[0] + one) / 2)


def test_two_streams_interleave() -> None:
    model, a, b = method(), clip(batch=1), clip(batch=1, seed=1)
    states = [model.start(f[:, 0], seconds_per_frame=DT) for f in (a, b)]
    mixed: list[list[Tensor]] = [[], []]
    for t in range(1, 6):
        for i, frames in enumerate((a, b)):
            states[i], estimate = model.step(states[i], frames[:, t], t * DT)
            mixed[i].append(estimate.field.u)
    for found, frames in zip(mixed, (a, b), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(found, streamed(model, frames), strict=True))


def test_smoothing_looks_both_ways_and_never_at_what_is_missing() -> None:
    model, frames = method(), clip()
    observed = torch.tensor([[1, 1, 0, 0, 1, 1]] * 2).bool()
    fields = [e.field.u for e in model.smooth(frames, observed)]
    other = torch.where(observed[..., None, None, None], frames, torch.rand_like(frames))
    again = [e.field.u for e in model.smooth(other, observed)]
    assert len(fields) == 6
    torch.testing.assert_close(torch.stack(again), torch.stack(fields))
    changed = frames.clone()
    changed[:, 5] = clip(seed=3)[:, 5]
    later = model.smooth(changed, observed)[2].field.u
    assert not torch.allclose(later, fields[2])
    # At the end there is no future.
    warped = warp(frames[:, 0], streamed(model, frames)[1])
    torch.testing.assert_close(model.reconstructed(frames)[:, 2], warped, rtol=1e-3, atol=1e-4)
    last = streamed(model, frames, observed[0].tolist())[-1]
    torch.testing.assert_close(fields[-1], last, rtol=1e-3, atol=1e-4)


def test_generated_motions_follow_from_their_seed() -> None:
    model, reference = method(), clip()[:, 0]
    drawn = model.generate(reference, 3, 7, length=4)
    assert [u.shape for u in drawn] == [(2, 4, 2, 16, 16)] * 3
    assert all(torch.equal(a, b) for a, b in zip(drawn, model.generate(reference, 3, 7, length=4), strict=True))
    assert not torch.allclose(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], model.generate(reference, 1, 8, length=4)[0])


def test_uncertainty_grows_with_the_horizon_and_with_missing_frames() -> None:
    model, frames = method(), clip()
    state = model.start(frames[:, 0], seconds_per_frame=DT)
    state, _ = model.step(state, frames[:, 1], DT)
    near, far = (model.uncertain(state, k * DT) for k in (0, 8))
    assert near.std is not None
    assert far.std is not None
    assert near.std.shape == (2, 2, 16, 16)
    assert float(far.std.mean()) > float(near.std.mean()) > 0
    torch.testing.assert_close(near.field.u, model.forecast(state, 0.0).field.u)


def test_frames_of_another_size_and_of_several_channels() -> None:
    model, frames = method(), clip(size=(31, 46), batch=1)
    fields = streamed(model, frames)
    assert fields[0].shape == (1, 2, 31, 46)
    small = torch.stack([model.scaled(frames[:, t]) for t in range(6)], dim=1)
    own = streamed(model, small)[0]
    # Corners coincide, and a pixel there is shorter.
    expected = own[..., ::15, ::15] * torch.tensor([30 / 15, 45 / 15]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(fields[0][..., ::30, ::45], expected, rtol=1e-4, atol=1e-5)
    coloured = streamed(model, frames.expand(-1, -1, 3, -1, -1))
    torch.testing.assert_close(coloured[0], fields[0])


def test_nothing_moves_beyond_the_field_of_view() -> None:
    model = method()
    view = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    view[..., 4:12, 2:9] = True
    model.network.see(view)
    for u in streamed(model, clip()):
        assert float(u[~view.expand_as(u)].abs().max()) == 0
        assert float(u[view.expand_as(u)].abs().max()) > 0


def test_a_plain_vae_holds_its_last_field() -> None:
    model, frames = method(dynamic=False), clip()
    fields = streamed(model, frames, [True, True, False, True, False, False])
    assert torch.equal(fields[0], fields[1])
    assert torch.equal(fields[2], fields[4])
    assert not torch.allclose(fields[0], fields[2])
    state = model.start(frames[:, 0], seconds_per_frame=DT)
    state, now = model.step(state, frames[:, 1], DT)
    assert torch.equal(model.forecast(state, 3 * DT).field.u, now.field.u)
    assert model.generate(frames[:, 0], 2, 0, length=3)[0].shape == (2, 3, 2, 16, 16)
    assert model.latent_course(frames).x.shape == (2, 6, 3)


class _Brighter(RegistrationModule):
    """Moves by as many pixels as the fixed image is brighter than the moving one."""

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return DisplacementField.for_pair((pair.fixed - pair.moving).expand(-1, 2, -1, -1), pair)


def test_a_network_of_images_is_registered_to_what_it_generates() -> None:
    torch.manual_seed(0)
    model = KalmanVAE(KalmanVAENetwork(**SMALL, target="image"), images=_Brighter()).eval().requires_grad_(False)
    frames = clip()
    state = model.start(frames[:, 0], seconds_per_frame=DT)
    state, estimate = model.step(state, frames[:, 1], DT)
    image = model.network.decode(model.latents.observed(state.latents)[0][:, None])[:, 0]
    torch.testing.assert_close(estimate.field.u, (image - frames[:, 0]).expand(-1, 2, -1, -1))
    pictures = model.reconstructed(frames)
    torch.testing.assert_close(pictures[:, 1], image, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="needs `images`"):
        KalmanVAE(KalmanVAENetwork(**SMALL, target="image"))


def test_untrained_networks_refuse_and_others_weights_do_not_fit(tmp_path: Path) -> None:
    model = method()
    sequence = ImageSequence(("one",), clip(batch=1), DT)
    assert "no weights" in str(model.accepts(sequence))
    settings = {"size": 16, "latents": 3, "states": 4, "filters": [4, 6]}
    config = {"model": {"class_path": "x", "init_args": {"network": {"class_path": "y", "init_args": settings}}}}
    state = {f"network.{k}": v for k, v in model.network.state_dict().items()}
    file = tmp_path / "own.pt"
    torch.save({"state_dict": state, "config": yaml.safe_dump(config)}, file)
    same = KalmanVAE(KalmanVAENetwork(**SMALL, smoothing=1.0), checkpoint=str(file)).eval()
    assert same.accepts(sequence) is None
    assert torch.equal(same.network.encoder.mean.weight, model.network.encoder.mean.weight)
    # The shapes agree, what is done with them does not.
    for changes, text in (({"velocity": True}, "velocity is False there and True"), ({"states": 5}, "states is 4")):
        with pytest.raises(ConfigError, match=rf"own\.pt.*{text}"):
            KalmanVAE(KalmanVAENetwork(**{**SMALL, **changes}), checkpoint=str(file))
    with pytest.raises(ConfigError, match=r"known name"):
        KalmanVAE(checkpoint="kalman-vae-smal")
    with pytest.raises(ValueError, match="no parameter of the network begins with 'enc0der'"):
        KalmanVAE(KalmanVAENetwork(**SMALL), frozen=["enc0der"])


def test_it_learns_a_shift_that_demons_finds_too() -> None:
    """A bright disc that moves along one axis and back: after some steps of training the filtered field follows it."""
    torch.manual_seed(0)
    rows = torch.arange(16.0)[:, None]
    columns = torch.arange(16.0)
    shifts = 2.5 * torch.sin(torch.arange(8.0) * 2 * torch.pi / 8)
    discs = [torch.exp(-((rows - 7.5 - s) ** 2 + (columns - 7.5) ** 2) / 18) for s in shifts]
    frames = torch.stack(discs)[None, :, None]
    network = KalmanVAENetwork(**{**SMALL, "filters": (8, 8)}, image_std=0.1, first_std=0.01, penalty=0.1)
    model = KalmanVAE(network)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(120):
        adam.zero_grad()
        (-network.bound(frames.expand(4, -1, -1, -1, -1)).value.mean()).backward()
        adam.step()
    model.eval().requires_grad_(False)
    fields = streamed(model, frames)
    for t in (2, 6):
        before = float((frames[:, 0] - frames[:, t]).square().mean())
        after = float((warp(frames[:, 0], fields[t - 1]) - frames[:, t]).square().mean())
        assert after < 0.2 * before
        found = Demons().register(RegistrationPair(("disc",), fixed=frames[:, t], moving=frames[:, 0])).u
        # Of both the part along the motion in the middle of the disc.
        assert float(fields[t - 1][0, 0, 7, 7]) == pytest.approx(float(found[0, 0, 7, 7]), abs=1.2)

"""From pairs to a network and back: scaling, shapes, what is trained, what is logged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_modules.learned import AdamSettings, LearnedRegistration
from reg_bench.conformance_session import Session
from reg_bench.field import warp
from reg_bench.registration_loss import LossTerm, RegistrationLoss
from reg_bench.registration_network import NetworkOutput, RegistrationNetwork
from reg_bench.types import RegistrationPair, collate_pairs


class Constant(RegistrationNetwork):
    """The same displacement everywhere; keeps what it was given."""

    def __init__(self, dimension: int = 2, multiple: int = 8, start: float = 0.0) -> None:
        super().__init__()
        self.dimension, self.multiple = dimension, multiple
        self.shift = nn.Parameter(torch.full((dimension,), start))
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        self.seen = fixed, moving
        u = (self.shift * self.gain).reshape(1, -1, *[1] * self.dimension)
        return NetworkOutput(u.expand(len(fixed), self.dimension, *fixed.shape[2:]))


class Squares(LossTerm):
    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor:
        return (warp(pair.moving, output.u) - pair.fixed).square().mean()


class Truth(LossTerm):
    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        return None if pair.true_displacement is None else (output.u - pair.true_displacement).square().mean()


def learned(network: RegistrationNetwork | None = None, **options: Any) -> LearnedRegistration:
    terms: dict[str, LossTerm] = {"squares": Squares(), "truth": Truth()}
    return LearnedRegistration(network or Constant(), RegistrationLoss(terms), **options)


def pair_of(shape: tuple[int, ...] = (21, 30), moving: tuple[int, ...] | None = None, **more: Any) -> RegistrationPair:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 1, *s, generator=generator) * 300 - 50 for s in (shape, moving or shape)]
    return RegistrationPair(("case",), images[0], images[1], **more)


def test_images_are_scaled_and_continued_and_the_field_is_cut_back() -> None:
    network = Constant(start=2.0)
    truth = torch.arange(2 * 21 * 30.0).reshape(1, 2, 21, 30)
    labels = torch.randint(0, 4, (1, 1, 21, 30), dtype=torch.uint8)
    pair = pair_of(true_displacement=truth, fixed_labels=labels, moving_labels=labels.flip(2))
    before = pair.fixed.clone()
    field = learned(network)(pair)
    assert field.u.shape == (1, 2, 21, 30)
    assert bool((field.u == 2).all())
    assert torch.equal(pair.fixed, before)
    fixed, moving = network.seen
    assert fixed.shape == moving.shape == (1, 1, 24, 32)
    assert float(fixed.min()) == 0
    assert float(fixed.max()) == 1
    assert torch.equal(fixed[..., 21:, :30], fixed[..., 20:21, :30].expand(-1, -1, 3, -1))
    prepared = learned(network).prepared(pair)
    for name in ("fixed_labels", "moving_labels", "true_displacement"):
        assert torch.equal(getattr(prepared, name)[..., :21, :30], getattr(pair, name))
        assert torch.equal(getattr(prepared, name)[..., 23, 31], getattr(pair, name)[..., 20, 29])
    assert prepared.mask is not None
    assert prepared.mask.sum() == 21 * 30
    assert bool(prepared.mask[..., :21, :30].all())


def test_small_images_are_continued_to_what_the_network_needs_at_least() -> None:
    network = Constant(multiple=8)
    network.least = 32
    field = learned(network).register(pair_of((21, 40)))
    assert network.seen[0].shape[2:] == (32, 40)
    assert field.u.shape == (1, 2, 21, 40)


def test_a_size_that_fits_stays_and_scaling_can_be_left_out() -> None:
    pair = pair_of((16, 24))
    prepared = learned(percentiles=None).prepared(pair)
    assert prepared.fixed is pair.fixed
    assert prepared.mask is None


def test_a_moving_image_of_another_shape_is_brought_to_that_of_the_fixed_one() -> None:
    """The field holds for the moving image as it is: voxel meets voxel of the same index."""
    network = Constant()
    pair = pair_of((16, 16), (12, 20), moving_labels=torch.ones(1, 1, 12, 20, dtype=torch.int16))
    method = learned(network, percentiles=None)
    assert method(pair).u.shape == (1, 2, 16, 16)
    assert torch.equal(network.seen[1][..., :12, :], pair.moving[..., :16])
    labels = method.prepared(pair).moving_labels
    assert labels is not None
    assert labels.dtype == torch.int16
    assert bool((labels[..., :12, :] == 1).all())
    assert bool((labels[..., 12:, :] == 0).all())


def test_what_a_network_cannot_take_is_said() -> None:
    method = learned(Constant(3))
    assert "no weights: name them by --checkpoint FILE" in str(method.accepts(pair_of()))
    method.on_load_checkpoint({})
    assert "Constant is for 3-D, not 2-D" in str(method.accepts(pair_of()))
    method = learned()
    method.on_load_checkpoint({})
    assert method.accepts(pair_of()) is None
    coloured = RegistrationPair(("rgb",), *torch.rand(2, 1, 3, 8, 8))
    assert "takes images of 1 channels, not 3" in str(method.accepts(coloured))


class Shifted(LightningDataModule):
    """Two pairs whose truth is (3, -2), one of them alone in its shape."""

    def pairs(self) -> list[RegistrationPair]:
        return [Session(nn.Identity(), 2).case(name).pair for name in ("shift 0", "shift 1")]  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pairs(), batch_size=1, collate_fn=collate_pairs)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def trainer(folder: Any, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, enable_checkpointing=False, **{**quiet, **options})


def test_training_lowers_the_loss_and_validation_tells_dice_tre_folding_and_loss(tmp_path: Any) -> None:
    method = learned(optimizer=AdamSettings(rate=0.5, schedule="exponential", decay=0.9))
    run = trainer(tmp_path, max_epochs=4, num_sanity_val_steps=0)
    run.validate(method, Shifted(), verbose=False)
    before = dict(run.callback_metrics)
    run.fit(method, Shifted())
    after = run.callback_metrics
    assert {"val/dice", "val/tre_landmarks", "val/nonpositive_fraction", "val/ncc", "val/end_point_error"} <= set(after)
    assert {"val/loss", "val/squares_loss", "val/truth_loss", "train/loss", "train/squares"} <= set(after)
    assert after["val/loss"] < before["val/loss"]
    assert float(after["val/loss"]) == pytest.approx(float(after["val/squares_loss"] + after["val/truth_loss"]))
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5 * 0.9**4)


def test_the_cosine_ends_at_zero_and_weights_can_decay(tmp_path: Any) -> None:
    method = learned(optimizer=AdamSettings(rate=0.5, schedule="cosine", weight_decay=0.1))
    run = trainer(tmp_path, max_steps=3, limit_val_batches=0)
    run.fit(method, Shifted())
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    assert run.optimizers[0].param_groups[0]["weight_decay"] == 0.1


def test_the_rate_rises_before_it_follows_its_schedule(tmp_path: Any) -> None:
    settings = AdamSettings(rate=0.5, schedule="cosine", warm_up=4)
    assert [settings.share(step, 8) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [settings.share(step, 8) for step in (4, 6, 8)] == pytest.approx([1.0, 0.5, 0.0])
    run = trainer(tmp_path, max_steps=3, limit_val_batches=0)
    run.fit(learned(optimizer=settings), Shifted())
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5 * 0.8)
    with pytest.raises(ValueError, match="warm_up"):
        AdamSettings(schedule="exponential", warm_up=4)


def test_l2_is_part_of_the_loss_for_kernels_alone() -> None:
    layer = nn.Conv2d(2, 3, 3)
    kernel, bias = layer.weight.detach().clone(), layer.bias
    assert bias is not None
    adam = AdamSettings(rate=0.1, l2=0.25).adam(layer.parameters())
    plain = nn.Parameter(kernel.clone())
    other = torch.optim.Adam([plain], 0.1)
    start = bias.detach().clone()
    for _ in range(3):
        layer.weight.grad, bias.grad = torch.full_like(kernel, 0.1), torch.zeros_like(bias)
        adam.step()
        other.zero_grad()
        (0.1 * plain.sum() + 0.25 * plain.square().sum()).backward()
        other.step()
    torch.testing.assert_close(layer.weight, plain)
    assert torch.equal(bias, start)
    with pytest.raises(ValueError, match="exclude each other"):
        AdamSettings(l2=1, weight_decay=1)


def test_frozen_parts_stay(tmp_path: Any) -> None:
    method = learned(frozen=["gain"], optimizer=AdamSettings(rate=0.5))
    trainer(tmp_path, max_steps=2, limit_val_batches=0).fit(method, Shifted())
    network = method.network
    assert isinstance(network, Constant)
    assert network.gain.item() == 1
    assert network.shift.abs().min().item() > 0
    with pytest.raises(ValueError, match="no parameter of the network begins with 'gian'"):
        learned(frozen=["gian"])


def test_what_makes_no_sense_is_named(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="rate must be positive"):
        AdamSettings(rate=0)
    with pytest.raises(ValueError, match="training needs a loss"):
        trainer(tmp_path, max_steps=1).fit(LearnedRegistration(Constant()), Shifted())
    with pytest.raises(ValueError, match="case: none of the terms truth applies"):
        LearnedRegistration(Constant(), RegistrationLoss({"truth": Truth()})).training_step(pair_of(), 0)

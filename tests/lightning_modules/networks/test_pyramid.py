"""The registration pyramid: the paper's network, number by number, and its variants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.pyramid import RegistrationPyramid
from reg_bench.field import exponential, warp
from reg_bench.registration_loss import LabelDice, LevelAffine, LevelRegularity, LevelSimilarity, RegistrationLoss
from reg_bench.registration_network import NetworkOutput
from reg_bench.types import RegistrationPair

# PAPERS.md 2.2.
PARTS = {
    "pyramid": 250_272,
    "affine, level 4": 780,
    "affine, level 3": 780,
    "affine, level 2": 780,
    "affine, level 1": 396,
    "affine, level 0": 36,
    "deform, level 4": 1_151_619,
    "deform, level 3": 1_313_187,
    "deform, level 2": 1_313_187,
    "deform, level 1": 1_232_403,
    "deform, level 0": 1_156_668,
    "upsampling, level 4": 297_494,
    "upsampling, level 3": 325_142,
    "upsampling, level 2": 325_142,
    "upsampling, level 1": 311_318,
    "context, level 4": 889_587,
}

SMALL: dict[str, Any] = {"filters": (3, 4), "blocks": 2, "growth": (5, 4), "carried": 3, "radius": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    "as the paper": {"context": "coarsest", "radius": 2},
    "no cost volume": {"radius": 0},
    "cost volume of None": {"radius": None},
    "one range per level": {"radius": (0, 1, 2)},
    "no affine": {"affine": None},
    "affine on vectors": {"affine": "vectors"},
    "laplacian": {"features": "laplacian"},
    "velocity": {"velocity": True},
    "velocity on vectors": {"velocity": True, "affine": "vectors"},
    "velocity, residual": {"velocity": True, "residual": True},
    "residual": {"residual": True},
    "context at the finest": {"context": "finest"},
    "instance": {"normalisation": "instance"},
    "no normalisation": {"normalisation": None},
    "linear": {"doubling": "linear"},
    "half resolution": {"finest": 1, "doubling": "linear", "radius": (1, 1)},
    "nothing carried": {"carried": 0},
    "three levels": {"filters": (2, 3, 4)},
    "channels last": {"channels_last": True},
}


def images(size: int = 16, dims: int = 3, batch: int = 1, channels: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fixed, moving = torch.rand(2, batch, channels, *(size,) * dims, generator=generator)
    return fixed, moving


def small(**changes: Any) -> RegistrationPyramid:
    torch.manual_seed(0)
    network = RegistrationPyramid(**{**SMALL, "context": None, **changes})
    stirred(network)
    return network


def stirred(network: RegistrationPyramid) -> None:
    """Away from the identity that training starts from, or most of the network would not be seen."""
    for name, parameter in network.named_parameters():
        if "affine" in name or "displacement" in name:
            nn.init.normal_(parameter, std=0.05)


def total(output: NetworkOutput) -> Tensor:
    return torch.stack([level.u.square().mean() for level in output.levels]).sum() + output.u.square().mean()


def test_parameters_of_the_paper() -> None:
    network = RegistrationPyramid()
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in network.parts().items()} == PARTS
    assert sum(p.numel() for p in network.parameters()) == 8_568_791
    statistics = [b for name, b in network.named_buffers() if "running" in name]
    assert sum(b.numel() for b in statistics) == 3_008
    without = RegistrationPyramid(context=None)
    assert sum(p.numel() for p in without.parameters()) == 7_679_204
    printed = RegistrationPyramid(growth=(64, 64, 32, 18, 8))
    assert sum(p.numel() for p in printed.parameters()) == 8_672_933


def test_starts_at_the_identity_with_every_level_returned() -> None:
    network = RegistrationPyramid()
    fixed, moving = images(32)
    with torch.no_grad():
        output = network(fixed, moving)
    assert [tuple(level.u.shape) for level in output.levels] == [(1, 3, n, n, n) for n in (32, 16, 8, 4, 2)]
    assert all(level.matrix is not None and not level.matrix.any() for level in output.levels)
    assert output.u.dtype == torch.float32
    assert float(output.u.abs().max()) < 0.05


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter_of_every_variant(name: str) -> None:
    network = small(**VARIANTS[name])
    output = network(*images(16, batch=2))
    assert output.u.shape == (2, 3, 16, 16, 16)
    assert len(output.levels) == len(network.levels)
    assert (output.velocity is not None) == VARIANTS[name].get("velocity", False)
    total(output).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("name", ["as the paper", "velocity, residual", "laplacian", "half resolution"])
def test_two_dimensions(name: str) -> None:
    network = small(**VARIANTS[name], dimension=2, channels=2)
    output = network(*images(16, dims=2, batch=2, channels=2))
    assert output.u.shape == (2, 2, 16, 16)
    total(output).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def with_constant_flow(network: RegistrationPyramid, level: int, shift: Tensor) -> None:
    """Makes the estimator of a level return `shift` everywhere."""
    last = network.levels[str(level)].estimator.displacement
    nn.init.zeros_(last.weight)
    last.bias.data = shift


def test_field_pulls_back_along_the_axes_in_their_order() -> None:
    """Three distinct whole shifts: the warped image is the moving one, rolled the other way."""
    network = small(affine=None).eval()
    shift = torch.tensor([1.0, -2.0, 3.0])
    with_constant_flow(network, 0, shift)
    fixed, moving = images(16)
    with torch.no_grad():
        warped = warp(moving, network(fixed, moving).u)
    rolled = moving.roll((-1, 2, -3), dims=(2, 3, 4))
    inner = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(warped[inner], rolled[inner], atol=1e-5, rtol=1e-5)


def test_coarse_shift_is_doubled_on_its_way() -> None:
    network = small(affine=None, residual=True).eval()
    shift = torch.tensor([0.5, -0.25, 1.0])
    for level, value in ((2, shift), (1, torch.zeros(3)), (0, torch.zeros(3))):
        with_constant_flow(network, level, value)
    for name, parameter in network.named_parameters():
        if "upsampling.displacement" in name:
            nn.init.dirac_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    with torch.no_grad():
        output = network(*images(16))
    for factor, level in zip((4, 2, 1), output.levels, strict=True):
        expected = factor * shift.reshape(1, 3, 1, 1, 1).expand_as(level.u)
        torch.testing.assert_close(level.u, expected, atol=1e-5, rtol=1e-5)


def test_affine_step_comes_after_the_flow() -> None:
    """What the estimator is told: the moving features warped by the flow and the result by the affine map."""
    network = small(filters=(3,), affine="coordinates").eval()
    level = network.levels["0"]
    told: list[Tensor] = []
    level.estimator.register_forward_pre_hook(lambda _, arguments: told.append(arguments[0]))
    with torch.no_grad():
        output = network(*images(8))
    finest = output.levels[0]
    assert finest.affine is not None
    assert finest.affine_input is not None
    expected = finest.affine + warp(finest.affine_input, finest.affine)
    torch.testing.assert_close(told[0][:, 28:31], expected, atol=1e-5, rtol=1e-5)


def test_displacement_is_the_exponential_of_the_velocity() -> None:
    output = small(velocity=True, residual=True, steps=5)(*images(16))
    assert output.velocity is output.levels[0].velocity
    for level in output.levels:
        assert level.velocity is not None
        torch.testing.assert_close(level.u, exponential(level.velocity, 5))
        assert float((level.u - level.velocity).detach().abs().max()) > 0.01


@pytest.mark.parametrize("name", ["as the paper", "velocity, residual"])
def test_recomputing_activations_changes_nothing(name: str) -> None:
    fixed, moving = images(16, batch=2)
    networks = [small(**VARIANTS[name], checkpointing=again) for again in (False, True)]
    for network in networks:
        total(network(fixed, moving)).backward()
    plain, again = ({**dict(n.named_parameters()), **dict(n.named_buffers())} for n in networks)
    for key, value in plain.items():
        torch.testing.assert_close(again[key], value, atol=0, rtol=0)
        if value.requires_grad:
            torch.testing.assert_close(again[key].grad, value.grad, atol=0, rtol=0)


def test_channels_last_is_the_same_network() -> None:
    """Rounding aside; the layout of weights in a file does not matter."""
    fixed, moving = images(16, batch=2)
    plain, other = small().double(), small(channels_last=True).double()
    other.load_state_dict(plain.state_dict())
    outputs = [n(fixed.double(), moving.double()) for n in (plain, other)]
    torch.testing.assert_close(outputs[0].u, outputs[1].u, atol=1e-10, rtol=1e-10)


def test_half_precision_keeps_displacements_in_single() -> None:
    network = small(context="coarsest")
    fixed, moving = images(16, batch=2)
    whole = network(fixed, moving)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(fixed, moving)
    assert all(level.u.dtype == torch.float32 for level in output.levels)
    assert output.u.dtype == torch.float32
    assert float((output.u - whole.u).abs().mean()) < 0.05 * float(whole.u.abs().mean())
    total(output).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_levels_become_active_from_the_coarsest() -> None:
    network = small()
    fixed, moving = images(16)
    network.eval()
    with torch.no_grad():
        whole = network(fixed, moving)
        network.active_levels = 2
        part = network(fixed, moving)
    assert [level.u.shape[2] for level in part.levels] == [8, 4]
    assert part.u.shape == whole.u.shape
    for ours, theirs in zip(part.levels, whole.levels[1:], strict=True):
        torch.testing.assert_close(ours.u, theirs.u)
    network.train()
    total(network(fixed, moving)).backward()
    assert all(p.grad is None for p in network.levels["0"].parameters())
    with pytest.raises(ValueError, match=r"active_levels must be in 1\.\.3"):
        network.active_levels = 4


@pytest.mark.parametrize("normalisation", ["batch", "instance", None])
def test_features_of_both_images_do_not_depend_on_each_other(normalisation: str | None) -> None:
    """Also in training by batch statistics: each image has its own."""
    network = small(normalisation=normalisation)
    fixed, moving = images(16)
    for training in (True, False):
        network.train(training)
        first, _ = network._features(fixed, moving)
        second, _ = network._features(fixed, 5 * moving)
        for a, b in zip(first, second, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_each_case_of_a_batch_is_registered_alone() -> None:
    network = small(normalisation="instance")
    fixed, moving = images(16, batch=2)
    with torch.no_grad():
        together, alone = network(fixed, moving).u, network(fixed[1:], moving[1:]).u
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (1, 1, 16, 16, 14), "multiples of 4 and at least 8"),
        ({}, (1, 1, 16, 16, 4), "multiples of 4 and at least 8"),
        ({}, (1, 2, 16, 16, 16), r"must be \(B, 1, \*spatial\)"),
        ({}, (1, 1, 16, 16), "with 3 axes"),
        ({"radius": (1, 1)}, None, "radius must be one or 3 numbers"),
        ({"finest": 3}, None, r"finest in 0\.\.2"),
        ({"filters": (0, 3)}, None, "at least 1"),
        ({"dimension": 4}, None, "2 or 3 dimensions"),
        ({"normalisation": "layer"}, None, "'batch', 'instance' or None"),
    ],
)
def test_refusals(arguments: dict[str, Any], shape: tuple[int, ...] | None, message: str) -> None:
    if shape is None:
        with pytest.raises(ValueError, match=message):
            small(**arguments)
        return
    with pytest.raises(ValueError, match=message):
        small()(torch.rand(shape), torch.rand(shape))


def test_size_that_is_no_multiple_is_refused_and_told() -> None:
    assert small().multiple == 4
    assert RegistrationPyramid(filters=(2, 2, 2), growth=(2,), radius=0).multiple == 8


def blobs(size: int) -> RegistrationPair:
    """A ball and, moved and larger, another, with a label each."""
    where = torch.stack(torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * 3, indexing="ij"))
    cases = []
    for centre, radius in ((0.5, 0.2), (0.42, 0.28)):
        distance = (where - centre * (size - 1)).square().sum(0).sqrt()
        image = torch.sigmoid((radius * size - distance) / 1.5)
        cases.append((image[None, None], (distance < radius * size).long()[None, None]))
    (fixed, fixed_labels), (moving, moving_labels) = cases
    return RegistrationPair(("balls",), fixed, moving, fixed_labels=fixed_labels, moving_labels=moving_labels)


def equation_1() -> RegistrationLoss:
    return RegistrationLoss(
        {
            "dice": LabelDice(5.0),
            "ncc": LevelSimilarity(weight=5.0),
            "affine": LevelAffine(),
            "gradient": LevelRegularity(weight=2 / 9),
        }
    )


def losses(network: RegistrationPyramid, pair: RegistrationPair, steps: int, rate: float) -> list[float]:
    optimizer, loss = torch.optim.Adam(network.parameters(), rate), equation_1()
    course = []
    for _ in range(steps):
        value, _ = loss(network(pair.fixed, pair.moving), pair)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        course.append(float(value.detach()))
    return course


def test_loss_falls_over_20_steps() -> None:
    torch.manual_seed(0)
    network = RegistrationPyramid(filters=(4, 8), blocks=1, growth=(8, 4), carried=4, context=None)
    course = losses(network, blobs(16), 20, 3e-3)
    assert sum(course[-3:]) < 0.9 * sum(course[:3])


@pytest.mark.slow
def test_loss_of_the_paper_falls_over_20_steps_at_64() -> None:
    """A quarter of an hour on two cores."""
    torch.manual_seed(0)
    network = RegistrationPyramid()
    course = losses(network, blobs(64), 20, 1e-4)
    assert sum(course[-3:]) < 0.9 * sum(course[:3]), course
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


def test_statistics_of_training_serve_evaluation() -> None:
    """After training on one pair the labels fit nearly as well with the running statistics as with the batch's own."""
    torch.manual_seed(0)
    network = RegistrationPyramid(filters=(4, 8), blocks=1, growth=(8, 4), carried=4, context=None)
    pair = blobs(16)
    losses(network, pair, 20, 3e-3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            # The mean over all steps from here: as many steps as a momentum of 0.01 needs would take a minute.
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        trained = network(pair.fixed, pair.moving)
        evaluated = network.eval()(pair.fixed, pair.moving)
    dice = [1 - float(LabelDice()(output, pair)) for output in (NetworkOutput(trained.u * 0), trained, evaluated)]
    assert dice[1] > dice[0] + 0.1
    assert abs(dice[1] - dice[2]) < 0.05

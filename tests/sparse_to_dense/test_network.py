"""The network of normalised convolutions: its parts by hand, what it promises of any field, its files of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from reg_bench.errors import ConfigError
from reg_bench.field import identity_grid, sample
from reg_bench.sparse_to_dense import NormalizedConvolution, end_point_error
from reg_bench.sparse_to_dense.network import at_chosen, doubled, halved


def network(bias: bool = False, trend: float | None = None, **settings: int) -> NormalizedConvolution:
    torch.manual_seed(0)
    return NormalizedConvolution(None, bias=bias, trend=trend, **settings)


def scattered(count: int, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(1, count, len(shape), generator=g) * (torch.tensor(shape) - 1)
    values, confidence = torch.randn(1, count, len(shape), generator=g), torch.rand(1, count, generator=g) + 0.1
    return points, values, confidence.clamp(max=1)


def test_number_of_parameters_is_the_paper_s() -> None:
    assert sum(p.numel() for p in network(bias=True).parameters()) == 409
    assert sum(p.numel() for p in network(bias=True, levels=3).parameters()) == 409
    # Biases that are not learned stay 0.
    still = network(bias=False)
    assert sum(p.numel() for p in still.parameters() if p.requires_grad) == 409 - 13
    assert not any(layer.bias.any() for layer in still.layers)


def test_halving_keeps_the_most_confident_by_hand() -> None:
    c = torch.tensor([[[[0.1, 0.9, 0.0, 0.0], [0.3, 0.2, 0.0, 0.0]], [[0.5, 0.1, 0.2, 0.3], [0.1, 0.8, 0.4, 0.1]]]])
    x = torch.arange(16.0).reshape(1, 2, 2, 4)
    confidence, chosen = halved(c)
    assert at_chosen(x, chosen).flatten().tolist() == [1.0, 2.0, 13.0, 14.0]
    torch.testing.assert_close(confidence, torch.tensor([[[[0.9, 0.0]], [[0.8, 0.4]]]]) / 4)
    # In 3-D a block has eight voxels.
    c = torch.rand(2, 3, 2, 4, 6)
    confidence, chosen = halved(c)
    torch.testing.assert_close(at_chosen(c, chosen), confidence * 8)
    assert confidence.shape == (2, 3, 1, 2, 3)


def layer_by_layer(net: NormalizedConvolution, values: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """The network as it is defined: a normalised convolution, with its division, for every layer."""
    first, second, third, fourth, fifth, sixth, seventh = net.layers

    def smaller(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        largest, chosen = halved(c)
        return at_chosen(x, chosen), largest

    x, c = third(*second(*first(values, confidence)))
    passed = []
    for _ in range(net.levels - 1):
        passed.append((x, c))
        x, c = third(*second(*smaller(x, c)))
    for finer_x, finer_c in reversed(passed):
        x = torch.cat((finer_x, doubled(x, net.dims)), dim=1)
        c = torch.cat((finer_c, doubled(c, net.dims)), dim=1)
        x, c = fifth(*fourth(x, c))
    return seventh(*sixth(x, c))


@pytest.mark.parametrize("count", [5, 400])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(64, 96), (16, 24, 16)])
def test_one_division_at_the_end_is_one_after_every_layer(count: int, bias: bool, shape: tuple[int, ...]) -> None:
    net = network(bias=bias, dims=len(shape), levels=3)
    if bias:
        for layer in net.layers:
            torch.nn.init.uniform_(layer.bias, -0.3, 0.3)
    g = torch.Generator().manual_seed(1)
    confidence = torch.zeros(2, 1, *shape)
    for case in confidence.flatten(1):
        # Some points lie at the border, where every layer meets zeros.
        case[torch.randperm(len(case), generator=g)[:count]] = torch.rand(count, generator=g) + 0.1
    confidence[:, :, 0, 1], confidence[:, :, -1, -1] = 0.7, 0.4
    values = torch.randn(2, len(shape), *shape, generator=g) * (confidence > 0)
    with torch.inference_mode():
        field = net.filled(values, confidence)
        for axis in range(len(shape)):
            expected, passed_on = layer_by_layer(net, values[:, axis : axis + 1], confidence)
            torch.testing.assert_close(field.u[:, axis : axis + 1], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(field.confidence, passed_on, rtol=1e-4, atol=1e-7)
    # With and without gradients, dense or by stamps.
    learned = net.filled(values, confidence)
    assert learned.u.requires_grad
    torch.testing.assert_close(learned.u, field.u, rtol=1e-4, atol=1e-5)


def test_corrections_bring_the_field_nearer_to_the_points() -> None:
    points, _, confidence = scattered(60, 64, 64)
    waves = torch.stack((3 * torch.sin(points[..., 0] / 6), 2 * torch.cos(points[..., 1] / 7)), dim=2)
    missed = []
    for corrections in (0, 1, 2):
        field = NormalizedConvolution("nconv", corrections=corrections)(points, waves, confidence, (64, 64))
        missed.append((sample(field.u, points) - waves).square().mean().sqrt().item())
    assert missed[2] < 0.9 * missed[1] < 0.81 * missed[0]


def test_doubling() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert doubled(x, 2)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


@pytest.mark.parametrize("shape", [(64, 64), (37, 50), (1, 19), (16, 20, 9)])
def test_a_constant_stays_constant_at_any_size(shape: tuple[int, ...]) -> None:
    points, _, confidence = scattered(20, *shape)
    values = torch.tensor([3.0, -2.0, 0.5][: len(shape)]).expand(1, 20, -1)
    field = network(dims=len(shape))(points, values, confidence, shape)
    assert field.u.shape == (1, len(shape), *shape)
    assert field.confidence is not None
    assert field.confidence.shape == (1, 1, *shape)
    assert field.confidence.min() > 0
    assert field.confidence.max() <= 1
    for axis, value in enumerate((3.0, -2.0, 0.5)[: len(shape)]):
        assert (field.u[:, axis] - value).abs().max() < 1e-5


def test_it_is_linear_in_the_values_and_stays_within_them() -> None:
    net, shape = network(), (48, 40)
    points, values, confidence = scattered(30, *shape)
    u = net(points, values, confidence, shape).u
    torch.testing.assert_close(net(points, 3 * values, confidence, shape).u, 3 * u)
    torch.testing.assert_close(net(points, values, 0.3 * confidence, shape).u, u, atol=1e-5, rtol=1e-4)
    for axis in range(2):
        assert values[..., axis].min() - 1e-5 < u[:, axis].min()
        assert u[:, axis].max() < values[..., axis].max() + 1e-5
    # The components go through the same layers: exchanged, they come out exchanged.
    torch.testing.assert_close(net(points, values.flip(2), confidence, shape).u, u.flip(1))


def test_no_confidence_gives_zeros_and_finite_gradients() -> None:
    net = network(bias=True)
    for layer in net.layers:
        torch.nn.init.constant_(layer.bias, 0.3)
    points, values, confidence = (t.requires_grad_() for t in scattered(5, 20, 20))
    field = net(points, values, 0 * confidence, (20, 20))
    assert field.confidence is not None
    assert not field.u.any()
    assert not field.confidence.any()
    (field.u.square().sum() + field.confidence.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert confidence.grad is not None
    assert confidence.grad.isfinite().all()


def test_gradient() -> None:
    net = network(bias=True, levels=2).double()
    points, values, confidence = (t.double() for t in scattered(6, 9, 8))

    def both(v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        field = net(points, v, c, (9, 8))
        assert field.confidence is not None
        return field.u, field.confidence

    assert torch.autograd.gradcheck(both, (values.requires_grad_(), confidence.requires_grad_()), fast_mode=True)


def test_cases_of_a_batch_are_as_if_alone() -> None:
    net, shape = network(bias=True), (45, 52)
    cases = [scattered(25, *shape, seed=k) for k in range(3)]
    together = net(*(torch.cat(t) for t in zip(*cases, strict=True)), shape)
    for k, case in enumerate(cases):
        alone = net(*case, shape)
        torch.testing.assert_close(together.u[k : k + 1], alone.u, atol=1e-6, rtol=0)
        torch.testing.assert_close(together.confidence[k : k + 1], alone.confidence)


def test_what_cannot_be_used_is_left_out() -> None:
    net, shape = network(bias=True), (32, 32)
    points, values, confidence = scattered(12, *shape)
    expected = net(points, values, confidence, shape).u
    points, values, confidence = (torch.cat((t, t[:, :3].clone()), dim=1) for t in (points, values, confidence))
    points[0, 12, 0], values[0, 13, 1], confidence[0, 14] = -0.7, torch.nan, 0.0
    torch.testing.assert_close(net(points, values, confidence, shape).u, expected)


def test_translated_by_whole_blocks_everything_moves_along() -> None:
    """Away from the border the answer does not depend on where the image lies."""
    net = network(levels=3)
    points, values, confidence = scattered(40, 60, 60)
    base = net(points + 34, values, confidence, (128, 128)).u
    moved = net(points + torch.tensor([38.0, 30.0]), values, confidence, (128, 128)).u
    torch.testing.assert_close(moved[..., 34:102, 26:94], base[..., 30:98, 30:98], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(40, 50), (20, 24, 22)])
def test_with_a_trend_affine_fields_are_kept_and_smooth_ones_are_met_better(shape: tuple[int, ...]) -> None:
    points, _, confidence = scattered(60, *shape)
    net, alone = network(trend=8.0, dims=len(shape)), network(dims=len(shape))
    grid = identity_grid(shape).movedim(0, -1)
    slope = torch.tensor([[0.1, 0.0, 0.2], [-0.2, 0.1, 0.0], [0.0, 0.3, 0.1]])[: len(shape), : len(shape)]
    field = net(points, points @ slope + 2, confidence, shape)
    assert (field.u[0].movedim(0, -1) - (grid @ slope + 2)).abs().max() < 1e-4
    assert field.confidence is not None
    assert torch.equal(field.confidence, alone(points, points, confidence, shape).confidence)
    wave, truth = 3 * torch.sin(points / 9), 3 * torch.sin(grid / 9).movedim(-1, 0)[None]
    errors = [end_point_error(n(points, wave, confidence, shape).u, truth).item() for n in (net, alone)]
    assert errors[0] < 0.7 * errors[1]
    nothing = net(points, wave, 0 * confidence, shape)
    assert not nothing.u.any()


def test_weights_from_files(tmp_path: Path) -> None:
    net = network(bias=True)
    plain, checkpoint, other = tmp_path / "plain.pt", tmp_path / "some.ckpt", tmp_path / "other.pt"
    torch.save(net.state_dict(), plain)
    torch.save({"state_dict": {f"network.{k}": v for k, v in net.state_dict().items()}, "epoch": 3}, checkpoint)
    torch.save({"a": torch.zeros(3)}, other)
    for file in (plain, checkpoint):
        found = NormalizedConvolution(file).state_dict()
        assert all(torch.equal(found[k], v) for k, v in net.state_dict().items())
    with pytest.raises(ConfigError, match=r"other\.pt: weights of another network than NormalizedConvolution"):
        NormalizedConvolution(other)
    with pytest.raises(ConfigError, match="weights of another network"):
        NormalizedConvolution(plain, dims=3)
    with pytest.raises(ConfigError, match="neither a file nor a known name: 'nowhere'"):
        NormalizedConvolution("nowhere")
    other.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="not a file of weights"):
        NormalizedConvolution(other)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="levels must be at least 1 and corrections at least 0, got 0 and 0"):
        NormalizedConvolution(None, levels=0)
    with pytest.raises(ValueError, match=r"confidence \(B, 1, \*S\), got \(1, 2, 8, 8\) and \(1, 2, 8, 8\)"):
        network().filled(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))

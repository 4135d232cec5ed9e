"""The networks of the Kalman VAE: the paper's numbers of parameters, shapes, folded normalisation, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules.networks.kalman_vae import FieldDecoder
from lightning_modules.networks.kalman_vae_blocks import NormalizedConvolution
from lightning_modules.networks.kalman_vae_fields import FieldNoise, FieldOutput
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.field import jacobian_determinant

SMALL: dict[str, Any] = {"size": 16, "latents": 3, "states": 4, "filters": (4, 6)}


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_the_paper_s() -> None:
    network = KalmanVAENetwork()
    assert network.dynamics is not None
    assert parameters(network.encoder) == 691_488
    assert parameters(network.decoder) == 744_978
    assert parameters(network.dynamics) == 3_216
    assert parameters(network.dynamics.first) == 1_632
    assert parameters(network) == 1_439_682
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    assert sum(b.numel() for b in statistics) == 2_880


def test_shapes_are_the_paper_s() -> None:
    network = KalmanVAENetwork().eval()
    with torch.inference_mode():
        frames = torch.rand(1, 3, 1, 112, 112)
        mean, std = network.encode(frames, frames[:, 0])
        u = network.decode(mean)
        last = network.encoder.trunk(frames[0])[-1]
    assert mean.shape == std.shape == (1, 3, 16)
    assert bool((std > 0).all())
    assert u.shape == (1, 3, 2, 112, 112)
    assert last.shape == (3, 128, 7, 7)


def test_half_the_filters_are_a_quarter_of_the_products() -> None:
    half = KalmanVAENetwork(filters=(8, 16, 32, 64))
    kernels = [
        sum(p.numel() for m in n.modules() if isinstance(m, NormalizedConvolution) for p in [m.weight])
        for n in (half, KalmanVAENetwork())
    ]
    # But for the first, which sees the one channel of the image.
    assert kernels[0] - 8 * 9 == (kernels[1] - 16 * 9) / 4


@pytest.mark.parametrize(("stride", "transposed"), [(1, False), (2, False), (2, True)])
def test_normalisation_becomes_part_of_the_kernel(stride: int, transposed: bool) -> None:
    torch.manual_seed(0)
    layer = NormalizedConvolution(3, 5, stride, transposed)
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 2)
        layer.norm.bias.normal_()
        layer.norm.running_mean.normal_()  # type: ignore[union-attr]
        layer.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        layer.bias.normal_()
    x = torch.rand(2, 3, 8, 8)
    folded = layer.eval()(x)
    layer.norm.eval()
    expected = layer.norm(layer._convolved(x, layer.weight, layer.bias))
    torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)
    assert folded.shape[2:] == ((16, 16) if transposed else (8 // stride, 8 // stride))


def test_the_encoder_sees_every_frame_for_itself_and_the_reference_where_it_is_to() -> None:
    torch.manual_seed(0)
    frames, order = torch.rand(2, 5, 1, 16, 16), torch.tensor([3, 0, 4, 1, 2])
    for conditioning in ("latent", "features"):
        network = KalmanVAENetwork(**SMALL, conditioning=conditioning).eval()
        mean, _ = network.encode(frames, frames[:, 0])
        permuted, _ = network.encode(frames[:, order], frames[:, 0])
        torch.testing.assert_close(permuted, mean[:, order])
        other, _ = network.encode(frames, frames[:, 1])
        assert torch.allclose(other, mean) == (conditioning == "latent")


def test_maps_of_the_reference_belong_to_their_sequence() -> None:
    torch.manual_seed(0)
    network = KalmanVAENetwork(**SMALL, conditioning="features").eval()
    reference, x = torch.rand(2, 1, 16, 16), torch.randn(2, 3, 3)
    together = network.decode(x, network.prepared(reference))
    for b in range(2):
        alone = network.decode(x[b : b + 1], network.prepared(reference[b : b + 1]))
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network.decode(x, network.prepared(reference.flip(0))), together)


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "marginals": {"likelihood": "paper"},
    "features": {"conditioning": "features"},
    "bspline": {"decoder": "bspline", "levels": 1, "conditioning": "features"},
    "thin-plate": {"decoder": "thin-plate", "levels": 1},
    "coarse": {"levels": 1},
    "velocity": {"velocity": True},
    "stiff": {"stiffness": 5.0},
    "regularised": {"smoothing": 2.0},
    "image": {"target": "image"},
    "vae": {"dynamic": False},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_all_parameters(name: str) -> None:
    torch.manual_seed(0)
    network = KalmanVAENetwork(**SMALL, penalty=1.0, **VARIANTS[name])
    found = network.bound(torch.rand(2, 4, 1, 16, 16))
    assert bool(torch.isfinite(found.value).all())
    found.value.mean().backward()
    # A bias before a normalisation in training moves nothing.
    reached = {
        n: p for n, p in network.named_parameters() if not n.endswith(("scaling.bias", "first.bias", "second.bias"))
    }
    assert not [n for n, p in reached.items() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)


def test_the_decoder_may_start_at_the_identity() -> None:
    decoder = FieldDecoder(16, 3, (4, 6), first_std=0.0)
    assert not bool(decoder(torch.randn(1, 2, 3)).any())


def test_outputs_reproduce_what_they_should() -> None:
    constant = torch.full((1, 2, 8, 8), 1.5)
    for kind in ("dense", "bspline", "thin-plate"):
        u = FieldOutput(kind)(constant, (20, 24))  # type: ignore[arg-type]
        torch.testing.assert_close(u, torch.full((1, 2, 20, 24), 1.5), rtol=1e-4, atol=1e-4)
    values = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for kind in ("dense", "thin-plate"):
        at_points = FieldOutput(kind)(values, (10, 13))[:, :, ::3, ::4]  # type: ignore[arg-type]
        torch.testing.assert_close(at_points, values, rtol=1e-3, atol=1e-3)


def test_smoothing_and_velocity_keep_space_from_folding() -> None:
    rough = 2.5 * torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    folded = [
        float((jacobian_determinant(output(rough, (24, 24))) <= 0).float().mean())
        for output in (FieldOutput(), FieldOutput(smoothing=2.72), FieldOutput(smoothing=2.0, velocity=True))
    ]
    assert folded[0] > 0.2
    assert folded[1] < folded[0] / 10
    assert folded[2] == 0


def test_smooth_noise_has_the_covariance_of_its_precision() -> None:
    torch.manual_seed(0)
    std, stiffness, shape = 0.5, 2.0, (4, 3)
    drawn = FieldNoise(std, stiffness)(torch.zeros(40_000, *shape)).flatten(1)
    index = torch.arange(12).reshape(shape)
    laplacian = torch.zeros(12, 12)
    for a, b in ((index[1:], index[:-1]), (index[:, 1:], index[:, :-1])):
        for i, j in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True):
            laplacian[[i, j], [i, j]] += 1
            laplacian[[i, j], [j, i]] -= 1
    expected = torch.linalg.inv((torch.eye(12) + stiffness * laplacian) / std**2)
    torch.testing.assert_close(drawn.T.cov(), expected, rtol=0.05, atol=0.004)
    plain = FieldNoise(std)(torch.zeros(40_000, 2, 2)).flatten(1)
    torch.testing.assert_close(plain.T.cov(), std**2 * torch.eye(4), rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"size": 18}, "multiple of 2"),
        ({"image_std": 0.0}, "image_std positive"),
        ({"target": "both"}, "target must be"),
        ({"conditioning": "all"}, "conditioning"),
        ({"levels": 3}, "levels must be in 1..2"),
        ({"decoder": "spline"}, "kind must be one of"),
        ({"smoothing": -1.0}, "smoothing at least 0"),
        ({"field_std": -1.0}, "std and stiffness"),
        ({"likelihood": "bayes"}, "likelihood must be"),
    ],
)
def test_settings_that_make_no_network(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        KalmanVAENetwork(**{**SMALL, **changes})

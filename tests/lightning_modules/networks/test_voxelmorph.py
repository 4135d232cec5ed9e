"""VoxelMorph and its relatives: shapes, the identity at the beginning, gradients, velocity, uncertainty, cascades."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.cascade import Cascade
from lightning_modules.networks.monai_networks import GlobalNet, LocalNet
from lightning_modules.networks.voxelmorph import VoxelMorph
from reg_bench.errors import ConfigError
from reg_bench.field import compose, exponential, jacobian_determinant, warp
from reg_bench.registration_network import NetworkOutput, RegistrationNetwork

SMALL: dict[str, Any] = {"channels": (4, 8, 8, 8), "final_channels": (4,)}


def images(*shape: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    fixed, moving = torch.rand(2, batch, 1, *shape, generator=generator)
    return fixed, moving


def networks(dimension: int) -> dict[str, RegistrationNetwork]:
    size = (16, 24, 16)[:dimension]
    return {
        "voxelmorph": VoxelMorph(dimension, **SMALL),
        "velocity": VoxelMorph(dimension, velocity=True, shrink=2, steps=5, **SMALL),
        "probabilistic": VoxelMorph(dimension, velocity=True, probabilistic=True, shrink=2, **SMALL),
        "local": LocalNet(dimension, first_channels=4, levels=(0, 1, 2)),
        "global": GlobalNet(size, first_channels=4, depth=2),
        "cascade": Cascade([GlobalNet(size, first_channels=4, depth=2), VoxelMorph(dimension, **SMALL)]),
    }


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", networks(2))
def test_it_starts_at_the_identity_and_every_parameter_learns(name: str, dimension: int) -> None:
    torch.manual_seed(0)
    network = networks(dimension)[name]
    shape = (16, 24, 16)[:dimension]
    assert all(n % network.multiple == 0 for n in shape)
    fixed, moving = images(*shape)
    output = network(fixed, moving)
    assert output.u.shape == (2, dimension, *shape)
    coarse = shape if output.velocity is None else tuple(n // 2 for n in shape)
    assert output.levels[0].u.shape == (2, dimension, *coarse)
    # A probabilistic one draws a sample in training.
    assert float(output.u.detach().abs().max()) < 0.1
    # What a head that starts at 0 stands before learns from the second step on.
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    output = network(fixed, moving)
    loss = (warp(moving, output.u) - fixed).square().mean()
    if output.log_variance is not None:
        loss = loss + output.log_variance.square().mean()
    loss.backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # Convolutions before a batch norm do not feel their bias.
    assert not [n for n in still if not n.endswith("bias")], still


def test_the_velocity_is_integrated_on_the_coarser_grid() -> None:
    torch.manual_seed(0)
    network = VoxelMorph(2, velocity=True, shrink=2, steps=6, **SMALL)
    nn.init.normal_(network.mean.weight, std=1.0)  # type: ignore[arg-type]
    fixed, moving = images(16, 24)
    output = network(fixed, moving)
    assert output.velocity is not None
    assert output.velocity.shape == (2, 2, 8, 12)
    assert float(output.u.detach().abs().max()) > 0.3
    assert bool((jacobian_determinant(exponential(output.velocity.detach(), 6)) > 0).all())
    whole = VoxelMorph(2, velocity=True, **SMALL)
    nn.init.normal_(whole.mean.weight, std=0.2)  # type: ignore[arg-type]
    output = whole(fixed, moving)
    assert output.velocity is not None
    torch.testing.assert_close(output.u, exponential(output.velocity, 7))


def test_a_probabilistic_one_draws_in_training_and_takes_the_mean_otherwise() -> None:
    network = VoxelMorph(2, velocity=True, probabilistic=True, **SMALL)
    assert network.log_variance is not None
    nn.init.constant_(network.log_variance.bias, 2 * torch.tensor(0.5).log().item())  # type: ignore[arg-type]
    fixed, moving = images(32, 32)
    torch.manual_seed(3)
    first, second = network(fixed, moving), network(fixed, moving)
    assert not torch.equal(first.u, second.u)
    assert torch.equal(first.velocity, second.velocity)
    drawn = torch.cat([network(fixed, moving).u for _ in range(40)])
    # The exponential of white noise is about the noise.
    assert 0.3 < float(drawn.detach().std()) < 0.6
    network.eval()
    first, second = network(fixed, moving), network(fixed, moving)
    assert torch.equal(first.u, second.u)
    torch.testing.assert_close(first.u, exponential(first.velocity, 7))


def test_a_global_net_is_affine_at_every_size() -> None:
    network = GlobalNet((16, 16), first_channels=4, depth=2).eval()
    nn.init.normal_(network.net.output_block.fc.weight, std=1e-3)
    fixed, moving = images(20, 31)
    u = network(fixed, moving).u.detach()
    assert float(u.abs().max()) > 0.1
    for axis in (2, 3):
        assert float(u.diff(n=2, dim=axis).abs().max()) < 1e-4


class Shift(RegistrationNetwork):
    """Moves by `by` voxels along the first axis; remembers what it saw."""

    def __init__(self, by: float, multiple: int = 1) -> None:
        super().__init__()
        self.dimension, self.multiple, self.by = 2, multiple, by

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        self.moving = moving
        u = fixed.new_zeros(len(fixed), 2, *fixed.shape[2:])
        u[:, 0] = self.by
        return NetworkOutput(u)


def test_a_cascade_composes() -> None:
    torch.manual_seed(0)
    first, second = Shift(2, 4), VoxelMorph(2, **SMALL)
    nn.init.normal_(second.mean.weight, std=1.0)  # type: ignore[arg-type]
    cascade = Cascade([first, second])
    assert cascade.multiple == 4
    fixed, moving = images(16, 24)
    output = cascade(fixed, moving)
    before = first(fixed, moving).u
    after = second(fixed, warp(moving, before)).u
    torch.testing.assert_close(output.u, compose(before, after))
    assert float(after.detach().abs().max()) > 0.1


def test_a_cascade_takes_methods_by_name() -> None:
    cascade = Cascade(["affine-torch", Shift(0)])
    fixed, _ = images(32, 32, batch=1)
    fixed = warp(fixed, torch.zeros(1, 2, 32, 32))
    smooth = torch.nn.functional.avg_pool2d(fixed, 9, 1, 4)
    shift = torch.zeros(1, 2, 32, 32)
    shift[:, 1] = 2
    output = cascade(warp(smooth, shift), smooth)
    assert float((output.u - shift)[..., 6:-6, 6:-6].abs().mean()) < 0.3
    assert Cascade([Shift(0)]).dimension == 2


def test_what_makes_no_network_is_named() -> None:
    with pytest.raises(ValueError, match="channels in pairs"):
        VoxelMorph(3, channels=(4, 8, 8))
    with pytest.raises(ValueError, match="set velocity"):
        VoxelMorph(probabilistic=True)
    with pytest.raises(ValueError, match="at least 1"):
        VoxelMorph(shrink=0)
    with pytest.raises(ValueError, match="multiples of 8"):
        GlobalNet((20, 16), depth=3)
    with pytest.raises(ConfigError, match="at least one network"):
        Cascade([])
    with pytest.raises(ConfigError, match=r"for \[2, 3\] dimensions"):
        Cascade([Shift(0), VoxelMorph(3, **SMALL)])
    with pytest.raises(ConfigError, match="did you mean 'affine-torch'"):
        Cascade(["affine-torsh"])

"""Networks one after the other, each on what those before it have left (thesis section 2.7.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reg_bench.errors import ConfigError
from reg_bench.field import compose, warp
from reg_bench.method import RegistrationModule
from reg_bench.registration_network import LevelFlow, NetworkOutput, RegistrationNetwork
from reg_bench.types import RegistrationPair


class Cascade(RegistrationNetwork):
    """Estimates a field, warps the moving image by it, and goes on with the next network on the result.

    All are trained together; parts can be frozen by `frozen: [networks.0]`. The displacement is that of all, composed,
    so that the moving image is interpolated once in the end. Velocity and variance are those of the last network.

    Args:
        cascade: networks, or names of methods: of a learned one its network is taken, with its weights where the name
            has a checkpoint; any other runs as it is and learns nothing.

    Raises:
        ConfigError: nothing to do, an unknown name, or networks of different dimension.
    """

    def __init__(self, cascade: Sequence[RegistrationNetwork | str]) -> None:
        super().__init__()
        if not cascade:
            raise ConfigError("Cascade: needs at least one network")
        networks = [_named(part) if isinstance(part, str) else part for part in cascade]
        self.networks = nn.ModuleList(networks)
        known = {n.dimension for n in networks if not isinstance(n, _AsItIs)}
        channels = {n.channels for n in networks if not isinstance(n, _AsItIs)}
        if len(known) > 1 or len(channels) > 1:
            raise ConfigError(f"Cascade: networks for {sorted(known)} dimensions and {sorted(channels)} image channels")
        self.dimension, self.channels = next(iter(known), 3), next(iter(channels), 1)
        self.multiple = math.lcm(*(n.multiple for n in networks))

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        output: NetworkOutput = self.networks[0](fixed, moving)
        u = output.u
        for network in self.networks[1:]:
            output = network(fixed, warp(moving, u))
            u = compose(u, output.u)
        return NetworkOutput(u, (LevelFlow(u),), output.velocity, output.log_variance)


class _AsItIs(RegistrationNetwork):
    """A method that has nothing to learn."""

    def __init__(self, method: RegistrationModule) -> None:
        super().__init__()
        self.method = method

    @torch.no_grad()
    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        ids = tuple(str(i) for i in range(len(fixed)))
        return NetworkOutput(self.method(RegistrationPair(ids, fixed.detach(), moving.detach())).u.to(fixed))


def _named(name: str) -> RegistrationNetwork:
    from reg_bench.discovery import build_method

    method = build_method(name)
    network = getattr(method, "network", None)
    return network if isinstance(network, RegistrationNetwork) else _AsItIs(method)

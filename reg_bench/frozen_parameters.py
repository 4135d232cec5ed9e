"""Parameters of a network that a training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def freeze(network: nn.Module, beginnings: Sequence[str], owner: str) -> None:
    """Keeps the parameters of `network` whose names begin so as they are.

    Raises:
        ValueError: a beginning that no name has; `owner` begins the message.
    """
    for beginning in beginnings:
        chosen = [p for name, p in network.named_parameters() if name.startswith(beginning)]
        if not chosen:
            raise ValueError(f"{owner}: frozen: no parameter of the network begins with {beginning!r}")
        for parameter in chosen:
            parameter.requires_grad_(False)

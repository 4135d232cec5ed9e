"""What a network that registers is trained with: named terms, and their sum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reg_bench.registration_network import NetworkOutput
from reg_bench.types import RegistrationPair


class LossTerm(nn.Module, ABC):
    """One term of a loss. Subclasses are final."""

    @abstractmethod
    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        """A scalar, the mean over the batch and weighted, or `None` where `pair` has nothing that it needs.

        `pair` is what the network saw: images in 0..1 on the grid of `output.u`.
        """


class RegistrationLoss(nn.Module):
    """The sum of named terms.

    Args:
        terms: by the name under which each is logged; at least one.

    Raises:
        ValueError: no terms.
    """

    def __init__(self, terms: Mapping[str, LossTerm]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("RegistrationLoss: needs at least one term")
        self.terms = nn.ModuleDict(terms)

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and each term that applies to `pair` by its name.

        Raises:
            ValueError: none applies.
        """
        values = self.applying(output, pair)
        if not values:
            names = ", ".join(self.terms)
            raise ValueError(f"{', '.join(pair.case_ids)}: none of the terms {names} applies to this pair")
        return sum(values.values(), output.u.new_zeros(())), values

    def applying(self, output: NetworkOutput, pair: RegistrationPair) -> dict[str, Tensor]:
        """Each term that applies to `pair`, by its name; perhaps none."""
        # Mixed precision is for layers: sums over a whole image need all digits.
        with torch.autocast(output.u.device.type, enabled=False):
            found = {name: term(output, pair) for name, term in self.terms.items()}
        return {name: value for name, value in found.items() if value is not None}

"""The known field of a synthetic case: what no method can beat."""

from __future__ import annotations

from typing import ClassVar

from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


class Truth(RegistrationModule):
    """The known displacement of a synthetic case: the ceiling of every phantom table.

    Its Dice is below 1, because labels are warped by nearest neighbour.
    """

    name: ClassVar[str] = "truth"
    needs: ClassVar[tuple[str, ...]] = ("true_displacement",)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """The true displacement as it stands in `pair`.

        Raises:
            ValueError: the case has none; `accepts` says so beforehand.
        """
        if pair.true_displacement is None:
            raise ValueError(f"{', '.join(pair.case_ids)}: has no true_displacement")
        return DisplacementField.for_pair(pair.true_displacement.to(pair.fixed.dtype), pair)

"""No registration: what every method must beat."""

from __future__ import annotations

from typing import ClassVar

from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


class Identity(RegistrationModule):
    """The zero field: the floor of every table."""

    name: ClassVar[str] = "identity"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        shape = (pair.batch_size, pair.dimension, *pair.spatial_shape)
        return DisplacementField.for_pair(pair.fixed.new_zeros(shape), pair)

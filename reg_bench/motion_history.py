"""The fields of a stream so far, as coordinates in the space that they span.

The basis is orthonormal, so that what depends on inner products alone, principal components or dynamic modes, comes out
of the few coordinates as it would of the whole fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What a field has outside the space of the others counts from this share of its length on.
NEW_DIRECTION = 1e-5


@dataclass(frozen=True, eq=False)
class MotionHistory:
    """Of one case, at equal intervals; immutable.

    Attributes:
        basis: `(K, N)`, orthonormal rows, `N` numbers of a field.
        coordinates: `(T, K)`, of the fields, oldest first.
    """

    basis: Tensor
    coordinates: Tensor

    @staticmethod
    def at_rest(like: Tensor) -> MotionHistory:
        """One zero field, that of the reference onto itself, of as many numbers as `like (N,)`."""
        return MotionHistory(like.new_zeros(0, like.numel()), like.new_zeros(1, 0))

    def followed_by(self, field: Tensor, steps: int, limit: int) -> MotionHistory:
        """With `field (N,)`, `steps` intervals after the last; the fields between the two are linear in time.

        With no step it takes the place of the last. More than `limit` fields are not kept: the oldest go.
        """
        basis, found = self.basis, self.basis @ field
        rest = field - basis.mT @ found
        # Once more for what rounding errors left of the basis.
        again = basis @ rest
        found, rest = found + again, rest - basis.mT @ again
        coordinates, length = self.coordinates, rest.norm()
        if length > NEW_DIRECTION * field.norm():
            basis = torch.cat([basis, rest[None] / length])
            found = torch.cat([found, length[None]])
            coordinates = torch.nn.functional.pad(coordinates, (0, 1))
        if steps < 1:
            coordinates = torch.cat([coordinates[:-1], found[None]])
        else:
            share = torch.arange(1, steps + 1, dtype=field.dtype, device=field.device)[:, None] / steps
            between = coordinates[-1] + share * (found - coordinates[-1])
            coordinates = torch.cat([coordinates, between])
        return MotionHistory(basis, coordinates[-limit:])._narrow(limit)

    def field(self, coordinates: Tensor) -> Tensor:
        """`(N,)` from coordinates `(K,)`."""
        return self.basis.mT @ coordinates.to(self.basis.dtype)

    def _narrow(self, limit: int) -> MotionHistory:
        """The same in fewer dimensions, once there are more of them than fields may be kept."""
        if len(self.basis) <= limit:
            return self
        _, _, vh = torch.linalg.svd(self.coordinates, full_matrices=False)
        return MotionHistory(vh @ self.basis, self.coordinates @ vh.mT)


def stacked(fields: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Fields `(N,)` of all cases as `(B, D, *S)`, where `shape` is `(D, *S)`."""
    return torch.stack([f.reshape(*shape) for f in fields])

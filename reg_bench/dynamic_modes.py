"""Dynamic mode decomposition (thesis, equations 3.41 to 3.55, Algorithm 4; Tu et al. 2014).

Snapshots, images or displacement fields at equal intervals, are taken to follow a linear map of which only what the
snapshots span is estimated: `y_{t+1} = F y_t`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.principal_components import significant


@dataclass(frozen=True, eq=False)
class DynamicModes:
    """`y(t) = sum_k modes_k amplitudes_k eigenvalues_k^(t / seconds_per_frame)`, of which the real part is meant.

    Attributes:
        eigenvalues: `(r,)` complex, of the map from frame to frame, by falling magnitude.
        modes: `(r, *S)` complex.
        amplitudes: `(r,)` complex, of the modes in the first snapshot.
        seconds_per_frame: time between snapshots.
    """

    eigenvalues: Tensor
    modes: Tensor
    amplitudes: Tensor
    seconds_per_frame: float

    @property
    def continuous(self) -> Tensor:
        """`(r,)` complex, `log(eigenvalues) / seconds_per_frame` (equation 3.54): growth and angular frequency per
        second.
        """
        return self.eigenvalues.log() / self.seconds_per_frame

    @property
    def growth_per_second(self) -> Tensor:
        """`(r,)`, the rate at which each mode grows, negative where it dies away."""
        return self.continuous.real

    @property
    def frequency_hz(self) -> Tensor:
        """`(r,)`, cycles per second of each mode."""
        return self.continuous.imag / (2 * math.pi)

    def at(self, times_s: Tensor) -> Tensor:
        """Real `(K, *S)` at `times_s (K,)` seconds after the first snapshot (equation 3.55)."""
        return self._evolved(self.amplitudes, self.eigenvalues, times_s)

    def forecast(self, snapshot: Tensor, times_s: Tensor, *, stable: bool = True) -> Tensor:
        """Real `(K, *S)`, `times_s (K,)` seconds after `snapshot (*S)`, which is first fitted by the modes.

        Args:
            snapshot: from where on.
            times_s: how far ahead.
            stable: whether modes that grow are taken not to.
        """
        limit = self.eigenvalues.abs().clamp(min=1) if stable else torch.ones_like(self.eigenvalues.real)
        return self._evolved(fit(self.modes, snapshot), self.eigenvalues / limit, times_s)

    def _evolved(self, amplitudes: Tensor, eigenvalues: Tensor, times_s: Tensor) -> Tensor:
        frames = times_s.to(self.modes.real) / self.seconds_per_frame
        # Zero to the power of zero is one here: a mode that dies at once is there at first.
        powers = torch.where(
            (eigenvalues == 0) & (frames[:, None] == 0), torch.ones_like(eigenvalues), eigenvalues ** frames[:, None]
        )
        flat = (powers * amplitudes) @ self.modes.flatten(1)
        return flat.real.reshape(len(times_s), *self.modes.shape[1:])


def dynamic_modes(
    snapshots: Tensor, rank: int | None = None, *, seconds_per_frame: float = 1.0, exact: bool = True
) -> DynamicModes:
    """The modes of `snapshots (T, *S)`, computed in float64.

    Args:
        snapshots: at equal intervals, at least two.
        rank: of the truncated singular value decomposition (3.48); less where the snapshots do not span as much.
            `None`: all that is above rounding errors.
        seconds_per_frame: time between two of them.
        exact: modes `Y_2 V S^-1 W` as in Algorithm 4, eigenvectors of the estimated map; else the projected `U W`.

    Raises:
        ValueError: fewer than two snapshots, a rank below 1, or a time that is not positive.
    """
    if snapshots.ndim < 2 or len(snapshots) < 2:
        raise ValueError(f"dynamic modes: at least two snapshots (T, *S) are needed, got {tuple(snapshots.shape)}")
    if rank is not None and rank < 1:
        raise ValueError(f"dynamic modes: rank must be at least 1, got {rank}")
    if not seconds_per_frame > 0:
        raise ValueError(f"dynamic modes: seconds_per_frame must be positive, got {seconds_per_frame}")
    # The thesis has snapshots in columns.
    flat = snapshots.flatten(1).double().mT
    before, after = flat[:, :-1], flat[:, 1:]
    u, s, vh = torch.linalg.svd(before, full_matrices=False)
    count = int((s > s[0] * significant(before)).sum())
    count = count if rank is None else min(rank, count)
    u, s, v = u[:, :count], s[:count], vh[:count].mT
    reduced = u.mT @ after @ v / s
    eigenvalues, vectors = torch.linalg.eig(reduced)
    order = eigenvalues.abs().argsort(descending=True)
    eigenvalues, vectors = eigenvalues[order], vectors[:, order]
    basis = after @ v / s if exact else u
    modes = (basis.to(vectors.dtype) @ vectors).mT.reshape(count, *snapshots.shape[1:])
    return DynamicModes(eigenvalues, modes, fit(modes, snapshots[0]), seconds_per_frame)


def fit(modes: Tensor, snapshot: Tensor) -> Tensor:
    """Amplitudes `(r,)` with which `modes (r, *S)` come nearest to `snapshot (*S)`, least squares."""
    if not len(modes):
        return modes.new_zeros(0)
    columns = modes.flatten(1).mT
    return torch.linalg.pinv(columns) @ snapshot.flatten().to(columns.dtype)


def delayed(snapshots: Tensor, delays: int) -> Tensor:
    """Each of `snapshots (T, *S)` with those before it, newest first: `(T - delays + 1, delays, *S)`.

    A standing wave spans one direction of space and two of space and delays, which its oscillation needs (Hankel DMD).

    Raises:
        ValueError: fewer snapshots than delays.
    """
    length = len(snapshots) - delays + 1
    if delays < 1 or length < 1:
        raise ValueError(f"dynamic modes: {delays} delays of {len(snapshots)} snapshots")
    return torch.stack([snapshots[delays - 1 - k : delays - 1 - k + length] for k in range(delays)], dim=1)

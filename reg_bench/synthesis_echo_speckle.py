"""Speckle of the ultrasound phantom: what fully developed scattering looks like through a sector probe.

The signal of very many scatterers in a resolution cell is a complex Gaussian; its modulus is the speckle (Wagner et
al., "Statistics of speckle in ultrasound B-scans", 1983). The scatterers lie in the tissue and move with it, so the
signal is a function of the material point, drawn on a polar lattice about the probe: a resolution cell is as long
everywhere, but wider the deeper it lies. Scatterers that leave the plane and others that come into it make the signal
decorrelate: after a time t its correlation is
`lasting + (1 - lasting) exp(-t / decorrelation_s)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reg_bench.field import warp

# Of the point spread, in steps of the lattice: finer speckle would flicker in linear interpolation.
_TAPS = (0.21, 0.58, 0.58, 0.21)
# Radians of the lattice beyond the straight line downwards.
_HALF_ANGLE = math.radians(62)


@dataclass(frozen=True)
class SpeckleConfig:
    """What the probe resolves, for 112 x 112 pixels.

    Attributes:
        axial: step of the lattice along the beams, pixels.
        lateral: step across the beams, degrees.
        lasting: part of the signal that stays correlated for ever.
        decorrelation_s: seconds after which the other part has a correlation of 1 / e.
    """

    axial: float = 0.8
    lateral: float = 1.1
    lasting: float = 0.7
    decorrelation_s: float = 0.2


class Speckle:
    """The complex signal of the scatterers by frame and material point.

    Args:
        config: of the probe.
        length: frames.
        seconds_per_frame: between them.
        depth: pixels from the probe that are covered; beyond them the last ones go on.
        unit: length of a pixel of 112 in pixels.
        generator: of the scatterers.
    """

    def __init__(
        self,
        config: SpeckleConfig,
        length: int,
        seconds_per_frame: float,
        depth: float,
        unit: float,
        generator: np.random.Generator,
    ) -> None:
        self._axial, self._lateral = config.axial * unit, math.radians(config.lateral)
        shape = (2, math.ceil(depth / self._axial) + 4, math.ceil(2 * _HALF_ANGLE / self._lateral) + 4)
        fresh = torch.from_numpy(generator.standard_normal((length + 1, *shape), dtype=np.float32))
        rho = math.exp(-seconds_per_frame / config.decorrelation_s)
        passing = fresh[1:]
        for t in range(1, length):
            passing[t].mul_(math.sqrt(1 - rho**2)).add_(passing[t - 1], alpha=rho)
        signal = passing.mul_(math.sqrt(1 - config.lasting)).add_(fresh[:1], alpha=math.sqrt(config.lasting))
        self._signal = _spread(_spread(signal, 2), 3)

    def __call__(self, distance: Tensor, angle: Tensor) -> Tensor:
        """`(T, 2, *S)`, both parts of unit variance, at `(T, *S)` pixels from the probe and radians about it."""
        rows, columns = distance.shape[1:]
        row, column = torch.arange(rows)[:, None], torch.arange(columns)[None]
        where = torch.stack([distance / self._axial - row, (angle + _HALF_ANGLE) / self._lateral - column], dim=1)
        return warp(self._signal, where)


def _spread(signal: Tensor, axis: int) -> Tensor:
    """Convolved along `axis` with a kernel of unit energy, shorter by its length."""
    size = signal.shape[axis] - len(_TAPS) + 1
    energy = math.sqrt(sum(w**2 for w in _TAPS))
    out = signal.narrow(axis, 0, size) * (_TAPS[0] / energy)
    for i, weight in enumerate(_TAPS[1:], start=1):
        out.add_(signal.narrow(axis, i, size), alpha=weight / energy)
    return out

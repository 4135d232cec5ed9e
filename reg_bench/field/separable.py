"""A small matrix along every axis: smoothing, shrinking and other separable linear maps of images.

On a CPU a product with a matrix beats a convolution by far for the lengths of medical images, and cutting the matrix
along its band leaves out most of its zeros.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Rows of a block: enough to keep a matrix product efficient, and few enough to skip what lies off the band.
_LEAST_ROWS, _MOST_BLOCKS = 32, 4


@dataclass(frozen=True)
class _Piece:
    """Rows of a matrix with the columns between their first and their last non-zero entry."""

    rows: slice
    columns: slice
    values: Tensor


@dataclass(frozen=True)
class AxisMatrix:
    """A linear map of one axis from length `columns` to length `rows`, cut along its band."""

    rows: int
    columns: int
    pieces: tuple[_Piece, ...]
    transposed_pieces: tuple[_Piece, ...]

    @property
    def transposed(self) -> AxisMatrix:
        """The map of the gradient."""
        return AxisMatrix(self.columns, self.rows, self.transposed_pieces, self.pieces)


def axis_matrix(matrix: NDArray[np.float64], dtype: torch.dtype, device: torch.device) -> AxisMatrix:
    """`matrix (n', n)` ready for `along_axes`, on a device and in the dtype of the images."""
    whole = device.type != "cpu"
    with torch.inference_mode(False):
        there, back = (_cut(m, dtype, device, whole) for m in (matrix, matrix.T))
    rows, columns = matrix.shape
    return AxisMatrix(rows, columns, there, back)


def _cut(matrix: NDArray[np.float64], dtype: torch.dtype, device: torch.device, whole: bool) -> tuple[_Piece, ...]:
    """The pieces of a matrix; one only where a launch costs more than the zeros."""
    count = len(matrix)
    blocks = 1 if whole else max(1, round(count / max(_LEAST_ROWS, count / _MOST_BLOCKS)))
    edges = [round(k * count / blocks) for k in range(blocks + 1)]
    pieces = []
    for start, stop in itertools.pairwise(edges):
        used = np.flatnonzero(matrix[start:stop].any(axis=0))
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        values = torch.from_numpy(np.ascontiguousarray(matrix[start:stop, first:last])).to(device, dtype)
        pieces.append(_Piece(slice(start, stop), slice(first, last), values))
    return tuple(pieces)


def along_axes(values: Tensor, matrices: Sequence[AxisMatrix | None]) -> Tensor:
    """Applies a linear map of its own to every axis of an image.

    Args:
        values: `(B, C, *S)` in the dtype and on the device of the matrices.
        matrices: per spatial axis, or `None` to leave it as it is.

    Returns:
        a new tensor `(B, C, *S')`, differentiable, also twice. Nothing is kept for the gradient. On a CPU every
        channel is computed by itself, so that a case comes out the same in every batch.
    """
    result: Tensor = _AlongAxes.apply(values, tuple(matrices))  # type: ignore[no-untyped-call]
    return result


class _AlongAxes(torch.autograd.Function):
    """The gradient of a linear map is its transpose."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, matrices: tuple[AxisMatrix | None, ...]) -> Tensor:
        ctx.matrices = matrices
        return _apply(values, matrices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        transposed = tuple(None if m is None else m.transposed for m in ctx.matrices)
        return along_axes(gradients[0], transposed), None


def _apply(values: Tensor, matrices: tuple[AxisMatrix | None, ...]) -> Tensor:
    steps = [(axis, m) for axis, m in enumerate(matrices) if m is not None]
    if not steps:
        return values.clone()
    spatial = list(values.shape[2:])
    # One channel at a time on a CPU: its intermediate results stay small and warm.
    images = values.contiguous().flatten(0, 1)
    size = 1 if values.device.type == "cpu" else len(images)
    buffers = []
    for axis, matrix in steps:
        spatial[axis] = matrix.rows
        buffers.append(values.new_empty((size, *spatial)))
    out = values.new_empty((*values.shape[:2], *spatial))
    if not out.numel():
        return out
    for chunk, target in zip(torch.split(images, size), torch.split(out.flatten(0, 1), size), strict=True):
        source = chunk
        for (axis, matrix), buffer in zip(steps, [*buffers[:-1], target], strict=True):
            _apply_to_axis(source, axis + 1, matrix, buffer)
            source = buffer
    return out


def _apply_to_axis(source: Tensor, axis: int, matrix: AxisMatrix, out: Tensor) -> None:
    """`out` becomes `source` multiplied along `axis`; both contiguous."""
    after = math.prod(source.shape[axis + 1 :])
    a, b = (t.view(-1, t.shape[axis], after) for t in (source, out))
    for piece in matrix.pieces:
        if after == 1:
            torch.mm(a[:, piece.columns, 0], piece.values.T, out=b[:, piece.rows, 0])
        elif len(a) == 1:
            torch.mm(piece.values, a[0, piece.columns], out=b[0, piece.rows])
        else:
            torch.bmm(piece.values.expand(len(a), -1, -1), a[:, piece.columns], out=b[:, piece.rows])

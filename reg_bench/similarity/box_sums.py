"""Sums over box windows of volumes, by doubling on flat memory.

A window of 9 voxels is 8 + 1, and 8 is 2 × 4, 4 is 2 × 2: four additions instead of eight, with no running
difference that would lose digits. The volume lies in memory with zeros between its rows and planes, so that a window
along *any* axis is an addition of two contiguous stretches of memory, and a window over the border sees zeros.
Slabs along the first axis keep everything in the cache: windows along that axis come first, so that the halo of a
slab costs only them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

import torch
from torch import Tensor

# Voxels of a slab: enough to outweigh the cost of a call, few enough to stay in the cache.
_SLAB_VOXELS = {"cpu": 1 << 18}
_SLAB_VOXELS_ELSEWHERE = 1 << 25


@dataclass(frozen=True)
class PaddedLayout:
    """Where the voxels of a volume lie in a flat buffer with zeros for windows that reach over the border.

    Args:
        shape: the spatial axes of the volume.
        window: odd extents in voxels, one per axis.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]

    @cached_property
    def radii(self) -> tuple[int, ...]:
        return tuple(w // 2 for w in self.window)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Distance in memory of neighbours along each axis; zeros after a row serve the next one as well."""
        padded = [n + r for n, r in zip(self.shape, self.radii, strict=True)]
        return tuple(prod(padded[axis + 1 :]) for axis in range(len(padded)))

    @property
    def plane(self) -> int:
        return self.strides[0]

    @cached_property
    def lead(self) -> int:
        """Zeros before the first and after the last plane: how far windows within a plane reach."""
        return sum(r * s for r, s in zip(self.radii[1:], self.strides[1:], strict=True))

    @cached_property
    def length(self) -> int:
        return (self.shape[0] + 2 * self.radii[0]) * self.plane + 2 * self.lead

    def position(self, plane: int) -> int:
        """Where in the buffer the plane begins."""
        return self.lead + (plane + self.radii[0]) * self.plane

    def voxels(self, buffer: Tensor) -> Tensor:
        """The volumes `(n, *S)` in a buffer `(n, length)`, as a view."""
        strides = (buffer.stride(0), *self.strides)
        return buffer.as_strided((buffer.shape[0], *self.shape), strides, buffer.storage_offset() + self.position(0))

    def padded(self, volumes: Tensor, offset: Tensor) -> Tensor:
        """A buffer `(n, length)` that holds `volumes (n, *S)` less `offset (n,)` among zeros."""
        buffer = volumes.new_zeros((volumes.shape[0], self.length))
        torch.sub(volumes, offset.reshape(-1, *(1,) * len(self.shape)), out=self.voxels(buffer))
        return buffer

    def unwritten(self, like: Tensor) -> Tensor:
        """A buffer as `like (n, length)` with zeros around the planes; these are arbitrary."""
        buffer = torch.empty_like(like)
        buffer[:, : self.position(0)] = 0
        buffer[:, self.position(self.shape[0]) :] = 0
        return buffer

    def counts(self, axis: int) -> Tensor:
        """How many voxels of the window along `axis` lie inside the volume, for every place: `(shape[axis],)`."""
        n, r = self.shape[axis], self.radii[axis]
        at = torch.arange(n)
        return (at + r).clamp(max=n - 1) - (at - r).clamp(min=0) + 1


@dataclass(frozen=True)
class Slab:
    """Some cases and some planes of them: what is computed at a time."""

    layout: PaddedLayout
    cases: slice
    start: int
    stop: int

    @property
    def size(self) -> int:
        return (self.stop - self.start) * self.layout.plane

    def inside(self, buffer: Tensor) -> Tensor:
        """The planes of the slab in a buffer `(n, length)`, as a view `(k, size)`."""
        return buffer[self.cases].narrow(1, self.layout.position(self.start), self.size)

    def around(self, buffer: Tensor) -> Tensor:
        """The planes of the slab and all that its windows reach, as a view."""
        layout = self.layout
        length = self.size + 2 * (layout.lead + layout.radii[0] * layout.plane)
        return buffer[self.cases].narrow(1, self.start * layout.plane, length)

    def voxels(self, values: Tensor) -> Tensor:
        """The voxels `(k, planes, *S[1:])` among `values (k, size)`, as a view."""
        layout = self.layout
        shape = (values.shape[0], self.stop - self.start, *layout.shape[1:])
        return values.as_strided(shape, (values.stride(0), *layout.strides), values.storage_offset())


def slabs(layout: PaddedLayout, cases: int, device: torch.device) -> Iterator[Slab]:
    """Covers `cases` volumes once: slabs of one large volume, or several small volumes at a time."""
    voxels = _SLAB_VOXELS.get(device.type, _SLAB_VOXELS_ELSEWHERE)
    group = max(1, voxels // layout.length)
    planes = ceil(layout.shape[0] / ceil(layout.shape[0] * layout.plane / voxels))
    for first in range(0, cases, group):
        for start in range(0, layout.shape[0], planes):
            yield Slab(layout, slice(first, min(cases, first + group)), start, min(layout.shape[0], start + planes))


def box_sum(slab: Slab, values: Tensor) -> Tensor:
    """The sum over the window of each voxel of a slab.

    Args:
        slab: which voxels.
        values: `(k, ...)` as from `slab.around`, with zeros between the rows.

    Returns:
        `(k, slab.size)`, arbitrary between the rows.
    """
    for stride, window in zip(slab.layout.strides, slab.layout.window, strict=True):
        values = windows(values, stride, window)
    return values[:, : slab.size]


def windows(values: Tensor, stride: int, window: int) -> Tensor:
    """Sums along one axis of flat memory `(k, length)`, shorter by `(window - 1) stride`.

    Entry `i` is the sum of `values[i + j stride]` over `j < window`, by the binary digits of `window`.
    """
    sums, covered = values, 1
    for digit in f"{window:b}"[1:]:
        length = sums.shape[1] - covered * stride
        sums = sums[:, :length] + sums[:, covered * stride :]
        covered *= 2
        if digit == "1":
            length = min(length, values.shape[1] - covered * stride)
            sums = sums[:, :length].add_(values[:, covered * stride : covered * stride + length])
            covered += 1
    return sums

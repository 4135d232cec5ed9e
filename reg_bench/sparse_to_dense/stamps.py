"""Convolutions of images in which almost all is zero: every voxel that is not leaves its stamp."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.field.points import strides_of

# Convolutions of images `(M, 1, *S)` one after the other, of the same size, that are given and take a mask `(M, 1, *S)`
# or `None` of the voxels in which results count.
Layers = Callable[[Tensor, Tensor | None], Tensor]

# A stamp costs its size twice, a dense convolution its voxels about five times.
_WORTH = 2


@dataclass(frozen=True)
class Stamps:
    """What linear layers make of the few voxels of an image that are not zero.

    Attributes:
        where: `(M,)`, these voxels, flat over cases and voxels.
        index: `(M, k)`, where their stamps lie, flat in the same way; for what lies outside any voxel.
        stamp: `(M, C, k)`, what comes of a 1 there; 0 outside the image.
        shape: `(B, *S)`.
    """

    where: Tensor
    index: Tensor
    stamp: Tensor
    shape: tuple[int, ...]

    def of(self, image: Tensor) -> Tensor:
        """What the layers make of `image (K B, 1, *S)`, which is 0 elsewhere: `(K B, C, *S)`."""
        images = image.reshape(-1, math.prod(self.shape))
        weight = images[:, self.where]
        channels, voxels = self.stamp.shape[1], images.shape[1]
        more = (self.stamp * weight[:, :, None, None]).transpose(1, 2).reshape(len(images) * channels, -1)
        index = self.index.reshape(1, -1).expand(len(more), -1)
        flat = more.new_zeros(len(more), voxels).scatter_add_(1, index, more)
        by_case = flat.reshape(len(images), channels, *self.shape).movedim(1, 2)
        return by_case.reshape(len(image), channels, *self.shape[1:])


def stamps_of(image: Tensor, reach: int, layers: Layers) -> Stamps | None:
    """The stamps of the voxels of `image (B, 1, *S)` that are not zero; `None` where dense convolution costs less.

    Args:
        image: on a CPU; its values do not matter.
        reach: voxels by which a voxel can influence others, along each axis, by all layers together.
        layers: what is applied, without bias; zeros beyond the border of the image after every layer.
    """
    shape = tuple(image.shape[2:])
    where = image.reshape(-1).nonzero()[:, 0]
    edge = 2 * reach + 1
    if len(where) * edge ** len(shape) * _WORTH > image.numel():
        return None
    voxels = math.prod(shape)
    case, rest = where // voxels, where % voxels
    inside = torch.ones(len(where), *(1,) * len(shape), dtype=torch.bool)
    index = (case * voxels).reshape(-1, *(1,) * len(shape))
    offsets = torch.arange(-reach, reach + 1)
    for axis, (length, stride) in enumerate(zip(shape, strides_of(shape), strict=True)):
        place = ((rest // stride) % length)[:, None] + offsets
        ordered = [1] * len(shape)
        ordered[axis] = edge
        index = index + (place.clamp(0, length - 1) * stride).reshape(-1, *ordered)
        inside = inside & ((place >= 0) & (place < length)).reshape(-1, *ordered)
    stamp = _stamped(inside, image.dtype, layers, (edge,) * len(shape))
    return Stamps(where, index.flatten(1), stamp.flatten(2), (len(image), *shape))


def _stamped(inside: Tensor, dtype: torch.dtype, layers: Layers, edges: Sequence[int]) -> Tensor:
    """The stamps `(M, C, *edges)` for the voxels `inside (M, *edges)` the image; most are those far from its border."""
    one = torch.zeros(1, 1, *edges, dtype=dtype)
    one[(0, 0, *(n // 2 for n in edges))] = 1
    stamp = layers(one, None).repeat(len(inside), *(1,) * (len(edges) + 1))
    near = ~inside.flatten(1).all(dim=1)
    if bool(near.any()):
        mask = inside[near][:, None].to(dtype)
        stamp[near] = layers(one.repeat(len(mask), *(1,) * (len(edges) + 1)), mask)
    return stamp

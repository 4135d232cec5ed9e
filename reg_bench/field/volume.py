"""Linear interpolation of volumes on a CPU by the sampler of planes, at half its cost.

torch samples planes several voxels at a time but volumes one by one. A volume is a tall plane as well: below each
other lie its planes of H rows. The value at `(z, y, x)` is linear in `z` between the tall plane at row
`floor(z) H + y` and at one plane further down, two reads at the same places with the same weights. It is done slab
by slab, so that a read spans few rows, which float32 coordinates in -1..1 resolve well, and so that what is needed
of a slab stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows that a slab writes, and the most that it may read: float32 then places it to 2e-4 voxel, 3e-5 as a rule.
_WRITTEN_ROWS, _READ_ROWS = 1024, 8193


@dataclass(frozen=True)
class Slab:
    """Some planes of a field and what they read of a volume.

    Attributes:
        planes: of the field.
        above: first and last plane of the volume that a voxel of the slab has above it.
        start, rows: the rows of the tall plane that are read.
    """

    planes: slice
    above: tuple[int, int]
    start: int
    rows: int


@dataclass(frozen=True)
class _Places:
    """Where the voxels of a slab read: coordinates of the tall plane and the share of the plane below."""

    grid: Tensor  # (1, k H', W', 2), normalised
    share: Tensor  # (k, H', W')
    y: Tensor
    z: Tensor


def plan_slabs(u: Tensor, spatial: Sequence[int]) -> list[Slab] | None:
    """The slabs of a field `(3, *S')` that reads a volume of shape `spatial`.

    `None` where this way does not lead: on a volume of one plane, for positions that are not finite, and where the
    voxels of a slab read from places too far apart.
    """
    if spatial[0] < 2:
        return None
    count, height = u.shape[1], spatial[1]
    # Not more than a third, so that there is room for a read of 2^k + 1 rows.
    thickness = min(-(-count // 3), max(1, _WRITTEN_ROWS // u.shape[2]))
    slabs = []
    for first in range(0, count, thickness):
        last = min(first + thickness, count) - 1
        low, high = (float(v) for v in torch.aminmax(u[0, first : last + 1]))
        low_y, high_y = (float(v) for v in torch.aminmax(u[1, first : last + 1]))
        if not all(math.isfinite(v) for v in (low, high, low_y, high_y)):
            return None
        top, bottom = (min(max(math.floor(v), 0), spatial[0] - 2) for v in (first + low, last + high))
        needed, available = (bottom - top + 1) * height, (spatial[0] - 1) * height
        if needed > _READ_ROWS:
            return None
        # The normalised coordinates of whole voxels are then exact.
        exact = (1 << max(0, needed - 2).bit_length()) + 1
        rows = exact if exact <= available else needed
        slabs.append(Slab(slice(first, last + 1), (top, bottom), min(top * height, available - rows), rows))
    # A position along the last axis is only seen by the sampler.
    return slabs if bool(u[2].sum().isfinite()) else None


def read_volume(image: Tensor, u: Tensor, slabs: list[Slab], out: Tensor, rise: Tensor | None) -> None:
    """`out (C, *S')` becomes `image (C, *S)` at `x + u(x)`, border repeated.

    Args:
        image: contiguous.
        u: `(3, *S')`, voxels.
        slabs: of `plan_slabs`.
        out: may be any memory but that of the arguments.
        rise: `(C, *S')`, becomes the derivative along the first axis; `None` if nobody needs it.
    """
    for slab in slabs:
        places = _places(u, slab, image.shape[1:])
        view, grid = _tall(image, slab, places.grid)
        above, below = F.grid_sample(view, grid, mode="bilinear", padding_mode="border", align_corners=True).reshape(
            2, image.shape[0], *places.share.shape
        )
        difference = below.sub_(above)
        if rise is not None:
            rise[:, slab.planes] = difference
        torch.addcmul(above, difference, places.share, out=out[:, slab.planes])


def add_volume_gradients(
    image: Tensor,
    u: Tensor,
    slabs: list[Slab],
    rise: Tensor | None,
    gradient: Tensor,
    into_image: Tensor | None,
    into_u: Tensor | None,
) -> None:
    """Adds the gradients of `read_volume`, given that of its result, to those of its arguments.

    Args:
        image, u, slabs: as in `read_volume`.
        rise: what `read_volume` made of it; needed for the gradient of `u`.
        gradient: `(C, *S')`.
        into_image: `(C, *S)` contiguous, or `None`.
        into_u: `(3, *S')` or `None`; may be the memory of `into_image`.
    """
    for slab in slabs:
        places = _places(u, slab, image.shape[1:])
        view, grid = _tall(image, slab, places.grid)
        part = gradient[:, slab.planes]
        shares = part.new_empty((2, *part.shape))
        torch.mul(part, places.share, out=shares[1])
        torch.sub(part, shares[1], out=shares[0])
        wanted = [into_image is not None, into_u is not None]
        of_view, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            shares.reshape(*view.shape[:2], *grid.shape[1:3]), view, grid, 0, 1, True, wanted
        )
        if into_image is not None:
            _add_rows(of_view.reshape(2, image.shape[0], slab.rows, image.shape[3]), into_image, slab)
        if into_u is not None and rise is not None:
            along_z = (part * rise[:, slab.planes]).sum(dim=0)
            _add_motion(of_grid, along_z, places, slab, image.shape[1:], into_u[:, slab.planes])


def _places(u: Tensor, slab: Slab, spatial: Sequence[int]) -> _Places:
    depth, height, width = spatial
    part = u[:, slab.planes]
    index = [torch.arange(n, dtype=u.dtype, device=u.device) for n in part.shape[1:]]
    index[0] += slab.planes.start
    z = (part[0] + index[0][:, None, None]).clamp_(0, depth - 1)
    y = (part[1] + index[1][:, None]).clamp_(0, height - 1)
    above = z.floor().clamp_(*slab.above)
    share = z - above
    grid = part.new_empty((2, *part.shape[1:]))
    across, down = 2 / max(width - 1, 1), 2 / max(slab.rows - 1, 1)
    torch.add(index[2] * across - 1, part[2], alpha=across, out=grid[0])
    torch.add(above.sub_(slab.start / height).mul_(height * down).sub_(1), y, alpha=down, out=grid[1])
    return _Places(grid.flatten(1, 2).movedim(0, -1)[None], share, y, z)


def _tall(image: Tensor, slab: Slab, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The rows above and below as two images, or for one channel as two channels, which share the weights."""
    channels, depth, height, width = image.shape
    offset = image.storage_offset() + slab.start * width
    plane = height * width
    if channels == 1:
        return image.as_strided((1, 2, slab.rows, width), (plane, plane, width, 1), offset), grid
    view = image.as_strided((2, channels, slab.rows, width), (plane, depth * plane, width, 1), offset)
    return view, grid.expand(2, -1, -1, -1)


def _add_rows(values: Tensor, out: Tensor, slab: Slab) -> None:
    """Adds what the rows above and below received, `(2, C, rows, W)`, to a volume `(C, D, H, W)`."""
    height = out.shape[2]
    tall = out.view(out.shape[0], -1, out.shape[3])
    for values_of, start in zip(values, (slab.start, slab.start + height), strict=True):
        # Only these rows have been written to; the others fill up to a power of two.
        first, last = slab.above[0] * height - slab.start, (slab.above[1] + 1) * height - slab.start
        tall[:, start + first : start + last] += values_of[:, first:last]


def _add_motion(
    of_grid: Tensor, along_z: Tensor, places: _Places, slab: Slab, spatial: Sequence[int], out: Tensor
) -> None:
    """Adds the gradient of the displacement, from that of the normalised coordinates; none beyond the border."""
    depth, height, width = spatial
    total = of_grid[0] if len(of_grid) == 1 else of_grid[0] + of_grid[1]
    x, y = total.reshape(*along_z.shape, 2).unbind(dim=-1)
    out[0].addcmul_(along_z, ((places.z > 0) & (places.z < depth - 1)).to(along_z.dtype))
    # Nearer to the last row than this a position may have been rounded onto it; there is no derivative beyond.
    edge = 4 * slab.rows * torch.finfo(along_z.dtype).eps
    inside = ((places.y > 0) & (places.y < height - 1 - edge)).to(along_z.dtype)
    out[1].addcmul_(y, inside, value=2 / max(slab.rows - 1, 1))
    out[2].add_(x, alpha=2 / max(width - 1, 1))

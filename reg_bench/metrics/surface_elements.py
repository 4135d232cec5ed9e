"""Size of the surface inside a 2×2×2 (2×2) neighbourhood of voxels, for every pattern of inside and outside.

The surface is that of marching cubes with vertices half-way along the edges of the unit cube (Lorensen and
Cline 1987). Its area does not change when the pattern is rotated, mirrored or exchanged with its complement,
so one value per class is enough. Unit spacing only: Learn2Reg measures surfaces in voxels.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

# A triangle that cuts one corner off; the rectangle that cuts one edge off; half a unit square.
_CORNER = float(np.linalg.norm([0.125, 0.125, 0.125]))
_EDGE = 2 * float(np.linalg.norm([0.25, 0.25, 0.0]))
_HALF = 0.5
# The order of the sums below matters in the last bit, and that bit decides a share of exactly 95 %.

# Bit 4x + 2y + z of a pattern is voxel (x, y, z) of the neighbourhood; one pattern per class of at most 4 voxels.
_AREA_OF_CLASS = {
    0b00000000: 0.0,
    0b00000001: _CORNER,
    0b00000011: _EDGE,
    0b00000110: 2 * _CORNER,
    0b00011000: 2 * _CORNER,
    0b00000111: _HALF + 3 * _CORNER,
    0b00011001: _EDGE + _CORNER,
    0b00010110: 3 * _CORNER,
    0b00001111: 2 * _HALF,
    0b00010111: _CORNER + 2 * _CORNER + 2 * _CORNER + _CORNER,
    0b00011011: 4 * _CORNER + _EDGE / 2 + _EDGE / 2,
    0b00011110: _HALF + 4 * _CORNER,
    0b00111100: 2 * _EDGE,
    0b01101001: 4 * _CORNER,
}
_DIAGONAL = 0.5 * float(np.sqrt(2))
_LENGTH_OF_CLASS = {0b0000: 0.0, 0b0001: _DIAGONAL, 0b0011: 1.0, 0b0110: 2 * _DIAGONAL}


@lru_cache(maxsize=2)
def element_sizes(dimension: int) -> NDArray[np.float64]:
    """Area (3-D) or length (2-D) of the surface for each of the `2**(2**dimension)` patterns, in voxel units.

    Bits count the neighbours in C order, the first one lowest.
    """
    classes = _AREA_OF_CLASS if dimension == 3 else _LENGTH_OF_CLASS
    neighbours = list(np.ndindex(*(2,) * dimension))
    full = (1 << len(neighbours)) - 1
    table = np.full(full + 1, np.nan)
    for order in permutations(range(dimension)):
        for mirror in product((0, 1), repeat=dimension):
            moved = [tuple(n[a] ^ m for a, m in zip(order, mirror, strict=True)) for n in neighbours]
            place = [neighbours.index(n) for n in moved]
            for pattern, size in classes.items():
                image = sum(1 << place[bit] for bit in range(len(place)) if pattern >> bit & 1)
                table[image] = table[full ^ image] = size
    table.setflags(write=False)
    return table

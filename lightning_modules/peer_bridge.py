"""Between pairs and the packages of others, for the methods that run on those.

A peer gets what SimpleITK's methods get (see `simpleitk_bridge`): grey images scaled to 0..1, voxel 0 at the origin,
axes along the world's, lengths in the smallest voxel edge of the fixed image. Its answer, a displacement in that
unit, becomes voxels of the fixed grid here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from lightning_modules.simpleitk_bridge import ImagePair, array_of, register_each, resample, same_grid
from reg_bench.peer import Peer
from reg_bench.types import DisplacementField, RegistrationPair


def functions_of(name: str) -> Path:
    """The file in `lightning_modules/peers/` with the functions of a peer."""
    return Path(__file__).parent / "peers" / f"{name}.py"


def registered(
    pair: RegistrationPair,
    peer: Peer,
    interpreter: str | None,
    settings: Mapping[str, Any],
    *,
    one_grid: bool = False,
) -> DisplacementField:
    """The field that the function `register` of `peer` finds for every element of the batch, alone.

    Not called where an image is constant; an axis of length 1 is left out (see `simpleitk_bridge.register_each`).

    Args:
        pair: batch.
        peer: the package.
        interpreter: the Python that the user named for the method, if any.
        settings: arguments of `register` besides images and spacings, as plain values.
        one_grid: the peer needs both images on the fixed grid; a moving image of another grid is resampled there,
            voxel 0 on voxel 0, physical lengths kept.

    Raises:
        MissingPeerError: the package is not there.
        PeerError: it failed in its own process; in this one its exception comes through.
        ValueError: its answer is no displacement on the fixed grid.
    """

    def found(images: ImagePair) -> sitk.Image:
        moving = images.moving
        if one_grid and not same_grid(images.fixed, moving):
            moving = resample(moving, images.fixed)
        arrays = {
            "fixed": array_of(images.fixed).astype(np.float32),
            "moving": array_of(moving).astype(np.float32),
            "fixed_spacing": np.array(images.fixed.GetSpacing()),
            "moving_spacing": np.array(moving.GetSpacing()),
        }
        displacement = peer.call(interpreter, "register", arrays, settings)
        expected = (images.dimension, *images.fixed.GetSize())
        if displacement.shape != expected:
            raise ValueError(f"{peer.distribution}: returned an array of {displacement.shape}, expected {expected}")
        return vector_image(displacement, images.fixed)

    return register_each(pair, found)


def vector_image(displacement: NDArray[Any], grid: sitk.Image) -> sitk.Image:
    """The displacement (D, *S), component `c` along array axis `c`, as a vector image on `grid`."""
    # Both orders turned round: the last axis of ITK's array is x, and the components come last there.
    image = sitk.GetImageFromArray(np.ascontiguousarray(displacement.T), isVector=True)
    image.CopyInformation(grid)
    return image

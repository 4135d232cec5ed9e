"""FireANTs: diffeomorphic registration by Adam on the group of diffeomorphisms, in torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

# FireANTs' warp never has fewer voxels along an axis and does not fit a smaller image.
SMALLEST = 32


def register(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_spacing: np.ndarray,
    moving_spacing: np.ndarray,
    *,
    algorithm: str,
    metric: str,
    window: int,
    scales: Sequence[float],
    iterations: Sequence[int],
    learning_rate: float,
    gradient_sigma: float,
    warp_sigma: float,
    device: str,
    threads: int,
) -> np.ndarray:
    """The displacement (D, *S) by `GreedyRegistration` or `SyNRegistration`, compositive, with Adam.

    Images and spacings: see `peers`. Axes below 32 voxels are continued and cut again. `window` is the edge of the
    window of `cc`, sigmas are in voxels of the level.
    """
    import torch

    torch.set_num_threads(threads)
    logging.getLogger("fireants").setLevel(logging.ERROR)
    from fireants.registration.greedy import GreedyRegistration
    from fireants.registration.syn import SyNRegistration

    size, fixed, moving = fixed.shape, _padded(fixed), _padded(moving)
    images = [_image(a, spacing, device) for a, spacing in ((fixed, fixed_spacing), (moving, moving_spacing))]
    kind = {"greedy": GreedyRegistration, "syn": SyNRegistration}[algorithm]
    with torch.inference_mode(False), torch.enable_grad():
        found = kind(
            scales=list(scales),
            iterations=list(iterations),
            fixed_images=images[0],
            moving_images=images[1],
            loss_type=metric,
            cc_kernel_size=window,
            deformation_type="compositive",
            optimizer="Adam",
            optimizer_lr=learning_rate,
            smooth_grad_sigma=gradient_sigma,
            smooth_warp_sigma=warp_sigma,
            progress_bar=False,
        )
        found.optimize()
    with torch.no_grad():
        # (*S reversed, D) in -1..1 of the moving grid, x first.
        there = found.get_warped_coordinates(*images)[0].cpu().double().numpy().T
    found_there = displacement(there, moving.shape, fixed_spacing, moving_spacing)
    return found_there[(slice(None), *(slice(n) for n in size))]


def displacement(
    there: np.ndarray, moving_shape: Sequence[int], fixed_spacing: np.ndarray, moving_spacing: np.ndarray
) -> np.ndarray:
    """The displacement (D, *S) in the unit of the spacings of positions `there` (D, *S), -1..1 from the first to the
    last voxel of the moving grid."""
    column = (-1, *(1,) * (there.ndim - 1))
    last = np.reshape([n - 1 for n in moving_shape], column)
    position = (there + 1) / 2 * last * np.reshape(moving_spacing, column)
    return np.asarray(position - np.indices(there.shape[1:]) * np.reshape(fixed_spacing, column))


def _padded(array: np.ndarray) -> np.ndarray:
    """`array` continued by its border values to `SMALLEST` voxels along every axis; voxel 0 stays where it is."""
    return np.pad(array, [(0, max(SMALLEST - n, 0)) for n in array.shape], mode="edge")


def _image(array: np.ndarray, spacing: np.ndarray, device: str) -> Any:
    import SimpleITK as sitk  # noqa: N813
    from fireants.io.image import BatchedImages, Image

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(s) for s in spacing])
    return BatchedImages([Image(image, device=device)])

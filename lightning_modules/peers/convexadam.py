"""ConvexAdam: discrete coupled convex optimisation on MIND features, then Adam, in torch; 3-D only."""

from __future__ import annotations

import math

import numpy as np


def register(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_spacing: np.ndarray,
    moving_spacing: np.ndarray,
    *,
    mind_radius: int,
    mind_dilation: int,
    regularisation: float,
    grid: int,
    half_width: int,
    iterations: int,
    smoothing: int,
    adam_grid: int,
    inverse_consistent: bool,
    threads: int,
) -> np.ndarray:
    """The displacement (D, *S) by `convex_adam_pt`; both images must lie on one grid.

    Images and spacings: see `peers`. Sizes that are no multiple of both grids are continued by their border values
    and cut again: ConvexAdam stretches such fields.
    """
    import torch

    torch.set_num_threads(threads)
    from convexAdam.convex_adam_MIND import convex_adam_pt

    size = fixed.shape
    step = math.lcm(grid, adam_grid)
    # At least three cells of the coarse grid: it smooths over three.
    missing = [(0, max(-(-n // step), 3) * step - n) for n in size]
    images = [np.pad(array, missing, mode="edge") for array in (fixed, moving)]
    with torch.inference_mode(False), torch.enable_grad():
        found = convex_adam_pt(
            *images,
            mind_r=mind_radius,
            mind_d=mind_dilation,
            lambda_weight=regularisation,
            grid_sp=grid,
            disp_hw=half_width,
            selected_niter=iterations,
            selected_smooth=smoothing,
            grid_sp_adam=adam_grid,
            ic=inverse_consistent,
        )
    # (*S, D) in voxels.
    u = np.moveaxis(found, -1, 0)[(slice(None), *(slice(n) for n in size))]
    return np.asarray(u * np.reshape(fixed_spacing, (-1, 1, 1, 1)))

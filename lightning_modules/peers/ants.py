"""ANTs (antspyx): symmetric normalisation, alone or after an affine transform."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np


def register(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_spacing: np.ndarray,
    moving_spacing: np.ndarray,
    *,
    affine: bool,
    metric: str,
    sampling: int,
    iterations: Sequence[int],
    gradient_step: float,
    update_sigma_variance: float,
    total_sigma_variance: float,
    affine_metric: str,
    affine_iterations: Sequence[int],
    affine_shrink_factors: Sequence[int],
    affine_sigmas: Sequence[float],
    affine_sampling_rate: float,
    seed: int,
    threads: int,
) -> np.ndarray:
    """The displacement (D, *S) by `ants.registration`, type `SyN` (affine first) or `SyNOnly`.

    Images and spacings: see `peers`. `sampling` is the radius of the window for `CC` and the number of bins for
    `mattes`. The displacement is that of affine and SyN together.
    """
    # ANTs reads it when its first filter is made; there is no other way to tell it.
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    import ants

    with tempfile.TemporaryDirectory() as folder:
        images = [
            ants.from_numpy(a, spacing=[float(s) for s in spacing])
            for a, spacing in ((fixed, fixed_spacing), (moving, moving_spacing))
        ]
        ants.config._random_seed = seed
        found = ants.registration(
            *images,
            type_of_transform="SyN" if affine else "SyNOnly",
            # Alone it starts from no motion, otherwise from the centres of mass.
            initial_transform=None if affine else "Identity",
            outprefix=os.path.join(folder, "found_"),
            grad_step=gradient_step,
            flow_sigma=update_sigma_variance,
            total_sigma=total_sigma_variance,
            syn_metric=metric,
            syn_sampling=sampling,
            reg_iterations=tuple(iterations),
            aff_metric=affine_metric,
            aff_iterations=tuple(affine_iterations),
            aff_shrink_factors=tuple(affine_shrink_factors),
            aff_smoothing_sigmas=tuple(affine_sigmas),
            aff_random_sampling_rate=affine_sampling_rate,
        )
        return _displacement(ants, images, found["fwdtransforms"], folder)


def _displacement(ants: Any, images: Sequence[Any], transforms: Sequence[str], folder: str) -> np.ndarray:
    """One displacement for the chain of `transforms`."""
    prefix = os.path.join(folder, "total_")
    path = ants.apply_transforms(*images, transformlist=list(transforms), compose=prefix)
    # (*S, D), in the order of the array axes.
    return np.asarray(np.moveaxis(ants.image_read(path).numpy(), -1, 0))

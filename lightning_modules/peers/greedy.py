"""greedy (picsl_greedy): diffeomorphic registration by composed smoothed gradients."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np


def register(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_spacing: np.ndarray,
    moving_spacing: np.ndarray,
    *,
    metric: str,
    radius: int,
    iterations: Sequence[int],
    gradient_sigma: float,
    warp_sigma: float,
    step: float,
    scale_steps: str,
    noise: float,
    seed: int,
    threads: int,
) -> np.ndarray:
    """The displacement (D, *S) by `greedy -m METRIC -n ITERATIONS -s GRADIENT WARP -e STEP -tscale SCALE_STEPS`.

    Images and spacings: see `peers`. Short axes are continued and cut again. `radius` is that of the window of NCC
    metrics, `gradient_sigma` and `warp_sigma` are in voxels of the level, `noise` is the standard deviation of what
    greedy adds to the images for these metrics.
    """
    import picsl_greedy

    dims, size = fixed.ndim, fixed.shape
    # Its Gaussian needs four voxels along every axis of the coarsest level.
    smallest = 4 * 2 ** (len(iterations) - 1)
    fixed, moving = (np.pad(a, [(0, max(smallest - n, 0)) for n in a.shape], mode="edge") for a in (fixed, moving))
    command = (
        # -wp 0: the warp comes as it is, not rounded to a tenth of a voxel.
        f"-d {dims} -threads {threads} -V 0 -seed {seed} -noise {noise} -wp 0 -i fixed moving"
        f" -m {metric_arguments(metric, radius, dims)} -n {'x'.join(str(n) for n in iterations)}"
        f" -s {gradient_sigma}vox {warp_sigma}vox -e {step} -tscale {scale_steps} -o warp"
    )
    greedy = picsl_greedy.GreedyFloat2D() if dims == 2 else picsl_greedy.GreedyFloat3D()
    printed = io.StringIO()
    images = {"fixed": _image(fixed, fixed_spacing), "moving": _image(moving, moving_spacing)}
    greedy.execute(command, **images, warp=None, out=printed, err=printed)
    return _array(greedy["warp"])[(slice(None), *(slice(n) for n in size))]


def metric_arguments(metric: str, radius: int, dims: int) -> str:
    """`NCC 2x2x2`, or the metric alone where it has no window."""
    return f"{metric} {'x'.join([str(radius)] * dims)}" if metric in ("NCC", "WNCC") else metric


def _image(array: np.ndarray, spacing: np.ndarray) -> Any:
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(s) for s in spacing])
    return image


def _array(warp: Any) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813

    # A copy: a view would dangle once `warp` is gone.
    return np.asarray(sitk.GetArrayFromImage(warp).T)

"""elastix (itk-elastix): free-form deformation by B-splines with a stochastic optimiser."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np


def register(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_spacing: np.ndarray,
    moving_spacing: np.ndarray,
    *,
    metric: str,
    bins: int,
    bending_weight: float,
    grid: float,
    resolutions: int,
    iterations: int,
    samples: int,
    seed: int,
    threads: int,
) -> np.ndarray:
    """The displacement (D, *S) by elastix' parameter map `bspline` with the settings below.

    Images and spacings: see `peers`. `grid` is the distance of the control points at the finest resolution, in the
    unit of the spacings. The bending energy is left out where its weight is 0.
    """
    import itk

    # Never by the filter's own argument: elastix then crashes where a map has two metrics.
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(threads)
    changes = {
        "AutomaticTransformInitialization": "false",
        "MaximumNumberOfIterations": str(iterations),
        "NumberOfSpatialSamples": str(samples),
        "NumberOfHistogramBins": str(bins),
        "RandomSeed": str(seed),
        "WriteResultImage": "false",
        **_metrics(metric, bending_weight),
    }
    parameters = itk.ParameterObject.New()
    map_ = parameters.GetDefaultParameterMap("bspline", resolutions, grid)
    for name, value in changes.items():
        map_[name] = [value] if isinstance(value, str) else value
    parameters.AddParameterMap(map_)
    images = _image(itk, fixed, fixed_spacing), _image(itk, moving, moving_spacing)
    # elastix writes files, also where nobody asks for them.
    with tempfile.TemporaryDirectory() as folder:
        elastix = itk.ElastixRegistrationMethod.New(*images)
        elastix.SetParameterObject(parameters)
        _quiet(elastix, folder)
        elastix.UpdateLargestPossibleRegion()
        transformix = itk.TransformixFilter.New(images[1])
        transformix.SetTransformParameterObject(elastix.GetTransformParameterObject())
        transformix.SetComputeDeformationField(True)
        _quiet(transformix, folder)
        transformix.UpdateLargestPossibleRegion()
        # A copy, while the filter that owns the memory lives; ITK's array is (z, y, x, component).
        return np.array(itk.array_view_from_image(transformix.GetOutputDeformationField()).T)


def _metrics(metric: str, bending_weight: float) -> Mapping[str, Any]:
    if bending_weight == 0:
        return {"Registration": "MultiResolutionRegistration", "Metric": metric}
    return {
        "Registration": "MultiMetricMultiResolutionRegistration",
        "Metric": [metric, "TransformBendingEnergyPenalty"],
        "Metric0Weight": "1.0",
        "Metric1Weight": str(bending_weight),
    }


def _image(itk: Any, array: np.ndarray, spacing: np.ndarray) -> Any:
    image = itk.image_from_array(np.ascontiguousarray(array.T))
    image.SetSpacing([float(s) for s in spacing])
    return image


def _quiet(a_filter: Any, folder: str) -> None:
    a_filter.SetOutputDirectory(folder)
    a_filter.SetLogToConsole(False)
    a_filter.SetLogToFile(False)

"""From displacements at scattered points to a dense field."""

from reg_bench.sparse_to_dense.base import DenseField, Interpolation
from reg_bench.sparse_to_dense.bspline import BSplineInterpolation
from reg_bench.sparse_to_dense.loss import confident_huber, end_point_error
from reg_bench.sparse_to_dense.network import NormalizedConvolution
from reg_bench.sparse_to_dense.observation import Observed, TrackerErrors, observe
from reg_bench.sparse_to_dense.scattering import on_nearest_voxels
from reg_bench.sparse_to_dense.thin_plate import ThinPlateInterpolation

__all__ = [
    "BSplineInterpolation",
    "DenseField",
    "Interpolation",
    "NormalizedConvolution",
    "Observed",
    "ThinPlateInterpolation",
    "TrackerErrors",
    "confident_huber",
    "end_point_error",
    "observe",
    "on_nearest_voxels",
]

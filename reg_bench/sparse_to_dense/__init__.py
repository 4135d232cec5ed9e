"""From displacements at scattered points to a dense field."""

from reg_bench.sparse_to_dense.base import DenseField, Interpolation
from reg_bench.sparse_to_dense.bspline import BSplineInterpolation
from reg_bench.sparse_to_dense.scattering import on_nearest_voxels
from reg_bench.sparse_to_dense.thin_plate import ThinPlateInterpolation

__all__ = [
    "BSplineInterpolation",
    "DenseField",
    "Interpolation",
    "ThinPlateInterpolation",
    "on_nearest_voxels",
]

"""Transformation models: from a few parameters or a dense field to a displacement on the fixed grid."""

from reg_bench.transformation.affine import Affine, rotation_angles, rotation_matrix
from reg_bench.transformation.affine_maps import affine_displacement, compose_affine, invert_affine
from reg_bench.transformation.base import Domain, Transformation
from reg_bench.transformation.bspline import evaluate_bspline, refine_bspline
from reg_bench.transformation.dense import Dense
from reg_bench.transformation.flow import flow
from reg_bench.transformation.free_form import FreeFormDeformation
from reg_bench.transformation.gaussian_kernel import GaussianKernel
from reg_bench.transformation.geodesic_shooting import shoot
from reg_bench.transformation.lddmm import LDDMM
from reg_bench.transformation.stationary_velocity import StationaryVelocity
from reg_bench.transformation.thin_plate import ThinPlate, thin_plate_spline
from reg_bench.transformation.thin_plate_model import ThinPlateSpline

__all__ = [
    "LDDMM",
    "Affine",
    "Dense",
    "Domain",
    "FreeFormDeformation",
    "GaussianKernel",
    "StationaryVelocity",
    "ThinPlate",
    "ThinPlateSpline",
    "Transformation",
    "affine_displacement",
    "compose_affine",
    "evaluate_bspline",
    "flow",
    "invert_affine",
    "refine_bspline",
    "rotation_angles",
    "rotation_matrix",
    "shoot",
    "thin_plate_spline",
]

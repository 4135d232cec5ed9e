"""Corresponding points and surfaces: errors, closed-form fits, closest points and outliers (thesis 2.3.1).

Points are `(B, N, D)` tensors or `(N, D)` arrays in one isotropic unit, mm where the spacing is known; maps go from
source to target, for registration from fixed to moving.
"""

from reg_bench.landmarks.affine_map import AffineMap
from reg_bench.landmarks.edges import voxel_edges
from reg_bench.landmarks.fre import fiducial_registration_error, landmark_energy, squared_distance
from reg_bench.landmarks.icp import Alignment, icp, robust_icp, surface_distance
from reg_bench.landmarks.procrustes import KINDS, Kind, fit, least_points
from reg_bench.landmarks.ransac import Consensus, ransac
from reg_bench.landmarks.surfaces import surface_points

__all__ = [
    "KINDS",
    "AffineMap",
    "Alignment",
    "Consensus",
    "Kind",
    "fiducial_registration_error",
    "fit",
    "icp",
    "landmark_energy",
    "least_points",
    "ransac",
    "robust_icp",
    "squared_distance",
    "surface_distance",
    "surface_points",
    "voxel_edges",
]

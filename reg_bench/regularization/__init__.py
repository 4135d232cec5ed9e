"""Regularizers of displacement and velocity fields, one per file; lower is smoother.

Each is an energy per case, a mean over the grid, aware of the spacing and independent of its unit. The quadratic ones
carry the factor 1/2, so that their gradient is the differential operator itself divided by the number of voxels.
"""

from reg_bench.regularization.base import Regularizer
from reg_bench.regularization.bending_energy import BendingEnergy
from reg_bench.regularization.curvature import Curvature
from reg_bench.regularization.diffusion import Diffusion
from reg_bench.regularization.fluid import Fluid
from reg_bench.regularization.jacobian_penalty import JacobianPenalty
from reg_bench.regularization.linear_elastic import LinearElastic

__all__ = [
    "BendingEnergy",
    "Curvature",
    "Diffusion",
    "Fluid",
    "JacobianPenalty",
    "LinearElastic",
    "Regularizer",
]

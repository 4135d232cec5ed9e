"""Random fields, noise and deformations with an exact truth: what phantoms and warped images are made of.

Everything comes from a seed, in NumPy on the CPU, so the same seed gives the same arrays in every process.
The parts: `synthesis_noise` (fields and noise), `synthesis_flow` (diffeomorphisms) and `synthesis_points`
(landmarks). Lengths are in voxels of the grid.
"""

from reg_bench.synthesis_flow import diffeomorphism, random_diffeomorphism
from reg_bench.synthesis_noise import gaussian_field, random_generator, rician, smooth_noise, torch_generator
from reg_bench.synthesis_points import landmarks_in, solve_points

__all__ = [
    "diffeomorphism",
    "gaussian_field",
    "landmarks_in",
    "random_diffeomorphism",
    "random_generator",
    "rician",
    "smooth_noise",
    "solve_points",
    "torch_generator",
]

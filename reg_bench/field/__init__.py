"""Displacement fields on tensors: warping, splatting, sampling, composition, inversion, exponential, resizing,
smoothing, Jacobian.

Convention (DESIGN.md section 2): an image is `(B, C, *S)`; a displacement `u` is `(B, D, *S)` on the fixed
grid, in **voxels**, channel `c` along spatial axis `c`; it pulls back, `warped(x) = image(x + u(x))`. This is
the only module that calls `grid_sample` or `interpolate` on images and fields, always with
`align_corners=True`, so that voxel centres are the same points everywhere.

All functions take 2-D and 3-D tensors on any device and are differentiable where the mathematics is
(linear and cubic interpolation in both image and field, splatting, composition, exponential, resizing, smoothing,
Jacobian).
"""

from reg_bench.field.checks import MODES, PADDINGS, identity_grid
from reg_bench.field.composition import compose
from reg_bench.field.inverse import invert
from reg_bench.field.jacobian import jacobian_determinant, jacobian_slabs
from reg_bench.field.linear_sampling import linear
from reg_bench.field.points import sample
from reg_bench.field.resizing import resize, resize_image
from reg_bench.field.scaling_squaring import exponential, exponential_coarse, flow_error
from reg_bench.field.smoothing import gaussian
from reg_bench.field.splatting import forward_warp, splat
from reg_bench.field.warping import warp

__all__ = [
    "MODES",
    "PADDINGS",
    "compose",
    "exponential",
    "exponential_coarse",
    "flow_error",
    "forward_warp",
    "gaussian",
    "identity_grid",
    "invert",
    "jacobian_determinant",
    "jacobian_slabs",
    "linear",
    "resize",
    "resize_image",
    "sample",
    "splat",
    "warp",
]

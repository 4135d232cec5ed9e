"""Points followed through a stream of images by correlation filters (Paper I)."""

from reg_bench.tracking.corners import corner_strength, spaced_peaks
from reg_bench.tracking.point_selection import (
    Corners,
    GivenPoints,
    MaskDensity,
    PointSelection,
    RegularGrid,
    density_points,
    mask_distance,
)

__all__ = [
    "Corners",
    "GivenPoints",
    "MaskDensity",
    "PointSelection",
    "RegularGrid",
    "corner_strength",
    "density_points",
    "mask_distance",
    "spaced_peaks",
]

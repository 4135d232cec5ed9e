"""Points followed through a stream of images by correlation filters (Paper I)."""

from reg_bench.tracking.band import Band
from reg_bench.tracking.confidence import Confidence
from reg_bench.tracking.consistency import consistency, nearest_neighbours, neighbour_prediction
from reg_bench.tracking.corners import corner_strength, spaced_peaks
from reg_bench.tracking.correlation_filter import respond, ridge_filter
from reg_bench.tracking.dcf import CorrelationFilterTracker, FilterState
from reg_bench.tracking.eco import EcoState, EcoTracker
from reg_bench.tracking.features import Features, GradientFeatures, NetworkFeatures, gradient_histograms
from reg_bench.tracking.intensity_scale import IntensityScale
from reg_bench.tracking.patches import Augmentation, default_augmentations
from reg_bench.tracking.peak import find_peak, sidelobe_ratio
from reg_bench.tracking.point_selection import (
    Corners,
    GivenPoints,
    MaskDensity,
    PointSelection,
    RegularGrid,
    density_points,
    mask_distance,
)
from reg_bench.tracking.tracker import PointTracker, Tracks

__all__ = [
    "Augmentation",
    "Band",
    "Confidence",
    "Corners",
    "CorrelationFilterTracker",
    "EcoState",
    "EcoTracker",
    "Features",
    "FilterState",
    "GivenPoints",
    "GradientFeatures",
    "IntensityScale",
    "MaskDensity",
    "NetworkFeatures",
    "PointSelection",
    "PointTracker",
    "RegularGrid",
    "Tracks",
    "consistency",
    "corner_strength",
    "default_augmentations",
    "density_points",
    "find_peak",
    "gradient_histograms",
    "mask_distance",
    "nearest_neighbours",
    "neighbour_prediction",
    "respond",
    "ridge_filter",
    "sidelobe_ratio",
    "spaced_peaks",
]

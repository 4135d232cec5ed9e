"""What metrics are called, what they mean, and how their values are written."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"

TITLES = {
    "dice": "Dice",
    "hd95": "HD95",
    "end_point_error": "EPE",
    "ncc": "NCC",
    "ssim": "SSIM",
    "mse": "MSE",
    "sdlogj": "SDlogJ",
    "nonpositive_fraction": "folding",
    "inverse_consistency": "inverse consistency",
    "target_error": "target",
    "target_error_p95": "target p95",
    "gate_right": "gate right",
    "target_error_late": "target, late",
    "target_error_late_hold": "target, late, held",
    "closure_error": "closure",
    "contour_error": "contour",
    "contour_std": "contour sd",
    "coverage_50": "in 50 %",
    "coverage_95": "in 95 %",
    "latent_coverage_50": "latent in 50 %",
    "latent_coverage_95": "latent in 95 %",
}
HINTS = {
    "dice": "overlap of fixed and warped labels",
    "hd95": "95th percentile of the Hausdorff distance; its definition is in the footer",
    "end_point_error": "distance to the known displacement, in the tissue mask",
    "ncc": "normalised cross-correlation of fixed and warped image",
    "ssim": "structural similarity of fixed and warped image",
    "mse": "mean squared error of fixed and warped image",
    "sdlogj": "standard deviation of the logarithm of the Jacobian determinant",
    "nonpositive_fraction": "share of voxels whose Jacobian determinant is not positive",
    "inverse_consistency": "distance by which forward and backward field fail to cancel",
    "target_error": "distance of the target's centroid from where it is",
    "target_error_p95": "95th percentile over the frames of that distance",
    "gate_right": "share of the frames in which the target is rightly thought to be inside or outside the gate",
    "target_error_late": "distance from where the target is when the estimate is there, by a forecast over its latency",
    "target_error_late_hold": "the same of the estimate as it is",
    "closure_error": "mean length of the field when a period is over and the reference comes again",
    "drift": "slope of the error over the time of the sequence",
    "contour_error": "distance across the contours of labels between where they are and where they are thought to be",
    "contour_std": "standard deviation that the method gives that distance",
    "coverage_50": "share of the contours within the intervals that should hold 50 %",
    "coverage_95": "share of the contours within the intervals that should hold 95 %",
    "latent_coverage_50": "share of the latent variables of frames not yet seen within intervals for 50 %",
    "latent_coverage_95": "share of the latent variables of frames not yet seen within intervals for 95 %",
}
DECIMALS = {"dice": 3, "ncc": 3, "ssim": 3, "hd95": 2, "end_point_error": 3, "sdlogj": 3, "inverse_consistency": 3}
DECIMALS |= {"target_error": 2, "target_error_p95": 2, "gate_right": 3, "closure_error": 2, "drift": 3}
DECIMALS |= {"contour_error": 2, "contour_std": 2, "coverage_50": 2, "coverage_95": 2}
DECIMALS |= {"latent_coverage_50": 2, "latent_coverage_95": 2}
DECIMALS |= {"target_error_late": 2, "target_error_late_hold": 2}


def title_of(metric: str, metrics: Sequence[str]) -> str:
    """The column's title: the set of points is named only where there are several."""
    if metric.startswith("tre_"):
        several = sum(m.startswith("tre_") for m in metrics) > 1
        return f"TRE {metric[4:]}" if several else "TRE"
    return TITLES.get(metric, metric.replace("_", " "))


def number(value: float | None, metric: str = "") -> str:
    """`value` for people: fixed decimals for the usual metrics, three significant digits otherwise."""
    if value is None:
        return NONE
    decimals = 2 if metric.startswith("tre_") else DECIMALS.get(metric)
    if decimals is not None and abs(value) < 1000:
        return f"{value + 0.0:.{decimals}f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def percent(value: float | None) -> str:
    """A share as per cent with three decimals; what is nearly nothing is told from nothing."""
    if value is None:
        return NONE
    return "< 0.001" if 0 < value < 1e-5 else f"{100 * value:.3f}"


def forecast_source(profile: str, metric: str, horizon_s: float) -> str:
    """What the values of a metric are called that were foretold over `horizon_s`, among those of single cases."""
    return f"{profile}/{metric}>{horizon_s:g}"

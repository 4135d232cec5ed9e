"""Metrics of a registration, in two named profiles.

`learn2reg` is the official evaluation of the challenge, number for number, quirks included; `strict` is
millimetres, textbook definitions and honest counts. One file per metric: a class with a literal `name` in this
folder is found by itself. The pure functions take the arrays of one case.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from reg_bench.errors import ConfigError
from reg_bench.metrics.base import ALL, PROFILES, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.dice import dice
from reg_bench.metrics.end_point_error import end_point_error
from reg_bench.metrics.hd95 import hd95
from reg_bench.metrics.inverse_consistency import inverse_consistency
from reg_bench.metrics.mse import mse
from reg_bench.metrics.ncc import ncc
from reg_bench.metrics.nonpositive_fraction import nonpositive_fraction
from reg_bench.metrics.sdlogj import sdlogj
from reg_bench.metrics.ssim import ssim
from reg_bench.metrics.tre import tre
from reg_bench.types import DisplacementField, RegistrationPair

__all__ = [
    "ALL",
    "PROFILES",
    "Metric",
    "MetricValue",
    "Profile",
    "ScoringContext",
    "all_metrics",
    "dice",
    "end_point_error",
    "hd95",
    "inverse_consistency",
    "mse",
    "ncc",
    "nonpositive_fraction",
    "score",
    "sdlogj",
    "ssim",
    "to_json",
    "tre",
]


@functools.cache
def all_metrics() -> tuple[Metric, ...]:
    """Every metric of this folder and of installed plug-ins, in order of name."""
    from reg_bench.discovery import load_class, members

    return tuple(load_class(member.class_path)() for member in members("metrics"))


def score(
    pair: RegistrationPair,
    field: DisplacementField,
    *,
    profiles: Sequence[Profile] = PROFILES,
    metrics: Iterable[str] | None = None,
    backward: DisplacementField | None = None,
    official: str = "2022",
    masked: bool | None = None,
    label_interpolation: str = "nearest",
) -> list[MetricValue]:
    """All metrics of one case that its data allow.

    Args:
        pair: a batch of one.
        field: displacement on its fixed grid. The zero field gives the values before registration.
        profiles: `learn2reg`, `strict` or both.
        metrics: names to keep, such as `dice`, `tre` (every set of points) or `tre_landmarks`; all by default.
        backward: field of the swapped pair, for `inverse_consistency`.
        official: rules of the `learn2reg` profile, `2022` (and later) or `2020`.
        masked: whether Learn2Reg's SDlogJ is masked; by default where the pair has a mask.
        label_interpolation: of the profile `strict`, `nearest` or `linear`, see `ScoringContext`.

    Returns:
        Values in order of profile and metric name, for each metric its labels and then `all`.

    Raises:
        ConfigError: an unknown metric or profile.
        ValueError: a batch of several cases, or a field that does not fit.
    """
    wanted = None if metrics is None else set(metrics)
    for profile in profiles:
        if profile not in PROFILES:
            raise ConfigError(f"unknown profile {profile!r}: expected {' or '.join(PROFILES)}")
    if label_interpolation == "linear" and "learn2reg" in profiles:
        raise ConfigError("the profile learn2reg warps labels by nearest neighbour, not linearly")
    context = ScoringContext(
        pair, field, backward=backward, official=official, masked=masked, label_interpolation=label_interpolation
    )
    chosen = all_metrics() if wanted is None else _chosen(wanted, context)
    found: list[MetricValue] = []
    for profile in profiles:
        for metric in chosen:
            if profile in metric.profiles and all(context.has(need) for need in metric.needs):
                found += metric.compute(context, profile)
    if wanted is None:
        return found
    names = {metric.name for metric in chosen} & wanted
    return [v for v in found if v.metric in wanted or _family(v.metric) in names]


def _family(metric: str) -> str:
    return "tre" if metric.startswith("tre_") else metric


def _chosen(wanted: set[str], context: ScoringContext) -> tuple[Metric, ...]:
    """The metrics that give what is wanted; a set of points that the case lacks is no error."""
    known = {metric.name: metric for metric in all_metrics()}
    for name in wanted:
        if _family(name) not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown metric {name!r}{hint} Known: {', '.join(known)}")
    families = {_family(name) for name in wanted}
    return tuple(metric for name, metric in known.items() if name in families)


def to_json(values: Iterable[MetricValue]) -> dict[str, dict[str, dict[str, Any]]]:
    """`{profile: {metric: {"mean", "unit", "values"}}}` with `None` for what does not exist or is not finite.

    `mean` is the value of the case. `values` maps label values or point indices to numbers; a metric of the
    whole case has the key `all` there, and its named statistics beside it. Both profiles are always there.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {profile: {} for profile in PROFILES}
    for value in values:
        entry = result.setdefault(value.profile, {}).setdefault(
            value.metric, {"mean": None, "unit": value.unit, "values": {}}
        )
        number = None if value.value is None or not math.isfinite(value.value) else float(value.value)
        entry["values"][value.label] = number
        if value.label == ALL:
            entry["mean"] = number
    for metrics in result.values():
        for name, entry in metrics.items():
            if name in ("dice", "hd95") or _family(name) == "tre":
                entry["values"].pop(ALL, None)
    return result

"""The results of a submission in the organisers' JSON layouts, aggregated as their scripts do."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reg_bench.submission_config import Evaluation
from reg_bench.submission_layout import number_of

#: What the results of 2020 call the metrics.
_NAMES_2020 = {"sdlogj": "LogJacDetStd", "dice": "DiceCoefficient", "hd95": "HausdorffDistance95", "tre": "TRE"}
#: Tasks of 2020 with the key `30`.
_WITH_30_2020 = ("AbdomenCTCT", "HippocampusMR")

Detailed = float | list[float]


@dataclass(frozen=True)
class CaseScore:
    """One case: per name of what is measured its mean and its detailed values, NaN and infinity as they are."""

    case: str
    values: Mapping[str, tuple[float, Detailed]]


@dataclass(frozen=True)
class TaskScores:
    """All cases of a task in both profiles, in the order of the challenge."""

    evaluation: Evaluation
    cases: tuple[CaseScore, ...]
    strict: tuple[CaseScore, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)


def layout_2022(scores: TaskScores, *, strict: bool = False) -> dict[str, Any]:
    """`{"name", "aggregates", "cases", "eval_version"}`, the layout since May 2023."""
    metrics = {method.name: method.metric for method in scores.evaluation.methods}
    cases = scores.strict if strict else scores.cases
    if strict:
        extra = {name: name for case in cases for name in case.values if name not in metrics}
        metrics = {**metrics, **extra}
    aggregates = {}
    for name, metric in metrics.items():
        means = [case.values[name][0] for case in cases if name in case.values]
        if means:
            # In the script the hard end of the cases for what is better when lower, but for HD95 the easy one.
            share = 0.7 if metric in ("sdlogj", "tre") else 0.3
            aggregates[name] = _aggregate(means, share, ddof=0)
    listed = {
        case.case: {name: {"mean": mean, "detailed": detailed} for name, (mean, detailed) in case.values.items()}
        for case in cases
    }
    return {"name": scores.evaluation.task, "aggregates": aggregates, "cases": listed, "eval_version": "2.0"}


def layout_2020(tasks: Sequence[TaskScores], *, strict: bool = False) -> dict[str, Any]:
    """`{"task_0N": {"case": {metric: {"0": …}}, "aggregates": …}}`, the layout of 2020."""
    result = {}
    for scores in tasks:
        task = scores.evaluation.task
        names = {method.name: _NAMES_2020[method.metric] for method in scores.evaluation.methods}
        cases = scores.strict if strict else scores.cases
        by_metric: dict[str, dict[str, float]] = {}
        for index, case in enumerate(cases):
            for name, (mean, _) in case.values.items():
                if name in names or strict:
                    by_metric.setdefault(names.get(name, name), {})[str(index)] = mean
        aggregates = {}
        for metric, values in by_metric.items():
            found = _aggregate(list(values.values()), 0.3, ddof=1)
            if task not in _WITH_30_2020:
                del found["30"]
            aggregates[metric] = found
        result[f"task_{number_of('learn2reg-2020', task):02d}"] = {"case": by_metric, "aggregates": aggregates}
    return result


def _aggregate(means: Sequence[float], share: float, ddof: int) -> dict[str, float]:
    """Mean, standard deviation and quantile over cases.

    Those of later years are NumPy's, in which one value that does not exist takes all with it. Those of 2020 are
    pandas', which leave out what is not a number.
    """
    values = np.asarray(means, dtype=float)
    if ddof:
        values = values[~np.isnan(values)]
    if not len(values):
        return {"mean": math.nan, "std": math.nan, "30": math.nan}
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        std = float(values.std(ddof=ddof)) if len(values) > ddof else math.nan
        return {"mean": float(values.mean()), "std": std, "30": float(np.quantile(values, share))}


def finite(value: Any) -> Any:
    """For strict JSON: what does not exist or is infinite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value

"""Scores a Learn2Reg submission as the challenge does, with the strict profile beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reg_bench.displacement_2020 import decode_2020
from reg_bench.errors import DataError
from reg_bench.learn2reg_task import Pair
from reg_bench.metrics import ALL, MetricValue
from reg_bench.metrics import score as score_field
from reg_bench.submission_archive import Archive
from reg_bench.submission_array import Form, check_array
from reg_bench.submission_check import entered_tasks, profile_of
from reg_bench.submission_config import Evaluation, made_for, read_evaluation
from reg_bench.submission_fault import Checked
from reg_bench.submission_layout import numbered
from reg_bench.submission_match import match
from reg_bench.submission_pairs import Which, field_of, find_submitted, load_case
from reg_bench.submission_results import CaseScore, TaskScores, finite, layout_2020, layout_2022
from reg_bench.submission_work import spread
from reg_bench.types import DisplacementField

_STRICT_EXTRA = "nonpositive_fraction"


@dataclass(frozen=True)
class Scored:
    """The results of a submission in the organisers' layout and, in the same layout, in the strict profile."""

    profile: str
    official: dict[str, object]
    strict: dict[str, object]
    tasks: tuple[TaskScores, ...]


@dataclass(frozen=True)
class _Job:
    archive: Path
    name: str
    form: Form
    pair: Pair
    evaluation: Evaluation


def score(
    path: Path,
    datasets: Sequence[Path],
    *,
    config: Path | None = None,
    which: Which = "auto",
    workers: int | None = None,
) -> Scored:
    """The scores of a submission.

    Args:
        path: the zip, or the folder of its files.
        datasets: dataset JSON files or folders of tasks.
        config: the organisers' evaluation configuration; made from the dataset if not given.
        which: the pairs to score where no configuration lists them.
        workers: processes; by number and size of the cases if not given.

    Raises:
        DataError: data or configuration that do not fit, or a submission that the evaluation would refuse.
    """
    archive = Archive(path)
    tasks = [task for dataset in datasets for task in find_submitted(dataset, which)]
    profile = profile_of(archive, tasks)
    tasks = entered_tasks(archive, profile, tasks)
    evaluations = {task.name: made_for(task) for task in tasks}
    if config is not None:
        evaluation, chosen = read_evaluation(config, tasks)
        tasks, evaluations = [chosen], {chosen.name: evaluation}
    checked = Checked(profile)
    found = match(archive, profile, {task.name: task.fields() for task in tasks}, checked)
    refused = [f for f in checked.faults if f.kind not in ("extra", "twice")]
    if refused:
        lines = [str(fault) for fault in refused[:10]]
        raise DataError("\n  ".join([f"{path}: cannot be scored, see `reg-bench submit check`", *lines]))
    by_pair = {(entry.task, entry.field): entry.names[0] for entry in found}
    jobs = [
        _Job(path, by_pair[task.name, field_of(p)], Form(profile, task.name, task.shape), p, evaluations[task.name])
        for task in tasks
        for p in task.pairs
    ]
    results = list(spread(_scored_case, jobs, workers, sum(int(np.prod(job.form.shape)) for job in jobs)))
    made = []
    for task in tasks:
        own = [r for job, r in zip(jobs, results, strict=True) if job.form.task == task.name]
        official, strict = tuple(r[0] for r in own), tuple(r[1] for r in own)
        made.append(TaskScores(evaluations[task.name], official, strict, own[0][2]))
    if numbered(profile):
        return Scored(profile, layout_2020(made), layout_2020(made, strict=True), tuple(made))
    return Scored(profile, layout_2022(made[0]), layout_2022(made[0], strict=True), tuple(made))


def _scored_case(job: _Job) -> tuple[CaseScore, CaseScore, dict[str, str]]:
    faults = Checked("")
    found = Archive(job.archive).load(job.name)
    fields = check_array(found, job.form, lambda *fault: faults.fault(job.name, *fault), lambda text: None)
    # The size of displacements is a matter of plausibility: the evaluation scores them as they are.
    hard = [fault for fault in faults.faults if fault.kind not in ("size", "keys")]
    if fields is None or hard:
        raise DataError(f"{job.archive}: {hard[0]}")
    old = numbered(job.form.profile)
    double = fields.dtype == np.float64 and job.name.endswith(".nii.gz")
    u = decode_2020(fields, job.form.shape) if old else fields.astype(np.float64 if double else np.float32)
    evaluation = job.evaluation
    pair = load_case(job.pair, masked=evaluation.masked, labels=evaluation.labels or None)
    field = DisplacementField.for_pair(torch.from_numpy(np.ascontiguousarray(u))[None], pair)
    wanted = {method.metric for method in evaluation.methods}
    metrics = [*(wanted | ({"dice"} if "hd95" in wanted else set())), _STRICT_EXTRA]
    values = score_field(
        pair,
        field,
        metrics=metrics,
        official="2020" if old else "2022",
        masked=evaluation.masked and pair.mask is not None,
    )
    case = field_of(job.pair).official
    official = _values(values, "learn2reg", evaluation)
    if not old:
        official["num_foldings"] = (0.0, 0.0)
    strict = _values(values, "strict", evaluation)
    folds = next(v.value for v in values if v.metric == _STRICT_EXTRA and v.label == ALL)
    strict[_STRICT_EXTRA] = (_number(folds), _number(folds))
    units = {v.metric: v.unit for v in values if v.profile == "strict"}
    return CaseScore(case, official), CaseScore(case, strict), units


def _values(
    values: list[MetricValue], profile: str, evaluation: Evaluation
) -> dict[str, tuple[float, float | list[float]]]:
    table = {(v.metric, v.label): v.value for v in values if v.profile == profile}
    result: dict[str, tuple[float, float | list[float]]] = {}
    for method in evaluation.methods:
        if method.metric == "sdlogj":
            number = _number(table.get(("sdlogj", ALL)))
            result[method.name] = (number, number)
        elif method.metric == "tre":
            metric = f"tre_{method.points}"
            rows = [v.value for v in values if v.profile == profile and v.metric == metric and v.label != ALL]
            if not rows:
                raise DataError(f"{evaluation.task}: {method.name} needs {method.points}, which a pair lacks")
            detailed = [_number(v) for v in rows]
            result[method.name] = (float(np.mean(detailed)), detailed)
        else:
            result[method.name] = _per_label(table, method.metric, method.labels, profile)
    return result


def _per_label(
    table: dict[tuple[str, str], float | None], metric: str, labels: tuple[int, ...], profile: str
) -> tuple[float, list[float]]:
    """Mean over the labels that count, and all of them."""
    detailed = []
    for label in labels:
        value, overlap = table.get((metric, str(label))), table.get(("dice", str(label)))
        # A label that stands in both maps and vanishes under the warp is infinitely far.
        gone = metric == "hd95" and profile == "learn2reg" and value is None and overlap is not None
        detailed.append(math.inf if gone else _number(value))
    counted = [v for v in detailed if not math.isnan(v)]
    return (float(np.mean(counted)) if counted else math.nan), detailed


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def write(scored: Scored, out: Path) -> tuple[Path, Path]:
    """Writes the official layout to `out` and the strict profile beside it, as `<name>.strict.json`.

    The official file says NaN and Infinity as the organisers' does; the strict one says null.
    """
    if out.is_dir():
        raise DataError(f"{out}: a folder; expected the name of a file, such as {out / 'metrics.json'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f"{out.stem}.strict.json")
    out.write_text(json.dumps(scored.official, indent=4, allow_nan=True) + "\n", encoding="utf-8")
    beside.write_text(json.dumps(finite(scored.strict), indent=4, allow_nan=False) + "\n", encoding="utf-8")
    return out, beside


def text(scored: Scored) -> str:
    """The means as lines, official and strict."""
    lines = []
    for task in scored.tasks:
        lines.append(f"{task.evaluation.task}, {len(task.cases)} cases ({scored.profile}): official, strict")
        for name in dict.fromkeys([*task.cases[0].values, *task.strict[0].values]):
            columns = [
                f"{np.mean([c.values[name][0] for c in cases]):.5g}" if name in cases[0].values else "-"
                for cases in (task.cases, task.strict)
            ]
            lines.append(f"  {name:<24} {columns[0]:>12} {columns[1]:>12}")
    return "\n".join(lines)

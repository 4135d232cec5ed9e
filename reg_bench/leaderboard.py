"""Leaderboards from result rows: one board per task and profile, as data; `leaderboard_text` prints them.

Pure functions of the rows and the manifest; rows may come in any order. Imports no torch.
The rules for failures, intervals and tests are those of `reg_bench.statistics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reg_bench import statistics as st
from reg_bench.leaderboard_rows import LABEL_METRICS, Kind, Result
from reg_bench.ranking import Ranking
from reg_bench.results import KEY_FIELDS
from reg_bench.statistics import Bools, Codes, Floats, Summary

#: The reference rows of every suite: what no motion scores (of pairs, of sequences), and what the known motion scores.
FLOORS, CEILING = ("identity", "no-motion"), "truth"

BOARD_KEY = ("suite", "suite_version", "task", "dataset", "dataset_checksum")
ENTRY_KEY = ("method", "method_version", "config_hash", "checkpoint", "seed", "condition")
#: Under which condition the cases were run is part of an entry, and boards hold entries of one condition.
_CONDITION = KEY_FIELDS.index("condition")
_TASK, _ENTRY = KEY_FIELDS.index("task"), [KEY_FIELDS.index(name) for name in ENTRY_KEY]
#: The case of a row that says why the cases of a task could not even be listed.
NO_CASES = "*"
STATUS = {"ok": st.OK, "failed": st.FAILED, "skipped": st.SKIPPED}

#: Order of the columns; metrics that are not named follow in alphabetical order.
METRIC_ORDER = (
    "dice",
    "tre_landmarks",
    "tre_keypoints",
    "hd95",
    "end_point_error",
    "contour_error",
    "contour_std",
    "coverage_50",
    "coverage_95",
    "latent_coverage_50",
    "latent_coverage_95",
    "target_error",
    "target_error_p95",
    "gate_right",
    "target_error_late",
    "target_error_late_hold",
    "closure_error",
    "drift",
    "ncc",
    "ssim",
    "mse",
    "sdlogj",
    "nonpositive_fraction",
    "inverse_consistency",
)
HIGHER_IS_BETTER = frozenset({"dice", "ncc", "ssim", "gate_right", "within_budget"})
NEUTRAL = frozenset({"labels_counted", "num_foldings", "drift", "contour_std"}) | {
    # Best where it is what it claims to be.
    *("coverage_50", "coverage_95", "latent_coverage_50", "latent_coverage_95")
}


@dataclass(frozen=True)
class Entry:
    """One line of a board: a method in one configuration.

    `rank` is None for the reference rows and for what is incomplete or skipped. `cells` holds the statistics
    per metric. `values` are the values of the primary metric in the order of `Board.cases`, failures as worst,
    NaN where absent. `wall_s` and `cpu_s` are medians over the `timed` cases, those timed exclusively.
    In the same order are `scores`, the values of every metric as they came (NaN for null), `labelled`, those of single
    labels by metric and label with failures as worst, `foretold`, forecasts by metric and seconds, `status` (codes of
    `statistics`), and `costs`: `wall_s`, `cpu_s` and `peak_mb` of every case, however it was timed. `reasons` tells, by
    case, why it is not ok.
    """

    name: str
    method: str
    key: Mapping[str, str]
    role: str
    ok: int
    failed: int
    skipped: int
    missing: int
    cells: Mapping[str, Summary]
    rank: int | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    timed: int = 0
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    threads: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    values: Floats = field(default_factory=lambda: np.empty(0))
    panels: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Floats] = field(default_factory=dict)
    labelled: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    foretold: Mapping[tuple[str, float], Floats] = field(default_factory=dict)
    status: Codes = field(default_factory=lambda: np.empty(0, dtype=np.int8))
    costs: Mapping[str, Floats] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every case of the task has a result, failures included."""
        return self.missing == 0 and self.skipped == 0

    @property
    def state(self) -> str:
        """`complete`, `incomplete` or `skipped` (no case was attempted)."""
        if self.complete:
            return "complete"
        return "skipped" if self.ok + self.failed == 0 and self.skipped else "incomplete"


@dataclass(frozen=True)
class Trouble:
    """Cases of one method that share a status other than `ok` and a reason."""

    name: str
    status: str
    reason: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """The ranking of one task in one profile, best first; incomplete and skipped methods last.

    `ranking` tells how firm the ranks are and who is better than whom, where that was worked out.
    """

    suite: str
    suite_version: str
    task: str
    dataset: str
    dataset_checksum: str
    profile: str
    primary: str
    main: bool
    cases: tuple[str, ...]
    subjects: int
    metrics: tuple[str, ...]
    units: Mapping[str, str]
    better: Mapping[str, str]
    hardest_by: str
    hardest_n: int
    entries: tuple[Entry, ...]
    troubles: tuple[Trouble, ...]
    warnings: tuple[str, ...]
    other_ranks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    condition: str = ""
    ranking: Ranking | None = None

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.task, self.condition, f"profile {self.profile}")))


def better_of(metric: str, manifest: Mapping[str, Any]) -> str:
    """`higher`, `lower` or `neutral`; a plug-in's metric says so in the manifest, else it counts as an error."""
    declared = (manifest.get("metrics") or {}).get(metric)
    if isinstance(declared, Mapping) and declared.get("better") in ("higher", "lower", "neutral"):
        return str(declared["better"])
    if metric in NEUTRAL:
        return "neutral"
    return "higher" if metric in HIGHER_IS_BETTER else "lower"


def tables(results: Sequence[Result], manifest: Mapping[str, Any]) -> list[Board]:
    """All boards of `results`, which `leaderboard_rows.read` gives, one per key.

    Boards come in the order of the suite's tasks, within a task the primary profile first, then the conditions. Rows
    of different suite versions, data or conditions never share a board, configurations of a method never an entry.
    """
    parts: dict[tuple[str, ...], list[Result]] = {}
    for result in sorted(results, key=lambda r: r.key):
        parts.setdefault((*result.key[: len(BOARD_KEY)], result.key[_CONDITION]), []).append(result)
    listed = {key[:3] for key, rows in parts.items() if any(r.case != NO_CASES for r in rows)}
    # A task whose cases could not be listed is a line of its own only until a later run has listed them.
    parts = {k: rows for k, rows in parts.items() if k[:3] not in listed or any(r.case != NO_CASES for r in rows)}
    order = {task.get("name"): i for i, task in enumerate((manifest.get("suite") or {}).get("tasks") or [])}
    warnings = mixture_warnings([key[: len(BOARD_KEY)] for key in parts], manifest)
    boards: list[Board] = []
    seen: set[tuple[str, ...]] = set()
    for key in sorted(parts, key=lambda k: (order.get(k[_TASK], len(order)), k)):
        # Conditions follow the plain task, or the first of them where there is none.
        first = key[:-1] not in seen
        seen.add(key[:-1])
        boards += _TaskTables(parts[key], manifest, warnings).boards(main=first)
    return boards


def mixture_warnings(keys: Sequence[tuple[str, ...]], manifest: Mapping[str, Any]) -> list[str]:
    """What a reader must know before comparing: several versions of a suite or of the data in one folder."""
    found: list[str] = []
    versions: dict[str, set[str]] = {}
    data: dict[tuple[str, str, str], set[str]] = {}
    for suite, version, task, _, checksum in keys:
        versions.setdefault(suite, set()).add(version)
        data.setdefault((suite, version, task), set()).add(checksum)
    for suite, known in sorted(versions.items()):
        if len(known) > 1:
            found.append(f"rows of {len(known)} versions of suite {suite} ({', '.join(sorted(known))}): kept apart")
    for (suite, _, task), sums in sorted(data.items()):
        if len(sums) > 1:
            found.append(f"{suite}/{task}: rows of {len(sums)} states of the data (checksums differ): kept apart")
    name = (manifest.get("suite") or {}).get("name")
    if name and name not in versions:
        found.append(f"the manifest is of suite {name}, the rows are of {', '.join(sorted(versions))}")
    return found


class _TaskTables:
    """The rows of one task as arrays `(entries, cases)`, and the boards made of them."""

    def __init__(self, rows: Sequence[Result], manifest: Mapping[str, Any], warnings: Sequence[str]) -> None:
        self.manifest, self.warnings = manifest, list(warnings)
        self.head = dict(zip(BOARD_KEY, rows[0].key, strict=False))
        self.condition = rows[0].key[_CONDITION]
        tasks = (manifest.get("suite") or {}).get("tasks") or []
        self.task: Mapping[str, Any] = next((t for t in tasks if t.get("name") == self.head["task"]), {})
        listed = {r.case for r in rows if r.case != NO_CASES}
        planned, planned_entries = self._planned()
        self.cases = tuple(sorted(listed | planned)) or (NO_CASES,)
        self.rows = [r for r in rows if r.case != NO_CASES or not listed]
        keys = sorted({_entry_key(r) for r in self.rows} | planned_entries)
        self.keys = [dict(zip(ENTRY_KEY, key, strict=True)) for key in keys]
        self.names = _entry_names(self.keys)
        lines = {key: i for i, key in enumerate(keys)}
        columns = self.columns = {case: i for i, case in enumerate(self.cases)}
        self.line = [lines[_entry_key(r)] for r in self.rows]
        self.column = [columns[r.case] for r in self.rows]
        self.shape = (len(keys), len(self.cases))
        self.status: Codes = np.full(self.shape, st.MISSING, dtype=np.int8)
        self.status[self.line, self.column] = [STATUS.get(r.status, st.FAILED) for r in self.rows]
        self.by_entry: list[list[Result]] = [[] for _ in keys]
        for result, line in zip(self.rows, self.line, strict=True):
            self.by_entry[line].append(result)
        self.subjects = st.subjects_of(self.cases)
        self.values: dict[str, dict[str, Floats]] = {}
        self.labelled: dict[str, dict[str, dict[str, Floats]]] = {}
        self.foretold: dict[str, dict[tuple[str, float], Floats]] = {}
        self.emitted: dict[str, dict[str, Bools]] = {}
        self.units: dict[str, dict[str, str]] = {}
        self._read()

    def _planned(self) -> tuple[set[str], set[tuple[str, ...]]]:
        """Cases and entries that the manifest announces for this task: what is not there yet is missing."""
        manifest, head = self.manifest, self.head
        if (manifest.get("suite_name"), manifest.get("suite_version")) != (head["suite"], head["suite_version"]):
            return set(), set()
        for task in manifest.get("tasks") or []:
            if task.get("name") == head["task"] and task.get("dataset_checksum") == head["dataset_checksum"]:
                seed = str(manifest.get("seed", ""))
                entries: set[tuple[str, ...]] = {
                    (m["name"], m["version"], m["config_hash"], m.get("checkpoint") or "", seed, self.condition)
                    for m in manifest.get("methods") or []
                }
                return {str(c) for c in task.get("cases") or []}, entries
        return set(), set()

    def _read(self) -> None:
        """Fills `values`, `emitted` and `units`, all by profile and metric.

        A case with a value per frame gets their mean, null as soon as one of them is null.
        """
        by_kind: dict[Kind, tuple[list[int], list[float]]] = {}
        width = len(self.cases)
        for result, line, column in zip(self.rows, self.line, self.column, strict=True):
            if result.status != "ok":
                continue
            place = line * width + column
            for kind, value in result.values:
                if kind not in by_kind:
                    by_kind[kind] = ([], [])
                places, numbers = by_kind[kind]
                places.append(place)
                numbers.append(value)
        found: dict[tuple[str, str, str, float], list[tuple[int, str, list[int], list[float]]]] = {}
        for kind, (places, numbers) in by_kind.items():
            part = (kind.profile, kind.metric, kind.label, kind.horizon_s)
            found.setdefault(part, []).append((kind.frame, kind.unit, places, numbers))
        size = self.shape[0] * width
        for (profile, metric, label, horizon_s), lists in sorted(found.items()):
            # In order of frame and place: sums of floats depend on their order, the order of the rows must not show.
            lists.sort(key=lambda item: (item[0], item[1], item[2]))
            at = np.concatenate([np.asarray(item[2]) for item in lists])
            sums = np.bincount(at, np.concatenate([np.asarray(item[3]) for item in lists]), size).reshape(self.shape)
            count = np.bincount(at, minlength=size).reshape(self.shape)
            with np.errstate(invalid="ignore", divide="ignore"):
                means = sums / count
            means = np.where(np.isfinite(means), means, np.nan)
            if horizon_s:
                self.foretold.setdefault(profile, {})[metric, horizon_s] = means
                continue
            if label != "all":
                self.labelled.setdefault(profile, {}).setdefault(metric, {})[label] = means
                continue
            self.values.setdefault(profile, {})[metric] = means
            self.emitted.setdefault(profile, {})[metric] = count > 0
            known = sorted({item[1] for item in lists if item[1]})
            self.units.setdefault(profile, {})[metric] = " or ".join(known)
            if len(known) > 1:
                self.warnings.append(f"{self.head['task']}: {metric} is in {' and in '.join(known)}: means mix units")

    def _primary(self, profile: str) -> str:
        named = str(self.task.get("primary") or "")
        known = self.values[profile]
        if named:
            return named if named in known else ""
        scored = [m for m in known if better_of(m, self.manifest) != "neutral" and m != "nonpositive_fraction"]
        return min(scored, key=_metric_place, default="")

    def _filled(self, profile: str, metric: str, better: str, primary: bool) -> tuple[Floats, Bools, Bools]:
        values = self.values[profile][metric]
        counted = self.values[profile].get("labels_counted") if metric in LABEL_METRICS else None
        exists = st.existing_cases(values, self.status, counted)
        filled, substituted = st.with_failures(values, self.status, exists, metric, better)
        if not primary:
            # A method that never gives a metric (no reverse field for the inverse consistency) has no such
            # column; the primary metric is owed by everyone.
            ran, gave = (self.status == st.OK).any(axis=1), self.emitted[profile][metric].any(axis=1)
            filled[ran & ~gave], substituted[ran & ~gave] = np.nan, False
        return filled, substituted, exists

    def _hardest(self, filled: Floats, better: str) -> tuple[Any, str]:
        floors = [i for i, key in enumerate(self.keys) if key["method"] in FLOORS]
        present = np.isfinite(filled).any(axis=0)
        for i in floors:
            if np.isfinite(filled[i])[present].all():
                return st.hardest_cases(filled[i], better), f"the value of `{self.keys[i]['method']}`"
        owed = np.isfinite(filled)
        total = np.where(owed, filled, 0.0).sum(axis=0)
        mean = np.where(present, total / np.maximum(owed.sum(axis=0), 1), np.nan)
        return st.hardest_cases(mean, better), "the mean over the methods"

    def boards(self, main: bool = True) -> list[Board]:
        first = str(self.task.get("primary_profile") or "strict")
        profiles = sorted(self.values, key=lambda p: (p != first, p)) or [first]
        made = [self._board(p, main=main and i == 0) for i, p in enumerate(profiles) if i == 0 or self._primary(p)]
        ranks = {b.profile: {e.name: e.rank for e in b.entries if e.rank is not None} for b in made}
        return [replace(b, other_ranks={p: r for p, r in ranks.items() if p != b.profile}) for b in made]

    def _board(self, profile: str, main: bool) -> Board:
        self.values.setdefault(profile, {})
        primary = self._primary(profile)
        metrics = sorted(self.values[profile], key=_metric_place)
        better = {m: better_of(m, self.manifest) for m in metrics}
        cells: list[dict[str, Summary]] = [{} for _ in self.keys]
        scores, hardest_by, hardest_n = np.full(self.shape, np.nan), "", 0
        for metric in metrics:
            filled, substituted, _ = self._filled(profile, metric, better[metric], metric == primary)
            hardest = None
            if metric == "dice" or metric.startswith("tre_"):
                hardest, by = self._hardest(filled, better[metric])
                if not hardest_by or metric == primary:
                    hardest_by, hardest_n = by, len(hardest)
            for i in range(len(self.keys)):
                cells[i][metric] = st.summarise(filled[i], substituted[i], hardest)
            if metric == primary:
                scores = filled
        entries = self._ranked(cells, scores, primary, better.get(primary, "higher"), profile)
        return Board(
            suite=self.head["suite"],
            suite_version=self.head["suite_version"],
            task=self.head["task"],
            dataset=self.head["dataset"],
            dataset_checksum=self.head["dataset_checksum"],
            profile=profile,
            primary=primary,
            main=main,
            cases=self.cases,
            subjects=len(np.unique(self.subjects)),
            metrics=tuple(metrics),
            units=self.units.get(profile, {}),
            better=better,
            hardest_by=hardest_by,
            hardest_n=hardest_n,
            entries=tuple(entries),
            troubles=self._troubles() if main or self.condition else (),
            warnings=tuple(dict.fromkeys([*self.warnings, *self._setting_warnings()])),
            condition=self.condition,
        )

    def _labels_filled(self, profile: str) -> dict[str, dict[str, Floats]]:
        """Values of single labels `(M, N)` by metric and label, failures as the worst."""
        filled: dict[str, dict[str, Floats]] = {}
        for metric, by_label in self.labelled.get(profile, {}).items():
            better = better_of(metric, self.manifest)
            for label, values in by_label.items():
                exists = st.existing_cases(values, self.status)
                filled.setdefault(metric, {})[label] = st.with_failures(values, self.status, exists, metric, better)[0]
        return filled

    def _ranked(
        self, cells: list[dict[str, Summary]], scores: Floats, primary: str, better: str, profile: str
    ) -> list[Entry]:
        labelled = self._labels_filled(profile)
        entries = [
            replace(
                self._entry(i, cells[i], scores[i]),
                scores={m: v[i] for m, v in self.values[profile].items()},
                labelled={m: {k: v[i] for k, v in by_label.items()} for m, by_label in labelled.items()},
                foretold={place: v[i] for place, v in self.foretold.get(profile, {}).items()},
            )
            for i in range(len(self.keys))
        ]
        if not primary:
            return sorted(entries, key=lambda e: (_STATES.index(e.state), e.name))
        intervals = st.bootstrap_intervals(scores, self.subjects)
        entries = [replace(e, interval=ci) for e, ci in zip(entries, intervals, strict=True)]
        sign = -1.0 if better == "higher" else 1.0

        def loss(entry: Entry) -> float:
            mean = entry.cells[primary].mean
            return float("inf") if mean is None else round(sign * mean, 12)

        racing = [e for e in entries if e.complete and not e.role and e.cells[primary].mean is not None]
        losses = [loss(e) for e in racing]
        ranks = {e.name: 1 + sum(other < loss(e) for other in losses) for e in racing}
        entries = [replace(e, rank=ranks.get(e.name)) for e in entries]
        entries = self._tested(entries, scores)
        return sorted(entries, key=lambda e: (_STATES.index(e.state), loss(e), e.name))

    def _tested(self, entries: list[Entry], scores: Floats) -> list[Entry]:
        """Every complete method but the ceiling against the best one, over subjects, Holm over the board."""
        best = min((i for i, e in enumerate(entries) if e.rank == 1), key=lambda i: entries[i].name, default=None)
        if best is None:
            return entries
        means = st.subject_means(scores, self.subjects)
        rivals = [i for i, e in enumerate(entries) if i != best and e.complete and e.role != "ceiling"]
        corrected = st.holm([st.wilcoxon_p(means[i], means[best]) for i in rivals])
        p_of = dict(zip(rivals, corrected, strict=True))
        return [replace(e, p_value=p_of.get(i)) for i, e in enumerate(entries)]

    def _entry(self, index: int, cells: dict[str, Summary], scores: Floats) -> Entry:
        done = [r for r in self.by_entry[index] if r.status == "ok"]
        timed = [r for r in done if r.timing == "exclusive"]
        status, key = self.status[index], self.keys[index]
        return Entry(
            name=self.names[index],
            method=key["method"],
            key=key,
            role=_role(key["method"], self.condition),
            ok=int((status == st.OK).sum()),
            failed=int((status == st.FAILED).sum()),
            skipped=int((status == st.SKIPPED).sum()),
            missing=int((status == st.MISSING).sum()),
            cells=cells,
            timed=len(timed),
            wall_s=_reduced(np.median, [r.wall_s for r in timed]),
            cpu_s=_reduced(np.median, [r.cpu_s for r in timed]),
            peak_mb=_reduced(np.max, [r.peak_mb for r in done]),
            threads=_distinct(r.threads for r in done),
            devices=_distinct(r.device for r in done),
            values=scores,
            panels={r.case: r.panel for r in done if r.panel},
            status=status,
            costs=self._costs(index),
            reasons={r.case: r.reason or "no reason given" for r in self.by_entry[index] if r.status != "ok"},
        )

    def _costs(self, index: int) -> dict[str, Floats]:
        """Cost of every case `(N,)`, NaN where there is none."""
        made = {name: np.full(len(self.cases), np.nan) for name in ("wall_s", "cpu_s", "peak_mb")}
        for result in self.by_entry[index]:
            column = self.columns[result.case]
            for name, array in made.items():
                value = getattr(result, name)
                array[column] = np.nan if value is None else value
        return made

    def _troubles(self) -> tuple[Trouble, ...]:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for result, line in zip(self.rows, self.line, strict=True):
            if result.status != "ok":
                key = (self.names[line], result.status, result.reason or "no reason given")
                groups.setdefault(key, []).append(result.case)
        return tuple(Trouble(*key, cases=tuple(cases)) for key, cases in sorted(groups.items()))

    def _setting_warnings(self) -> Iterator[str]:
        done = [r for r in self.rows if r.status == "ok"]
        for name, known in (
            ("thread counts", _distinct(r.threads for r in done)),
            ("devices", _distinct(r.device for r in done)),
        ):
            if len(known) > 1:
                yield f"{self.head['task']}: rows with different {name} ({', '.join(known)})"
        for part in ("method_version", "config_hash"):
            for method in sorted({k["method"] for k in self.keys}):
                several = {k[part] for k in self.keys if k["method"] == method}
                if len(several) > 1:
                    what = {"method_version": "versions", "config_hash": "configurations"}[part]
                    yield f"{self.head['task']}: {method} has rows of {len(several)} {what}: kept apart"


def _role(method: str, condition: str) -> str:
    """Where frames are missing the known motion is that of the last one: no ceiling."""
    if method in FLOORS:
        return "floor"
    return "ceiling" if method == CEILING and not condition else ""


_STATES = ("complete", "incomplete", "skipped")


def _metric_place(metric: str) -> tuple[int, str]:
    known = metric in METRIC_ORDER
    return (METRIC_ORDER.index(metric) if known else len(METRIC_ORDER), metric)


def _entry_names(keys: Sequence[Mapping[str, str]]) -> list[str]:
    """The method's name, with whatever tells its configurations apart where there are several."""
    names: list[str] = []
    for key in keys:
        twins = [k for k in keys if k["method"] == key["method"]]
        parts = [
            {"method_version": "v{}", "config_hash": "#{:.8}", "checkpoint": "checkpoint {:.12}"}.get(
                c, c + " {}"
            ).format(key[c] or "none")
            for c in ENTRY_KEY[1:]
            if len({k[c] for k in twins}) > 1
        ]
        names.append(f"{key['method']} ({', '.join(parts)})" if parts else str(key["method"]))
    return names


def _entry_key(result: Result) -> tuple[str, ...]:
    return tuple([result.key[i] for i in _ENTRY])


def _reduced(function: Any, values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(function(known)) if known else None


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({v for v in values if v}))

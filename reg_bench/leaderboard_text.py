"""Boards as text: the columns that every rendering shares, Markdown, CSV and the protocol footer."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reg_bench.leaderboard import NO_CASES, Board, Entry, Trouble
from reg_bench.statistics import HARDEST_PERCENT, RESAMPLES

NONE = "–"

HD95_DEFINITIONS = {
    "strict": (
        "95th percentile of the distances between boundary voxels in each direction, the larger of the two; "
        "a label that vanishes under the warp is infinite and counts as the worst"
    ),
    "learn2reg": (
        "surface elements weighted by their area, 95 % of the area in each direction, the larger of the two, "
        "always in voxels (surface-distance, as the challenge)"
    ),
}
INTERPOLATION = {
    "strict": "images linear, labels nearest",
    "learn2reg": "images linear, labels nearest by floor(x + 0.5), background outside the image, points cubic B-spline",
}
PROFILES = {
    "strict": "textbook definitions, millimetres where the spacing is known",
    "learn2reg": "the official Learn2Reg evaluation, number for number (MDL-UzL/L2R)",
}
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
#: Facts about the scoring that are in the CSV only.
HIDDEN = frozenset({"labels_counted", "num_foldings"}) | {
    # Those of streams have a table of their own.
    *("latency", "latency_first", "latency_median", "latency_p95", "latency_p99", "within_budget")
}


CSV_HEAD = (
    *("suite", "suite_version", "task", "dataset", "dataset_checksum", "profile", "rank", "method", "role", "state"),
    *("method_version", "config_hash", "checkpoint", "seed", "condition", "ok", "failed", "skipped", "missing"),
    *("primary", "primary_ci_low", "primary_ci_high", "p_holm", "wall_s_median", "cpu_s_median", "peak_mb_max"),
    *("timed", "threads", "device"),
)


@dataclass(frozen=True)
class Column:
    """One column of a board: its title with unit, an explanation, and per entry a text and a sort key.

    `source` says which value of the cases the numbers come from, as `profile/metric`, with `#label` for that of one
    label; `spans` are intervals with their middle, in percent of the range of all.
    """

    title: str
    hint: str
    texts: tuple[str, ...]
    keys: tuple[float | None, ...]
    better: str = ""
    primary: bool = False
    source: str = ""
    spans: tuple[tuple[float, float, float] | None, ...] = ()

    def best(self, board: Board) -> set[int]:
        """Lines of ranked methods that hold the best value, where the column has a better end."""
        known = {i: k for i, k in enumerate(self.keys) if k is not None and board.entries[i].rank is not None}
        if self.better not in ("higher", "lower") or len(known) < 2:
            return set()
        top = max(known.values()) if self.better == "higher" else min(known.values())
        return {i for i, k in known.items() if k == top}


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


def _percent(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if 0 < value < 1e-5 else f"{100 * value:.3f}"


def rank_text(entry: Entry) -> str:
    """The rank, or what the line is instead."""
    return entry.role or (str(entry.rank) if entry.rank is not None else NONE)


def name_text(entry: Entry) -> str:
    """The method's name, with what is missing."""
    attempted = entry.ok + entry.failed
    if entry.state == "skipped":
        return f"{entry.name} (skipped)"
    if entry.state == "incomplete":
        return f"{entry.name} (incomplete, {attempted} of {attempted + entry.missing + entry.skipped} cases)"
    return entry.name


def cases_text(entry: Entry) -> str:
    """`20`, or `18 ok, 2 failed`."""
    parts = [("ok", entry.ok), ("failed", entry.failed), ("skipped", entry.skipped), ("missing", entry.missing)]
    named = [f"{count} {word}" for word, count in parts if count]
    return str(entry.ok) if len(named) == 1 and entry.ok else ", ".join(named)


def columns(board: Board) -> list[Column]:
    """The columns of `board`: those metrics that any method has, the primary one first, then cost."""
    shown = [m for m in board.metrics if m not in HIDDEN and any(e.cells[m].n for e in board.entries)]
    shown.sort(key=lambda m: m != board.primary)
    made: list[Column] = []
    for metric in shown:
        made += _metric_columns(board, metric)
    made += [c for c in _cost_columns(board) if any(t != NONE for t in c.texts)]
    return made


def _metric_columns(board: Board, metric: str) -> list[Column]:
    entries, unit = board.entries, board.units.get(metric, "")
    cells = [e.cells[metric] for e in entries]
    title, hint = title_of(metric, board.metrics), HINTS.get(metric, "")
    better, means = board.better[metric], tuple(c.mean for c in cells)
    source = f"{board.profile}/{metric}"
    if metric == "nonpositive_fraction":
        texts = tuple(_percent(c.mean) for c in cells)
        return [Column(f"{title} [%]", hint, texts, means, better, source=source)]
    suffix = "" if unit in ("", "1") else f" [{unit}]"
    texts = tuple(number(c.mean, metric) + (f" ± {number(c.sd, metric)}" if c.sd is not None else "") for c in cells)
    made = [
        Column(
            title + suffix,
            f"{hint}; mean ± sd over cases".strip("; "),
            texts,
            means,
            better,
            metric == board.primary,
            source,
        )
    ]
    if metric == board.primary:
        made += _primary_columns(board, metric)
    if any(c.hardest is not None for c in cells):
        tail = tuple(c.hardest for c in cells)
        short = title.replace("Dice", "DSC").replace("TRE", "TRE30", 1).replace("DSC", "DSC30")
        hint = f"mean over the hardest {HARDEST_PERCENT} % of the cases ({board.hardest_n}), by {board.hardest_by}"
        made.append(Column(short + suffix, hint, tuple(number(t, metric) for t in tail), tail, better, source=source))
    return made


def _primary_columns(board: Board, metric: str) -> list[Column]:
    intervals, source = [e.interval for e in board.entries], f"{board.profile}/{metric}"
    texts = tuple(NONE if i is None else f"{number(i[0], metric)}–{number(i[1], metric)}" for i in intervals)
    lows = tuple(None if i is None else i[0] for i in intervals)
    made = []
    if any(intervals):
        hint = f"95 % bootstrap interval of the mean over {board.subjects} subjects"
        made.append(Column("95 % CI", hint, texts, lows, source=source, spans=_spans(board)))
    p_values = tuple(e.p_value for e in board.entries)
    if any(p is not None for p in p_values):
        texts = tuple(NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in p_values)
        hint = "paired Wilcoxon signed-rank test against the best, over subjects, Holm-corrected"
        made.append(Column("p", hint, texts, p_values, source=source))
    made += _rank_columns(board, source)
    for profile, ranks in board.other_ranks.items():
        places = tuple(ranks.get(e.name) for e in board.entries)
        keys = tuple(None if r is None else float(r) for r in places)
        texts = tuple(NONE if r is None else str(r) for r in places)
        made.append(
            Column(f"rank {profile}", f"rank in the profile {profile}", texts, keys, source=f"{profile}/{metric}")
        )
    return made


def _rank_columns(board: Board, source: str) -> list[Column]:
    """How firm the ranks are; none below two ranked methods or two subjects."""
    found = board.ranking
    if found is None or not found.draws or sum(r > 0 for r in found.rank) < 2:
        return []
    place = {name: i for i, name in enumerate(found.names)}
    lines = [place.get(e.name) for e in board.entries]
    lines = [i if i is not None and found.low[i] else None for i in lines]
    texts = [NONE if i is None else _range(int(found.low[i]), int(found.high[i])) for i in lines]
    gate = [i is not None and not found.passed[i] for i in lines]
    hint = (
        f"95 % of the ranks over {found.draws} bootstrap draws of the subjects; mean agreement (Kendall) of a draw "
        f"with the order shown: {found.stability:.2f}; a star: not significantly better than no motion"
    )
    keys = tuple(None if i is None else float(found.low[i] + found.high[i] / 1000) for i in lines)
    starred = tuple(f"{t} *" if g else t for t, g in zip(texts, gate, strict=True))
    return [Column("ranks 95 %", hint, starred, keys, source=source)]


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _spans(board: Board) -> tuple[tuple[float, float, float] | None, ...]:
    """Intervals of the primary metric around its mean, in percent of what all intervals span together."""
    known = [e.interval for e in board.entries if e.interval is not None]
    low, high = min(i[0] for i in known), max(i[1] for i in known)

    def place(value: float) -> float:
        return round(100 * (value - low) / ((high - low) or 1.0), 1)

    means = [e.cells[board.primary].mean for e in board.entries]
    return tuple(
        None if e.interval is None or m is None else (place(e.interval[0]), place(m), place(e.interval[1]))
        for e, m in zip(board.entries, means, strict=True)
    )


def _cost_columns(board: Board) -> list[Column]:
    entries = board.entries
    alone = "median over cases timed exclusively; only the registration itself"

    def column(title: str, hint: str, value: Callable[[Entry], float | None], source: str) -> Column:
        keys = tuple(value(e) for e in entries)
        return Column(title, hint, tuple(number(k) for k in keys), keys, source=source)

    return [
        column("time [s]", f"wall seconds, {alone}", lambda e: e.wall_s, "wall_s"),
        column("CPU [s]", f"CPU seconds, {alone}", lambda e: e.cpu_s, "cpu_s"),
        column("peak [MB]", "largest peak memory of a case", lambda e: e.peak_mb, "peak_mb"),
    ]


def protocol(boards: Sequence[Board], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What one must know to read the numbers: definitions, settings and versions, as pairs of name and text."""
    profiles = list(dict.fromkeys(b.profile for b in boards))
    metrics = {m for b in boards for m in b.metrics}
    settings = {**(manifest.get("protocol") or {}), **((manifest.get("suite") or {}).get("protocol") or {})}
    lines = [(f"profile {p}", PROFILES.get(p, "")) for p in profiles]
    lines += [
        (f"interpolation, {p}", _setting(settings, "interpolation") or INTERPOLATION.get(p, "")) for p in profiles
    ]
    if "hd95" in metrics:
        lines += [(f"HD95, {p}", HD95_DEFINITIONS.get(p, "")) for p in profiles]
    units = sorted({f"{title_of(m, [m])} in {u}" for b in boards for m, u in b.units.items() if u not in ("", "1")})
    lines.append(("units", "; ".join(units) or "none of the metrics has a unit"))
    counted = _labels_counted(boards)
    lines += [("labels counted", counted)] if counted else []
    lines.append(
        (
            "failures",
            "a failed case, or a value that is null or infinite, counts as the worst: Dice 0, otherwise the worst "
            "value that any method has on that case; a metric that a case cannot have is absent for every method; "
            "a method without a result for every case is never ranked",
        )
    )
    lines += _streaming(manifest)
    if any(b.hardest_by for b in boards):
        by = sorted({b.hardest_by for b in boards if b.hardest_by})
        lines.append(("DSC30, TRE30", f"mean over the hardest {HARDEST_PERCENT} % of the cases by {' or '.join(by)}"))
    lines.append(
        (
            "statistics",
            f"± is the standard deviation over cases (n − 1); 95 % CI: percentile bootstrap over subjects, {RESAMPLES} "
            "resamples, fixed seed; p: paired Wilcoxon signed-rank test over subjects against the best, Holm-corrected",
        )
    )
    draws = max((b.ranking.draws for b in boards if b.ranking is not None), default=0)
    if draws:
        words = f"95 % of the ranks over {draws} bootstrap draws of the subjects, fixed seed"
        lines.append(("ranks 95 %", f"{words}; a star: not better than no motion by a one-sided test at 5 %"))
    lines.append(("threads", _observed(boards, "threads") or str(manifest.get("threads") or "not recorded")))
    lines.append(("device", _observed(boards, "devices") or str(manifest.get("device") or "not recorded")))
    timed = sum(e.timed for b in boards if b.main for e in b.entries)
    done = sum(e.ok for b in boards if b.main for e in b.entries)
    lines.append(
        ("timing", f"{timed} of {done} cases timed exclusively; cases timed while others ran (shared) are left out")
    )
    lines += _provenance(manifest)
    return [(name, text) for name, text in lines if text]


def _labels_counted(boards: Sequence[Board]) -> str:
    """How many labels a case has, by task; those absent from the fixed image of a case do not count."""
    words = []
    for board in boards:
        found = [e.scores["labels_counted"] for e in board.entries if "labels_counted" in e.scores]
        counts = sorted({int(v) for a in found for v in a if v == v}) if board.main else []
        if counts:
            several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
            words.append(f"{board.task}: {several} per case")
    return "; ".join(words)


def _streaming(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the tasks of sequences were streamed and scored."""
    lines = []
    for task in (manifest.get("suite") or {}).get("tasks") or []:
        stream = task.get("stream") or {}
        if task.get("kind") != "sequence" or not stream:
            continue
        words = [
            f"labels warped {'as masks, linear, above one half' if stream.get('labels') == 'linear' else 'nearest'}"
        ]
        words += [f"budget {stream['budget_ms']:g} ms"] if stream.get("budget_ms") else []
        words += ["periodic, closed by the reference"] if stream.get("periodic") else []
        words += [f"target {stream['target']}, gate {stream.get('gate_mm'):g} mm"] if stream.get("target") else []
        lines.append((f"streams of {task.get('name')}", "; ".join(words)))
    return lines


def _setting(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name)
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value or "")


def _observed(boards: Sequence[Board], name: str) -> str:
    return ", ".join(sorted({str(v) for b in boards for e in b.entries for v in getattr(e, name)}))


def _provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    hardware = manifest.get("hardware") or {}
    if isinstance(hardware, Mapping):
        hardware = ", ".join(f"{k} {v}" for k, v in hardware.items() if v not in (None, ""))
    versions = manifest.get("versions") or {}
    if isinstance(versions, Mapping):
        versions = ", ".join(f"{k} {v}" for k, v in versions.items())
    return [
        ("hardware", str(hardware)),
        ("versions", str(versions)),
        ("revision", str(manifest.get("git_revision") or "")),
    ]


def markdown(
    boards: Sequence[Board],
    manifest: Mapping[str, Any],
    streams: Mapping[int, Sequence[Column]] | None = None,
    forecasts: Mapping[int, Sequence[Column]] | None = None,
) -> str:
    """All boards as GitHub-flavoured Markdown with the protocol below them.

    `streams` and `forecasts` hold the columns of a second and a third table, by the place of their board.
    """
    lines = [f"# {heading(boards, manifest)}", ""]
    for place, board in enumerate(boards):
        lines += [f"## {board.title}", "", _md(describe(board)), "", *_markdown_table(board, columns(board)), ""]
        if streams and place in streams:
            lines += ["Frame by frame:", "", *_markdown_table(board, streams[place]), ""]
        if forecasts and place in forecasts:
            lines += ["Forecasts:", "", *_markdown_table(board, forecasts[place]), ""]
        lines += [f"- warning: {_md(w)}" for w in board.warnings] + [""] * bool(board.warnings)
        lines += [f"- {_md(trouble_text(t))}" for t in board.troubles] + [""] * bool(board.troubles)
    lines += ["## Protocol", "", *(f"- {name}: {_md(text)}" for name, text in protocol(boards, manifest)), ""]
    return "\n".join(lines)


def heading(boards: Sequence[Board], manifest: Mapping[str, Any]) -> str:
    """`Suite NAME, version N` of everything shown."""
    suites = list(dict.fromkeys((b.suite, b.suite_version) for b in boards))
    return "; ".join(f"Suite {name}, version {version}" for name, version in suites)


def describe(board: Board) -> str:
    """One sentence: data, number of cases and what orders the table."""
    cases, subjects = len(board.cases), board.subjects
    of = f" of {subjects} subject{'s' * (subjects != 1)}" if subjects != cases else ""
    by = "no method has a value of the primary metric: not ranked"
    if board.primary:
        by = f"ordered by {title_of(board.primary, board.metrics)} ({board.better[board.primary]} is better)"
    return f"{board.dataset}, {cases} case{'s' * (cases != 1)}{of}; {by}."


def trouble_text(trouble: Trouble, most: int = 5) -> str:
    """`demons failed on 2 cases (a, b): reason`, naming at most `most` cases."""
    count, more = len(trouble.cases), len(trouble.cases) - most
    verb = {"failed": "failed on", "skipped": "skipped"}.get(trouble.status, trouble.status)
    if trouble.cases == (NO_CASES,):
        return f"{trouble.name}: the cases could not be listed: {trouble.reason}"
    names = ", ".join(trouble.cases[:most]) + (f" and {more} more" if more > 0 else "")
    return f"{trouble.name} {verb} {count} case{'s' * (count != 1)} ({names}): {trouble.reason}"


def _markdown_table(board: Board, shown: Sequence[Column]) -> list[str]:
    head = ["#", "method", "cases", *(c.title for c in shown)]
    lines = [" | ".join(head), " | ".join(["---:", "---", "---", *["---:"] * len(shown)])]
    best = [c.best(board) for c in shown]
    for i, entry in enumerate(board.entries):
        cells = [f"**{c.texts[i]}**" if i in best[j] else c.texts[i] for j, c in enumerate(shown)]
        lines.append(" | ".join([rank_text(entry), _md(name_text(entry)), cases_text(entry), *cells]))
    return [f"| {line} |" for line in lines]


def _md(text: str) -> str:
    """`text` on one line, without what Markdown would take for a table cell or a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def to_csv(boards: Sequence[Board]) -> str:
    """Every entry of every board as one line, with all statistics unrounded (9 digits)."""
    metrics = list(dict.fromkeys(m for b in boards for m in b.metrics))
    fields = ["mean", "sd", "median", "hardest30", "n", "substituted"]
    head = [*CSV_HEAD]
    head += [f"{m}_{f}" for m in metrics for f in fields]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for board in boards:
        for e in board.entries:
            low, high = e.interval or (None, None)
            line: list[Any] = [board.suite, board.suite_version, board.task, board.dataset, board.dataset_checksum]
            line += [board.profile, e.rank, e.name, e.role, e.state]
            line += [e.key[k] for k in ("method_version", "config_hash", "checkpoint", "seed", "condition")]
            line += [e.ok, e.failed, e.skipped, e.missing, board.primary, low, high, e.p_value]
            line += [e.wall_s, e.cpu_s, e.peak_mb, e.timed, " ".join(e.threads), " ".join(e.devices)]
            for m in metrics:
                c = e.cells.get(m)
                line += [c.mean, c.sd, c.median, c.hardest, c.n, c.substituted] if c else [None] * len(fields)
            writer.writerow([_csv(v) for v in line])
    return out.getvalue()


def _csv(value: Any) -> str:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)

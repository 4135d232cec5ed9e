"""The footer of every rendering: what one must know to read the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reg_bench.leaderboard import Board
from reg_bench.metric_titles import title_of
from reg_bench.statistics import HARDEST_PERCENT, RESAMPLES

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

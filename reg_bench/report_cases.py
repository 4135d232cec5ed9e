"""Every case of a task as data inside the page: what a number of a table is made of, and how to compute it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from reg_bench.leaderboard import Board, Entry
from reg_bench.metric_titles import DECIMALS, HINTS, forecast_source, title_of
from reg_bench.statistics import Floats
from reg_bench.weights_files import named_weights

#: Values of single labels beyond this many are left out, metric by metric, so that a page stays below 15 MB.
MOST_LABEL_VALUES = 1_600_000
#: Three characters for each value of a label: an index in steps of the range of the metric, `~~~` for none.
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_STEPS = 64**3 - 1
COSTS = (("wall_s", "time", "s"), ("cpu_s", "CPU time", "s"), ("peak_mb", "peak memory", "MB"))


def payload(boards: Sequence[Board], command: str, files: Mapping[str, str] | None = None) -> str:
    """The JSON of a task under one condition, all its profiles together.

    Args:
        boards: of one task and condition; the order of the methods is that of the first.
        command: that computes a case again, with `{method}`, `{case}`, `{seed}` and `{weights}` in it.
        files: names of weights by their checksum, see `weights_names`.
    """
    main = boards[0]
    entries = [{e.name: e for e in b.entries} for b in boards]
    values: dict[str, str] = {}
    metrics: list[dict[str, Any]] = []
    for board, known in zip(boards, entries, strict=True):
        for metric in board.metrics:
            lists = [known[e.name].scores.get(metric) if e.name in known else None for e in main.entries]
            values[f"{board.profile}/{metric}"] = _arrays(lists)
            metrics.append(_metric(board, metric))
        for place in sorted({p for e in board.entries for p in e.foretold}):
            key = forecast_source(board.profile, *place)
            values[key] = _arrays(known[e.name].foretold.get(place) if e.name in known else None for e in main.entries)
            title = f"{title_of(place[0], board.metrics)}, forecast {1e3 * place[1]:.0f} ms"
            metrics.append({**_metric(board, place[0]), "key": key, "title": title})
    for name, title, unit in COSTS:
        lists = [e.costs.get(name) for e in main.entries]
        if any(a is not None and np.isfinite(a).any() for a in lists):
            values[name] = _arrays(lists)
            metrics.append({"key": name, "title": title, "unit": unit, "better": "lower", "decimals": 3, "hint": ""})
    fixed = {
        "task": main.task,
        "dataset": main.dataset,
        "condition": main.condition,
        "profile": main.profile,
        "primary": f"{main.profile}/{main.primary}" if main.primary else "",
        "cases": main.cases,
        "methods": [_method(e, files or {}) for e in main.entries],
        "metrics": metrics,
        "command": command,
        **_reasons(main),
        **_panels(main),
        "alphabet": ALPHABET,
        "labels": _labels(boards, entries),
    }
    # The arrays are text already.
    body = _json(fixed)[:-1]
    return f'{body},"values":{{{",".join(f"{_json(k)}:{v}" for k, v in values.items())}}}}}'


def _json(content: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _metric(board: Board, metric: str) -> dict[str, Any]:
    """How a value of the metric is written; folding as a share, as it is stored."""
    unit = board.units.get(metric, "")
    return {
        "key": f"{board.profile}/{metric}",
        "title": title_of(metric, board.metrics),
        "unit": "" if unit == "1" else unit,
        "better": board.better.get(metric, "neutral"),
        "decimals": 2 if metric.startswith("tre_") else DECIMALS.get(metric),
        "hint": HINTS.get(metric, ""),
    }


def _method(entry: Entry, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "method": entry.method,
        "role": entry.role,
        "seed": entry.key["seed"],
        "version": entry.key["method_version"],
        "settings": entry.key["config_hash"],
        "weights": entry.key["checkpoint"],
        "file": files.get(entry.key["checkpoint"], ""),
        "status": "".join(map(str, entry.status.tolist())),
    }


def _arrays(lists: Iterable[Floats | None]) -> str:
    return f"[{','.join(_array(a) for a in lists)}]"


def _array(array: Floats | None) -> str:
    """Four significant digits are what a page can show."""
    if array is None or not np.isfinite(array).any():
        return "null"
    return f"[{','.join(_short(v) for v in array.tolist())}]"


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "null"
    text = f"{value:.4g}"
    return text[:-4] if text.endswith("e+00") else text


def _reasons(board: Board) -> dict[str, Any]:
    """Reasons once each, and by method and case which of them."""
    texts = sorted({reason for e in board.entries for reason in e.reasons.values()})
    place = {reason: i for i, reason in enumerate(texts)}
    column = {case: i for i, case in enumerate(board.cases)}
    by_method = [
        {str(column[case]): place[reason] for case, reason in sorted(e.reasons.items()) if case in column}
        for e in board.entries
    ]
    return {"reasons": texts, "reason_of": by_method}


def _panels(board: Board) -> dict[str, Any]:
    """Names of pictures without what all of them share."""
    lists = [[e.panels.get(case, "") for case in board.cases] for e in board.entries]
    given = [p for line in lists for p in line if p]
    plain = bool(given) and all(p.startswith("panels/") and p.endswith(".webp") for p in given)
    head, tail = ("panels/", ".webp") if plain else ("", "")
    names = [[p[len(head) : len(p) - len(tail)] if p else "" for p in line] if any(line) else None for line in lists]
    return {"panel_head": head, "panel_tail": tail, "panels": names}


def _labels(boards: Sequence[Board], entries: Sequence[Mapping[str, Entry]]) -> dict[str, Any]:
    """Values of single labels of the first profile, as text: see `ALPHABET`."""
    main, known = boards[0], entries[0]
    made: dict[str, Any] = {}
    total = 0
    for metric in sorted({m for e in main.entries for m in e.labelled}):
        labels = sorted({label for e in main.entries for label in e.labelled.get(metric, {})})
        total += len(labels) * len(main.entries) * len(main.cases)
        arrays = [v for e in main.entries for v in e.labelled.get(metric, {}).values()]
        finite = np.concatenate([a[np.isfinite(a)] for a in arrays])
        if total > MOST_LABEL_VALUES or not len(finite):
            continue
        low, high = float(finite.min()), float(finite.max())
        step = (high - low) / (_STEPS - 1) or 1.0
        made[f"{main.profile}/{metric}"] = {
            "low": low,
            "step": step,
            "data": {
                label: [_packed(known[e.name].labelled.get(metric, {}).get(label), low, step) for e in main.entries]
                for label in labels
            },
        }
    return made


def _packed(array: Floats | None, low: float, step: float) -> str | None:
    if array is None or not np.isfinite(array).any():
        return None
    index = np.where(np.isfinite(array), np.rint((np.nan_to_num(array) - low) / step), 0).astype(np.int64)
    letters = np.array(list(ALPHABET))
    triples = np.stack([letters[index >> 12], letters[index >> 6 & 63], letters[index & 63]], axis=1)
    triples[~np.isfinite(array)] = "~"
    return "".join(triples.ravel())


def case_command(board: Board, manifest: Mapping[str, Any], suite: str) -> str:
    """The command that computes one case of `board` again; `{method}` and so on are filled in by the page."""
    words = ["reg-bench", "run", suite, "--tasks", board.task]
    parts = " ".join(shlex.quote(w) for w in words)
    parts += " --methods {method} --cases {case}{weights} --seed {seed}"
    tasks: Sequence[Mapping[str, Any]] = (manifest.get("suite") or {}).get("tasks") or []
    task: Mapping[str, Any] = next((t for t in tasks if t.get("name") == board.task), {})
    budget = (task.get("stream") or {}).get("budget_ms") if task.get("kind") == "sequence" else None
    if budget:
        parts += f" --budget-ms {budget:g}"
    return f"{parts} --out reproduced"


def weights_names(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Names of the files of weights that the methods of a run took, by their checksum as rows have it."""
    found = {}
    for method in manifest.get("methods") or []:
        names = list(named_weights(method.get("init_args")))
        if method.get("checkpoint") and len(names) == 1:
            found[str(method["checkpoint"])] = names[0]
    return found

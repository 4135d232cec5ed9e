"""`index.html`: one file that opens from disk, without references but to the pictures, linked by relative path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reg_bench import leaderboard_text as text
from reg_bench.errors import ConfigError
from reg_bench.leaderboard import Board
from reg_bench.leaderboard_protocol import protocol
from reg_bench.report_cases import case_command, payload, weights_names
from reg_bench.report_figures import make_environment
from reg_bench.report_firmness import firmness
from reg_bench.report_fronts import fronts
from reg_bench.report_pictures import WORST, Pictures, chosen_cases, worst_shown
from reg_bench.report_plots import distribution, label_plots
from reg_bench.report_significance import heat_map
from reg_bench.stream_forecasts import forecast_columns
from reg_bench.stream_plots import charts, latency_plot
from reg_bench.stream_tables import StreamTable
from reg_bench.stream_tables import columns as stream_columns

if TYPE_CHECKING:
    from reg_bench.report import Content


def page(content: Content, *, standalone: bool = False) -> str:
    """The page of a run; `standalone` puts the shown pictures into it."""
    boards, manifest = content.boards, content.manifest
    suite = manifest.get("suite") or {}
    pictures = Pictures(content.folder, standalone)
    groups = _by_task(boards)
    worst = worst_shown([g[0] for g in groups], content.folder) if standalone else WORST
    source = suite_source(manifest, boards)
    tasks = [
        {**_task(i, group, content, source), "pictures": chosen_cases(group[0], pictures, worst)}
        for i, group in enumerate(groups)
    ]
    return (
        make_environment()
        .get_template("index.html.j2")
        .render(
            title=text.heading(boards, manifest),
            summary=str(suite.get("summary") or ""),
            facts=_facts(boards),
            tasks=tasks,
            warnings=list(dict.fromkeys(w for b in boards for w in b.warnings)),
            protocol=protocol(boards, manifest),
            published=content.published,
            suite_file=source == SUITE_FILE,
        )
    )


#: The suite of a run as its manifest holds it, beside the page.
SUITE_FILE = "reproduce.yaml"


def suite_source(manifest: Mapping[str, Any], boards: Sequence[Board]) -> str:
    """What `reg-bench run` is given for the suite of these rows: a shipped name, else the file beside the page."""
    from reg_bench.discovery import find, read_yaml, resolve

    name, version = boards[0].suite, boards[0].suite_version
    suite = manifest.get("suite") or {}
    if not suite:
        return name
    try:
        shipped = read_yaml(find("suites", name).source)
        listed = {m if isinstance(m, str) else m.get("name") for m in shipped.get("methods") or []}
        # Methods named on the command line are found by their name as well; those of a sweep are in their suite alone.
        others = [m for m in suite.get("methods") or [] if m.get("name") not in listed]
        if any(resolve("methods", str(m.get("name"))).class_path != m.get("class_path") for m in others):
            return SUITE_FILE
    except ConfigError:
        return SUITE_FILE
    return name if str(shipped.get("version", "")) == version else SUITE_FILE


def _task(number: int, group: Sequence[Board], content: Content, source: str) -> dict[str, Any]:
    board = group[0]
    # The cases of each condition are data of their own: their methods may differ.
    conditions: dict[str, list[Board]] = {}
    for other in group:
        conditions.setdefault(other.condition, []).append(other)
    numbered = {c: f"{number}" if c == board.condition else f"{number}-{i}" for i, c in enumerate(conditions)}
    command, files = case_command(board, content.manifest, source), weights_names(content.manifest)
    return {
        "number": number,
        "board": board,
        "others": group[1:],
        "place": {c: {e.name: i for i, e in enumerate(b[0].entries)} for c, b in conditions.items()},
        "data_of": numbered,
        "data": [(numbered[c], payload(b, command, files)) for c, b in conditions.items()],
        "plot": distribution(board),
        "labels": [(metric, label_plots(board, metric)) for metric in ("dice", "hd95") if metric in board.metrics],
        "fronts": fronts(board),
        "firmness": firmness(board),
        "heat": heat_map(board),
        "stream": _stream(board, content.streams),
    }


def _stream(board: Board, streams: Sequence[StreamTable]) -> dict[str, Any] | None:
    """Table and drawings of the streams of a task, None where its cases are pairs."""
    for table in streams:
        if table.board is board:
            return {
                "columns": stream_columns(table),
                "forecasts": forecast_columns(table),
                "charts": charts(table),
                "latency": latency_plot(table),
            }
    return None


def _by_task(boards: Sequence[Board]) -> list[list[Board]]:
    groups: list[list[Board]] = []
    for board in boards:
        if board.main:
            groups.append([])
        groups[-1].append(board)
    return groups


def _facts(boards: Sequence[Board]) -> list[tuple[str, str, str]]:
    """What the run holds in a few numbers: value, name, class."""
    main = [b for b in boards if b.main]
    methods = {e.name for b in main for e in b.entries if not e.role}
    count: Counter[str] = Counter()
    for entry in (e for b in main for e in b.entries):
        count.update({"failed": entry.failed, "skipped": entry.skipped, "missing": entry.missing, "ok": entry.ok})
    facts = [
        (str(len(main)), "task" + "s" * (len(main) != 1), ""),
        (str(len(methods)), "method" + "s" * (len(methods) != 1), ""),
        (str(sum(len(b.cases) for b in main)), "cases", ""),
        (f"{count['ok']:,}".replace(",", "\u202f"), "results", ""),
    ]
    return facts + [(str(count[name]), name, name) for name in ("failed", "skipped", "missing") if count[name]]

"""The drawings of a report one by one, each as a small page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reg_bench import leaderboard_text as text
from reg_bench.metric_titles import NONE, title_of
from reg_bench.report_firmness import firmness
from reg_bench.report_fronts import fronts
from reg_bench.report_plots import distribution, label_plots
from reg_bench.report_significance import heat_map
from reg_bench.stream_plots import charts, latency_plot

if TYPE_CHECKING:
    from jinja2 import Environment

    from reg_bench.report import Content


def make_environment() -> Environment:
    """The templates of reports, everything escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(text=text, columns=text.columns, none=NONE, title_of=title_of)
    return environment


def figures(content: Content) -> dict[str, str]:
    """Pages by the name of their drawing, `plots/TASK/WHAT`; of boards that are shown first."""
    environment = make_environment()
    template = environment.get_template("figure.html.j2")
    plots, streams = (environment.get_template(f"{n}.html.j2").module for n in ("plots", "streams"))
    by_board = {id(t.board): t for t in content.streams}
    made: dict[str, str] = {}
    for board in (b for b in content.boards if b.main):
        place = {e.name: i for i, e in enumerate(board.entries)}
        drawn: dict[str, str] = {}
        if (plot := distribution(board)) is not None:
            drawn["distribution"] = plots.distribution(plot, board, place)  # type: ignore[attr-defined]
        for front in fronts(board):
            drawn[f"pareto-{front.metric}"] = plots.front(front, board, place)  # type: ignore[attr-defined]
        if (ranks := firmness(board)) is not None:
            drawn["ranks"] = plots.ranks(ranks, board, place)  # type: ignore[attr-defined]
        if (heat := heat_map(board)) is not None:
            drawn["significance"] = plots.heat(heat, board, place)  # type: ignore[attr-defined]
        for metric in ("dice", "hd95"):
            boxes = label_plots(board, metric)
            if boxes:
                drawn[f"labels-{metric}"] = "".join(plots.label_box(b, board, place) for b in boxes)  # type: ignore[attr-defined]
        if id(board) in by_board:
            table = by_board[id(board)]
            for i, chart in enumerate(charts(table)):
                drawn[f"stream-{i + 1}"] = streams.lines(chart, board.task, place)  # type: ignore[attr-defined]
            latency = latency_plot(table)
            if latency is not None:
                drawn["latency"] = streams.latencies(latency, board.task, place)  # type: ignore[attr-defined]
        made |= {f"plots/{board.task}/{name}": template.render(body=body) for name, body in drawn.items()}
    return made

"""A report as one W&B run: tables, plots, sample panels, and the rows as a versioned artifact.

Offline unless WANDB_MODE says otherwise; `wandb sync` sends it later. Runs of one suite share a group and tags.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_bench.leaderboard import Board
from reg_bench.report_figures import figures
from reg_bench.report_pictures import Pictures, chosen_cases
from reg_bench.report_tables import Table, all_tables
from reg_bench.results import row_files

if TYPE_CHECKING:
    from reg_bench.report import Content

#: W&B takes tags of at most so many letters.
TAG_LENGTH = 64
#: Files of the run folder that the artifact holds beside the rows.
FILES = ("manifest.json", "leaderboard.md", "leaderboard.csv", "index.html")


def log(content: Content, *, project: str, group: str | None = None, tags: Sequence[str] = ()) -> Path:
    """Logs a run folder and returns the folder of the W&B run, below `wandb/` of the run folder.

    Args:
        content: of the run folder, after its tables and page were written.
        project: of W&B.
        group: the suite and its version where None.
        tags: beside `report` and those of suite, tasks and methods.
    """
    import wandb

    main = [b for b in content.boards if b.main]
    suite = f"{main[0].suite}-v{main[0].suite_version}"
    run = wandb.init(
        project=project,
        group=group or suite,
        name=f"{suite} report",
        job_type="report",
        tags=tags_of(content.boards, tags),
        config=_config(content),
        dir=content.folder,
        mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )
    try:
        run.log({f"tables/{t.name}": _table(t) for t in all_tables(content)})
        run.log({name: wandb.Html(page, inject=False) for name, page in figures(content).items()})
        run.log({**_charts(main), **_panels(content, main)})
        run.summary.update(_summary(main))
        run.log_artifact(_artifact(content, suite))
        return Path(run.dir).parent
    finally:
        run.finish()


def tags_of(boards: Sequence[Board], more: Sequence[str] = ()) -> list[str]:
    """`report`, then suites, tasks and methods as `kind:name`, then `more`; each once and cut to W&B's length."""
    found = ["report", *(f"suite:{b.suite}" for b in boards), *(f"task:{b.task}" for b in boards)]
    found += [f"method:{e.method}" for b in boards for e in b.entries]
    return list(dict.fromkeys(t[:TAG_LENGTH] for t in [*found, *more]))


def _config(content: Content) -> dict[str, Any]:
    board, manifest = content.boards[0], content.manifest
    known = ("suite", "protocol", "seed", "threads", "device", "versions", "git_revision", "hardware")
    return {
        "suite_name": board.suite,
        "suite_version": board.suite_version,
        **{name: manifest[name] for name in known if name in manifest},
        "datasets": {b.task: f"{b.dataset} {b.dataset_checksum}" for b in content.boards},
    }


def _table(table: Table) -> Any:
    import wandb

    # A column of mixed or no type is refused: words stay words, the rest are numbers or nothing.
    columns = list(table.data)
    lines = [list(line) for line in zip(*table.data.values(), strict=True)]
    return wandb.Table(columns=columns, data=lines, allow_mixed_types=True)


def _charts(boards: Sequence[Board]) -> dict[str, Any]:
    """W&B's own charts, which it draws together for runs of one group."""
    import wandb

    made: dict[str, Any] = {}
    for board in boards:
        if not board.primary:
            continue
        lines = [
            [e.name, e.cells[board.primary].mean, e.wall_s, e.cells["sdlogj"].mean if "sdlogj" in e.cells else None]
            for e in board.entries
            if e.cells[board.primary].mean is not None
        ]
        table = wandb.Table(columns=["method", board.primary, "time_s", "sdlogj"], data=lines, allow_mixed_types=True)
        name = f"charts/{board.task}"
        made[f"{name}/{board.primary}"] = wandb.plot.bar(table, "method", board.primary, title=f"{board.task}")
        for column in ("time_s", "sdlogj"):
            if any(line[2 if column == "time_s" else 3] is not None for line in lines):
                title = f"{board.task}: {board.primary} against {column}"
                made[f"{name}/{board.primary}-{column}"] = wandb.plot.scatter(table, column, board.primary, title=title)
    return made


def _panels(content: Content, boards: Sequence[Board]) -> dict[str, Any]:
    """The median case and the worst of each method."""
    import wandb

    pictures = Pictures(content.folder)
    made: dict[str, Any] = {}
    for board in boards:
        for entry, cases in chosen_cases(board, pictures):
            for case in (c for c in cases[:2] if c.source):
                name = f"panels/{board.task}/{entry.name}/{case.what.replace(' ', '-')}"
                made[name] = wandb.Image(str(content.folder / case.source), caption=f"{case.name}, {case.value}")
    return made


def _summary(boards: Sequence[Board]) -> dict[str, float]:
    """Means by task, method and metric, and ranks: what columns of a project are made of."""
    found: dict[str, float] = {}
    for board in boards:
        for entry in board.entries:
            name = f"{board.task}/{entry.name}"
            found |= {f"{name}/{m}": c.mean for m, c in entry.cells.items() if c.mean is not None}
            if entry.rank is not None:
                found[f"{name}/rank"] = entry.rank
    return found


def _artifact(content: Content, suite: str) -> Any:
    """The rows with what was made of them; the same rows give the same version."""
    import wandb

    board = content.boards[0]
    facts = {
        "suite": board.suite,
        "suite_version": board.suite_version,
        "tasks": sorted({b.task for b in content.boards}),
    }
    artifact = wandb.Artifact(f"{suite}-rows", type="results", description="rows of reg-bench run", metadata=facts)
    for path in [*row_files(content.folder), *(content.folder / name for name in FILES)]:
        if path.is_file():
            artifact.add_file(str(path), name=path.name)
    return artifact

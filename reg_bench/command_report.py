"""`reg-bench report`: rebuilds tables and page of a run from its rows, exports its tables, logs it to W&B."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "rebuild the tables and the page of a run folder from its rows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("directory", metavar="DIR", help="the --out folder of `reg-bench run`")
    parser.add_argument(
        "--export",
        metavar="FORMATS",
        help="also write every table into DIR/tables: markdown, csv, latex, parquet, with commas between them, or all",
    )
    parser.add_argument(
        "--standalone", action="store_true", help="put the shown pictures into index.html, to send it as one file"
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="also log tables, plots, sample panels and the rows as one W&B run; offline but for WANDB_MODE",
    )
    parser.add_argument("--wandb-project", metavar="NAME", default="reg-bench", help="project (default reg-bench)")
    parser.add_argument("--wandb-group", metavar="NAME", help="group of the run (default: the suite and its version)")
    parser.add_argument("--wandb-tags", metavar="A,B", default="", help="tags beside those of suite, tasks and methods")


def run(arguments: argparse.Namespace) -> int:
    """Writes leaderboard.md, leaderboard.csv and index.html into DIR, prints the tables, and does what else is asked.

    Raises:
        ConfigError: an unknown format, before anything is read.
        DataError: a folder without results.
    """
    from reg_bench import report

    formats: tuple[str, ...] = ()
    if arguments.export is not None:
        from reg_bench.report_export import formats_of

        formats = formats_of(arguments.export)
    content = report.read(arguments.directory)
    print(report.write(content, colour=sys.stdout.isatty(), standalone=arguments.standalone), end="")
    if formats:
        from reg_bench.report_export import FOLDER, export

        count = len(export(content, formats))
        print(f"{count} files of tables in {content.folder / FOLDER}")
    if arguments.wandb:
        from reg_bench.report_wandb import log

        tags = [t.strip() for t in arguments.wandb_tags.split(",") if t.strip()]
        made = log(content, project=arguments.wandb_project, group=arguments.wandb_group, tags=tags)
        print(f"W&B run in {made}")
    return 0

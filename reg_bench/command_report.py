"""`reg-bench report`: rebuilds tables and page of a run from its rows."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "rebuild the tables and the page of a run folder from its rows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("directory", metavar="DIR", help="the --out folder of `reg-bench run`")


def run(arguments: argparse.Namespace) -> int:
    """Writes leaderboard.md, leaderboard.csv and index.html into DIR and prints the tables."""
    from reg_bench.report import build

    print(build(arguments.directory, colour=sys.stdout.isatty()), end="")
    return 0

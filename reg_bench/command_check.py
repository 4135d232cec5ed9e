"""`reg-bench check`: the conformance suite for one method, with a diagnosis of what is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from reg_bench.conformance import ConformanceReport
    from reg_bench.conformance_checks import CheckResult

SUMMARY = "Check that a method keeps the conventions of displacement fields."

EXIT_FAILED = 1
_MARKS = {"pass": "[green]pass[/]", "fail": "[bold red]FAIL[/]", "not applicable": "[dim]not applicable[/]"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench check`."""
    named = "name, names joined by + (see `list methods`), package.module.Class or YAML file"
    parser.add_argument("method", metavar="METHOD", help=named)
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for the method, or the name of shipped ones")
    parser.add_argument(
        "--dimension", type=int, choices=(2, 3), action="append", help="only in 2-D or 3-D (default: both)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the table and the diagnosis; returns 0 if nothing failed, else 1.

    Raises:
        ConfigError: an unknown method or arguments that it does not take.
    """
    # A method in the current folder can be named by its path in Python, whichever way we were started.
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(here)
    from rich.console import Console

    from reg_bench.conformance import check_method
    from reg_bench.discovery import build_method
    from reg_bench.protocol import set_threads
    from reg_bench.weights_files import named_method

    set_threads(1)
    # Wrapped lines suit a terminal; a pipe gets whole ones, so that grep finds what it looks for.
    console = Console() if sys.stdout.isatty() else Console(width=240)
    method = build_method(named_method(args.method, args.checkpoint))
    with console.status("starting") as status:
        report = check_method(
            method,
            name=args.method,
            dimensions=tuple(sorted(set(args.dimension or (2, 3)))),
            progress=lambda text: status.update(text),
        )
    print_report(report, console)
    return 0 if report.passed else EXIT_FAILED


def print_report(report: ConformanceReport, console: Console) -> None:
    """The table of all checks, then what is wrong in plain unwrapped lines."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Conformance of {escape(report.method)}", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("check")
    table.add_column("result", no_wrap=True)
    table.add_column("measured, or what a failure means")
    dimension = 0
    for result in report.results:
        if dimension not in (0, result.dimension):
            table.add_section()
        dimension = result.dimension
        table.add_row(f"{dimension}-D", escape(result.check), _MARKS[result.status], escape(_detail(result)))
    console.print(table)
    for line in verdict(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _detail(result: CheckResult) -> str:
    if not result.meaning or result.meaning in result.detail:
        return result.detail
    return f"{result.detail}: {result.meaning}"


def verdict(report: ConformanceReport) -> list[str]:
    """Every diagnosis in a line of its own, and the count."""
    lines = []
    for text in dict.fromkeys(text for _, text in report.diagnoses):
        where = " and ".join(f"{d}-D" for d, t in report.diagnoses if t == text)
        lines.append(f"Diagnosis ({where}): {text}")
    failed = sum(r.status == "fail" for r in report.results)
    applied = sum(r.status != "not applicable" for r in report.results)
    if not applied:
        reasons = "; ".join(dict.fromkeys(r.detail for r in report.results))
        lines.append(f"FAIL: no check applies to this method ({reasons}).")
    elif failed:
        lines.append(f"FAIL: {failed} of {applied} checks failed in {report.seconds:.0f} s.")
    else:
        lines.append(f"PASS: all {applied} checks that apply passed in {report.seconds:.0f} s.")
    return lines

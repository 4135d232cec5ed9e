"""`reg-bench run`: a suite from images to a leaderboard."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_bench.errors import ConfigError

if TYPE_CHECKING:
    from reg_bench.datamodule import RegistrationDataModule
    from reg_bench.suite import Suite

SUMMARY = "Run a suite and rank its methods."

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench run`."""
    parser.add_argument("suite", metavar="SUITE", help="name of a shipped suite (see `list suites`) or a YAML file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="run folder: rows, manifest, tables")
    parser.add_argument("--methods", metavar="A,B", help="run these methods instead of those of the suite")
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="weights for the method NAME, or for those that take any; repeatable",
    )
    parser.add_argument("--tasks", metavar="A,B", help="only these tasks of the suite")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N cases of each task")
    parser.add_argument("--cases", metavar="A,B", help="only these cases, by the identifiers in tables and reports")
    parser.add_argument("--devices", type=_positive, default=1, metavar="N", help="processes (CPU) or GPUs (default 1)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the run (default: that of the suite)")
    parser.add_argument(
        "--budget-ms",
        type=float,
        metavar="MS",
        help="milliseconds in which the estimate of a streamed frame has to be there (default: that of the suite)",
    )
    parser.add_argument("--no-panels", dest="panels", action="store_false", help="draw no pictures of the cases")
    parser.add_argument(
        "--data.root", dest="data_root", metavar="DIR", help="folder of the images, for datasets that read files"
    )
    modes = parser.add_mutually_exclusive_group()
    for mode, text in (
        ("only-missing", "compute only what has no result yet (default)"),
        ("retry-failed", "also compute again what failed"),
        ("overwrite", "compute everything again"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=text)
    parser.set_defaults(mode="only-missing")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def run(args: argparse.Namespace) -> int:
    """Runs the suite; returns 0 if all cases are done, 1 if some failed, 130 or 143 if it was stopped.

    Raises:
        ConfigError, DataError: bad input, before any work.
    """
    from reg_bench.progress import Progress
    from reg_bench.supervisor import Supervisor, Terminated, WorkerError, run_lock

    settings = _settings(args)
    try:
        with run_lock(args.out):
            try:
                with Progress(args.devices) as progress:
                    manifest = Supervisor(settings, progress).run()
            except WorkerError as error:
                print(f"reg-bench run: error: {error}", file=sys.stderr)
                return EXIT_FAILED
            counts = _counts(args.out, manifest)
            print(_report(args.out))
    except KeyboardInterrupt:
        return _stopped(args.out, EXIT_INTERRUPTED)
    except Terminated:
        return _stopped(args.out, EXIT_TERMINATED)
    print(", ".join(f"{n} {status}" for status, n in counts.items()) + f"; tables and pictures in {args.out}")
    return EXIT_FAILED if counts["failed"] or counts["missing"] else 0


def _settings(args: argparse.Namespace) -> Any:
    """The run as asked for, its suite and methods checked as far as that goes without importing them."""
    from reg_bench.suite import check_task_names, load_suite, select_methods, with_budget
    from reg_bench.supervisor import Settings
    from reg_bench.weights_files import split_option

    suite = load_suite(args.suite)
    methods, tasks = _names(args.methods, "--methods"), _names(args.tasks, "--tasks")
    if methods:
        suite = select_methods(suite, methods)
    check_task_names(suite, tasks)
    if args.budget_ms is not None:
        suite = with_budget(suite, args.budget_ms)
    if args.data_root is not None and not Path(args.data_root).is_dir():
        missing = f"--data.root: the folder {args.data_root} does not exist"
        raise ConfigError("\n  ".join([missing, *_expected(suite)]))
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out: {args.out} is a file, expected a folder")
    return Settings(
        suite=suite.source,
        out=str(args.out.absolute()),
        methods=methods,
        limit=args.limit,
        cases=_names(args.cases, "--cases"),
        devices=args.devices,
        mode=args.mode,
        root=args.data_root,
        seed=args.seed,
        panels=args.panels,
        threads=suite.protocol.threads,
        time_limit_s=suite.protocol.time_limit_s,
        tasks=tasks,
        budget_ms=args.budget_ms,
        checkpoints=tuple(split_option(text, [m.name for m in suite.methods]) for text in args.checkpoint),
    )


def _names(text: str | None, option: str) -> tuple[str, ...]:
    """The names in a text with commas between them; none where the option is not given."""
    names = tuple(filter(None, (name.strip() for name in (text or "").split(","))))
    if text is not None and not names:
        raise ConfigError(f"{option}: expected names with commas between them")
    return names


def _expected(suite: Suite) -> list[str]:
    """Where the data of a suite comes from and which files are expected."""
    from reg_bench import discovery
    from reg_bench.plan import task_spec

    lines: list[str] = []
    for path in dict.fromkeys(task_spec(task, suite.source).class_path for task in suite.tasks):
        # What cannot be imported is complained of where it is used; here it is the folder that is wrong.
        with contextlib.suppress(ConfigError):
            cls: type[RegistrationDataModule] = discovery.load_class(path, "datasets")
            lines += [f"{cls.name or path}:", *cls.about()]
    return lines


def _counts(out: Path, manifest: Mapping[str, Any]) -> Counter[str]:
    """How many results of this run are ok, skipped, failed or, against expectation, missing."""
    from reg_bench.manifest import expected_keys
    from reg_bench.results import state

    results = state(out).results
    return Counter(str(results[key]["status"]) if key in results else "missing" for key in expected_keys(manifest))


def _report(out: Path) -> str:
    from reg_bench import report

    return str(report.build(out))


def _stopped(out: Path, status: int) -> int:
    print(
        f"\nreg-bench run: stopped; what is finished stays in {out}. The same command goes on from there; "
        f"`reg-bench report {out}` makes the tables of what there is.",
        file=sys.stderr,
    )
    return status

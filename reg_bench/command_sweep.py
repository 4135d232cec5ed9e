"""`reg-bench sweep`: how accuracy, regularity and time of a method change with the weight of its regularization."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from reg_bench.errors import ConfigError

SUMMARY = "Trace a curve by sweeping a method's regularization weight."

EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
SUITE = "suite.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench sweep`."""
    parser.add_argument("suite", metavar="SUITE", help="name of a shipped suite (see `list suites`) or a YAML file")
    parser.add_argument("--method", required=True, metavar="M", help="the method to sweep")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="run folder: rows, table, plot")
    parser.add_argument(
        "--parameter",
        metavar="NAME",
        help="which number of its settings, such as stages.0.weight (default: its regularization weight)",
    )
    parser.add_argument(
        "--values", metavar="A,B,…", help="values of the number (default: 0.1, 0.3, 1, 3 and 10 times the present one)"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="whose cases (default: as the suite says)")
    parser.add_argument("--tasks", metavar="A,B", help="only these tasks of the suite")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N cases of each task")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="processes (CPU) or GPUs (default 1)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the run (default: that of the suite)")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for the method, or the name of shipped ones")
    parser.add_argument("--data.root", dest="data_root", metavar="DIR", help="folder of the images")
    parser.add_argument("--retry-failed", action="store_true", help="also compute again what failed")


def run(args: argparse.Namespace) -> int:
    """Runs every value that has no rows yet, then writes table and plot; returns 0, or 1 if cases failed.

    Raises:
        ConfigError, DataError: bad input, before any work.
    """
    from reg_bench.progress import Progress
    from reg_bench.supervisor import Settings, Supervisor, Terminated, WorkerError, run_lock

    if args.devices < 1 or (args.limit is not None and args.limit < 1):
        raise ConfigError("--devices and --limit must be at least 1")
    suite, name, path, values = _planned(args)
    names = tuple(filter(None, (n.strip() for n in (args.tasks or "").split(","))))
    settings = Settings(
        suite=str((args.out / SUITE).absolute()),
        out=str(args.out.absolute()),
        limit=args.limit,
        devices=args.devices,
        mode="retry-failed" if args.retry_failed else "only-missing",
        root=args.data_root,
        seed=args.seed,
        panels=False,
        threads=suite.protocol.threads,
        time_limit_s=suite.protocol.time_limit_s,
        tasks=names,
    )
    print(f"{name}: {path} = {', '.join(f'{v:g}' for v in values)}")
    try:
        with run_lock(args.out), Progress(args.devices) as progress:
            Supervisor(settings, progress).run()
    except WorkerError as error:
        print(f"reg-bench sweep: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"\nreg-bench sweep: stopped; the same command goes on from there ({args.out})", file=sys.stderr)
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    return _report(args.out, name, path, values)


def _planned(args: argparse.Namespace) -> tuple[Any, str, str, list[float]]:
    """Writes the suite with a method for each value; returns it, the method's name, the parameter and the values."""
    import yaml

    from reg_bench import discovery, sweep
    from reg_bench.config_files import read_yaml
    from reg_bench.suite import check_task_names, load_suite, select_methods
    from reg_bench.weights_files import with_checkpoint

    suite = select_methods(load_suite(args.suite), [args.method])
    check_task_names(suite, tuple(filter(None, (n.strip() for n in (args.tasks or "").split(",")))))
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out: {args.out} is a file, expected a folder")
    (spec,) = suite.methods
    if args.checkpoint is not None:
        spec = with_checkpoint(spec, args.checkpoint)
    settings = discovery.resolved_init_args("methods", spec)
    path, present = sweep.parameter_of(settings, args.parameter, spec.name)
    if args.values is None and not present > 0:
        raise ConfigError(f"--values: {path} of {spec.name} is {present:g}; give the values to sweep")
    values = sweep.checked_values(_values(args.values) or [float(f"{present * f:.6g}") for f in sweep.FACTORS])
    made = [
        {"name": m.name, "class_path": m.class_path, "init_args": m.init_args}
        for m in sweep.methods(spec, settings, path, values)
    ]
    content = read_yaml(Path(suite.source))
    tasks = [{**t, **({} if args.split is None else {"split": args.split})} for t in content["tasks"]]
    args.out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({**content, "tasks": tasks, "methods": [sweep.REFERENCE, *made]}, sort_keys=False)
    (args.out / SUITE).write_text(text, encoding="utf-8")
    return load_suite(args.out / SUITE), spec.name, path, values


def _values(text: str | None) -> list[float]:
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"--values: expected numbers with commas between them, got {text!r}") from error


def _report(out: Path, name: str, path: str, values: list[float]) -> int:
    from reg_bench import leaderboard_rows, sweep
    from reg_bench.leaderboard import tables
    from reg_bench.manifest import read

    boards = [b for b in tables(leaderboard_rows.read(out), read(out) or {}) if b.main]
    curves = [(board, points) for board in boards if (points := sweep.curve(board, name, values))]
    written = sweep.write(curves, path, out)
    print("\n".join(sweep.to_markdown(board, points, path) for board, points in curves))
    print(f"written: {', '.join(str(p) for p in written)}")
    split = {t.get("split", "test") for t in (read(out) or {}).get("tasks", [])}
    if "test" in split:
        print("of the split test: a curve to look at, not one to choose a value by (--split val)")
    return EXIT_FAILED if any(p.ok < p.cases for _, points in curves for p in points) else 0

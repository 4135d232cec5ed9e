"""`reg-bench submit`: a submission to Learn2Reg made, checked and scored."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reg_bench.errors import ConfigError

SUMMARY = "Make, check or score a Learn2Reg submission."

EXIT_FAULTS = 1
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
WHICH = ("auto", "registration_val", "registration_test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench submit` and of `submit check` and `submit score`."""
    parser.epilog = "`submit check ZIP --dataset JSON` names every fault; `submit score ZIP --dataset JSON` scores."
    parser.add_argument("--suite", metavar="S", help="name of a suite of Learn2Reg (see `list suites`) or a YAML file")
    parser.add_argument("--method", metavar="M", help="any method, learned or classical")
    parser.add_argument(
        "--profile",
        default="learn2reg",
        metavar="P",
        help="learn2reg (2022 and later, NIfTI; default), learn2reg-npz (float16), learn2reg-2020, learn2reg-2021",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for submission/, submission.zip and the run")
    parser.add_argument("--data.root", dest="data_root", metavar="DIR", help="folder of the images")
    parser.add_argument("--tasks", metavar="A,B", help="only these tasks of the suite")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for the method, or the name of shipped ones")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="processes (CPU) or GPUs (default 1)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the run (default: that of the suite)")
    parser.add_argument("--overwrite", action="store_true", help="compute every field again")
    parser.add_argument("--pairs", choices=WHICH, default="auto", help="which pairs (default: those that `run` scores)")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    check = actions.add_parser("check", help="name every fault of a submission, each with its fix", allow_abbrev=False)
    score = actions.add_parser("score", help="score a submission as the challenge does", allow_abbrev=False)
    for action in (check, score):
        action.add_argument("zip", type=Path, metavar="ZIP", help="the submission, a zip or the folder of its files")
        action.add_argument(
            "--dataset",
            required=True,
            action="append",
            type=Path,
            metavar="JSON",
            help="dataset JSON, or a folder of tasks of Learn2Reg in the layout of 2020 or later; repeatable",
        )
        # Not `--pairs`' default: that of the command itself would be overwritten by it.
        action.add_argument("--pairs", choices=WHICH, default="auto", help="which pairs (default: those of `submit`)")
        action.add_argument("--workers", type=int, metavar="N", help="cases at a time (default: by number and size)")
    check.add_argument("--out", type=Path, metavar="FILE", help="write the faults as JSON as well")
    check.add_argument("--max-mb", type=float, metavar="MB", help="largest zip that is accepted")
    check.add_argument("--no-images", action="store_true", help="leave out whether the fields fit the images")
    score.add_argument("--config", type=Path, metavar="JSON", help="evaluation configuration of the organisers")
    score.add_argument("--out", required=True, type=Path, metavar="FILE", help="metrics.json; the strict one beside it")


def run(args: argparse.Namespace) -> int:
    """Makes, checks or scores a submission; returns 0, or 1 if fields are missing or faults were found.

    Raises:
        RegBenchError: bad input, before long work begins.
    """
    if args.action == "check":
        return _check(args)
    if args.action == "score":
        return _score(args)
    missing = [f"--{name}" for name in ("suite", "method", "out") if getattr(args, name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} missing: expected --suite S --method M --out DIR, or check, or score")
    if args.devices < 1:
        raise ConfigError(f"--devices must be at least 1, got {args.devices}")
    return _make(args)


def _make(args: argparse.Namespace) -> int:
    from reg_bench import submission_run as making
    from reg_bench.command_files import note
    from reg_bench.errors import DataError
    from reg_bench.progress import Progress
    from reg_bench.supervisor import Supervisor, Terminated, WorkerError, run_lock

    tasks = tuple(filter(None, (name.strip() for name in (args.tasks or "").split(","))))
    order = making.order(
        args.suite, args.method, args.profile, args.out, root=args.data_root, tasks=tasks, which=args.pairs
    )
    settings = making.settings(
        order, devices=args.devices, checkpoint=args.checkpoint, seed=args.seed, overwrite=args.overwrite
    )
    try:
        with run_lock(args.out / making.RUN):
            with Progress(args.devices) as progress:
                Supervisor(settings, progress).run()
            names = making.pack(order, note)
    except WorkerError as error:
        print(f"reg-bench submit: error: {error}", file=sys.stderr)
        return EXIT_FAULTS
    except DataError as error:
        print(f"reg-bench submit: error: {error}", file=sys.stderr)
        for text in making.failures(order):
            print(f"  {text}", file=sys.stderr)
        return EXIT_FAULTS
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"\nreg-bench submit: stopped; the same command goes on from there ({args.out})", file=sys.stderr)
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    print(f"{len(names)} files in {args.out / making.ZIP} ({order.profile}; {', '.join(order.cases)})")
    return 0


def _check(args: argparse.Namespace) -> int:
    from reg_bench import submission_check as checking

    found = checking.check(
        args.zip,
        args.dataset,
        which=args.pairs,
        images=not args.no_images,
        workers=args.workers,
        max_mb=args.max_mb,
    )
    print(checking.text(found))
    if args.out is not None:
        checking.write(found, args.out)
    return EXIT_FAULTS if found.faults else 0


def _score(args: argparse.Namespace) -> int:
    from reg_bench import submission_score as scoring

    result = scoring.score(args.zip, args.dataset, config=args.config, which=args.pairs, workers=args.workers)
    for path in scoring.write(result, args.out):
        print(f"written to {path}")
    print(scoring.text(result))
    return 0

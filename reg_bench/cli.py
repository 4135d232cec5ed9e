"""The command line, `reg-bench`: one subcommand per `command_*.py`, none of which imports torch to be listed."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from reg_bench import __version__
from reg_bench.errors import RegBenchError

COMMANDS = (
    "run",
    "register",
    "evaluate",
    "submit",
    "sweep",
    "rank",
    "report",
    "figures",
    "list",
    "check",
    "data",
    "fit",
    "validate",
    "test",
    "predict",
)
# Commands that pass the words after them on to Lightning's command line.
TRAINING = ("fit", "validate", "test", "predict")

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="reg-bench",
        description="Benchmarks medical image registration: from images to a leaderboard.",
        epilog="`reg-bench COMMAND --help` tells the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"reg-bench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"reg_bench.command_{'fit' if name in TRAINING else name}")
        summary = module.SUMMARIES[name] if name in TRAINING else module.SUMMARY
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module.add_arguments(sub)
        sub.set_defaults(handler=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `reg-bench` and returns its exit status: 0 done, 1 some case or check failed, 2 bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    passed_on = words[1:] if words and words[0] in TRAINING and not {"-h", "--help"} & set(words) else []
    args = build_parser().parse_args(words[: len(words) - len(passed_on)])
    args.rest = passed_on
    try:
        return int(args.handler(args))
    except RegBenchError as error:
        print(f"reg-bench {args.command}: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"reg-bench {args.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `reg-bench list ... | head`: the reader has gone; silence the flush at exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())

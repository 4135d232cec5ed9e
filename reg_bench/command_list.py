"""`reg-bench list`: what there is, one line each, read from the sources without importing them."""

from __future__ import annotations

import argparse
import shutil
import textwrap

SUMMARY = "List methods, suites, datasets, metrics or recipes of training."

JOINED = (
    "Names joined by + are a method as well: A+B runs A, then B on what A leaves, and composes their fields; "
    "A+B+C goes on."
)

STREAMS = (
    "Methods marked `streams` follow frames that come one after another; they take a pair as a stream of one frame, "
    "and methods of pairs take a stream frame by frame."
)

KINDS = ("methods", "suites", "datasets", "metrics", "recipes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench list`."""
    parser.add_argument("kind", choices=KINDS, help="what to list")


def run(args: argparse.Namespace) -> int:
    """Prints a line per member: name, what it accepts, summary."""
    from reg_bench.discovery import members

    found = sorted(members(args.kind), key=lambda m: m.name)
    rows = [(m.name, describe(m.kind, m.accepts, m.licence), m.summary) for m in found]
    if not rows:
        return 0
    name_width = max(len(r[0]) for r in rows)
    accepts_width = max(len(r[1]) for r in rows)
    indent = " " * (name_width + accepts_width + (4 if accepts_width else 2))
    # A terminal gets wrapped lines; a pipe gets one line per member, so that grep works.
    width = shutil.get_terminal_size((100, 24)).columns if _is_terminal() else 10_000
    for name, accepts, summary in rows:
        head = f"{name:<{name_width}}  " + (f"{accepts:<{accepts_width}}  " if accepts_width else "")
        print(textwrap.fill(head + summary, width=max(width, len(indent) + 30), subsequent_indent=indent))
    if args.kind == "methods":
        print(textwrap.fill(STREAMS, width=width))
        print(textwrap.fill(JOINED, width=width))
    return 0


def _is_terminal() -> bool:
    import sys

    return sys.stdout.isatty()


def describe(kind: str, accepts: dict[str, object], licence: str) -> str:
    """What a member takes, in short: `2-D 3-D, streams, needs true_displacement, Apache-2.0`."""
    parts: list[str] = []
    dimensions = accepts.get("dimensions")
    if isinstance(dimensions, tuple | list) and dimensions:
        parts.append(" ".join(f"{d}-D" for d in dimensions))
    if accepts.get("takes") == "sequences":
        parts.append("streams")
    needs = accepts.get("needs")
    if isinstance(needs, tuple | list) and needs:
        parts.append("needs " + ", ".join(str(n) for n in needs))
    if kind == "metrics" and accepts.get("better"):
        parts.append({"higher": "higher is better", "lower": "lower is better"}.get(str(accepts["better"]), ""))
    if licence:
        parts.append(licence)
    return ", ".join(p for p in parts if p)

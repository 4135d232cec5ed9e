"""`reg-bench figures`: draws a sequence and what a method makes of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_bench.errors import ConfigError, DataError, RegBenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reg_bench.method import SequenceModule
    from reg_bench.types import ImageSequence

SUMMARY = "Draw a sequence and what a method makes of it: reconstructions, latent variables, generated motions."

_EPILOG = """\
Writes reconstruction.png (frames, warped reference, displacement, Jacobian determinant); of methods that have latent
variables over time latent.png (with the frames that --every and --hidden leave), and of those that generate motions
generated.png. As Figures 2 to 4 of Paper III:

  reg-bench figures kalman-vae-small --dataset phantom-echo --out figures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench figures`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    named = "name, names joined by + (see `list methods`), package.module.Class or YAML file"
    parser.add_argument("method", metavar="METHOD", help=named)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="one of sequences (see `list datasets`)")
    parser.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help="an argument of the dataset")
    parser.add_argument("--data.root", dest="root", metavar="DIR", help="its folder (default: below REG_BENCH_DATA)")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument("--sequence", metavar="ID", help="which one (default: the first of the split)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for the method, or the name of shipped ones")
    parser.add_argument("--frames", type=int, default=6, metavar="N", help="how many frames are drawn (default 6)")
    parser.add_argument("--every", type=int, default=3, metavar="K", help="latent: every K-th frame is given (3)")
    parser.add_argument(
        "--hidden", type=int, default=10, metavar="N", help="latent variables: the last N are not given"
    )
    parser.add_argument(
        "--samples", type=int, default=3, metavar="N", help="how many motions are generated (default 3)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random numbers (default 0)")


def run(args: argparse.Namespace) -> int:
    """Draws and tells what was written; returns 0.

    Raises:
        RegBenchError: bad options, an unknown method, dataset or sequence, or a method that does not take it.
    """
    import torch

    from reg_bench.command_data import arguments_of
    from reg_bench.discovery import build_datamodule, build_module
    from reg_bench.pairs_as_sequence import as_stream
    from reg_bench.protocol import seed_everything
    from reg_bench.weights_files import named_method

    for name, least in (("frames", 1), ("every", 1), ("hidden", 0), ("samples", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if args.out.exists() and not args.out.is_dir():
        raise DataError(f"{args.out}: a file; expected a folder for the pictures")
    spec = {"class_path": args.dataset, "init_args": arguments_of(args.data)}
    data = build_datamodule(spec, args.root)
    chosen = args.sequence or data.sequence_ids(args.split)[0]
    sequence = data.sequence_case(chosen, args.split)
    if sequence.dimension != 2:
        raise DataError(f"{chosen}: {sequence.dimension}-D; figures are of 2-D sequences")
    seed_everything(args.seed)
    method = as_stream(build_module(named_method(args.method, args.checkpoint)), sequence).eval()
    if reason := method.accepts(sequence):
        raise DataError(f"{chosen}: the method {args.method!r} cannot follow it: {reason}")
    try:
        with torch.inference_mode():
            figures = _figures(method, sequence, args)
    except RegBenchError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise RegBenchError(f"{chosen}: the method {args.method!r} failed: {type(error).__name__}: {text}") from error
    args.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(args.out / name, dpi=150)
    print(f"written to {args.out}: {', '.join(figures)}")
    return 0


def _figures(method: SequenceModule, sequence: ImageSequence, args: argparse.Namespace) -> dict[str, Figure]:
    """The figures by the names of their files."""
    from reg_bench.dynamics_figures import evenly, generated_figure, latent_figure, reconstruction_figure
    from reg_bench.streaming import run_stream

    head = f"{args.method} on {args.dataset}, {', '.join(sequence.case_ids)}"
    steps = run_stream(method, sequence).steps
    shown = [steps[i] for i in evenly(args.frames, len(steps))]
    figures = {"reconstruction.png": reconstruction_figure(sequence, shown, f"{head}: every frame as it comes")}
    if ask := getattr(method, "latent_course", None):
        course, given = _course(ask, sequence, args)
        what = f"{head}: {given} of {sequence.length - sequence.reference} frames given (filled), 95 % intervals"
        figures["latent.png"] = latent_figure(course, sequence.seconds_per_frame, what)
    if draw := getattr(method, "generate", None):
        length = sequence.length - sequence.reference
        motions = draw(sequence.frames[:, sequence.reference], args.samples, args.seed, length=length)
        what = f"{head}: generated from the reference alone"
        figures["generated.png"] = generated_figure(sequence, motions, evenly(args.frames, length), what)
    return figures


def _course(ask: Any, sequence: ImageSequence, args: argparse.Namespace) -> tuple[Any, int]:
    """The latent variables, and how many frames were given."""
    import torch

    frames = sequence.frames[:, sequence.reference :]
    steps = frames.shape[1] - 1
    given = [True, *(k % args.every == 0 and k <= steps - args.hidden for k in range(1, steps + 1))]
    return ask(frames, torch.tensor(given).expand(len(frames), -1)), sum(given)

"""`reg-bench evaluate`: scores a displacement field that anyone made."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reg_bench.command_files import (
    add_annotation_arguments,
    annotation_files,
    json_text,
    note,
    print_scores,
    scores,
    warnings_as_notes,
    written_together,
)
from reg_bench.errors import DataError

if TYPE_CHECKING:
    from reg_bench.displacement_io import Format
    from reg_bench.types import RegistrationPair

SUMMARY = "Score a displacement field that anyone made."

FORMATS = ("itk", "learn2reg", "learn2reg-2020")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench evaluate`."""
    parser.add_argument("--fixed", required=True, type=Path, metavar="F", help="fixed image")
    parser.add_argument("--moving", required=True, type=Path, metavar="M", help="moving image")
    parser.add_argument("--displacement", required=True, type=Path, metavar="U", help="field on the fixed grid")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="itk: vector image in LPS mm. learn2reg: voxels, (X, Y, Z, 3), headers ignored. learn2reg-2020: "
        "float16 npz (3, X, Y, Z), half resolution, rules of 2020. Default: learn2reg for .npz, else itk",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="where to write metrics.json")
    add_annotation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Scores the field and writes the numbers; returns 0.

    Raises:
        DataError: any file that is missing, unreadable or does not fit; nothing is written.
    """
    from reg_bench.displacement_io import read_displacement
    from reg_bench.io import grid_of_pair, pair_from_files
    from reg_bench.types import DisplacementField

    files = annotation_files(args)
    if args.out.is_dir():
        raise DataError(f"{args.out}: a folder; expected the name of a file, such as {args.out / 'metrics.json'}")
    kind: Format = args.format or ("learn2reg" if args.displacement.suffix.lower() == ".npz" else "itk")
    problems: list[str] = []
    with warnings_as_notes():
        pair = pair_from_files(args.fixed, args.moving, **files, native=kind != "itk", problems=problems)
        u = read_displacement(args.displacement, format=kind, fixed_grid=grid_of_pair(pair))
        pairs = {"learn2reg": _as_challenge(pair, args.mask) if kind != "itk" else pair, "strict": pair}
    for problem in problems:
        note(problem)
    field = DisplacementField.for_pair(u, pair)
    result = scores(pairs, field, "2020" if kind == "learn2reg-2020" else "2022")
    with written_together(args.out.parent, ()) as place:
        (place / args.out.name).write_text(json_text(result), encoding="utf-8")
    print_scores(result, f"{args.displacement.name} ({kind})")
    print(f"written to {args.out}")
    return 0


def _as_challenge(pair: RegistrationPair, mask: Path | None) -> RegistrationPair:
    """The pair as the challenge reads it: of a mask, only voxels that are exactly 1 count."""
    import torch

    from reg_bench.io import read_image

    if mask is None or pair.mask is None:
        return pair
    ones = torch.from_numpy(read_image(mask, kind="labels").array == 1)[None, None]
    if bool((ones != pair.mask).any()):
        note(f"{mask}: holds values other than 0 and 1; the profile learn2reg counts the voxels that are 1 only")
    return replace(pair, mask=ones)

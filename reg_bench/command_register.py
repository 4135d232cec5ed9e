"""`reg-bench register`: two image files in, field, warped image, scores, a picture and the course of the energy out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from reg_bench.errors import ConfigError, DataError, RegBenchError

if TYPE_CHECKING:
    from reg_bench.image_io import LoadedImage
    from reg_bench.method import RegistrationModule
    from reg_bench.types import DisplacementField, RegistrationPair

SUMMARY = "Register two image files of any grid."

OUTPUTS = (
    "displacement.nii.gz",
    "warped.nii.gz",
    "warped_labels.nii.gz",
    "metrics.json",
    "report.png",
    "energy.csv",
    "energy.png",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench register`."""
    formats = "NIfTI, MHA, NRRD; PNG for 2-D"
    parser.add_argument("fixed", metavar="FIXED", type=Path, help=f"image that stays as it is ({formats})")
    parser.add_argument("moving", metavar="MOVING", type=Path, help="image to pull onto it, of any grid")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    named = "name, names joined by + (see `list methods`), package.module.Class or YAML file"
    parser.add_argument("--method", required=True, metavar="NAME", help=named)
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for the method, or the name of shipped ones")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random numbers (default 0)")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: all)")
    add_annotation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Registers and writes everything; returns 0.

    Raises:
        RegBenchError: bad input, an unknown method, or a method that fails on this pair; nothing is written.
    """
    from reg_bench.discovery import build_method
    from reg_bench.io import grid_of_pair, pair_from_files, read_image
    from reg_bench.protocol import seed_everything
    from reg_bench.weights_files import named_method

    files = annotation_files(args)
    if args.out.exists() and not args.out.is_dir():
        raise DataError(f"{args.out}: a file; expected a folder for the results")
    _set_threads(args.threads)
    problems: list[str] = []
    with warnings_as_notes():
        pair = pair_from_files(args.fixed, args.moving, **files, problems=problems)
        moving = read_image(args.moving)
        labels = None if args.moving_labels is None else read_image(args.moving_labels, kind="labels")
    for problem in problems:
        note(problem)
    method = build_method(named_method(args.method, args.checkpoint))
    seed_everything(args.seed)
    started = time.perf_counter()
    field = registered(method, pair, args.method)
    seconds = time.perf_counter() - started
    result = scores({"learn2reg": pair, "strict": pair}, field)
    title = f"{args.method}: {args.moving.name} onto {args.fixed.name}"
    with written_together(args.out, OUTPUTS) as place:
        _write(place, pair, field, moving, labels, title)
        _write_energy(place, method, title)
        (place / "metrics.json").write_text(json_text(result), encoding="utf-8")
    print_scores(result, f"{args.method}, {seconds:.1f} s, grid {grid_of_pair(pair).shape}")
    print(f"written to {args.out}: {', '.join(n for n in OUTPUTS if (args.out / n).exists())}")
    return 0


def _set_threads(threads: int | None) -> None:
    import os

    from reg_bench.protocol import set_threads

    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    set_threads(threads or len(os.sched_getaffinity(0)))


def registered(method: RegistrationModule, pair: RegistrationPair, name: str) -> DisplacementField:
    """The checked field of `pair`.

    Raises:
        RegBenchError: the method does not accept the pair, fails, or returns no displacement field of it.
    """
    import torch

    from reg_bench.method import check_field
    from reg_bench.types import DisplacementField

    case = ", ".join(pair.case_ids)
    refusal = method.accepts(pair)
    if refusal is not None:
        raise DataError(f"{case}: the method {name!r} cannot register this pair: {refusal}")
    method.eval()
    try:
        with torch.inference_mode():
            field = method(pair)
            check_field(field, pair)
    except RegBenchError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise RegBenchError(f"{case}: the method {name!r} failed: {type(error).__name__}: {text}") from error
    return DisplacementField.for_pair(field.u.detach().float().clone(), pair)


def _write(
    place: Path,
    pair: RegistrationPair,
    field: DisplacementField,
    moving: LoadedImage,
    labels: LoadedImage | None,
    title: str,
) -> None:
    from reg_bench.displacement_io import write_displacement
    from reg_bench.io import grid_of_pair, write_image
    from reg_bench.panels import draw_report

    grid = grid_of_pair(pair)
    write_displacement(place / "displacement.nii.gz", field, grid)
    write_image(place / "warped.nii.gz", warp_original(pair, field, moving, moving, "linear"), grid)
    if labels is not None:
        write_image(place / "warped_labels.nii.gz", warp_original(pair, field, labels, moving, "nearest"), grid)
    draw_report(pair, field, place / "report.png", title)


def _write_energy(place: Path, method: RegistrationModule, title: str) -> None:
    """The course of the energy, of methods that keep it."""
    from reg_bench.energy_course import course_of, draw_course, write_course

    rows = course_of(method)
    if rows:
        write_course(rows, place / "energy.csv")
        draw_course(rows, place / "energy.png", title)


def warp_original(
    pair: RegistrationPair, field: DisplacementField, image: LoadedImage, geometry: LoadedImage, mode: str
) -> Any:
    """`image`, as it lies in its file, through the field onto the fixed grid, interpolated once.

    Positions more than half a voxel outside get the minimum of an image and 0 of a label map, as in ITK.

    Args:
        pair: gives the fixed grid.
        field: in voxels of the fixed grid.
        image: the moving image or its labels.
        geometry: the moving image, whose header counts for its labels too.
        mode: `linear` or `nearest`.

    Returns:
        A tensor `(1, 1, *S)` on the fixed grid.
    """
    import numpy as np
    import torch

    from reg_bench.field import identity_grid, warp
    from reg_bench.io import grid_of_pair

    grid = grid_of_pair(pair)
    identity = identity_grid(grid.shape, dtype=torch.float64)
    # Fixed voxels to moving voxels: one affine, from the two headers.
    across = torch.from_numpy(np.linalg.solve(geometry.grid.affine_lps(), grid.affine_lps()))
    position = torch.einsum("ij,j...->i...", across[:-1, :-1], identity + field.u[0].double())
    position += across[:-1, -1].reshape(-1, *(1,) * grid.dimension)
    values = torch.from_numpy(image.array)[None, None]
    warped = warp(values, (position - identity)[None].float(), mode=mode, padding="border")
    size = torch.tensor(geometry.grid.shape).reshape(-1, *(1,) * grid.dimension)
    outside = ((position < -0.5) | (position >= size - 0.5)).any(0)
    background = 0 if mode == "nearest" else float(image.array.min())
    return torch.where(outside, torch.as_tensor(background, dtype=warped.dtype), warped)

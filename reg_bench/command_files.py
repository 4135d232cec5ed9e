"""What `reg-bench register` and `reg-bench evaluate` share: files in, scores before and after, files out."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from reg_bench.errors import DataError

if TYPE_CHECKING:
    from reg_bench.types import DisplacementField, RegistrationPair

PROFILES: Final[tuple[Literal["learn2reg", "strict"], ...]] = ("learn2reg", "strict")


class AnnotationFiles(TypedDict):
    """What goes with a pair of images, as keyword arguments of `pair_from_files`."""

    fixed_labels: Path | None
    moving_labels: Path | None
    fixed_points: Path | None
    moving_points: Path | None
    mask: Path | None


def add_annotation_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares labels, points and mask."""
    group = parser.add_argument_group("annotations, each optional")
    group.add_argument("--fixed-labels", type=Path, metavar="F", help="label map on the grid of the fixed image")
    group.add_argument("--moving-labels", type=Path, metavar="M", help="label map on the grid of the moving image")
    points = "Learn2Reg .csv (voxels), .fcsv, .mrk.json, or .csv with the header x_mm,y_mm,z_mm (LPS)"
    group.add_argument("--fixed-points", type=Path, metavar="F", help=points)
    group.add_argument("--moving-points", type=Path, metavar="M", help="the corresponding points, row by row")
    group.add_argument("--mask", type=Path, metavar="F", help="tissue on the grid of the fixed image, not zero inside")


def annotation_files(args: argparse.Namespace) -> AnnotationFiles:
    """The annotation files that were given.

    Raises:
        DataError: fixed labels, which say nothing without moving ones.
    """
    if args.fixed_labels is not None and args.moving_labels is None:
        raise DataError(f"{args.fixed_labels}: labels of the fixed image only; expected --moving-labels as well")
    return AnnotationFiles(
        fixed_labels=args.fixed_labels,
        moving_labels=args.moving_labels,
        fixed_points=args.fixed_points,
        moving_points=args.moving_points,
        mask=args.mask,
    )


def note(text: str) -> None:
    """A remark for the user, apart from the results."""
    print(f"warning: {text}", file=sys.stderr)


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Shows the warnings of our readers in one line each; those of other libraries stay hidden."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(str(w.message) for w in caught if w.category.__module__.startswith("reg_bench")):
        note(text)


def zero_field(pair: RegistrationPair) -> DisplacementField:
    """No displacement on the fixed grid: what a pair scores before registration."""
    import torch

    from reg_bench.types import DisplacementField

    return DisplacementField.for_pair(torch.zeros(1, pair.dimension, *pair.spatial_shape), pair)


def scores(
    pairs: dict[str, RegistrationPair], field: DisplacementField, official: str = "2022"
) -> dict[str, dict[str, Any]]:
    """`{"before": P, "after": P}` of `metrics.json`, each `P = {"learn2reg": M, "strict": M}`.

    Args:
        pairs: the pair as each profile sees it.
        field: on the fixed grid.
        official: rules of the profile `learn2reg`, `2022` or `2020`.
    """
    from reg_bench.metrics import score, to_json

    result = {}
    for when in ("before", "after"):
        values = []
        for profile in PROFILES:
            pair = pairs[profile]
            u = zero_field(pair) if when == "before" else field
            values += score(pair, u, profiles=(profile,), official=official)
        result[when] = to_json(values)
    return result


def print_scores(result: dict[str, dict[str, Any]], title: str) -> None:
    """A small table of the case values, before and after, of both profiles."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("profile", "metric", "unit"):
        table.add_column(name)
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for profile in reversed(PROFILES):
        for metric, entry in result["after"][profile].items():
            before = result["before"][profile].get(metric, {}).get("mean")
            unit = "" if entry["unit"] == "1" else entry["unit"]
            table.add_row(profile, metric, unit, _number(before), _number(entry["mean"]))
        table.add_section()
    Console().print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def json_text(result: Any) -> str:
    """Strict JSON: a value that does not exist is null."""
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


@contextlib.contextmanager
def written_together(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A place to write files that appear in `folder` all at once, or not at all if something fails.

    Files of `names` that an earlier run left there and this one does not write are removed.

    Raises:
        DataError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written to ({error.strerror}); expected a folder for the results"
        ) from error
    try:
        yield place
        written = {path.name for path in place.iterdir()}
        for name in sorted(written):
            os.replace(place / name, folder / name)
        for name in set(names) - written:
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)

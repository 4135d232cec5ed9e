"""What can be wrong with the files of a Learn2Reg task, seen from headers and points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from reg_bench.errors import DataError
from reg_bench.grid import Grid, grids_equal
from reg_bench.image_io import read_grid
from reg_bench.learn2reg_points import read_pair_points
from reg_bench.learn2reg_task import POINT_SETS, Pair, Scan, TaskFiles, points_of
from reg_bench.points_io import Points
from reg_bench.survey import Survey


def check_headers(task: TaskFiles, survey: Survey) -> None:
    """Shapes of images, labels and masks against each other and against what the JSON says."""
    scans = [*task.scans.values(), *task.test_scans.values()]
    read = {scan.image: grid for scan in scans if (grid := _grid(task, scan.image, survey)) is not None}
    usual = _usual_shapes(task, scans, survey)
    turned: list[Path] = []
    for scan in scans:
        grid, expected = read.get(scan.image), task.shapes.get(scan.modality)
        if grid is None:
            continue
        if expected is not None and grid.shape != expected:
            survey.fault(scan.image, f"shape {grid.shape}, expected {expected} (tensorImageShape)")
        elif expected is None and grid.shape != usual[scan.modality]:
            survey.fault(scan.image, f"shape {grid.shape}, expected {usual[scan.modality]} as the others")
        for kind in ("label", "mask"):
            companion = _grid(task, scan.files[kind], survey) if kind in scan.files else None
            if companion is None:
                continue
            if companion.shape != grid.shape:
                survey.fault(
                    scan.files[kind], f"shape {companion.shape}, expected {grid.shape} as its image {scan.image}"
                )
            elif not grids_equal(companion, grid):
                turned.append(scan.files[kind])
    if turned:
        survey.note(
            turned[0],
            f"the header disagrees with that of its image ({len(turned)} such files, this is the first); voxel belongs "
            "to voxel, the geometry of the image is used",
        )


def _usual_shapes(task: TaskFiles, scans: Iterable[Scan], survey: Survey) -> dict[int, tuple[int, ...]]:
    """The most frequent shape of each modality."""
    counted: dict[int, Counter[tuple[int, ...]]] = {}
    for scan in scans:
        if scan.image in task.grids:
            counted.setdefault(scan.modality, Counter())[task.grids[scan.image].shape] += 1
    usual = {modality: shapes.most_common(1)[0][0] for modality, shapes in counted.items()}
    other = {shape for shape in usual.values() if task.preset.shape not in (None, shape)}
    if other and not task.shapes:
        survey.note("", f"images of {sorted(other)[0]} voxels; {task.preset.name} has {task.preset.shape}")
    return usual


def _grid(task: TaskFiles, path: Path, survey: Survey) -> Grid | None:
    if path not in task.grids:
        try:
            grid = read_grid(path)
        except DataError as error:
            survey.fault(path, str(error).removeprefix(f"{path}: "))
            return None
        if grid.dimension != 3:
            survey.fault(path, f"a {grid.dimension}-D image {grid.shape}, expected 3-D")
            return None
        task.grids[path] = grid
    return task.grids[path]


def check_pairs(task: TaskFiles, pairs: Sequence[Pair], survey: Survey) -> None:
    """Points that do not correspond are faults; points outside and headers that disagree are notes."""
    apart = [pair for pair in pairs if _grids_differ(task, pair)]
    if apart:
        fixed, moving = apart[0]
        a, b = task.grids[fixed.image], task.grids[moving.image]
        survey.note(
            moving.image,
            f"its grid is not that of {fixed.image} ({len(apart)} of {len(pairs)} pairs, this is the first): "
            f"{b.describe()} against {a.describe()}; index belongs to index as in the challenge, nothing is resampled",
        )
    seen: set[Path] = set()
    for fixed, moving in pairs:
        if fixed.image not in task.grids or moving.image not in task.grids:
            continue
        for base in () if fixed.subject != moving.subject else POINT_SETS:
            _one_sided(base, fixed, moving, survey, seen)
        for files in points_of(fixed, moving).values():
            grids = (task.grids[fixed.image], task.grids[moving.image])
            both = [_points(path, side, grids, survey, seen) for side, path in enumerate(files)]
            if both[0] is not None and both[1] is not None and len(both[0]) != len(both[1]):
                survey.fault(
                    files[1],
                    f"{len(both[1])} points, expected {len(both[0])} as in {files[0]}: row n of one corresponds to "
                    "row n of the other",
                )


def _grids_differ(task: TaskFiles, pair: Pair) -> bool:
    a, b = (task.grids.get(scan.image) for scan in pair)
    return a is not None and b is not None and not grids_equal(a, b)


def _one_sided(base: str, fixed: Scan, moving: Scan, survey: Survey, seen: set[Path]) -> None:
    low, high = sorted((fixed.modality, moving.modality))
    for key in (f"{base}{low}{high}", base):
        have = [scan for scan in (fixed, moving) if key in scan.files]
        if len(have) == 1 and base not in points_of(fixed, moving) and have[0].files[key] not in seen:
            other = moving if have[0] is fixed else fixed
            seen.add(have[0].files[key])
            survey.fault(have[0].files[key], f"points of one image of a pair only, expected those of {other.image} too")


def _points(path: Path, side: int, grids: tuple[Grid, Grid], survey: Survey, seen: set[Path]) -> Points | None:
    first = path not in seen
    seen.add(path)

    def note(text: str) -> None:
        if first:
            survey.note(path, f"{text.removeprefix(f'{path}: ')} They are scored as the challenge does.")

    try:
        return read_pair_points(path, side, grids, note)
    except DataError as error:
        if first:
            survey.fault(path, str(error).removeprefix(f"{path}: "))
        return None

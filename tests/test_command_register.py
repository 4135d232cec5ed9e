"""`reg-bench register`: two files in, results out, whole or not at all."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread as read_picture

from reg_bench import conformance_cases as cases
from reg_bench.cli import main
from reg_bench.energy_course import draw_course
from reg_bench.grid import Grid
from reg_bench.image_io import write_image
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair

METHOD = "tests.conformance_methods.Affine"


class Fails(RegistrationModule):
    """Raises in the middle of the work."""

    name = "fails"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        raise RuntimeError("out of luck")


class HalfGrid(RegistrationModule):
    """Returns a field of another shape."""

    name = "half-grid"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return DisplacementField(torch.zeros(1, pair.dimension, *(n // 2 for n in pair.spatial_shape)))


class Study:
    """Files of one physical pair; the moving image lies on a turned grid of another shape and spacing."""

    def __init__(self, folder: Path, dims: int) -> None:
        self.dims = dims
        self.fixed_geometry = cases.base_geometry(dims)
        turned = cases.rotation(dims, 15.0) @ np.diag([1.6, 1.2, 1.9][:dims])
        self.moving_geometry = cases.centred((56, 60, 38)[:dims], turned)
        self.motion = cases.Motion(cases.rotation(dims, 6.0), np.array([3.0, -2.0, 2.5][:dims]))
        self.files: dict[str, Path] = {}
        for name, geometry, pull in (
            ("fixed", self.fixed_geometry, True),
            ("moving", self.moving_geometry, False),
        ):
            world = geometry.to_world(geometry.indices())
            source = world + self.motion.pull(world) if pull else world
            grid = Grid.from_affine(geometry.affine, geometry.shape)
            for kind, values in (("image", cases.picture(source, 1)), ("labels", cases.organs(source))):
                path = folder / f"{name}_{kind}.nii.gz"
                values = values.astype(np.float32) if kind == "image" else values
                write_image(path, values.reshape(geometry.shape), grid)
                self.files[f"{name}_{kind}"] = path
        rng = np.random.default_rng(0)
        points = np.asarray(cases.CENTRE_MM[dims]) + rng.uniform(-9, 9, (12, dims))
        self._write_points(folder, "fixed", points)
        self._write_points(folder, "moving", points + self.motion.pull(points))

    def _write_points(self, folder: Path, name: str, ras: np.ndarray) -> None:
        path = folder / f"{name}_points.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["x_mm", "y_mm", "z_mm"][: self.dims])
            writer.writerows((ras * np.array([-1.0, -1.0, 1.0])[: self.dims]).tolist())
        self.files[f"{name}_points"] = path

    def arguments(self, out: Path, *, annotated: bool = True, method: str = METHOD) -> list[str]:
        f = {k: str(v) for k, v in self.files.items()}
        given = ["register", f["fixed_image"], f["moving_image"], "--out", str(out), "--method", method]
        if annotated:
            for name in ("labels", "points"):
                given += [f"--fixed-{name}", f[f"fixed_{name}"], f"--moving-{name}", f[f"moving_{name}"]]
        return given


@pytest.mark.parametrize("dims", [2, 3])
def test_everything_is_written_and_right(tmp_path: Path, dims: int, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path, dims)
    out = tmp_path / "new" / "out"
    mask = tmp_path / "mask.nii.gz"
    labels = sitk.ReadImage(str(study.files["fixed_labels"]))
    sitk.WriteImage(sitk.Cast(labels > 0, sitk.sitkUInt8), str(mask))
    assert main([*study.arguments(out), "--mask", str(mask), "--threads", "1"]) == 0
    names = {"displacement.nii.gz", "warped.nii.gz", "warped_labels.nii.gz", "metrics.json", "report.png"}
    assert {p.name for p in out.iterdir()} == names
    printed = capsys.readouterr().out
    assert "dice" in printed
    assert "before" in printed

    # SimpleITK, given nothing but our field and the original moving files, agrees on every voxel.
    fixed = sitk.ReadImage(str(study.files["fixed_image"]), sitk.sitkFloat32)
    transform = sitk.DisplacementFieldTransform(
        sitk.ReadImage(str(out / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    )
    moving = sitk.ReadImage(str(study.files["moving_image"]), sitk.sitkFloat32)
    background = float(sitk.GetArrayViewFromImage(moving).min())
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, background))
    ours = sitk.ReadImage(str(out / "warped.nii.gz"))
    assert ours.GetSize() == fixed.GetSize()
    np.testing.assert_allclose(ours.GetOrigin(), fixed.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(ours.GetDirection(), fixed.GetDirection(), atol=1e-5)
    difference = np.abs(sitk.GetArrayFromImage(ours) - theirs)
    assert np.quantile(difference, 0.999) < 1e-4
    moving_labels = sitk.ReadImage(str(study.files["moving_labels"]))
    their_labels = sitk.GetArrayFromImage(sitk.Resample(moving_labels, fixed, transform, sitk.sitkNearestNeighbor, 0))
    our_labels = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "warped_labels.nii.gz")))
    assert np.issubdtype(our_labels.dtype, np.integer)
    assert (our_labels != their_labels).mean() < 1e-3

    # It is registered: the warped image is the fixed one inside the object.
    inside = sitk.GetArrayFromImage(labels) > 0
    residual = np.abs(sitk.GetArrayFromImage(ours) - sitk.GetArrayFromImage(fixed))[inside].mean()
    assert residual < 0.02

    result = json.loads((out / "metrics.json").read_text(), parse_constant=lambda t: pytest.fail(f"not JSON: {t}"))
    assert set(result) == {"before", "after"}
    for when in result.values():
        assert set(when) == {"learn2reg", "strict"}
    before, after = result["before"]["strict"], result["after"]["strict"]
    assert before["tre_landmarks"]["unit"] == "mm"
    # The truth of the landmarks in mm, by hand: the distance between partners.
    fixed_points, moving_points = (
        np.loadtxt(study.files[f"{n}_points"], delimiter=",", skiprows=1) for n in ("fixed", "moving")
    )
    true = np.linalg.norm(fixed_points - moving_points, axis=1)
    np.testing.assert_allclose([before["tre_landmarks"]["values"][str(k)] for k in range(12)], true, rtol=1e-4)
    assert before["tre_landmarks"]["mean"] == pytest.approx(true.mean(), rel=1e-4)
    assert after["tre_landmarks"]["mean"] < 0.1 * true.mean()
    assert set(after["dice"]["values"]) == {"1", "2", "3", "4"}
    assert after["dice"]["mean"] > max(0.85, before["dice"]["mean"] + 0.1)
    assert before["nonpositive_fraction"]["mean"] == 0


def test_warps_the_original_moving_image_once(tmp_path: Path) -> None:
    """On a grid much finer than the fixed one, resampling twice would lose the detail that the fixed grid can hold."""
    study = Study(tmp_path, 2)
    out = tmp_path / "out"
    assert main(study.arguments(out, annotated=False)) == 0
    geometry = study.fixed_geometry
    field = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "displacement.nii.gz")))
    lps = np.diag([-1.0, -1.0])
    world = geometry.to_world(geometry.indices())
    mm = field.reshape(*field.shape[-3:]).transpose(1, 0, 2).reshape(-1, 2) @ lps
    exact = cases.picture(world + mm, 1).reshape(geometry.shape)
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "warped.nii.gz"))).reshape(exact.T.shape).T
    moving = sitk.ReadImage(str(study.files["moving_image"]), sitk.sitkFloat32)
    fixed = sitk.ReadImage(str(study.files["fixed_image"]), sitk.sitkFloat32)
    transform = sitk.DisplacementFieldTransform(
        sitk.ReadImage(str(out / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    )
    twice = sitk.GetArrayFromImage(sitk.Resample(sitk.Resample(moving, fixed), fixed, transform)).T
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(ours - exact)[inner].mean() < 0.7 * np.abs(twice - exact)[inner].mean()


def test_course_of_the_energy_of_every_part_is_written(tmp_path: Path) -> None:
    study = Study(tmp_path, 2)
    out = tmp_path / "out"
    method = tmp_path / "mine.yaml"
    method.write_text("class_path: affine+demons-torch+demons-torch\ninit_args: {}\n")
    assert main(study.arguments(out, annotated=False, method=str(method))) == 0
    with (out / "energy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["part", "method", "stage", "level", "case", "iteration", "energy", "seconds"]
    assert {r["part"] for r in rows} == {"1", "2"}, "SimpleITK's affine keeps no course"
    assert {r["method"] for r in rows} == {"demons-torch"}
    levels = [[r for r in rows if (r["part"], r["level"]) == key] for key in itertools.product("12", "012")]
    assert sum(map(len, levels)) == len(rows)
    for level in levels:
        assert [int(r["iteration"]) for r in level] == list(range(41))
    result = json.loads((out / "metrics.json").read_text())
    # The last energy is the mean square that is left, but for voxels that have no partner in the moving image.
    left = result["after"]["strict"]["mse"]["mean"]
    assert 0.1 * left < float(rows[-1]["energy"]) < left < 0.1 * result["before"]["strict"]["mse"]["mean"]
    picture = read_picture(out / "energy.png")
    assert picture.shape[1] > picture.shape[0] > 200
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50, "lines, not an empty canvas"
    # A method without a course leaves none behind.
    assert main(study.arguments(out, annotated=False, method="identity")) == 0
    assert not {"energy.csv", "energy.png"} & {p.name for p in out.iterdir()}


def test_picture_of_a_course_draws_a_line_per_level_in_a_panel_per_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_options: figures.append(figure))
    rows = [
        {"part": 1, "method": "m", "stage": s, "level": lv, "case": "c", "iteration": k, "energy": sign / (k + 1.0),
         "seconds": 0.1 * k}
        for s, sign in ((0, 1.0), (1, -1.0)) for lv in (0, 1) for k in range(11)
    ]  # fmt: skip
    draw_course(rows, tmp_path / "energy.png", "title")
    (figure,) = figures
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["m, stage 1", "m, stage 2"]
    positive, negative = figure.axes
    assert (positive.get_yscale(), negative.get_yscale()) == ("log", "linear"), "an energy may be negative"
    legend = positive.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [f"level {n}: 1 to 0.0909, 10 iterations, 1 s" for n in (1, 2)]
    second = next(line for line in positive.get_lines() if line.get_label() == labels[1])
    assert np.asarray(second.get_xdata()).tolist() == list(range(10, 21)), "levels follow one another"


def test_png_in_same_names_out(tmp_path: Path) -> None:
    geometry = cases.base_geometry(2)
    world = geometry.to_world(geometry.indices())
    motion = cases.shifted(geometry, np.array([2.0, -1.0]))
    for name, positions in (("fixed", world + motion.pull(world)), ("moving", world)):
        array = (255 * cases.picture(positions, 1)).round().astype(np.uint8).reshape(geometry.shape)
        sitk.WriteImage(sitk.GetImageFromArray(array.T.copy()), str(tmp_path / f"{name}.png"))
    out = tmp_path / "out"
    given = [str(tmp_path / "fixed.png"), str(tmp_path / "moving.png"), "--out", str(out), "--method", METHOD]
    assert main(["register", *given]) == 0
    assert {p.name for p in out.iterdir()} == {"displacement.nii.gz", "warped.nii.gz", "metrics.json", "report.png"}
    field = sitk.ReadImage(str(out / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    vectors = np.squeeze(sitk.GetArrayFromImage(field))
    np.testing.assert_allclose(np.median(vectors.reshape(-1, 2), axis=0), [2.0, -1.0], atol=0.05)
    result = json.loads((out / "metrics.json").read_text())
    assert result["after"]["strict"]["mse"]["mean"] < 0.05 * result["before"]["strict"]["mse"]["mean"]


def test_a_second_run_leaves_no_stale_files(tmp_path: Path) -> None:
    study = Study(tmp_path, 2)
    out = tmp_path / "out"
    assert main(study.arguments(out, method="identity")) == 0
    (out / "mine.txt").write_text("kept")
    assert main(study.arguments(out, annotated=False, method="identity")) == 0
    assert not (out / "warped_labels.nii.gz").exists()
    assert (out / "mine.txt").exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"fixed_image": "missing.nii.gz"}, ["missing.nii.gz", "no such file"]),
        ({"moving_image": "text.nii.gz"}, ["text.nii.gz"]),
        ({"moving_labels": "fixed_labels.nii.gz"}, ["fixed_labels.nii.gz", "shape (48, 40)", "expected (56, 60)"]),
        ({"moving_points": "short.csv"}, ["short.csv", "1 points", "expected 12"]),
        ({"method": "demonz"}, ["demonz", "demons"]),
        ({"method": "tests.test_command_register.Fails"}, ["Fails", "RuntimeError: out of luck"]),
        ({"method": "tests.test_command_register.HalfGrid"}, ["HalfGrid", "(1, 2, 24, 20)", "(1, 2, 48, 40)"]),
        ({"method": "truth"}, ["truth", "needs true_displacement"]),
        ({"threads": "0"}, ["--threads", "at least 1"]),
    ],
)
def test_bad_input_is_one_message_and_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], parts: list[str]
) -> None:
    study = Study(tmp_path, 2)
    (tmp_path / "text.nii.gz").write_text("not an image")
    (tmp_path / "short.csv").write_text("x_mm,y_mm\n-11.0,7.0\n")
    for name, value in change.items():
        if name.startswith(("fixed", "moving")):
            study.files[name] = tmp_path / value
    out = tmp_path / "out"
    extra = ["--threads", change["threads"]] if "threads" in change else []
    assert main([*study.arguments(out, method=change.get("method", METHOD)), *extra]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error
    assert not out.exists() or not list(out.iterdir())


def test_fixed_labels_alone_are_refused_moving_labels_alone_are_warped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path, 2)
    out = tmp_path / "out"
    plain = study.arguments(out, annotated=False, method="identity")
    assert main([*plain, "--fixed-labels", str(study.files["fixed_labels"])]) == 2
    assert "--moving-labels" in capsys.readouterr().err
    assert main([*plain, "--moving-labels", str(study.files["moving_labels"])]) == 0
    assert (out / "warped_labels.nii.gz").exists()
    assert "dice" not in json.loads((out / "metrics.json").read_text())["after"]["strict"]


def test_out_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path, 2)
    blocked = tmp_path / "file"
    blocked.write_text("x")
    assert main(study.arguments(blocked, annotated=False, method="identity")) == 2
    assert "expected a folder" in capsys.readouterr().err


def test_nothing_half_written_when_the_picture_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import reg_bench.panels

    def broken(*_: object) -> None:
        raise OSError("disk full")

    study = Study(tmp_path, 2)
    monkeypatch.setattr(reg_bench.panels, "draw_report", broken)
    with pytest.raises(OSError, match="disk full"):
        main(study.arguments(tmp_path / "out", annotated=False, method="identity"))
    assert list((tmp_path / "out").iterdir()) == []


def test_commands_do_not_import_torch_to_be_listed() -> None:
    modules = ", ".join(f"reg_bench.command_{name}" for name in ("check", "register", "evaluate"))
    heavy = ["torch", "numpy", "SimpleITK", "polars", "matplotlib", "rich"]
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

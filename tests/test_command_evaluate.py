"""`reg-bench evaluate`: files in, the challenge's numbers out; checked against SciPy and surface-distance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import surface_distance
import torch
from scipy.ndimage import correlate, gaussian_filter, map_coordinates, zoom

from reg_bench.cli import main
from reg_bench.displacement_io import write_displacement, write_learn2reg, write_learn2reg_2020
from reg_bench.grid import Grid
from reg_bench.image_io import write_image
from tests.test_command_register import METHOD, Study

SHAPE = (36, 28, 32)
FIXED_MM, MOVING_MM = (1.75, 1.25, 2.0), (1.5, 2.0, 1.0)


def grid(spacing: tuple[float, ...], turned: float = 0.0) -> Grid:
    c, s = np.cos(turned), np.sin(turned)
    return Grid(SHAPE, spacing, (5.0, -20.0, 30.0), (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))


class Challenge:
    """One case of the challenge: headers that disagree, a mask with other values than 1, labels, landmarks."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(4)
        self.folder = folder
        self.u = np.stack([3 * gaussian_filter(rng.normal(size=SHAPE), 4) * 30 for _ in range(3)]).astype(np.float32)
        noise = gaussian_filter(rng.normal(size=SHAPE), 3)
        self.fixed = np.digitize(noise, np.quantile(noise, [0.4, 0.7, 0.9])).astype(np.uint8)
        noise = noise + 0.3 * noise.std() * gaussian_filter(rng.normal(size=SHAPE), 2) * 10
        self.moving = np.digitize(noise, np.quantile(noise, [0.4, 0.7, 0.9])).astype(np.uint8)
        self.moving[self.moving == 0] = 0
        self.mask = np.zeros(SHAPE, np.uint8)
        self.mask[3:-4, 2:-2, 5:-3] = 1
        self.mask[10:14, 10:14, 10:14] = 2
        self.fixed_points = rng.uniform(4, np.array(SHAPE) - 5, (15, 3)).round(3)
        self.moving_points = (self.fixed_points + rng.normal(size=(15, 3))).round(3)
        image = rng.random(SHAPE).astype(np.float32)
        write_image(folder / "fixed.nii.gz", image, grid(FIXED_MM))
        write_image(folder / "moving.nii.gz", image[::-1].copy(), grid(MOVING_MM, 0.3))
        write_image(folder / "fixed_labels.nii.gz", self.fixed, grid(FIXED_MM))
        write_image(folder / "moving_labels.nii.gz", self.moving, grid(MOVING_MM, 0.3))
        write_image(folder / "mask.nii.gz", self.mask, grid(FIXED_MM))
        for name, points in (("fixed", self.fixed_points), ("moving", self.moving_points)):
            np.savetxt(folder / f"{name}.csv", points, delimiter=",", fmt="%.3f")

    def run(self, displacement: str, *extra: str, mask: bool = True) -> dict[str, Any]:
        folder = self.folder
        given = ["evaluate"]
        for name, file in {
            "fixed": "fixed.nii.gz",
            "moving": "moving.nii.gz",
            "displacement": displacement,
            "fixed-labels": "fixed_labels.nii.gz",
            "moving-labels": "moving_labels.nii.gz",
            "fixed-points": "fixed.csv",
            "moving-points": "moving.csv",
            "out": "results/metrics.json",
            **({"mask": "mask.nii.gz"} if mask else {}),
        }.items():
            given += [f"--{name}", str(folder / file)]
        assert main([*given, *extra]) == 0
        result: dict[str, Any] = json.loads((folder / "results" / "metrics.json").read_text())
        return result

    def expected(self, u: np.ndarray, spacing: tuple[float, ...], mask: np.ndarray | None) -> dict[str, Any]:
        """The official formulas (LEARN2REG.md section 4), from SciPy and the organisers' distance package."""
        u = u.astype(np.float64)
        index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")).astype(np.float64)
        warped = map_coordinates(self.moving, index + u, order=0, mode="constant", cval=0)
        dice, hd95 = {}, {}
        for label in (1, 2, 3):
            a, b = self.fixed == label, warped == label
            dice[str(label)] = 2 * (a & b).sum() / (a.sum() + b.sum())
            distances = surface_distance.compute_surface_distances(a, b, np.ones(3))
            hd95[str(label)] = surface_distance.compute_robust_hausdorff(distances, 95.0)
        at_points = np.stack([map_coordinates(c, self.fixed_points.T) for c in u]).T
        tre = np.linalg.norm((self.fixed_points + at_points - self.moving_points) * np.array(spacing), axis=1)
        kernel = np.array([-0.5, 0.0, 0.5])
        slopes = np.zeros((3, 3, *SHAPE))
        for component in range(3):
            for axis in range(3):
                shape = [1, 1, 1]
                shape[axis] = 3
                slopes[component, axis] = correlate(u[component], kernel.reshape(shape), mode="constant")
        slopes += np.eye(3)[:, :, None, None, None]
        jacobian = np.linalg.det(slopes.transpose(2, 3, 4, 0, 1))[2:-2, 2:-2, 2:-2]
        logs = np.log((jacobian + 3).clip(1e-9, 1e9))
        kept = logs if mask is None else logs[mask[2:-2, 2:-2, 2:-2] == 1]
        return {"dice": dice, "hd95": hd95, "tre_landmarks": dict(enumerate(tre)), "sdlogj": kept.std()}


@pytest.fixture
def challenge(tmp_path: Path) -> Challenge:
    return Challenge(tmp_path)


def assert_official(result: dict[str, Any], expected: dict[str, Any]) -> None:
    for metric in ("dice", "hd95", "tre_landmarks"):
        found = {str(k): v for k, v in result[metric]["values"].items()}
        wanted = {str(k): v for k, v in expected[metric].items()}
        assert found == pytest.approx(wanted, abs=1e-5), metric
        assert result[metric]["mean"] == pytest.approx(np.mean(list(wanted.values())), abs=1e-5), metric
    assert result["sdlogj"]["mean"] == pytest.approx(expected["sdlogj"], abs=1e-5)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ["u.nii.gz", "u.npz"])
def test_learn2reg_numbers(challenge: Challenge, name: str, masked: bool) -> None:
    """Anisotropic headers that differ are ignored but for the moving spacing; mask voxels count if exactly 1."""
    write_learn2reg(challenge.folder / name, challenge.u)
    # The npz holds float16, as the challenge intends, and is known by its name.
    u = challenge.u.astype(np.float16) if name.endswith("npz") else challenge.u
    extra = () if name.endswith("npz") else ("--format", "learn2reg")
    result = challenge.run(name, *extra, mask=masked)
    mask = challenge.mask if masked else None
    assert_official(result["after"]["learn2reg"], challenge.expected(u, MOVING_MM, mask))
    assert_official(result["before"]["learn2reg"], challenge.expected(np.zeros_like(u), MOVING_MM, mask))
    assert result["after"]["learn2reg"]["num_foldings"]["mean"] == 0
    assert result["after"]["learn2reg"]["hd95"]["unit"] == "voxel"


@pytest.mark.parametrize("half", [True, False])
def test_learn2reg_2020_numbers(challenge: Challenge, half: bool) -> None:
    """Half resolution by splines of order 2, and the fixed image's spacing."""
    write_learn2reg_2020(challenge.folder / "u.npz", challenge.u, half=half)
    stored = np.load(challenge.folder / "u.npz")["arr_0"].astype(np.float32)
    assert stored.shape == ((3, 18, 14, 16) if half else (3, *SHAPE))
    u = np.stack([zoom(c, 2, order=2) for c in stored]) if half else stored
    result = challenge.run("u.npz", "--format", "learn2reg-2020")
    assert_official(result["after"]["learn2reg"], challenge.expected(u, FIXED_MM, challenge.mask))


def test_remarks_go_to_stderr(challenge: Challenge, capsys: pytest.CaptureFixture[str]) -> None:
    write_learn2reg(challenge.folder / "u.nii.gz", challenge.u)
    challenge.run("u.nii.gz", "--format", "learn2reg")
    printed = capsys.readouterr()
    assert "is not the grid of" in printed.err
    assert "other than 0 and 1" in printed.err
    assert all(line.startswith("warning: ") for line in printed.err.splitlines())
    assert "dice" in printed.out


@pytest.mark.parametrize("dims", [2, 3])
def test_itk_field_of_register_scores_the_same(tmp_path: Path, dims: int) -> None:
    """The field that `register` wrote, on a moving image of another grid, gives the numbers of `register`."""
    study = Study(tmp_path, dims)
    out = tmp_path / "out"
    arguments = study.arguments(out)
    assert main(arguments) == 0
    scored = tmp_path / "scored.json"
    annotations = arguments[arguments.index("--fixed-labels") :]
    given = ["--fixed", arguments[1], "--moving", arguments[2], *annotations]
    displacement = str(out / "displacement.nii.gz")
    assert main(["evaluate", *given, "--displacement", displacement, "--out", str(scored)]) == 0
    ours, theirs = json.loads(scored.read_text()), json.loads((out / "metrics.json").read_text())
    assert ours["before"] == theirs["before"]
    for profile, metrics in theirs["after"].items():
        for metric, entry in metrics.items():
            # The file holds float32 millimetres: labels of a few voxels on a tie may change.
            assert ours["after"][profile][metric]["mean"] == pytest.approx(entry["mean"], rel=2e-3, abs=1e-5), metric
    assert METHOD in arguments


def test_a_true_field_in_lps_mm_brings_landmarks_together(tmp_path: Path) -> None:
    """Written by hand from the analytic motion, on an oblique moving grid."""
    study = Study(tmp_path, 3)
    geometry = study.fixed_geometry
    world = geometry.to_world(geometry.indices())
    mm = study.motion.pull(world) * np.array([-1.0, -1.0, 1.0])
    vectors = mm.reshape(*geometry.shape, 3).transpose(2, 1, 0, 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(vectors.astype(np.float32)), isVector=True)
    image.CopyInformation(sitk.ReadImage(str(study.files["fixed_image"])))
    sitk.WriteImage(image, str(tmp_path / "u.nii.gz"))
    out = tmp_path / "m.json"
    arguments = study.arguments(tmp_path)
    given = ["--fixed", arguments[1], "--moving", arguments[2], *arguments[arguments.index("--fixed-labels") :]]
    assert main(["evaluate", *given, "--displacement", str(tmp_path / "u.nii.gz"), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["after"]["strict"]["tre_landmarks"]["mean"] < 1e-3
    assert result["before"]["strict"]["tre_landmarks"]["mean"] > 3
    assert result["after"]["strict"]["dice"]["mean"] > 0.85
    assert result["after"]["strict"]["ncc"]["mean"] > 0.99


def test_bad_input_is_one_message_and_no_output(challenge: Challenge, capsys: pytest.CaptureFixture[str]) -> None:
    folder = challenge.folder
    write_displacement(folder / "itk.nii.gz", torch.from_numpy(challenge.u), grid(FIXED_MM))
    np.savez(folder / "first.npz", arr_0=challenge.u)
    np.savez(folder / "double.npz", arr_0=challenge.u)
    out = folder / "m.json"
    given = ["evaluate", "--fixed", str(folder / "fixed.nii.gz"), "--moving", str(folder / "moving.nii.gz")]
    cases = {
        ("missing.nii.gz", ""): "missing.nii.gz: no such",
        ("first.npz", ""): "first.npz",
        ("itk.nii.gz", "learn2reg"): "itk.nii.gz",
        ("double.npz", "learn2reg-2020"): "float16",
        ("fixed.nii.gz", "itk"): "fixed.nii.gz",
    }
    for (name, kind), expected in cases.items():
        format_given = ["--format", kind] if kind else []
        status = main([*given, "--displacement", str(folder / name), *format_given, "--out", str(out)])
        lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("warning: ")]
        assert status == 2
        assert len(lines) == 1
        assert expected in lines[0]
        assert not out.exists()
    assert main([*given, "--displacement", str(folder / "itk.nii.gz"), "--out", str(folder)]) == 2
    assert "a folder" in capsys.readouterr().err

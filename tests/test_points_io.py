"""Landmark files against known places in the world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reg_bench.errors import DataError
from reg_bench.grid import Grid
from reg_bench.points_io import read_points

# 20 x 30 x 40 voxels of 1.5, 0.8, 2.0 mm; the first axis points to the left, the second to the front (RAS).
RAS = np.array([[-1.5, 0, 0, 10], [0, 0.8, 0, -20], [0, 0, 2.0, 5], [0, 0, 0, 1]])
GRID = Grid.from_affine(RAS, (20, 30, 40))
VOXELS = np.array([[0.0, 0.0, 0.0], [3.25, 10.5, 7.0], [19.0, 29.0, 39.0]])
WORLD_RAS = VOXELS @ RAS[:3, :3].T + RAS[:3, 3]
WORLD_LPS = WORLD_RAS * [-1, -1, 1]
PLANE = Grid((20, 30), (1.5, 0.8), (2.0, 3.0), (1.0, 0.0, 0.0, 1.0))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows(points: np.ndarray) -> str:
    return "\n".join(",".join(f"{v:.5f}" for v in p) for p in points) + "\n"


def fcsv(points: np.ndarray, system: str) -> str:
    head = (
        "# Markups fiducial file version = 4.11\n"
        f"# CoordinateSystem = {system}\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    )
    lines = (
        f"vtkMRMLMarkupsFiducialNode_{i},{p[0]:.4f},{p[1]:.4f},{p[2]:.4f},0,0,0,1,1,1,0,F-{i},,\n"
        for i, p in enumerate(points)
    )
    return head + "".join(lines)


def markups(points: np.ndarray, system: str | None, **extra: object) -> str:
    markup: dict[str, object] = {
        "type": "Fiducial",
        "coordinateSystem": system,
        "controlPoints": [
            {"id": str(i), "label": f"F-{i}", "position": list(p), "positionStatus": "defined"}
            for i, p in enumerate(points)
        ],
    }
    if system is None:
        del markup["coordinateSystem"]
    return json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [{**markup, **extra}]})


def test_learn2reg_csv_holds_voxels(tmp_path: Path) -> None:
    points = read_points(write(tmp_path / "a.csv", rows(VOXELS)), GRID)
    assert points.dtype == np.float64
    np.testing.assert_allclose(points, VOXELS)
    # One point only, with spaces, a byte order mark and Windows line ends.
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf3.25, 10.5, 7\r\n\r\n")
    np.testing.assert_allclose(read_points(tmp_path / "b.csv", GRID), VOXELS[1:2])


@pytest.mark.parametrize("header", ["x_mm,y_mm,z_mm", "X_mm, Y_mm, Z_mm"])
def test_csv_in_millimetres_is_lps(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.csv", f"{header}\n{rows(WORLD_LPS)}")
    np.testing.assert_allclose(read_points(path, GRID), VOXELS, atol=1e-4)


@pytest.mark.parametrize(
    ("system", "points"),
    [("0", WORLD_RAS), ("RAS", WORLD_RAS), ("1", WORLD_LPS), ("LPS", WORLD_LPS), ("2", VOXELS), ("IJK", VOXELS)],
)
def test_fcsv_in_its_declared_system(tmp_path: Path, system: str, points: np.ndarray) -> None:
    np.testing.assert_allclose(read_points(write(tmp_path / "a.fcsv", fcsv(points, system)), GRID), VOXELS, atol=1e-3)


def test_fcsv_columns_in_another_order(tmp_path: Path) -> None:
    text = "# CoordinateSystem = LPS\n# columns = label,z,y,x\n" + "".join(f"p,{z},{y},{x}\n" for x, y, z in WORLD_LPS)
    np.testing.assert_allclose(read_points(write(tmp_path / "a.fcsv", text), GRID), VOXELS, atol=1e-6)


@pytest.mark.parametrize(("system", "points"), [("RAS", WORLD_RAS), ("LPS", WORLD_LPS)])
def test_markups_in_their_declared_system(tmp_path: Path, system: str, points: np.ndarray) -> None:
    path = write(tmp_path / "a.mrk.json", markups(points, system, coordinateUnits="mm"))
    np.testing.assert_allclose(read_points(path, GRID), VOXELS, atol=1e-9)


def test_points_of_a_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "4.5,6\n0,0\n")
    np.testing.assert_allclose(read_points(path, PLANE), [[4.5, 6], [0, 0]])
    path = write(tmp_path / "b.csv", "x_mm,y_mm\n8.75,7.8\n")
    np.testing.assert_allclose(read_points(path, PLANE), [[4.5, 6]])
    path = write(tmp_path / "c.mrk.json", markups(np.array([[8.75, 7.8, 0.0], [2, 3, 0]]), "LPS"))
    np.testing.assert_allclose(read_points(path, PLANE), [[4.5, 6], [0, 0]], atol=1e-12)
    path = write(tmp_path / "d.fcsv", fcsv(np.array([[-8.75, -7.8, 0.0], [-2, -3, 0]]), "RAS"))
    np.testing.assert_allclose(read_points(path, PLANE), [[4.5, 6], [0, 0]], atol=1e-4)
    path = write(tmp_path / "e.mrk.json", markups(np.array([[8.75, 7.8, 0.0], [2, 3, 5]]), "LPS"))
    with pytest.raises(DataError, match="3 coordinates in each row, expected 2"):
        read_points(path, PLANE)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "holds no points"),
        ("a.csv", "x_mm,y_mm,z_mm\n", "holds no points"),
        ("a.csv", "x,y,z\n1,2,3\n", r"unknown header 'x,y,z', expected 'x_mm,y_mm,z_mm' \(LPS\) or no header"),
        ("a.csv", "1,2,3\n4,5\n", r"rows of different length \[2, 3\]"),
        ("a.csv", "1,2,3\n4,five,6\n", "point 2 is .*five.*, expected finite numbers"),
        ("a.csv", "1,2,3\n4,nan,6\n", "point 2 is .*nan.*, expected finite numbers"),
        ("a.csv", "1,2\n", "2 coordinates in each row, expected 3"),
        ("a.csv", "1,2,3,4,5,6\n", "six-column landmark file of Learn2Reg 2020"),
        ("a.csv", "1,2,3\n4,5,60\n", r"1 of 2 points lie outside the image, the first is point 2 .*read as voxels"),
        ("a.csv", "x_mm,y_mm,z_mm\n400,2,3\n", r"1 of 1 points lie outside the image.*read as LPS mm"),
        ("a.txt", "1,2,3\n", "unknown format of points"),
        ("a.json", "{}", "unknown format of points"),
        ("a.fcsv", "1,2,3,4\n", "coordinate system None, expected a declared RAS"),
        ("a.fcsv", "# CoordinateSystem = 7\n1,2,3,4\n", "coordinate system '7'"),
        ("a.fcsv", "# CoordinateSystem = LPS\n# columns = id,label\n1,2\n", "expected x, y and z"),
        ("a.fcsv", "# CoordinateSystem = LPS\n1,2,3\n", "point 1 has 3 columns"),
        ("a.mrk.json", '{"markups": [', "unreadable or truncated JSON"),
        ("a.mrk.json", '{"markups": []}', "0 markups, expected one"),
        ("a.mrk.json", markups(WORLD_LPS, None), "coordinate system None"),
        ("a.mrk.json", markups(WORLD_LPS, "LPS", coordinateUnits="um"), "coordinateUnits 'um', expected mm"),
        ("a.mrk.json", markups(WORLD_LPS, "LPS", controlPoints=[]), "holds no points"),
        (
            "a.mrk.json",
            markups(WORLD_LPS, "LPS", controlPoints=[{"position": [0, 0, 0], "positionStatus": "undefined"}]),
            "control point 1 has no defined position",
        ),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(DataError, match=message) as caught:
        read_points(path, GRID)
    assert str(path) in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file of points"):
        read_points(tmp_path / "none.csv", GRID)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="not a readable text file"):
        read_points(tmp_path / "a.csv", GRID)


def test_points_within_the_outer_half_voxel_belong_to_the_image(tmp_path: Path) -> None:
    points = read_points(write(tmp_path / "a.csv", "-0.5,0,0\n19.5,29.5,39.5\n"), GRID)
    assert points[0, 0] == -0.5
    with pytest.raises(DataError, match="outside"):
        read_points(write(tmp_path / "b.csv", "-0.6,0,0\n"), GRID)


def test_points_outside_are_a_note_where_learn2reg_scores_them(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("1,2,3\n40,2,3\n")
    grid = Grid((10, 12, 14), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    with pytest.raises(DataError, match="1 of 2 points lie outside the image"):
        read_points(path, grid)
    notes: list[str] = []
    assert read_points(path, grid, note=notes.append).tolist() == [[1, 2, 3], [40, 2, 3]]
    assert len(notes) == 1


def test_normalised_points_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "-0.5,0.2,1\n0.3,-0.4,0.9\n")
    with pytest.raises(DataError, match=r"all coordinates lie within -1\.\.1; expected voxels of .* normalised\?"):
        read_points(path, GRID)
    # A single point may well lie in the first voxel.
    assert len(read_points(write(tmp_path / "b.csv", "0.3,-0.4,0.9\n"), GRID)) == 1

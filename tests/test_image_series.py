"""Series of volumes: arrays, grid and time against nibabel, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from reg_bench.errors import DataError
from reg_bench.image_series import read_4d, read_4d_header

AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", [20, 30, -10], degrees=True).as_matrix() * (1.5, 1.2, 9)
AFFINE[:3, 3] = (10, -20, 30)


def write(
    path: Path, shape: tuple[int, ...], units: str = "sec", step: float | None = None, dtype: str = "int16"
) -> np.ndarray:
    array = np.random.default_rng(0).integers(0, 500, shape).astype(dtype)
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_xyzt_units("mm", units)
    if step is not None:
        image.header["pixdim"][4] = step
    nib.save(image, path)
    return array


@pytest.mark.parametrize("shape", [(7, 6, 5, 4), (7, 6, 1, 4), (7, 6, 5, 1), (7, 6, 5, 4, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_oblique_series(shape: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"series{suffix}"
    stored = write(path, shape, step=0.03)
    array, grid, seconds = read_4d(path)
    assert array.dtype == np.float32
    assert np.array_equal(array, stored.reshape(shape[:4]))
    assert grid.shape == shape[:3]
    np.testing.assert_allclose(grid.affine_ras(), AFFINE, atol=1e-5)
    assert seconds == pytest.approx(0.03)
    assert read_4d_header(path) == (grid, shape[3], seconds)


@pytest.mark.parametrize(
    ("units", "step", "expected"),
    [("sec", 1.13, 1.13), ("msec", 31.6, 0.0316), ("usec", 500, 0.0005), ("unknown", 31.6, None), ("sec", 0.0, None)],
)
def test_time_has_a_unit_or_is_not_known(units: str, step: float, expected: float | None, tmp_path: Path) -> None:
    write(tmp_path / "series.nii", (7, 6, 5, 4), units, step)
    seconds = read_4d(tmp_path / "series.nii")[2]
    assert seconds == (None if expected is None else pytest.approx(expected))


def test_other_formats_and_scaled_values(tmp_path: Path) -> None:
    stored = write(tmp_path / "series.nii.gz", (7, 6, 5, 4))
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "series.nii.gz")), str(tmp_path / "series.nrrd"))
    array, grid, seconds = read_4d(tmp_path / "series.nrrd")
    assert np.array_equal(array, stored)
    np.testing.assert_allclose(grid.affine_ras(), AFFINE, atol=1e-5)
    assert seconds is None
    scaled = nib.Nifti1Image(stored, AFFINE)
    scaled.header.set_slope_inter(0.5, -3)
    nib.save(scaled, tmp_path / "scaled.nii")
    expected = nib.load(tmp_path / "scaled.nii").get_fdata()
    np.testing.assert_allclose(read_4d(tmp_path / "scaled.nii")[0], expected, rtol=1e-6)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    def complaint(name: str) -> str:
        with pytest.raises(DataError) as error:
            read_4d(tmp_path / name)
        assert name in str(error.value)
        return str(error.value)

    assert "no such file" in complaint("absent.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    assert "this is a folder" in complaint("folder.nii")
    write(tmp_path / "three.nii", (7, 6, 5))
    assert "3 axes, shape (7, 6, 5); expected 4" in complaint("three.nii")
    write(tmp_path / "five.nii", (7, 6, 5, 4, 2))
    assert "expected 4" in complaint("five.nii")
    for name in ("cut.nii", "cut.nii.gz"):
        write(tmp_path / name, (7, 6, 5, 4))
        raw = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(raw[:-100])
        assert "truncated" in complaint(name)
    (tmp_path / "text.nrrd").write_text("no image")
    assert "unreadable" in complaint("text.nrrd")
    array = np.ones((7, 6, 5, 4), np.float32)
    array[1, 2, 3, 0] = np.nan
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "nan.nii")
    assert "1 of 840 voxels are NaN" in complaint("nan.nii")
    nib.save(nib.Nifti1Image(np.full((7, 6, 5, 4), 1e300), AFFINE), tmp_path / "huge.nii")
    assert "infinite" in complaint("huge.nii")


@pytest.mark.data
def test_real_series(data_root: Path) -> None:
    """Echo-planar series of the spinal cord: voxels and affine as nibabel has them, time as its notes say."""
    path = data_root / "spinal_cord_mr" / "fmri.nii.gz"
    array, grid, seconds = read_4d(path)
    image = nib.load(path)
    np.testing.assert_allclose(array, image.get_fdata(), rtol=1e-5)
    np.testing.assert_allclose(grid.affine_ras(), image.affine, atol=1e-3)
    assert seconds == pytest.approx(1.13)

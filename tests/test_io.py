"""Images from files: geometry against nibabel, every bad input by its message, pairs on one grid."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import map_coordinates

from reg_bench import io, nifti
from reg_bench.errors import DataError
from reg_bench.grid import Grid, grids_equal


def rotation(angle: float, axis: int) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    a, b = [i for i in range(3) if i != axis]
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
    return matrix


def affine(matrix: np.ndarray, offset: tuple[float, ...]) -> np.ndarray:
    out = np.eye(len(offset) + 1)
    out[:-1, :-1], out[:-1, -1] = matrix, offset
    return out


# Voxel to RAS mm: identity, flipped, permuted, oblique; anisotropic where it says so.
AFFINES = {
    "plain": affine(np.diag([1.0, 1.0, 1.0]), (0, 0, 0)),
    "anisotropic": affine(np.diag([1.5, 0.8, 2.3]), (10, -20, 30)),
    "flipped": affine(np.diag([-1.5, 0.8, -2.3]), (10, -20, 30)),
    "permuted": affine(np.diag([1.5, 0.8, 2.3])[[2, 0, 1]], (-5, 6, 7)),
    "oblique": affine(rotation(0.4, 2) @ rotation(-0.3, 0) @ np.diag([1.5, 0.8, 2.3]), (11, -7, 3)),
    "oblique left-handed": affine(rotation(0.2, 1) @ np.diag([1.2, -0.8, 1.7]), (1, 2, 3)),
}
SHAPE = (11, 14, 9)


def blob(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A smooth image with structure everywhere, float32."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(0, 1, n) for n in shape], indexing="ij")
    return sum(np.sin(2.5 * g * rng.uniform(1, 2) + rng.uniform(0, 3)) for g in grid).astype(np.float32)


def save(path: Path, array: np.ndarray, ras: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4) if ras is None else ras), path)
    return path


def edit_header(path: Path, change: Callable[[nib.Nifti1Header], None]) -> Path:
    """Changes raw header bytes that nibabel would repair on saving."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(binaryblock=bytes(raw[:348]), check=False)
    change(header)
    raw[:348] = header.binaryblock
    with gzip.open(path, "wb") as file:
        file.write(bytes(raw))
    return path


# -------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("name", AFFINES)
def test_arrays_and_affines_are_those_of_nibabel(tmp_path: Path, name: str) -> None:
    array = blob(SHAPE)
    path = save(tmp_path / "image.nii.gz", array, AFFINES[name])
    loaded = io.read_image(path)
    np.testing.assert_array_equal(loaded.array, array)
    assert loaded.array.flags.c_contiguous
    np.testing.assert_allclose(loaded.grid.affine_ras(), AFFINES[name], atol=1e-5)
    again = Grid.from_affine(AFFINES[name], SHAPE)
    assert grids_equal(loaded.grid, again)
    np.testing.assert_allclose(again.affine_ras(), AFFINES[name], atol=1e-12)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("name", ["flipped", "permuted", "oblique"])
def test_images_survive_writing_and_reading(tmp_path: Path, name: str, suffix: str) -> None:
    array, grid = blob(SHAPE), Grid.from_affine(AFFINES[name], SHAPE)
    path = tmp_path / "new" / f"image{suffix}"
    io.write_image(path, torch.from_numpy(array)[None, None], grid)
    loaded = io.read_image(path)
    np.testing.assert_array_equal(loaded.array, array)
    assert grids_equal(loaded.grid, grid)
    if suffix.startswith(".nii"):
        np.testing.assert_allclose(nib.load(path).affine, AFFINES[name], atol=1e-5)


def test_world_and_voxel_coordinates_are_inverse_and_match_simpleitk() -> None:
    grid = Grid.from_affine(AFFINES["oblique"], SHAPE)
    image = io.to_sitk(blob(SHAPE), grid)
    points = np.array([[0.0, 0.0, 0.0], [3.25, 7.5, 1.75]])
    world = grid.to_world(points)
    expected = [image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in points]
    np.testing.assert_allclose(world, expected, atol=1e-10)
    np.testing.assert_allclose(grid.to_voxels(world), points, atol=1e-12)


def test_grids_differ_by_shape_place_spacing_or_direction_but_not_by_rounding() -> None:
    base = Grid.from_affine(AFFINES["oblique"], SHAPE)
    assert grids_equal(base, Grid.from_affine(AFFINES["oblique"].astype(np.float32), SHAPE))
    assert not grids_equal(base, Grid.from_affine(AFFINES["oblique"], (11, 14, 10)))
    for row, column, change in ((0, 3, 0.1), (1, 1, 0.05), (2, 0, 0.1)):
        other = AFFINES["plain"].copy()
        other[row, column] += change
        if row == 2:
            other[:3, :3] = rotation(change, 1)
        assert not grids_equal(Grid.from_affine(AFFINES["plain"], SHAPE), Grid.from_affine(other, SHAPE))


def test_a_volume_of_one_slice_becomes_a_2d_image(tmp_path: Path) -> None:
    array = blob((7, 9))
    flipped = io.read_image(save(tmp_path / "a.nii.gz", array[..., None], AFFINES["flipped"]))
    np.testing.assert_array_equal(flipped.array, array)
    assert flipped.grid.spacing_mm == pytest.approx((1.5, 0.8))
    np.testing.assert_allclose(flipped.grid.affine_ras(), affine(np.diag([-1.5, 0.8]), (10, -20)), atol=1e-5)
    oblique = io.read_image(save(tmp_path / "b.nii.gz", array[..., None, None], AFFINES["oblique"]))
    assert oblique.array.shape == (7, 9)
    assert oblique.grid.spacing_mm == pytest.approx((1.5, 0.8))


def test_parallel_oblique_slices_keep_their_places(tmp_path: Path) -> None:
    """The second slice starts three voxels further along its first axis."""
    ras = AFFINES["oblique"]
    shifted = ras.copy()
    shifted[:3, 3] += 3 * ras[:3, 0]
    a = io.read_image(save(tmp_path / "a.nii.gz", blob((7, 9))[..., None], ras)).grid
    b = io.read_image(save(tmp_path / "b.nii.gz", blob((7, 9))[..., None], shifted)).grid
    np.testing.assert_allclose(a.to_voxels(b.to_world(np.zeros((1, 2)))), [[3, 0]], atol=1e-5)


def test_a_middle_axis_of_length_one_stays(tmp_path: Path) -> None:
    assert io.read_image(save(tmp_path / "a.nii.gz", blob((7, 1, 9)))).array.shape == (7, 1, 9)


def test_scaled_and_big_endian_nifti(tmp_path: Path) -> None:
    array = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    image = nib.Nifti1Image(array, np.eye(4), header=nib.Nifti1Header(endianness=">"))
    image.header.set_data_dtype(">i2")
    image.header.set_slope_inter(2.0, -3.0)
    path = tmp_path / "scaled.nii.gz"
    nib.save(image, path)
    np.testing.assert_allclose(io.read_image(path).array, nib.load(path).get_fdata(), atol=1e-5)
    np.testing.assert_allclose(io.read_image(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T)


# -------------------------------------------------------------------------------------------------- pictures


def test_pictures_have_x_first_and_no_known_spacing(tmp_path: Path) -> None:
    from PIL import Image

    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)  # 3 rows of 4 pixels
    Image.fromarray(rows).save(tmp_path / "grey.png")
    grey = io.read_image(tmp_path / "grey.png")
    assert grey.array.shape == (4, 3)
    np.testing.assert_array_equal(grey.array, rows.T)
    assert not grey.spacing_known
    colour = np.stack([rows * 10, rows, 255 - rows], axis=-1)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    expected = (0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2]).T
    np.testing.assert_allclose(io.read_image(tmp_path / "colour.png").array, expected, atol=1e-4)
    Image.fromarray(np.dstack([colour, rows])).save(tmp_path / "alpha.png")
    np.testing.assert_allclose(io.read_image(tmp_path / "alpha.png").array, expected, atol=1e-4)
    Image.fromarray(np.dstack([rows] * 3)).save(tmp_path / "labels.png")
    np.testing.assert_array_equal(io.read_image(tmp_path / "labels.png", kind="labels").array, rows.T)
    pair = io.pair_from_files(tmp_path / "grey.png", tmp_path / "colour.png")
    assert pair.fixed_spacing_mm is None
    assert pair.spatial_shape == (4, 3)


# -------------------------------------------------------------------------------------------- labels and masks


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_labels_are_integers_that_torch_knows(tmp_path: Path, dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    loaded = io.read_image(save(tmp_path / "labels.nii.gz", array), kind="labels").array
    assert loaded.dtype.kind in "iu"
    assert loaded.dtype in (np.uint8, np.int16, np.int32)
    np.testing.assert_array_equal(loaded, np.arange(24).reshape(2, 3, 4))
    assert (torch.from_numpy(loaded) + 1).sum() == 300


def test_large_label_values_stay(tmp_path: Path) -> None:
    array = np.array([[[0, 2**40]]], dtype=np.int64)
    image = sitk.GetImageFromArray(array.T)
    sitk.WriteImage(image, str(tmp_path / "labels.nrrd"))
    np.testing.assert_array_equal(io.read_image(tmp_path / "labels.nrrd", kind="labels").array, array)


def test_masks_are_true_where_not_zero(tmp_path: Path) -> None:
    array = np.array([[[0, 255], [1, 0]]], dtype=np.uint8)
    loaded = io.read_image(save(tmp_path / "mask.nii.gz", array), kind="mask").array
    assert loaded.dtype == bool
    np.testing.assert_array_equal(loaded, array > 0)


# -------------------------------------------------------------------------------------------------- bad input


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.nii\.gz: no such file"):
        io.read_image(tmp_path / "none.nii.gz")
    with pytest.raises(DataError, match="expected an image file, this is a folder"):
        io.read_image(tmp_path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd", ".png"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.97])
def test_truncated_files(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"image{suffix}"
    shape = (40, 50) if suffix == ".png" else SHAPE
    array = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    io.write_image(path, array, Grid(shape, (1.0,) * len(shape), (0.0,) * len(shape), tuple(np.eye(len(shape)).flat)))
    assert io.read_image(path).array.shape == shape
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(DataError, match=rf"image\{suffix}: .*(unreadable or truncated|truncated image)"):
        io.read_image(path)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii", "c.mha", "d.png", "e.xyz"):
        (tmp_path / name).write_text("this is not an image, however long the text may be" * 20)
        with pytest.raises(DataError, match=rf"{name}: .*unreadable or truncated"):
            io.read_image(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["image", "labels", "mask"])
def test_nan_and_infinite_voxels(tmp_path: Path, value: float, kind: str) -> None:
    array = blob(SHAPE)
    array[3, 4, 5] = value
    with pytest.raises(DataError, match=r"bad\.nii\.gz: 1 of 1386 voxels are NaN or infinite"):
        io.read_image(save(tmp_path / "bad.nii.gz", array), kind=kind)


def test_constant_image_empty_labels_and_empty_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "flat.nii.gz", np.full(SHAPE, 7, np.int16))
    with pytest.raises(DataError, match=r"flat\.nii\.gz: a constant image, every voxel is 7"):
        io.read_image(path)
    assert io.read_image(path, kind="labels").array.min() == 7
    path = save(tmp_path / "zero.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataError, match=r"zero\.nii\.gz: holds no label"):
        io.read_image(path, kind="labels")
    with pytest.raises(DataError, match=r"zero\.nii\.gz: an empty mask"):
        io.read_image(path, kind="mask")


def test_fractional_labels(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.float32)
    array[0, 0, 0] = 1.5
    with pytest.raises(DataError, match=r"labels must be whole numbers, found 1\.5"):
        io.read_image(save(tmp_path / "soft.nii.gz", array), kind="labels")


def test_zero_spacing_and_singular_affine(tmp_path: Path) -> None:
    path = save(tmp_path / "flat.nii.gz", blob(SHAPE))

    def zero_spacing(header: nib.Nifti1Header) -> None:
        header["pixdim"][2] = 0

    def singular(header: nib.Nifti1Header) -> None:
        header["srow_z"] = header["srow_x"]

    def sheared(header: nib.Nifti1Header) -> None:
        header["srow_x"] = [1, 0.4, 0, 0]

    with pytest.raises(DataError, match=r"flat\.nii\.gz: zero spacing"):
        io.read_image(edit_header(path, zero_spacing))
    save(path, blob(SHAPE))
    with pytest.raises(DataError, match=r"flat\.nii\.gz: singular affine"):
        io.read_image(edit_header(path, singular))
    save(path, blob(SHAPE))
    with pytest.raises(DataError, match=r"flat\.nii\.gz: .*orthonormal"):
        io.read_image(edit_header(path, sheared))
    with pytest.raises(DataError, match="singular affine"):
        Grid.from_affine(np.diag([1.0, 0.0, 1.0, 1.0]), SHAPE)
    with pytest.raises(DataError, match="singular or sheared"):
        Grid.from_affine(affine(np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]), (0, 0, 0)), SHAPE)
    with pytest.raises(DataError, match="spacing"):
        Grid(SHAPE, (1.0, -1.0, 1.0), (0.0,) * 3, tuple(np.eye(3).flat))


def test_wrong_dimensionality(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 axes, shape \(4, 5, 6, 2\); expected a 2-D or 3-D image"):
        io.read_image(save(tmp_path / "time.nii.gz", blob((4, 5, 6, 2))))
    vectors = sitk.GetImageFromArray(np.random.rand(4, 5, 6, 3), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / "vectors.mha"))
    with pytest.raises(DataError, match="3 channels, expected one"):
        io.read_image(tmp_path / "vectors.mha")
    sitk.WriteImage(vectors, str(tmp_path / "vectors.nii.gz"))
    with pytest.raises(DataError, match="a vector image"):
        io.read_image(tmp_path / "vectors.nii.gz")


def test_writing_what_does_not_fit(tmp_path: Path) -> None:
    grid = Grid.from_affine(AFFINES["plain"], SHAPE)
    with pytest.raises(DataError, match=r"shape \(2, 3\), expected \(11, 14, 9\)"):
        io.write_image(tmp_path / "a.nii.gz", np.zeros((2, 3)), grid)
    with pytest.raises(DataError, match=r"a\.xyz: cannot be written"):
        io.write_image(tmp_path / "a.xyz", blob(SHAPE), grid)
    io.write_image(tmp_path / "mask.nii.gz", blob(SHAPE) > 0, grid)
    assert nib.load(tmp_path / "mask.nii.gz").get_data_dtype() == np.uint8


def test_header_of_a_truncated_header(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"\x5c\x01\x00\x00" + b"\x00" * 100)
    with pytest.raises(DataError, match="NIfTI-1 header of 348 bytes"):
        nifti.read_header(tmp_path / "a.nii")


# ------------------------------------------------------------------------------------------------- resampling


@pytest.mark.parametrize("name", ["flipped", "permuted", "oblique", "oblique left-handed"])
def test_resampling_follows_the_headers(name: str) -> None:
    source = Grid.from_affine(AFFINES["anisotropic"], SHAPE)
    # Another orientation around the same centre, so that the two overlap.
    ras = AFFINES[name].copy()
    shape = (10, 9, 12)
    middle = AFFINES["anisotropic"][:3, :3] @ ((np.array(SHAPE) - 1) / 2) + AFFINES["anisotropic"][:3, 3]
    ras[:3, 3] = middle - ras[:3, :3] @ ((np.array(shape) - 1) / 2)
    target = Grid.from_affine(ras, shape)
    image = io.LoadedImage(blob(SHAPE), source, Path("a.nii.gz"))
    out = io.resample_to(image, target)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).reshape(3, -1)
    there = np.linalg.inv(AFFINES["anisotropic"]) @ ras @ np.vstack([index, np.ones(index.shape[1])])
    places, last = there[:3].T, np.array(SHAPE) - 1
    inside = ((places >= 0) & (places <= last)).all(axis=1)
    assert inside.mean() > 0.1
    expected = map_coordinates(image.array.astype(float), there[:3], order=1)
    np.testing.assert_allclose(out.array.reshape(-1)[inside], expected[inside], atol=1e-4)
    far = ((places < -0.6) | (places > last + 0.6)).any(axis=1)
    assert (out.array.reshape(-1)[far] == image.array.min()).all()
    labels = io.LoadedImage((blob(SHAPE) > 0).astype(np.uint8) * 3, source, Path("l.nii.gz"))
    nearest = io.resample_to(labels, target, "nearest").array
    assert nearest.dtype == np.uint8
    assert set(np.unique(nearest)) == {0, 3}
    assert (nearest.reshape(-1)[far] == 0).all()


def test_resampling_to_the_same_grid_changes_nothing() -> None:
    grid = Grid.from_affine(AFFINES["oblique"], SHAPE)
    image = io.LoadedImage(blob(SHAPE), grid, Path("a.nii.gz"))
    assert io.resample_to(image, grid).array is image.array
    with pytest.raises(ValueError, match="mode must be one of"):
        io.resample_to(image, grid, "spline")


# ------------------------------------------------------------------------------------------------------ pairs


def write_points(path: Path, points: np.ndarray) -> Path:
    path.write_text("\n".join(",".join(f"{v:.6f}" for v in p) for p in points) + "\n")
    return path


def test_pair_on_one_grid(tmp_path: Path) -> None:
    ras = AFFINES["oblique"]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, SHAPE).astype(np.uint8)
    files = {
        "fixed": save(tmp_path / "f.nii.gz", blob(SHAPE), ras),
        "moving": save(tmp_path / "m.nii.gz", blob(SHAPE, 1), ras),
        "fixed_labels": save(tmp_path / "fl.nii.gz", labels, ras),
        "moving_labels": save(tmp_path / "ml.nii.gz", labels[::-1], ras),
        "mask": save(tmp_path / "mask.nii.gz", (labels > 1).astype(np.uint8), ras),
        "fixed_points": write_points(tmp_path / "f.csv", np.array([[1.5, 2, 3], [4, 5, 6]])),
        "moving_points": write_points(tmp_path / "m.csv", np.array([[1, 2, 3.25], [4, 5, 6]])),
    }
    pair = io.pair_from_files(**files, problems=(problems := []))
    assert problems == []
    assert pair.case_ids == ("f--m",)
    assert pair.fixed.dtype == torch.float32
    np.testing.assert_array_equal(pair.moving[0, 0].numpy(), blob(SHAPE, 1))
    np.testing.assert_array_equal(pair.moving_labels[0, 0].numpy(), labels[::-1])
    assert pair.mask.dtype == torch.bool
    assert pair.fixed_spacing_mm[0].tolist() == pytest.approx([1.5, 0.8, 2.3])
    np.testing.assert_allclose(pair.fixed_affine[0].numpy(), ras, atol=1e-5)
    assert pair.points["landmarks"].fixed[0].tolist() == [[1.5, 2, 3], [4, 5, 6]]
    np.testing.assert_allclose(pair.points["landmarks"].moving[0].numpy(), [[1, 2, 3.25], [4, 5, 6]], atol=1e-9)
    assert grids_equal(io.grid_of_pair(pair), Grid.from_affine(ras, SHAPE))


def test_pair_of_different_grids_is_unified_on_the_fixed_one(tmp_path: Path) -> None:
    """The moving file is the same scene on a coarser, flipped grid: after unification both agree."""
    fixed_ras = affine(np.diag([1.0, 1.0, 1.0]), (0, 0, 0))
    moving_ras = affine(np.diag([-0.5, 0.5, 0.5]), (19, 0, 0))

    def scene(ras: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).reshape(3, -1)
        x, y, z = (ras @ np.vstack([index, np.ones(index.shape[1])]))[:3]
        return (0.1 * x + 0.3 * y - 0.2 * z).reshape(shape).astype(np.float32)

    save(tmp_path / "f.nii.gz", scene(fixed_ras, (20, 18, 16)), fixed_ras)
    save(tmp_path / "m.nii.gz", scene(moving_ras, (39, 35, 31)), moving_ras)
    labels = (scene(moving_ras, (39, 35, 31)) > 1).astype(np.uint8)
    save(tmp_path / "ml.nii.gz", labels, moving_ras)
    save(tmp_path / "fl.nii.gz", (scene(fixed_ras, (20, 18, 16)) > 1).astype(np.uint8), fixed_ras)
    write_points(tmp_path / "f.csv", np.array([[3, 4, 5.0]]))
    write_points(tmp_path / "m.csv", np.array([[32, 8, 10.0]]))  # the same place: x = 19 - 16 = 3
    arguments = {
        "fixed_labels": tmp_path / "fl.nii.gz",
        "moving_labels": tmp_path / "ml.nii.gz",
        "fixed_points": tmp_path / "f.csv",
        "moving_points": tmp_path / "m.csv",
    }
    pair = io.pair_from_files(tmp_path / "f.nii.gz", tmp_path / "m.nii.gz", **arguments, case_id="one")
    assert pair.case_ids == ("one",)
    torch.testing.assert_close(pair.moving, pair.fixed, atol=1e-4, rtol=0)
    assert (pair.moving_labels != pair.fixed_labels).float().mean() < 0.01
    torch.testing.assert_close(pair.points["landmarks"].moving[0], pair.points["landmarks"].fixed[0], atol=1e-6, rtol=0)
    assert pair.moving_spacing_mm[0].tolist() == [1, 1, 1]
    native = io.pair_from_files(
        tmp_path / "f.nii.gz", tmp_path / "m.nii.gz", **arguments, native=True, problems=(problems := [])
    )
    assert native.moving.shape == (1, 1, 39, 35, 31)
    assert native.moving_spacing_mm[0].tolist() == [0.5, 0.5, 0.5]
    assert native.points["landmarks"].moving[0].tolist() == [[32, 8, 10]]
    assert len(problems) == 1
    assert "m.nii.gz" in problems[0]


def test_headers_of_companions_that_disagree_are_a_warning(tmp_path: Path) -> None:
    save(tmp_path / "f.nii.gz", blob(SHAPE), AFFINES["oblique"])
    save(tmp_path / "m.nii.gz", blob(SHAPE, 1), AFFINES["oblique"])
    save(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), AFFINES["plain"])
    with pytest.warns(
        io.HeaderWarning, match=r"mask\.nii\.gz: the header disagrees with that of its image .*f\.nii\.gz"
    ):
        io.pair_from_files(tmp_path / "f.nii.gz", tmp_path / "m.nii.gz", mask=tmp_path / "mask.nii.gz")


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    fixed = save(tmp_path / "f.nii.gz", blob(SHAPE))
    moving = save(tmp_path / "m.nii.gz", blob(SHAPE, 1))
    small = save(tmp_path / "small.nii.gz", np.ones((4, 5, 6), np.uint8))
    with pytest.raises(DataError, match=r"small\.nii\.gz: shape \(4, 5, 6\), expected \(11, 14, 9\).*f\.nii\.gz"):
        io.pair_from_files(fixed, moving, fixed_labels=small)
    with pytest.raises(DataError, match=r"small\.nii\.gz: shape .*f\.nii\.gz"):
        io.pair_from_files(fixed, moving, mask=small)
    flat = save(tmp_path / "flat.nii.gz", blob((11, 14)))
    with pytest.raises(
        DataError, match=r"flat\.nii\.gz: a 2-D \(11, 14\) image, expected the dimension of .*f\.nii\.gz"
    ):
        io.pair_from_files(fixed, flat)
    far = save(tmp_path / "far.nii.gz", blob(SHAPE), affine(np.eye(3), (500, 0, 0)))
    with pytest.raises(DataError, match=r"far\.nii\.gz: does not overlap with .*f\.nii\.gz"):
        io.pair_from_files(fixed, far)
    one = save(tmp_path / "one.nii.gz", np.ones(SHAPE, np.uint8))
    two = save(tmp_path / "two.nii.gz", np.full(SHAPE, 2, np.uint8))
    with pytest.raises(DataError, match=r"two\.nii\.gz: holds the labels \[2\] and .*one\.nii\.gz the labels \[1\]"):
        io.pair_from_files(fixed, moving, fixed_labels=one, moving_labels=two)


def test_points_that_do_not_belong_together(tmp_path: Path) -> None:
    fixed, moving = save(tmp_path / "f.nii.gz", blob(SHAPE)), save(tmp_path / "m.nii.gz", blob(SHAPE, 1))
    two = write_points(tmp_path / "two.csv", np.array([[1, 2, 3], [4, 5, 6.0]]))
    one = write_points(tmp_path / "one.csv", np.array([[1, 2, 3.0]]))
    with pytest.raises(DataError, match=r"one\.csv: 1 points, expected 2 as in .*two\.csv"):
        io.pair_from_files(fixed, moving, fixed_points=two, moving_points=one)
    with pytest.raises(DataError, match=r"one\.csv: points of one image only"):
        io.pair_from_files(fixed, moving, moving_points=one)


def test_grid_of_a_pair_without_affine() -> None:
    from reg_bench.types import RegistrationPair

    image = torch.rand(1, 1, 5, 6)
    pair = RegistrationPair(("a",), image, image, fixed_spacing_mm=torch.tensor([[2.0, 3.0]]))
    assert io.grid_of_pair(pair).spacing_mm == (2.0, 3.0)
    assert io.grid_of_pair(RegistrationPair(("a",), image, image)).spacing_mm == (1.0, 1.0)
    batch = image.expand(2, -1, -1, -1)
    with pytest.raises(ValueError, match="batch of one"):
        io.grid_of_pair(RegistrationPair(("a", "b"), batch, batch))

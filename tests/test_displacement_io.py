"""Fields in files: SimpleITK must warp with them as we do, and the challenge's rules must be met."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import zoom
from torch import Tensor

from reg_bench import field, io
from reg_bench.displacement_io import (
    DisplacementWarning,
    read_displacement,
    write_displacement,
    write_learn2reg,
    write_learn2reg_2020,
)
from reg_bench.errors import DataError
from reg_bench.grid import Grid
from reg_bench.types import DisplacementField


def rotation(angle: float, axis: int) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    a, b = [i for i in range(3) if i != axis]
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
    return matrix


SPACING = np.diag([1.5, 0.8, 2.3])
# Directions (RAS) of the axes with their spacing: every kind of header that an exported field must survive.
HEADERS_3D = {
    "plain": np.eye(3),
    "anisotropic": SPACING,
    "flipped": np.diag([-1.0, 1.0, -1.0]) @ SPACING,
    "permuted": np.eye(3)[[2, 0, 1]] @ SPACING,
    "oblique": rotation(0.4, 2) @ rotation(-0.3, 0) @ SPACING,
    "oblique, left-handed": rotation(0.2, 1) @ np.diag([1.0, -1.0, 1.0]) @ SPACING,
}
HEADERS_2D = {
    "plain": np.eye(2),
    "flipped": np.diag([-1.5, 0.8]),
    "permuted": np.array([[0.0, 0.8], [1.5, 0.0]]),
    "oblique": rotation(0.4, 2)[:2, :2] @ np.diag([1.5, 0.8]),
}
SHAPE_3D, SHAPE_2D = (14, 20, 11), (24, 17)


def grid_of(matrix: np.ndarray, shape: tuple[int, ...], centre: float = 5.0) -> Grid:
    """A grid with the given axes around the world point (centre, centre, ...)."""
    dims = len(shape)
    ras = np.eye(dims + 1)
    ras[:-1, :-1] = matrix
    ras[:-1, -1] = centre - matrix @ ((np.array(shape) - 1) / 2)
    return Grid.from_affine(ras, shape)


def smooth_field(shape: tuple[int, ...], amplitude: float = 1.5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return field.resize_image(torch.randn(1, len(shape), *(4,) * len(shape), generator=generator), shape) * amplitude


def scene(grid: Grid, frequency: float = 0.25) -> np.ndarray:
    """A smooth function of the world, sampled on a grid."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    world = grid.to_world(index.reshape(-1, grid.dimension).astype(float))
    value = sum(np.sin(frequency * w * (1 + 0.3 * i) + i) for i, w in enumerate(world.T))
    return np.asarray(value).reshape(grid.shape).astype(np.float32)


def warp_by_simpleitk(moving: Path, displacement: Path, grid: Grid) -> np.ndarray:
    """What any user of ITK does with the exported file; NaN outside the moving image."""
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(displacement), sitk.sitkVectorFloat64))
    reference = io.to_sitk(np.zeros(grid.shape, np.float32), grid)
    out = sitk.Resample(sitk.ReadImage(str(moving)), reference, transform, sitk.sitkLinear, float("nan"))
    return sitk.GetArrayFromImage(out).T


CASES = [(HEADERS_3D[k], SHAPE_3D) for k in HEADERS_3D] + [(HEADERS_2D[k], SHAPE_2D) for k in HEADERS_2D]
IDS = [f"3-D {k}" for k in HEADERS_3D] + [f"2-D {k}" for k in HEADERS_2D]


# -------------------------------------------------------------------------------------------------------- itk


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize(("matrix", "shape"), CASES, ids=IDS)
def test_simpleitk_warps_as_we_do(tmp_path: Path, matrix: np.ndarray, shape: tuple[int, ...], suffix: str) -> None:
    grid, u = grid_of(matrix, shape), smooth_field(shape)
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    io.write_image(tmp_path / "moving.nii.gz", image, grid)
    path = tmp_path / f"displacement{suffix}"
    write_displacement(path, u, grid)
    theirs = warp_by_simpleitk(tmp_path / "moving.nii.gz", path, grid)
    ours = field.warp(torch.from_numpy(image)[None, None], u)[0, 0].numpy()
    inside = np.isfinite(theirs)
    assert inside.mean() > 0.6
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=2e-4)
    # And reading it back gives the same field, also on the grid as another file's header has it.
    own = io.read_image(tmp_path / "moving.nii.gz").grid
    torch.testing.assert_close(read_displacement(path, fixed_grid=own), u, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", HEADERS_3D)
def test_the_exported_field_works_on_a_moving_file_with_another_grid(tmp_path: Path, name: str) -> None:
    """Ours warps the moving image resampled onto the fixed grid; SimpleITK warps the original file."""
    grid = grid_of(HEADERS_3D["oblique"], SHAPE_3D)
    moving_grid = grid_of(HEADERS_3D[name] * 0.4, (75, 80, 70), centre=6.0)
    io.write_image(tmp_path / "fixed.nii.gz", scene(grid), grid)
    io.write_image(tmp_path / "moving.nii.gz", scene(moving_grid, 0.1), moving_grid)
    pair = io.pair_from_files(tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz")
    u = smooth_field(SHAPE_3D, 1.0)
    write_displacement(tmp_path / "u.nii.gz", DisplacementField.for_pair(u, pair))
    theirs = warp_by_simpleitk(tmp_path / "moving.nii.gz", tmp_path / "u.nii.gz", grid)
    ours = field.warp(pair.moving, u)[0, 0].numpy()
    # Where the moving file covers neither the voxel nor its neighbours, the unified image holds the background.
    there = (field.identity_grid(SHAPE_3D) + u[0]).reshape(3, -1).T.double().numpy()
    around = np.stack([there + np.array(o) for o in itertools.product((-1, 1), repeat=3)])
    index = moving_grid.to_voxels(grid.to_world(around.reshape(-1, 3))).reshape(8, -1, 3)
    covered = ((index > 0) & (index < np.array(moving_grid.shape) - 1)).all(axis=(0, 2)).reshape(SHAPE_3D)
    covered &= ((there >= 0) & (there <= np.array(SHAPE_3D) - 1)).all(axis=1).reshape(SHAPE_3D)
    assert covered.mean() > 0.25
    np.testing.assert_allclose(ours[covered], theirs[covered], atol=0.03)
    assert np.std(theirs[covered]) > 0.3


@pytest.mark.parametrize(
    ("shape", "expected"), [(SHAPE_3D, (14, 20, 11, 1, 3)), (SHAPE_2D, (24, 17, 1, 1, 2))], ids=["3-D", "2-D"]
)
def test_shape_intent_and_values_as_nibabel_sees_them(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    dims = len(shape)
    grid = grid_of(np.diag([1.5, 0.8, 2.3][:dims]), shape)
    u = torch.zeros(1, dims, *shape)
    u[:, 0], u[:, 1] = 2.0, -3.0
    write_displacement(tmp_path / "u.nii.gz", u, grid)
    file = nib.load(tmp_path / "u.nii.gz")
    assert file.shape == expected
    assert file.header["intent_code"] == 1007
    # RAS axes: +2 voxels of 1.5 mm to the right are -3 mm in LPS; -3 voxels of 0.8 mm to the front are +2.4 mm.
    np.testing.assert_allclose(file.get_fdata()[(0,) * 4], [-3.0, 2.4, 0.0][:dims], atol=1e-6)
    np.testing.assert_allclose(file.affine[:dims, :dims], grid.affine_ras()[:dims, :dims], atol=1e-6)


def test_fields_written_by_simpleitk_are_read(tmp_path: Path) -> None:
    """An affine transform turned into a field by SimpleITK: the voxel field follows from its matrix."""
    grid = grid_of(HEADERS_3D["oblique"], SHAPE_3D)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((1.02, 0.05, 0.0, -0.03, 0.98, 0.02, 0.01, 0.0, 1.01))
    transform.SetTranslation((1.0, -2.0, 3.0))
    filter_ = sitk.TransformToDisplacementFieldFilter()
    filter_.SetReferenceImage(io.to_sitk(np.zeros(SHAPE_3D, np.float32), grid))
    for name, pixel in (("a.nii.gz", sitk.sitkVectorFloat64), ("b.mha", sitk.sitkVectorFloat32)):
        filter_.SetOutputPixelType(pixel)
        sitk.WriteImage(filter_.Execute(transform), str(tmp_path / name))
        u = read_displacement(tmp_path / name, fixed_grid=grid)
        x = np.array([[3.0, 4.0, 5.0]])
        moved = np.array([transform.TransformPoint(grid.to_world(x)[0].tolist())])
        np.testing.assert_allclose(u[0, :, 3, 4, 5].numpy(), (grid.to_voxels(moved) - x)[0], atol=1e-5)


def test_slice_fields_of_three_components(tmp_path: Path) -> None:
    """Tools that know only three dimensions write (X, Y, 1, 1, 3) for a slice."""
    values = np.zeros((*SHAPE_2D, 1, 1, 3), np.float32)
    values[..., 0], values[..., 1] = 3.0, -1.6
    image = nib.Nifti1Image(values, np.diag([1.5, 0.8, 1, 1]))
    image.header.set_intent(1007)
    nib.save(image, tmp_path / "u.nii.gz")
    grid = Grid(SHAPE_2D, (1.5, 0.8), (0.0, 0.0), (-1.0, 0.0, 0.0, -1.0))
    u = read_displacement(tmp_path / "u.nii.gz", fixed_grid=grid)
    np.testing.assert_allclose(u[0, :, 0, 0].numpy(), [-2.0, 2.0], atol=1e-6)
    values[..., 2] = 1.0
    image = nib.Nifti1Image(values, np.diag([1.5, 0.8, 1, 1]))
    image.header.set_intent(1007)
    nib.save(image, tmp_path / "u.nii.gz")
    with pytest.raises(DataError, match="3 components"):
        read_displacement(tmp_path / "u.nii.gz", fixed_grid=grid)


def test_writing_needs_one_finite_field_and_its_grid(tmp_path: Path) -> None:
    grid, path = grid_of(np.eye(3), SHAPE_3D), tmp_path / "u.nii.gz"
    u = smooth_field(SHAPE_3D)
    with pytest.raises(DataError, match="the fixed grid is unknown"):
        write_displacement(path, u)
    with pytest.raises(DataError, match="the fixed grid is unknown"):
        write_displacement(path, DisplacementField(u))
    with pytest.raises(DataError, match=r"shape \(14, 20, 11\), expected the fixed grid's \(9, 9, 9\)"):
        write_displacement(path, u, grid_of(np.eye(3), (9, 9, 9)))
    with pytest.raises(DataError, match=r"expected one field .* got shape \(2, 3, 14, 20, 11\)"):
        write_displacement(path, torch.cat((u, u)), grid)
    u[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="1 NaN or infinite"):
        write_displacement(path, u, grid)
    assert not path.exists()


# ------------------------------------------------------------------------------------------ bad files, format itk


def vector_file(path: Path, values: np.ndarray, ras: np.ndarray | None = None, intent: int = 1007) -> Path:
    image = nib.Nifti1Image(values, np.eye(4) if ras is None else ras)
    image.header.set_intent(intent)
    nib.save(image, path)
    return path


GRID = grid_of(np.eye(3), SHAPE_3D)


def read(path: Path, **options: object) -> Tensor:
    return read_displacement(path, fixed_grid=GRID, **options)  # type: ignore[arg-type]


def itk_values(shape: tuple[int, ...] = (*SHAPE_3D, 1, 3)) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)


def test_missing_and_truncated_fields(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.nii\.gz: no such displacement field"):
        read(tmp_path / "none.nii.gz")
    write_displacement(tmp_path / "u.nii.gz", smooth_field(SHAPE_3D), GRID)
    raw = (tmp_path / "u.nii.gz").read_bytes()
    (tmp_path / "u.nii.gz").write_bytes(raw[: len(raw) // 2])
    for format_ in ("itk", "learn2reg"):
        with pytest.raises(DataError, match="truncated"):
            read(tmp_path / "u.nii.gz", format=format_)
    write_displacement(tmp_path / "u.mha", smooth_field(SHAPE_3D), GRID)
    raw = (tmp_path / "u.mha").read_bytes()
    (tmp_path / "u.mha").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="truncated"):
        read(tmp_path / "u.mha")


def test_another_intent_or_layout_is_named(tmp_path: Path) -> None:
    path = tmp_path / "u.nii.gz"
    for intent in (0, 1006):
        with pytest.raises(DataError, match=rf"intent code {intent} and shape .* expected intent 1007"):
            read(vector_file(path, itk_values(), intent=intent))
    with pytest.raises(DataError, match="it may be a Learn2Reg field: format learn2reg"):
        read(vector_file(path, itk_values((*SHAPE_3D, 3)), intent=0))
    with pytest.raises(DataError, match="components come first"):
        read(vector_file(path, itk_values((3, *SHAPE_3D)), intent=0))
    with pytest.raises(DataError, match="components come first"):
        read(vector_file(path, itk_values((3, *SHAPE_3D))))
    with pytest.raises(DataError, match="2 components"):
        read(vector_file(path, itk_values((*SHAPE_3D, 1, 2))))
    with pytest.raises(DataError, match="floating point"):
        read(vector_file(path, itk_values().astype(np.int16)))
    sitk.WriteImage(sitk.GetImageFromArray(itk_values(SHAPE_3D)), str(tmp_path / "scalar.mha"))
    with pytest.raises(DataError, match="scalar image"):
        read(tmp_path / "scalar.mha")


def test_a_grid_that_is_not_the_fixed_one_is_an_error_that_names_both(tmp_path: Path) -> None:
    path = tmp_path / "u.nii.gz"
    for other in (grid_of(np.eye(3) * 1.2, SHAPE_3D), grid_of(np.eye(3), SHAPE_3D, centre=6.0)):
        write_displacement(path, smooth_field(SHAPE_3D), other)
        with pytest.raises(
            DataError, match=r"grid differs from the fixed image's\. Field: shape .*; fixed image: shape"
        ):
            read(path)
    write_displacement(path, smooth_field((20, 14, 11)), grid_of(np.eye(3), (20, 14, 11)))
    with pytest.raises(DataError, match=r"Field: shape \(20, 14, 11\).*fixed image: shape \(14, 20, 11\)"):
        read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fields_with_nan_or_infinity(tmp_path: Path, value: float) -> None:
    values = itk_values()
    values[1, 2, 3, 0, 1] = value
    ras = GRID.affine_ras()
    with pytest.raises(DataError, match=r"1 NaN or infinite values"):
        read(vector_file(tmp_path / "u.nii.gz", values, ras))
    with pytest.raises(DataError, match=r"1 NaN or infinite values"):
        read(vector_file(tmp_path / "v.nii.gz", values[:, :, :, 0], intent=0), format="learn2reg")


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    path = vector_file(tmp_path / "u.nii.gz", itk_values())
    with pytest.raises(DataError, match="unknown format 'fsl', expected one of itk, learn2reg, learn2reg-2020"):
        read(path, format="fsl")


# -------------------------------------------------------------------------------------------------- Learn2Reg


@pytest.mark.parametrize("suffix", [".nii.gz", ".npz"])
def test_learn2reg_files_hold_voxels_with_the_component_last(tmp_path: Path, suffix: str) -> None:
    u = smooth_field(SHAPE_3D, 3.0)
    path = tmp_path / f"disp_0001_0002{suffix}"
    write_learn2reg(path, u)
    stored = nib.load(path).get_fdata() if suffix == ".nii.gz" else np.load(path)["arr_0"]
    assert stored.shape == (*SHAPE_3D, 3)
    exact = 1e-6 if suffix == ".nii.gz" else 0.01
    np.testing.assert_allclose(np.moveaxis(stored, -1, 0), u[0].numpy(), atol=exact)
    if suffix == ".npz":
        assert stored.dtype == np.float16
    # The header is ignored: any fixed grid of that shape will do.
    for name in ("plain", "oblique"):
        grid = grid_of(HEADERS_3D[name], SHAPE_3D)
        out = read_displacement(path, format="learn2reg", fixed_grid=grid)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, u, atol=exact, rtol=0)


def test_learn2reg_fields_of_others(tmp_path: Path) -> None:
    """float64 with a header that ITK would refuse, and npz under another key: the official script takes both."""
    values = itk_values((*SHAPE_3D, 3)).astype(np.float64)
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    out = read(vector_file(tmp_path / "a.nii.gz", values, sheared, intent=0), format="learn2reg")
    np.testing.assert_allclose(out[0].movedim(0, -1).numpy(), values, atol=1e-6)
    np.savez(tmp_path / "b.npz", field=values)
    np.testing.assert_allclose(
        read(tmp_path / "b.npz", format="learn2reg")[0].movedim(0, -1).numpy(), values, atol=1e-6
    )


@pytest.mark.parametrize("n", [10, 13])
def test_learn2reg_2020_is_half_resolution_in_voxels_of_the_full_grid(tmp_path: Path, n: int) -> None:
    shape = (n, 16, 20)
    grid = grid_of(np.eye(3), shape)
    u = torch.stack([3 + torch.cos(3 * x / 20 + i) for i, x in enumerate(field.identity_grid(shape))])[None]
    path = tmp_path / "disp.npz"
    write_learn2reg_2020(path, u)
    stored = np.load(path)["arr_0"]
    assert stored.dtype == np.float16
    assert stored.shape == (3, round(n / 2), 8, 10)
    out = read_displacement(path, format="learn2reg-2020", fixed_grid=grid)
    factors = np.array(shape) / np.array(stored.shape[1:])
    expected = np.stack([zoom(c.astype(np.float32), factors, order=2) for c in stored])
    np.testing.assert_array_equal(out[0].numpy(), expected)
    assert (out - u).abs().max() < 0.1  # what half a grid can hold; values are 2 to 4 voxels, a wrong unit would show
    write_learn2reg_2020(path, u, half=False)
    torch.testing.assert_close(read_displacement(path, format="learn2reg-2020", fixed_grid=grid), u, atol=0.01, rtol=0)


def test_bad_learn2reg_files_are_named(tmp_path: Path) -> None:
    npz, nii = tmp_path / "u.npz", tmp_path / "u.nii.gz"

    def stored(array: np.ndarray) -> Path:
        np.savez(npz, arr_0=array)
        return npz

    with pytest.raises(DataError, match=r"shape \(3, 14, 20, 11\), expected \(14, 20, 11, 3\).*components come first"):
        read(stored(itk_values((3, *SHAPE_3D))), format="learn2reg")
    with pytest.raises(DataError, match=r"another order"):
        read(stored(itk_values((20, 14, 11, 3))), format="learn2reg")
    with pytest.raises(DataError, match=r"expected \(14, 20, 11, 3\)"):
        read(stored(itk_values((7, 10, 6, 3))), format="learn2reg")
    with pytest.raises(DataError, match="values of type int64, expected floating point"):
        read(stored(itk_values((*SHAPE_3D, 3)).astype(np.int64)), format="learn2reg")
    with pytest.raises(DataError, match=r"is the format itk \(mm\)"):
        read(vector_file(nii, itk_values()), format="learn2reg")
    with pytest.raises(DataError, match="expected float16"):
        read(stored(itk_values((3, 7, 10, 6))), format="learn2reg-2020")
    with pytest.raises(DataError, match=r"expected \(3, 7, 10, 6\) \(half\).*must come first"):
        read(stored(itk_values((7, 10, 6, 3)).astype(np.float16)), format="learn2reg-2020")
    with pytest.raises(DataError, match=r"expected \.npz"):
        read(vector_file(nii, itk_values()), format="learn2reg-2020")
    with pytest.raises(DataError, match=r"expected \.nii\.gz or \.npz"):
        read(stored(itk_values()).rename(tmp_path / "u.xyz"), format="learn2reg")
    np.savez(npz, a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(DataError, match=r"holds the arrays \['a', 'b'\], expected one"):
        read(npz, format="learn2reg")
    npz.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match="unreadable or truncated npz"):
        read(npz, format="learn2reg")
    with pytest.raises(DataError, match="do not fit into float16"):
        write_learn2reg(npz, torch.full((1, 3, 4, 4, 4), 1e5))
    with pytest.raises(DataError, match=r"ending in \.nii\.gz or \.npz"):
        write_learn2reg(tmp_path / "u.mha", smooth_field(SHAPE_3D))
    with pytest.raises(DataError, match=r"ending in \.npz"):
        write_learn2reg_2020(nii, smooth_field(SHAPE_3D))


# ---------------------------------------------------------------------------------------------- plausibility

LARGE = (40, 48)


def learn2reg_file(path: Path, u: Tensor) -> Path:
    write_learn2reg(path, u)
    return path


@pytest.mark.parametrize("format_", ["itk", "learn2reg"])
def test_normalised_coordinates_are_suspected(tmp_path: Path, format_: str) -> None:
    grid = grid_of(np.eye(2), LARGE)
    u = smooth_field(LARGE)
    u *= 0.2 / u.abs().max()
    path = tmp_path / "u.nii.gz"
    if format_ == "itk":
        write_displacement(path, u, grid)
    else:
        write_learn2reg(path, u)
    with pytest.warns(DisplacementWarning, match=r"u\.nii\.gz: no value exceeds 0\.2 .* normalised coordinates"):
        read_displacement(path, format=format_, fixed_grid=grid)  # type: ignore[arg-type]


def test_positions_instead_of_displacements_are_suspected(tmp_path: Path) -> None:
    grid = grid_of(np.eye(2), LARGE)
    positions = field.identity_grid(LARGE)[None] + smooth_field(LARGE)
    normalised = positions / (torch.tensor(LARGE).reshape(1, 2, 1, 1) - 1) * 2 - 1
    for values in (positions, normalised):
        path = learn2reg_file(tmp_path / "u.nii.gz", values)
        with pytest.warns(DisplacementWarning, match="as positions or a normalised sampling grid do"):
            read_displacement(path, format="learn2reg", fixed_grid=grid)


def test_displacements_longer_than_the_image_are_suspected(tmp_path: Path) -> None:
    path = learn2reg_file(tmp_path / "u.nii.gz", smooth_field(LARGE) * 0 + 60.0)
    with pytest.warns(DisplacementWarning, match="100% of the displacements are longer than the image"):
        read_displacement(path, format="learn2reg", fixed_grid=grid_of(np.eye(2), LARGE))


@pytest.mark.filterwarnings("error")
def test_ordinary_fields_raise_no_suspicion(tmp_path: Path) -> None:
    grid = grid_of(np.eye(2), LARGE)
    rotated = field.identity_grid(LARGE)[None] - 20.0
    rotated = torch.stack((rotated[:, 1] * 0.2, rotated[:, 0] * -0.2), dim=1)
    for u in (smooth_field(LARGE, 2.0), torch.zeros(1, 2, *LARGE), rotated, rotated.flip(1) * 0.5):
        path = learn2reg_file(tmp_path / "u.nii.gz", u)
        read_displacement(path, format="learn2reg", fixed_grid=grid)
    small = smooth_field(SHAPE_2D, 0.1)
    read_displacement(
        learn2reg_file(tmp_path / "v.nii.gz", small), format="learn2reg", fixed_grid=grid_of(np.eye(2), SHAPE_2D)
    )

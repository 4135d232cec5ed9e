"""Pairs from a CSV: what loads, and every fault named with its line and file before work begins."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from datamodules.pairs import Pairs
from reg_bench.errors import DataError
from reg_bench.image_io import read_grid, read_image
from reg_bench.nifti import read_header

SIZE = (9, 8, 7)


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] | None = None) -> Path:
    """An array in x, y, z order as an image file."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing or (1.0, 1.5, 2.0)[: array.ndim])
    sitk.WriteImage(image, str(path))
    return path


def image(seed: int = 0, shape: tuple[int, ...] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, shape).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images with labels, points and a mask."""
    (tmp_path / "images").mkdir()
    write(tmp_path / "images" / "a.nii.gz", image(0))
    write(tmp_path / "images" / "b.nii.gz", image(1))
    labels = np.zeros(SIZE, np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    write(tmp_path / "a_labels.nii.gz", labels)
    write(tmp_path / "b_labels.nii.gz", np.roll(labels, 1, 0))
    write(tmp_path / "mask.nii.gz", labels)
    (tmp_path / "a.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "b.csv").write_text("2,2,3\n5,5,6\n")
    return tmp_path


def table(folder: Path, text: str) -> Pairs:
    (folder / "pairs.csv").write_text(text)
    return Pairs(str(folder / "pairs.csv"))


FULL = (
    "fixed,moving,fixed_labels,moving_labels,fixed_points,moving_points,mask,case_id\n"
    "images/a.nii.gz,images/b.nii.gz,a_labels.nii.gz,b_labels.nii.gz,a.csv,b.csv,mask.nii.gz,one\n"
)


def fault(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as error:
        table(folder, text).records("test")
    return str(error.value)


def test_full_row(folder: Path) -> None:
    module = table(folder, FULL)
    assert module.case_ids("test") == ["one"]
    pair = module.case("one")
    assert np.array_equal(pair.fixed[0, 0].numpy(), image(0))
    assert np.array_equal(pair.moving[0, 0].numpy(), image(1))
    assert type(pair.fixed) is torch.Tensor
    assert pair.fixed_labels is not None
    assert pair.moving_labels is not None
    assert torch.equal(pair.fixed_labels.roll(1, 2), pair.moving_labels)
    assert pair.mask is not None
    assert torch.equal(pair.mask, pair.fixed_labels > 0)
    assert pair.points is not None
    assert pair.points["landmarks"].fixed[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    torch.testing.assert_close(
        pair.points["landmarks"].moving[0].double(), torch.tensor([[2.0, 2, 3], [5, 5, 6]]).double()
    )
    assert pair.fixed_spacing_mm is not None
    torch.testing.assert_close(pair.fixed_spacing_mm.double(), torch.tensor([[1.0, 1.5, 2.0]]).double())


def test_only_fixed_and_moving_are_needed_in_any_order_with_any_extra_columns_empty(folder: Path) -> None:
    module = table(folder, "mask, moving ,fixed\n, images/b.nii.gz,images/a.nii.gz\n")
    assert module.case_ids("test") == ["a--b"]
    assert np.array_equal(module.case("a--b").fixed[0, 0].numpy(), image(0))


def test_splits(folder: Path) -> None:
    rows = "".join(f"images/a.nii.gz,images/b.nii.gz,c{i},{s}\n" for i, s in enumerate(("train", "val", "", "test")))
    module = table(folder, "fixed,moving,case_id,split\n" + rows)
    assert [module.case_ids(s) for s in ("train", "val", "test")] == [["c0"], ["c1"], ["c2", "c3"]]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="split 'train' is empty"):
        table(folder, FULL).case_ids("train")


def test_moving_image_of_another_grid_is_resampled_by_the_headers(folder: Path) -> None:
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (20, 16, 14)).copy()
    write(folder / "fine.nii.gz", ramp, spacing=(0.5, 0.75, 1.0))
    pair = table(folder, "fixed,moving\nimages/a.nii.gz,fine.nii.gz\n").case("a--fine")
    assert pair.moving.shape == pair.fixed.shape
    # One voxel of 1 mm is two of 0.5 mm.
    torch.testing.assert_close(pair.moving[0, 0, :, 3, 3], torch.arange(9.0) * 2)
    native = Pairs(str(folder / "pairs.csv"), native=True).case("a--fine")
    assert native.moving.shape[2:] == (20, 16, 14)


def test_percentile_scales_both_images(folder: Path) -> None:
    (folder / "pairs.csv").write_text(FULL)
    pair = Pairs("pairs.csv", root=folder, percentile=99.5).case("one")
    for scaled, raw in ((pair.fixed, image(0)), (pair.moving, image(1))):
        assert type(scaled) is torch.Tensor
        low, high = raw.min(), np.percentile(raw, 99.5)
        np.testing.assert_allclose(scaled[0, 0].numpy(), np.clip((raw - low) / (high - low), 0, 1), atol=1e-4)
    with pytest.raises(DataError, match=r"percentile must lie in 0\.\.100, got 995"):
        Pairs("pairs.csv", percentile=995)


def test_pictures_have_no_spacing(folder: Path) -> None:
    for seed, name in enumerate(("p.png", "q.png")):
        write(folder / name, image(seed, (12, 10)).astype(np.uint8))
    pair = table(folder, "fixed,moving\np.png,q.png\n").case("p--q")
    assert pair.fixed_spacing_mm is None
    assert pair.spatial_shape == (12, 10)
    assert np.array_equal(pair.fixed[0, 0].numpy(), image(0, (12, 10)).astype(np.uint8))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cached(cache: Any, folder: Path) -> None:
    (folder / "pairs.csv").write_text(FULL)
    module = Pairs(str(folder / "pairs.csv"), cache=cache, cache_dir=str(folder / "cache"))
    for _ in range(2):
        pair = next(iter(module.test_dataloader()))
        assert np.array_equal(pair.fixed[0, 0].numpy(), image(0))
        assert pair.points["landmarks"].fixed[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    # The same name with another content is another case.
    write(folder / "images" / "a.nii.gz", image(5))
    fresh = Pairs(str(folder / "pairs.csv"), cache=cache, cache_dir=str(folder / "cache"))
    assert np.array_equal(next(iter(fresh.test_dataloader())).fixed[0, 0].numpy(), image(5))


def test_checksum_follows_the_files_not_the_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = table(folder, FULL).checksum()
    other = tmp_path_factory.mktemp("other") / "moved"
    folder.rename(other)
    assert Pairs(str(other / "pairs.csv")).checksum() == first
    write(other / "images" / "a.nii.gz", image(0, (9, 8, 20)))
    write(other / "a_labels.nii.gz", np.ones((9, 8, 20), np.uint8))
    write(other / "mask.nii.gz", np.ones((9, 8, 20), np.uint8))
    assert Pairs(str(other / "pairs.csv")).checksum() != first


# Faults of the table itself.


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: no such table of pairs"):
        Pairs(str(tmp_path / "absent.csv")).records("test")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no column 'fixed' in the first line; expected fixed,moving"),
        ("fixed,case_id\na,b\n", "no column 'moving'"),
        ("fixed,moving,fixed_label\na,b,c\n", "unknown column 'fixed_label'; did you mean 'fixed_labels'?"),
        ("fixed,moving,age\na,b,c\n", "unknown column 'age'; known are fixed, moving"),
        ("fixed,moving,moving\na,b,c\n", "column 'moving' stands twice"),
        ("fixed,moving\n", "holds no pairs, only a header"),
    ],
)
def test_bad_columns(text: str, expected: str, folder: Path) -> None:
    message = fault(folder, text)
    assert "pairs.csv" in message
    assert expected in message


def test_more_cells_than_columns(folder: Path) -> None:
    assert "line 2: more cells than columns: 'x,y'" in fault(
        folder, "fixed,moving\nimages/a.nii.gz,images/b.nii.gz,x,y\n"
    )


def test_table_that_is_no_text(folder: Path) -> None:
    (folder / "pairs.csv").write_bytes(b"\xff\xfe\x00\x81" * 50)
    with pytest.raises(DataError, match=r"pairs\.csv: not a readable CSV"):
        Pairs(str(folder / "pairs.csv")).records("test")


# Faults of rows and of the files that they name.


def row(**cells: str) -> str:
    cells = {"fixed": "images/a.nii.gz", "moving": "images/b.nii.gz", **cells}
    return f"{','.join(cells)}\n{','.join(cells.values())}\n"


def test_missing_file(folder: Path) -> None:
    message = fault(folder, row(moving="images/c.nii.gz"))
    assert f"line 2: moving: {folder / 'images' / 'c.nii.gz'}: no such file" in message


def test_empty_cell(folder: Path) -> None:
    assert "line 2: fixed is empty; expected the name of an image file" in fault(folder, row(fixed=""))


def test_folder_instead_of_file(folder: Path) -> None:
    assert "expected an image file, this is a folder" in fault(folder, row(fixed="images"))


@pytest.mark.parametrize("name", ["broken.nii.gz", "broken.mha", "broken.png"])
def test_unreadable_image(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"this is no image at all, but long enough to be looked at" * 20)
    message = fault(folder, row(moving=name))
    assert "line 2: moving:" in message
    assert name in message
    assert "unreadable" in message


@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
def test_truncated_image(name: str, folder: Path) -> None:
    whole = write(folder / "whole.nii", image(3)).read_bytes()
    if name.endswith(".gz"):
        packed = gzip.compress(whole)
        (folder / name).write_bytes(packed[: len(packed) // 2])
    else:
        (folder / name).write_bytes(whole[: len(whole) // 2])
    message = fault(folder, row(moving=name))
    assert f"line 2: moving: {folder / name}" in message
    assert "truncated" in message


def test_truncated_before_compression(folder: Path) -> None:
    """A complete gzip file that holds half an image."""
    whole = write(folder / "whole.nii", image(3)).read_bytes()
    (folder / "half.nii.gz").write_bytes(gzip.compress(whole[: len(whole) // 2]))
    assert "half.nii.gz: truncated image" in fault(folder, row(moving="half.nii.gz"))


def test_file_of_several_gzip_members_is_whole(folder: Path) -> None:
    """The length at the end of such a file is that of its last member only."""
    whole = write(folder / "whole.nii", image(3)).read_bytes()
    (folder / "two.nii.gz").write_bytes(gzip.compress(whole[:1000]) + gzip.compress(whole[1000:]))
    assert table(folder, row(moving="two.nii.gz")).case_ids("test") == ["a--two"]


def test_wrong_dimension(folder: Path) -> None:
    write(folder / "flat.nii.gz", image(0, (9, 8)))
    message = fault(folder, row(moving="flat.nii.gz"))
    assert "a 2-D image (9, 8), expected the dimension of" in message
    assert "a 3-D image (9, 8, 7)" in message


def test_four_dimensions(folder: Path) -> None:
    stack = sitk.JoinSeries([sitk.GetImageFromArray(image(i)) for i in range(3)])
    sitk.WriteImage(stack, str(folder / "time.nii.gz"))
    assert "expected a 2-D or 3-D image" in fault(folder, row(fixed="time.nii.gz"))


def test_trailing_axis_of_length_one_is_no_fault(folder: Path) -> None:
    write(folder / "flat.nii.gz", image(0, (9, 8)))
    write(folder / "thin.nii.gz", image(1, (9, 8, 1)))
    module = table(folder, row(fixed="flat.nii.gz", moving="thin.nii.gz"))
    assert module.case("flat--thin").dimension == 2


@pytest.mark.parametrize("column", ["fixed_labels", "moving_labels", "mask"])
def test_labels_of_another_size(column: str, folder: Path) -> None:
    write(folder / "small.nii.gz", np.ones((9, 8, 6), np.uint8))
    message = fault(folder, row(**{column: "small.nii.gz"}))
    assert f"{column}: {folder / 'small.nii.gz'}: shape (9, 8, 6), expected (9, 8, 7)" in message


def test_labels_are_compared_with_their_own_image(folder: Path) -> None:
    """A moving image of another grid has labels of that grid."""
    write(folder / "other.nii.gz", image(0, (20, 16, 14)), spacing=(0.5, 0.75, 1.0))
    write(folder / "labels.nii.gz", np.ones((20, 16, 14), np.uint8), spacing=(0.5, 0.75, 1.0))
    module = table(folder, row(moving="other.nii.gz", moving_labels="labels.nii.gz"))
    pair = module.case("a--other")
    assert pair.moving_labels is not None
    assert pair.moving_labels.shape == pair.fixed.shape


def damaged_header(folder: Path, offset: int, values: np.ndarray) -> str:
    whole = bytearray(write(folder / "bad.nii", image(3)).read_bytes())
    whole[offset : offset + values.nbytes] = values.tobytes()
    (folder / "bad.nii").write_bytes(bytes(whole))
    return "bad.nii"


def test_zero_spacing(folder: Path) -> None:
    name = damaged_header(folder, 80, np.zeros(3, np.float32))
    message = fault(folder, row(moving=name))
    assert "bad.nii: zero spacing" in message


def test_singular_affine(folder: Path) -> None:
    name = damaged_header(folder, 280, np.zeros(12, np.float32))
    assert read_header(folder / name).sform is not None
    assert "bad.nii: singular affine" in fault(folder, row(fixed=name))


def test_missing_points(folder: Path) -> None:
    message = fault(folder, row(fixed_points="nowhere.csv", moving_points="b.csv"))
    assert f"line 2: fixed_points: {folder / 'nowhere.csv'}: no such file of points" in message


def test_points_of_one_image_only(folder: Path) -> None:
    assert "points of one image only; expected both or none" in fault(folder, row(fixed_points="a.csv"))


def test_points_of_different_length(folder: Path) -> None:
    (folder / "b.csv").write_text("2,2,3\n")
    message = fault(folder, row(fixed_points="a.csv", moving_points="b.csv"))
    assert f"moving_points: {folder / 'b.csv'}: 1 points, expected 2 as in {folder / 'a.csv'}" in message


def test_point_outside_the_image(folder: Path) -> None:
    (folder / "b.csv").write_text("2,2,3\n50,5,6\n")
    message = fault(folder, row(fixed_points="a.csv", moving_points="b.csv"))
    assert "1 of 2 points lie outside the image, the first is point 2" in message
    assert "b.csv" in message


def test_points_without_a_unit(folder: Path) -> None:
    (folder / "b.csv").write_text("x,y,z\n2,2,3\n5,5,6\n")
    assert "unknown header 'x,y,z'" in fault(folder, row(fixed_points="a.csv", moving_points="b.csv"))


def test_duplicate_case_ids(folder: Path) -> None:
    text = "fixed,moving,case_id\n" + "images/a.nii.gz,images/b.nii.gz,same\n" * 2
    assert "line 3: duplicate case id 'same', first on line 2" in fault(folder, text)
    unnamed = "fixed,moving\n" + "images/a.nii.gz,images/b.nii.gz\n" * 2
    assert "line 3: duplicate case id 'a--b'" in fault(folder, unnamed)


def test_unknown_split(folder: Path) -> None:
    assert "line 2: split 'tset', expected one of train, val, test" in fault(folder, row(split="tset"))


def test_all_faults_are_listed(folder: Path) -> None:
    (folder / "short.csv").write_text("2,2,3\n")
    text = (
        "fixed,moving,fixed_points,moving_points,case_id,split\n"
        "images/x.nii.gz,images/y.nii.gz,,,a,test\n"
        "images/a.nii.gz,images/b.nii.gz,,,b,test\n"
        "images/a.nii.gz,images/b.nii.gz,a.csv,short.csv,b,test\n"
        ",images/b.nii.gz,,,c,nope\n"
    )
    message = fault(folder, text)
    assert message.startswith("pairs: 6 faults\n")
    assert [
        line.split(":")[0].strip().removeprefix(f"{folder / 'pairs.csv'}, ") for line in message.splitlines()[1:]
    ] == [
        "line 2",
        "line 2",
        "line 4",
        "line 4",
        "line 5",
        "line 5",
    ]


def test_faults_of_other_splits_are_found_as_well(folder: Path) -> None:
    text = "fixed,moving,split\nimages/a.nii.gz,images/b.nii.gz,test\nimages/a.nii.gz,images/z.nii.gz,train\n"
    assert "line 3: moving" in fault(folder, text)


# Faults of voxels: found when the case is loaded, and only that case fails.


def with_voxel(value: float) -> np.ndarray:
    array = image(4)
    array[3, 3, 3] = value
    return array


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (with_voxel(np.nan), "NaN or infinite"),
        (with_voxel(np.inf), "NaN or infinite"),
        (np.full(SIZE, 7, np.float32), "constant image"),
    ],
)
def test_faulty_voxels_fail_their_case_alone(array: np.ndarray, expected: str, folder: Path) -> None:
    write(folder / "bad.nii.gz", array)
    module = table(
        folder, "fixed,moving,case_id\nimages/a.nii.gz,images/b.nii.gz,good\nimages/a.nii.gz,bad.nii.gz,bad\n"
    )
    assert module.case_ids("test") == ["good", "bad"]
    dataset = module.dataset("test")
    assert dataset[0].case_ids == ("good",)
    with pytest.raises(DataError, match=expected) as error:
        dataset[1]
    assert "pairs.csv, line 3" in str(error.value)
    assert str(folder / "bad.nii.gz") in str(error.value)


def test_no_label_in_common(folder: Path) -> None:
    write(folder / "b_labels.nii.gz", np.full(SIZE, 4, np.uint8))
    with pytest.raises(DataError, match="expected at least one in common") as error:
        table(folder, FULL).case("one")
    assert "b_labels.nii.gz" in str(error.value)


def test_grid_from_the_header_is_that_of_the_image(folder: Path) -> None:
    write(folder / "flat.png", image(0, (12, 10)).astype(np.uint8))
    write(folder / "v.mha", image(0))
    for name in ("images/a.nii.gz", "flat.png", "v.mha"):
        assert read_grid(folder / name) == read_image(folder / name).grid

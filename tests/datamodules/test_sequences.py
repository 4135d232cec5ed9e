"""Sequences from a CSV: every kind of source is read back as it was written, and every fault is named with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

from datamodules.sequences import Sequences
from reg_bench.cli import main
from reg_bench.discovery import build_datamodule
from reg_bench.errors import ConfigError, DataError
from reg_bench.inspection import inspect
from reg_bench.results import state

data = pytest.mark.data

FLAT, DEEP, LENGTH = (12, 10), (9, 8, 6), 5


def movie(shape: tuple[int, ...], length: int = LENGTH) -> np.ndarray:
    """A bright ball `(T, *S)` that moves along the first axis, in whole grey levels."""
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    centre = [(n - 1) / 2 for n in shape]
    frames = []
    for t in range(length):
        here = [centre[0] - 1 + 0.5 * t, *centre[1:]]
        squared = sum((a - c) ** 2 for a, c in zip(axes, here, strict=True))
        frames.append(200 * np.exp(-np.asarray(squared) / 8) + axes[1] * 3)
    return np.rint(frames).astype(np.float32)


def save_4d(path: Path, frames: np.ndarray, zooms: tuple[float, ...], unit: str | None = "sec") -> Path:
    """`(T, *S)` as NIfTI `(x, y, z, t)`; 2-D frames as `(x, y, 1, t)`."""
    array = np.moveaxis(frames, 0, -1)
    array = array if array.ndim == 4 else array[:, :, None]
    image = nib.Nifti1Image(array, np.diag([*zooms[:3], 1]))
    image.header.set_zooms(zooms)
    image.header.set_xyzt_units("mm", unit)
    nib.save(image, path)
    return path


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing or (1.0,) * array.ndim)
    sitk.WriteImage(image, str(path))
    return path


def save_dicom(path: Path, frames: np.ndarray, **elements: Any) -> Path:
    """`(T, x, y)` as uint16, or `(T, x, y, 3)` RGB as uint8."""
    path.parent.mkdir(exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    colour = frames.ndim == 4
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = frames.shape[2], frames.shape[1]
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    bits = 8 if colour else 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = np.ascontiguousarray(frames.swapaxes(1, 2)).astype(f"u{bits // 8}").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def label_movie(shape: tuple[int, ...], length: int = LENGTH, frames: tuple[int, ...] = ()) -> np.ndarray:
    labels = (movie(shape, length) > 120).astype(np.uint8)
    for t in set(range(length)) - set(frames or range(length)):
        labels[t] = 0
    return labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """2D+t and 3D+t NIfTI with labels and points, a folder of pictures and one of volumes."""
    save_4d(tmp_path / "flat.nii.gz", movie(FLAT), (0.8, 1.1, 5.0, 0.05))
    save_4d(tmp_path / "flat_labels.nii.gz", label_movie(FLAT, frames=(0, 3)), (0.8, 1.1, 5.0, 0.05))
    save_4d(tmp_path / "deep.nii", movie(DEEP), (1.0, 1.5, 2.0, 31.5), "msec")
    save_4d(tmp_path / "deep_labels.nii", label_movie(DEEP), (1.0, 1.5, 2.0, 31.5), "msec")
    nib.save(nib.Nifti1Image(np.ones(DEEP, np.uint8), np.diag([1, 1.5, 2, 1])), tmp_path / "deep_mask.nii.gz")
    for t, picture in enumerate(movie(FLAT, 12)):
        save(tmp_path / "pictures" / f"t{t + 1}.png", picture.astype(np.uint8))
    for t in (0, 9):
        save(tmp_path / "maps" / f"t{t + 1}_left.png", label_movie(FLAT, 12)[t])
    for t, volume in enumerate(movie(DEEP)):
        save(tmp_path / "volumes" / f"v_{t:02d}.mha", volume, (1.0, 1.5, 2.0))
    (tmp_path / "tracks.csv").write_text(
        "frame,point,x,y,z\n0,apex,4,3.5,2.5\n0,base,1,2,3\n1,apex,4.5,3.5,2.5\n4,base,1.5,2,3\n4,apex,6,3.5,2.5\n"
    )
    return tmp_path


FULL = (
    "sequence,labels,points,mask,labelled_frames,reference,seconds_per_frame,spacing_mm,case_id,split\n"
    "flat.nii.gz,flat_labels.nii.gz,,,,,,,a,\n"
    "deep.nii,deep_labels.nii,tracks.csv,deep_mask.nii.gz,,,,,b,\n"
    "pictures,maps,,,,,0.1,0.5,c,\n"
    "volumes,,,,,2,0.2,,d/rest,train\n"
)


def table(folder: Path, text: str = FULL, **options: Any) -> Sequences:
    (folder / "sequences.csv").write_text(text)
    return Sequences(str(folder / "sequences.csv"), **options)


def row(**cells: str) -> str:
    cells = {"sequence": "flat.nii.gz", **cells}
    return f"{','.join(cells)}\n{','.join(cells.values())}\n"


def faults(module: Sequences) -> list[str]:
    return [str(f) for f in inspect(module).faults]


def fault(folder: Path, text: str) -> str:
    """The one fault of the table."""
    found = faults(table(folder, text))
    assert len(found) == 1, found
    return found[0]


# What is read is what was written.


def test_all_of_a_table_is_sound(folder: Path) -> None:
    module = table(folder)
    found = inspect(module)
    assert not found.faults
    assert not found.findings
    assert found.cases == {"train": 4, "val": 0, "test": 4 + 4 + 11}
    assert found.survey.counts == {"sequences": 4, "sequence frames": 5 + 5 + 12 + 5}
    assert found.loaded == found.frames == 23
    assert module.case_ids("train") == ["d/rest/000", "d/rest/001", "d/rest/003", "d/rest/004"]
    assert module.subjects() == {"train": ["d"], "val": [], "test": ["a", "b", "c"]}


def test_flat_nifti(folder: Path) -> None:
    module = table(folder)
    record = module.records("test")[0]
    sequence = module.sequence(record)
    assert np.array_equal(sequence.frames[0, :, 0].numpy(), movie(FLAT))
    assert sequence.seconds_per_frame == pytest.approx(0.05)
    assert sequence.spacing_mm is not None
    assert sequence.spacing_mm[0].tolist() == pytest.approx([0.8, 1.1])
    # Frames that are all background do not count as labelled.
    assert sequence.labelled_frames == (0, 3)
    assert sequence.labels is not None
    assert np.array_equal(sequence.labels[0, :, 0].numpy(), label_movie(FLAT)[[0, 3]])
    pair = module.case("a/003")
    assert torch.equal(pair.fixed, sequence.frames[:, 3])
    assert torch.equal(pair.moving, sequence.frames[:, 0])
    assert pair.fixed_labels is not None
    assert pair.frames == (3,)
    assert module.case("a/002").fixed_labels is None


def test_deep_nifti_with_points_and_mask(folder: Path) -> None:
    module = table(folder)
    pair = module.case("b/004")
    assert np.array_equal(pair.fixed[0, 0].numpy(), movie(DEEP)[4])
    assert pair.fixed_spacing_mm is not None
    assert pair.fixed_spacing_mm[0].tolist() == [1.0, 1.5, 2.0]
    assert pair.fixed_affine is not None
    np.testing.assert_allclose(pair.fixed_affine[0].numpy(), np.diag([1, 1.5, 2, 1]), atol=1e-6)
    assert pair.points is not None
    assert pair.points["landmarks"].fixed[0].tolist() == [[6, 3.5, 2.5], [1.5, 2, 3]]
    assert pair.points["landmarks"].moving[0].tolist() == [[4, 3.5, 2.5], [1, 2, 3]]
    assert pair.mask is not None
    assert bool(pair.mask.all())
    # A frame that lacks a point has the others, one without any has none.
    points = module.case("b/001").points
    assert points is not None
    assert points["landmarks"].fixed[0].tolist() == [[4.5, 3.5, 2.5]]
    assert points["landmarks"].moving[0].tolist() == [[4, 3.5, 2.5]]
    assert module.case("b/002").points is None
    sequence = module.sequence(next(r for r in module.records("test") if r["sequence"] == "b"))
    assert sequence.seconds_per_frame == pytest.approx(0.0315)
    assert sequence.points is not None
    assert int(sequence.points["landmarks"][0].isnan().any(dim=-1).sum()) == 2 * LENGTH - 5


def test_pictures_in_natural_order_with_labels_by_the_numbers_of_the_frames(folder: Path) -> None:
    module = table(folder)
    record = next(r for r in module.records("test") if r["sequence"] == "c")
    sequence = module.sequence(record)
    assert np.array_equal(sequence.frames[0, :, 0].numpy(), movie(FLAT, 12))
    # t1 and t10 are the frames 0 and 9.
    assert sequence.labelled_frames == (0, 9)
    assert sequence.labels is not None
    assert np.array_equal(sequence.labels[0, :, 0].numpy(), label_movie(FLAT, 12)[[0, 9]])
    assert sequence.spacing_mm is not None
    assert sequence.spacing_mm[0].tolist() == [0.5, 0.5]
    without = module.sequence(table(folder, row(sequence="pictures", seconds_per_frame="1")).records("test")[0])
    assert without.spacing_mm is None
    assert without.affine is None


def test_volumes_with_another_reference(folder: Path) -> None:
    module = table(folder)
    pair = module.case("d/rest/000", "train")
    assert np.array_equal(pair.fixed[0, 0].numpy(), movie(DEEP)[0])
    assert np.array_equal(pair.moving[0, 0].numpy(), movie(DEEP)[2])
    assert pair.fixed_spacing_mm is not None
    assert pair.fixed_spacing_mm[0].tolist() == [1.0, 1.5, 2.0]


def test_video(folder: Path) -> None:
    pytest.importorskip("av")
    from reg_bench.video_io import write_video

    pictures = np.kron(movie(FLAT), np.ones((1, 4, 4))).astype(np.uint8)
    write_video(folder / "beat.avi", pictures.swapaxes(1, 2), 20)
    module = table(folder, row(sequence="beat.avi"))
    sequence = module.sequence(module.records("test")[0])
    assert sequence.seconds_per_frame == pytest.approx(0.05)
    assert sequence.spacing_mm is None
    assert sequence.frames.shape == (1, LENGTH, 1, 48, 40)
    assert float(np.abs(sequence.frames[0, :, 0].numpy() - pictures).max()) < 12
    (folder / "cut.avi").write_bytes((folder / "beat.avi").read_bytes()[:-3000])
    module = table(folder, row(sequence="cut.avi"))
    assert all("cut.avi" in text for text in faults(module))
    assert faults(module)


@pytest.mark.parametrize(
    ("elements", "seconds"),
    [
        ({"FrameTime": 40, "CineRate": 10}, 0.04),
        ({"FrameTimeVector": [0, 30, 50, 40, 40]}, 0.04),
        ({"CineRate": 25}, 0.04),
        ({"RecommendedDisplayFrameRate": 25}, 0.04),
    ],
)
def test_dicom_of_several_frames(elements: dict[str, Any], seconds: float, folder: Path) -> None:
    frames = movie(FLAT) * 100
    save_dicom(folder / "cine.dcm", frames, PixelSpacing=[1.1, 0.8], RescaleSlope=0.01, RescaleIntercept=-5, **elements)
    module = table(folder, row(sequence="cine.dcm"))
    sequence = module.sequence(module.records("test")[0])
    np.testing.assert_allclose(sequence.frames[0, :, 0].numpy(), movie(FLAT) - 5, atol=1e-4)
    assert sequence.seconds_per_frame == pytest.approx(seconds)
    assert sequence.spacing_mm is not None
    # PixelSpacing is that of rows, then columns: y, x.
    assert sequence.spacing_mm[0].tolist() == pytest.approx([0.8, 1.1])


def test_dicom_in_colour_without_suffix(folder: Path) -> None:
    colours = np.stack([movie(FLAT), movie(FLAT) // 2, movie(FLAT) // 4], axis=-1)
    save_dicom(folder / "IM0001", colours, FrameTime=20)
    module = table(folder, row(sequence="IM0001"))
    sequence = module.sequence(module.records("test")[0])
    expected = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(sequence.frames[0, :, 0].numpy(), expected, atol=1e-3)
    assert sequence.spacing_mm is None


def test_folder_of_dicom_frames_with_trigger_times(folder: Path) -> None:
    for t, frame in enumerate(movie(FLAT)):
        place = {"ImagePositionPatient": [1, 2, 3], "PixelSpacing": [1.1, 0.8]}
        save_dicom(folder / "cine" / f"1.2.{t + 7}", frame[None], TriggerTime=30.0 * t, **place)
    module = table(folder, row(sequence="cine"))
    sequence = module.sequence(module.records("test")[0])
    assert np.array_equal(sequence.frames[0, :, 0].numpy(), movie(FLAT))
    assert sequence.seconds_per_frame == pytest.approx(0.03)
    for t in range(2):
        path = folder / "cine" / f"1.2.{t + 7}"
        changed = pydicom.dcmread(path)
        changed.ImagePositionPatient = [1, 2, 3 + t]
        changed.save_as(path)
    assert "lie at 2 places in the patient" in fault(folder, row(sequence="cine"))


def test_labels_of_the_listed_frames_only(folder: Path) -> None:
    labels = label_movie(FLAT)
    save_4d(folder / "two.nii.gz", labels[[0, 3]], (0.8, 1.1, 5.0, 1.0))
    save(folder / "one.png", labels[4])
    module = table(folder, row(labels="two.nii.gz", labelled_frames="0 3"))
    sequence = module.sequence(module.records("test")[0])
    assert sequence.labelled_frames == (0, 3)
    assert np.array_equal(sequence.labels[0, :, 0].numpy(), labels[[0, 3]])
    module = table(folder, row(labels="one.png", labelled_frames="4", reference="4"))
    sequence = module.sequence(module.records("test")[0])
    assert sequence.labelled_frames == (4,)
    # A listed frame counts although it is all background.
    module = table(folder, row(labels="flat_labels.nii.gz", labelled_frames="0;2-3"))
    assert module.sequence(module.records("test")[0]).labelled_frames == (0, 2, 3)


def test_labels_and_points_of_a_folder_are_counted_from_zero_where_the_sequence_is_a_file(folder: Path) -> None:
    for t in (0, 4):
        save(folder / "deep_maps" / f"seg{t}.nii.gz", label_movie(DEEP)[t], (1.0, 1.5, 2.0))
    (folder / "deep_points").mkdir()
    (folder / "deep_points" / "p_000.csv").write_text("4,3,2\n")
    (folder / "deep_points" / "p_003.csv").write_text("x_mm,y_mm,z_mm\n-5,-4.5,4\n")
    module = table(folder, row(sequence="deep.nii", labels="deep_maps", points="deep_points"))
    assert module.sequence(module.records("test")[0]).labelled_frames == (0, 4)
    points = module.case("deep/003").points
    assert points is not None
    np.testing.assert_allclose(points["landmarks"].fixed[0].numpy(), [[5, 3, 2]], atol=1e-5)


def test_mask_over_time(folder: Path) -> None:
    mask = label_movie(FLAT)
    save_4d(folder / "mask.nii.gz", mask, (0.8, 1.1, 5.0, 1.0))
    pair = table(folder, row(mask="mask.nii.gz")).case("flat/002")
    assert pair.mask is not None
    assert np.array_equal(pair.mask[0, 0].numpy(), mask[2] > 0)


def test_percentile_is_that_of_the_whole_sequence(folder: Path) -> None:
    module = table(folder, row(), percentile=90)
    frames = module.sequence(module.records("test")[0]).frames[0, :, 0].numpy()
    raw = movie(FLAT)
    low, high = raw.min(), np.percentile(raw, 90)
    np.testing.assert_allclose(frames, np.clip((raw - low) / (high - low), 0, 1), atol=1e-4)


@pytest.mark.parametrize(("frames", "expected"), [(None, [0, 1, 3, 4]), (2, [0, 4]), ([4, 1, 2], [1, 4])])
def test_frames(frames: Any, expected: list[int], folder: Path) -> None:
    module = table(folder, row(reference="2"), frames=frames)
    assert [r["frame"] for r in module.records("test")] == expected


def test_frames_beyond_the_end_and_sequences_that_are_left_without_a_case(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: frames: 7, expected 0\.\.4"):
        table(folder, row(), frames=[1, 7]).records("test")
    found = inspect(table(folder, "sequence,reference,seconds_per_frame\nflat.nii.gz,2,\npictures,,1\n", frames=3))
    assert not found.faults
    assert "line 2: frames: 3 leaves no case of" in str(found.findings[0])


@pytest.mark.parametrize("frames", [0, -1, [], [-2]])
def test_frames_that_cannot_be(frames: Any) -> None:
    with pytest.raises(ConfigError, match="frames must be"):
        Sequences("any.csv", frames=frames)


def test_table_overrides_the_file_with_a_note(folder: Path) -> None:
    module = table(folder, row(seconds_per_frame="0.2", spacing_mm="2"))
    sequence = module.sequence(module.records("test")[0])
    assert sequence.seconds_per_frame == 0.2
    assert sequence.spacing_mm.tolist() == [[2, 2]]
    notes = [str(f) for f in inspect(module).findings]
    assert [n.split(": ")[1] for n in notes] == ["spacing_mm", "seconds_per_frame"]
    assert all("sequences.csv, line 2" in n and "the table is used" in n for n in notes)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cached_and_fresh_where_a_frame_changes(cache: Any, folder: Path) -> None:
    text = row(sequence="volumes", seconds_per_frame="1")
    options = {"cache": cache, "cache_dir": str(folder / "cache")}
    for _ in range(2):
        assert np.array_equal(next(iter(table(folder, text, **options).test_dataloader())).fixed[0, 0], movie(DEEP)[1])
    save(folder / "volumes" / "v_01.mha", movie(DEEP)[1] + 1, (1.0, 1.5, 2.0))
    assert np.array_equal(next(iter(table(folder, text, **options).test_dataloader())).fixed[0, 0], movie(DEEP)[1] + 1)


def test_checksum_follows_the_files_not_the_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = table(folder).checksum()
    other = tmp_path_factory.mktemp("other") / "moved"
    folder.rename(other)
    assert Sequences("sequences.csv", root=other).checksum() == first
    save(other / "pictures" / "t3.png", np.arange(120).reshape(FLAT).astype(np.uint8))
    assert Sequences("sequences.csv", root=other).checksum() != first


# Faults.


def replaced(path: str, change: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda folder: change(folder / path)


def text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero_spacing(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[80:92] = np.zeros(3, np.float32).tobytes()
    path.write_bytes(bytes(whole))


def singular(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[280:328] = np.zeros(12, np.float32).tobytes()
    path.write_bytes(bytes(whole))


PICTURES = {"sequence": "pictures", "seconds_per_frame": "1"}
TRACKS = {"sequence": "deep.nii", "points": "tracks.csv"}
HEAD = "frame,point,x,y,z\n"

FAULTS: list[tuple[dict[str, str], Callable[[Path], Any] | None, str]] = [
    ({"sequence": "", "case_id": "a"}, None, "sequence is empty"),
    ({"sequence": "gone.nii.gz"}, None, "gone.nii.gz: no such file or folder"),
    ({"sequence": "tracks.csv"}, None, "tracks.csv: unreadable or truncated, or an unknown format"),
    ({"sequence": "deep.nii"}, replaced("deep.nii", truncated), "deep.nii: truncated image"),
    ({"sequence": "deep.nii"}, replaced("deep.nii", zero_spacing), "deep.nii: zero spacing"),
    ({"sequence": "deep.nii"}, replaced("deep.nii", singular), "deep.nii: singular affine"),
    ({"sequence": "deep_mask.nii.gz"}, None, "deep_mask.nii.gz: a single image of 3 axes, expected frames over time"),
    ({"sequence": "empty"}, lambda f: (f / "empty").mkdir(), "empty: a folder without images"),
    ({"sequence": "maps"}, None, "seconds_per_frame is empty, and"),
    (PICTURES, lambda f: save(f / "pictures" / "t5.png", np.ones((9, 9), np.uint8)), "t5.png: shape (9, 9), expected"),
    (PICTURES, lambda f: (f / "pictures" / "t5.png").write_bytes(b"no picture" * 30), "t5.png: unreadable"),
    (PICTURES, lambda f: save(f / "pictures" / "t5_seg.png", np.ones(FLAT, np.uint8)), "2 kinds of names (t#.png, t#_"),
    ({"sequence": "volumes", "seconds_per_frame": "1"},
     lambda f: save(f / "volumes" / "v_03.mha", movie(DEEP)[3], (1.0, 1.0, 1.0)), "v_03.mha: another geometry"),
    ({"sequence": "one", "seconds_per_frame": "1"}, lambda f: save(f / "one" / "t.png", np.ones(FLAT, np.uint8)),
     "one: 1 frame, expected at least 2"),
    ({"sequence": "cut.dcm"}, lambda f: truncated(save_dicom(f / "cut.dcm", movie(FLAT), FrameTime=1)),
     "cut.dcm: truncated"),
    ({"sequence": "no.dcm"}, lambda f: (f / "no.dcm").write_bytes(b"no dicom" * 99), "no.dcm: unreadable or truncated"),
    ({"reference": "5"}, None, "reference '5', expected a frame number in 0..4"),
    ({"reference": "-1"}, None, "reference '-1'"),
    ({"seconds_per_frame": "0"}, None, "seconds_per_frame: '0', expected positive numbers"),
    ({"seconds_per_frame": "fast"}, None, "seconds_per_frame: 'fast', expected positive numbers"),
    ({"spacing_mm": "0 1"}, None, "spacing_mm: '0 1', expected positive numbers"),
    ({"spacing_mm": "1 1 1"}, None, "spacing_mm: 3 numbers, expected 1 or 2"),
    ({"case_id": "/rest"}, None, "case_id '/rest': an empty part"),
    ({"split": "tset"}, None, "split 'tset', expected one of train, val, test"),
    ({"labelled_frames": "0 3"}, None, "labelled_frames without labels"),
    ({"labels": "flat_labels.nii.gz", "labelled_frames": "0 5"}, None, "labelled_frames: 5, expected within 0..4"),
    ({"labels": "flat_labels.nii.gz", "labelled_frames": "0 b"}, None, "labelled_frames: 'b', expected frame numbers"),
    ({"labels": "flat_labels.nii.gz", "labelled_frames": "3"}, None, "none for the reference frame 0"),
    ({"labels": "gone.nii.gz"}, None, "labels: "),
    ({"labels": "deep_labels.nii"}, None, "deep_labels.nii: shape (9, 8, 6), expected (12, 10)"),
    ({"labels": "l.nii.gz"}, lambda f: save_4d(f / "l.nii.gz", label_movie(FLAT, 4), (1, 1, 1, 1)),
     "l.nii.gz: 4 frames, expected 5"),
    ({**PICTURES, "labels": "maps"}, lambda f: save(f / "maps" / "t13.png", label_movie(FLAT)[0]),
     "t13.png: its name tells frame 13, expected one of the frames"),
    ({**PICTURES, "labels": "maps"}, lambda f: save(f / "maps" / "x.png", label_movie(FLAT)[0]),
     "x.png: no frame number"),
    ({**PICTURES, "labels": "maps"}, lambda f: save(f / "maps" / "t10.png", label_movie(FLAT)[0]), "frame 10 like t10"),
    ({**PICTURES, "labels": "maps", "labelled_frames": "0 5"}, None, "maps: no file for frame 5"),
    ({"mask": "deep_mask.nii.gz"}, None, "mask: "),
    ({"mask": "m.nii.gz"}, lambda f: save_4d(f / "m.nii.gz", label_movie(FLAT, 3), (1, 1, 1, 1)),
     "3 frames, expected 1"),
    ({**TRACKS, "points": "gone.csv"}, None, "gone.csv: no such file or folder of points"),
    (TRACKS, text("tracks.csv", "frame,point,x_mm,y_mm,z_mm\n"), "tracks.csv: no column 'x'"),
    (TRACKS, text("tracks.csv", HEAD), "holds no points"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,4,3,2\n5,1,4,3,2\n"), "tracks.csv, line 3: frame '5', expected 0..4"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,4,three,2\n"), "tracks.csv, line 2: coordinates"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,4,nan,2\n"), "tracks.csv, line 2: coordinates"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,4,3,2\n0,1,4,3,2\n"), "line 3: point '1' of frame 0 stands twice"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,4,30,2\n"), "line 2: the point (4, 30, 2) lies outside"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,4,8.4,2\n"), "are x and y exchanged?"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,.5,.1,.2\n0,2,.1,.1,.9\n"), "are they normalised?"),
    (TRACKS, text("tracks.csv", HEAD + "1,1,4,3,2\n"), "no point in the reference frame 0"),
    (TRACKS, text("tracks.csv", HEAD + "0,1,4,3,2\n1,2,4,3,2\n"), "1 of 2 points are missing in the reference frame 0"),
    ({"points": "tracks.csv"}, None, "unknown column 'z'"),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "plant", "expected"), FAULTS, ids=[e[:40] for *_, e in FAULTS])
def test_faults_are_named(
    cells: dict[str, str], plant: Callable[[Path], Any] | None, expected: str, folder: Path
) -> None:
    if plant is not None:
        plant(folder)
    message = fault(folder, row(**cells))
    assert "sequences.csv, line 2: " in message
    assert expected in message


def test_points_of_different_length(folder: Path) -> None:
    (folder / "points").mkdir()
    (folder / "points" / "p0.csv").write_text("4,3\n5,3\n")
    (folder / "points" / "p3.csv").write_text("4,3\n")
    assert "p3.csv: 1 points, expected 2 as in p0.csv" in fault(folder, row(points="points"))
    (folder / "points" / "p3.csv").write_text("4,3\n40,3\n")
    assert "p3.csv: 1 of 2 points lie outside the image" in fault(folder, row(points="points"))


def test_duplicates_and_subjects_in_two_splits(folder: Path) -> None:
    head = "sequence,case_id,split\n"
    assert "line 3: duplicate case id 'p', first on line 2" in fault(
        folder, head + "flat.nii.gz,p,test\ndeep.nii,p,test\n"
    )
    message = fault(folder, head + "flat.nii.gz,p/1,train\ndeep.nii,p/2,test\n")
    assert "line 3: subject 'p' in split 'test', expected 'train' as on line 2" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no column 'sequence'"),
        ("sequence,label\nflat.nii.gz,x\n", "unknown column 'label'; did you mean 'labels'?"),
        ("sequence,mask,mask\nflat.nii.gz,x,y\n", "column 'mask' stands twice"),
        ("sequence\n", "holds no sequences, only a header"),
        ("sequence\nflat.nii.gz,x\n", "line 2: more cells than columns: 'x'"),
    ],
)
def test_bad_tables(content: str, expected: str, folder: Path) -> None:
    message = fault(folder, content)
    assert "sequences.csv" in message
    assert expected in message


def test_all_faults_are_listed(folder: Path) -> None:
    """Every plantable fault in one table: each is named on its own line of it."""
    usable = [(c, p, e) for c, p, e in FAULTS if p is None]
    columns = list(dict.fromkeys(["sequence", "case_id", *(k for c, *_ in usable for k in c)]))
    lines = [",".join(columns)]
    for number, (cells, _, _) in enumerate(usable):
        filled = {"sequence": "flat.nii.gz", "case_id": f"c{number}", **cells}
        lines.append(",".join(filled.get(c, "") for c in columns))
    found = faults(table(folder, "\n".join(lines) + "\n"))
    for line, (_, _, expected) in enumerate(usable, start=2):
        assert any(f"line {line}: " in f and expected in f for f in found), (line, expected)


# Faults of voxels fail the cases concerned alone.


def test_constant_frame_fails_its_case_alone(folder: Path) -> None:
    frames = movie(FLAT)
    frames[2] = 7
    save_4d(folder / "flat.nii.gz", frames, (0.8, 1.1, 5.0, 0.05))
    found = faults(table(folder, row()))
    assert len(found) == 1
    assert "case flat/002" in found[0]
    assert "flat.nii.gz: frame 2 is constant, every voxel is 7" in found[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(value: float, folder: Path) -> None:
    frames = movie(FLAT)
    frames[2, 3, 3] = value
    save_4d(folder / "flat.nii.gz", frames, (0.8, 1.1, 5.0, 0.05))
    found = faults(table(folder, row()))
    assert found
    assert all("flat.nii.gz" in f and "NaN or infinite" in f for f in found)
    save(folder / "volumes" / "v_02.mha", np.full(DEEP, value, np.float32), (1.0, 1.5, 2.0))
    found = faults(table(folder, row(sequence="volumes", seconds_per_frame="1")))
    assert all("v_02.mha" in f and "NaN or infinite" in f for f in found)


def test_labels_that_are_absent_or_fractional(folder: Path) -> None:
    labels = label_movie(FLAT, frames=(3,))
    save_4d(folder / "l.nii.gz", labels, (0.8, 1.1, 5.0, 0.05))
    assert "all background in the reference frame 0" in faults(table(folder, row(labels="l.nii.gz")))[0]
    save_4d(folder / "l.nii.gz", labels * 0, (0.8, 1.1, 5.0, 0.05))
    assert "l.nii.gz: holds no label" in faults(table(folder, row(labels="l.nii.gz")))[0]
    save_4d(folder / "l.nii.gz", labels * np.float32(0.5), (0.8, 1.1, 5.0, 0.05))
    assert "labels must be whole numbers, found 0.5" in faults(table(folder, row(labels="l.nii.gz")))[0]
    save_4d(folder / "m.nii.gz", labels, (0.8, 1.1, 5.0, 0.05))
    assert "m.nii.gz: an empty mask in frame 0" in faults(table(folder, row(mask="m.nii.gz")))[0]


def test_truncated_picture_fails_when_it_is_loaded(folder: Path) -> None:
    truncated(folder / "pictures" / "t5.png")
    found = faults(table(folder, row(**PICTURES)))
    assert found
    assert all("t5.png" in f for f in found)


# Through the command line.


def test_data_check_and_its_exit_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = f"csv={folder / 'sequences.csv'}"
    (folder / "sequences.csv").write_text(FULL)
    arguments = ["data", "check", "sequences", "--data", csv, "--out", str(folder / "out"), "--pictures", "1"]
    assert main(arguments) == 0
    assert "23 cases loaded, no fault" in capsys.readouterr().out
    assert list((folder / "out").glob("case-*.png"))
    (folder / "sequences.csv").write_text(FULL.replace("maps", "mops"))
    assert main(arguments) == 1
    assert "line 4: labels: " in capsys.readouterr().out
    assert main([*arguments[:3], "--data", "csv=absent.csv"]) == 2


@pytest.mark.usefixtures("in_this_process")
def test_suite(folder: Path) -> None:
    (folder / "sequences.csv").write_text(FULL)
    suite = folder / "beats.yaml"
    suite.write_text(
        "name: beats\nversion: 1\ntasks:\n  - name: beats\n    dataset: sequences\n"
        f"    init_args: {{csv: {folder / 'sequences.csv'}, frames: 3, percentile: 99.5}}\n"
        "methods: [identity, demons-symmetric]\n"
    )
    assert main(["run", str(suite), "--out", str(folder / "run"), "--limit", "2"]) == 0
    results = state(folder / "run").results.items()
    assert sorted((key.method, key.case, row["status"]) for key, row in results) == [
        (method, case, "ok") for method in ("demons-symmetric", "identity") for case in ("a/003", "b/003")
    ]


# Real sequences.


def test_real_echocardiogram(tmp_path: Path) -> None:
    path = pydicom.examples.get_path("ybr_color")
    (tmp_path / "t.csv").write_text(f"sequence,spacing_mm,case_id\n{path},,header\n{path},1.021,true\n")
    module = build_datamodule({"name": "s", "class_path": "sequences", "init_args": {"csv": str(tmp_path / "t.csv")}})
    found = module.survey()
    assert not found.faults
    assert [f.file.split(", ")[1] for f in found.findings] == ["line 3"]
    header, true = (module.sequence(r) for r in module.sequence_records("test"))
    assert header.frames.shape == true.frames.shape == (1, 30, 1, 320, 240)
    assert header.seconds_per_frame == pytest.approx(1 / 30, abs=1e-5)
    assert header.spacing_mm is not None
    assert header.spacing_mm[0].tolist() == pytest.approx([0.5105] * 2, abs=1e-4)
    assert true.spacing_mm is not None
    assert true.spacing_mm[0].tolist() == pytest.approx([1.021] * 2)
    # The same luminance as the dataset that is made for this file.
    from datamodules.echo_real import EchoReal

    whole = EchoReal().sequence().frames
    part = true.frames[:, :, :, 75:251, 28:204]
    top = np.percentile(part.numpy(), 99.5)
    np.testing.assert_allclose((part / top).clamp(0, 1).numpy(), whole.numpy(), atol=1e-4)


@data
def test_real_cine(data_root: Path, tmp_path: Path) -> None:
    """3D+t as it lies there, and one slice of it as 2D+t: the same as the dataset that is made for these files."""
    from datamodules.cine_sax import CineSax

    files = {k: data_root / "cine_sax_pig" / f"{k}.nii.gz" for k in ("cine_sax", "lv_labels")}
    for key, path in files.items():
        image = nib.load(path)
        nib.save(image.slicer[:, :, 10:11], tmp_path / f"{key}_10.nii.gz")
    (tmp_path / "t.csv").write_text(
        "sequence,labels,case_id\n"
        f"{files['cine_sax']},{files['lv_labels']},pig/volume\n"
        "cine_sax_10.nii.gz,lv_labels_10.nii.gz,pig/slice\n"
    )
    module = Sequences(tmp_path / "t.csv", percentile=99.5, frames=[11])
    assert module.case_ids("test") == ["pig/volume/011", "pig/slice/011"]
    volume, flat = (module.sequence(r) for r in module.records("test"))
    assert volume.frames.shape == (1, 20, 1, 144, 144, 20)
    assert volume.labelled_frames == flat.labelled_frames == tuple(range(20))
    assert volume.seconds_per_frame == pytest.approx(0.03158, abs=1e-4)
    assert volume.spacing_mm is not None
    assert volume.spacing_mm[0].tolist() == pytest.approx([0.8203, 0.8203, 5.0], abs=1e-4)
    reference = CineSax(root=data_root, slices=(10,), phases=(11,))
    expected = reference.sequence(reference.records("test")[0])
    torch.testing.assert_close(flat.frames, expected.frames)
    assert expected.labels is not None
    assert flat.labels is not None
    assert volume.labels is not None
    assert torch.equal(flat.labels.long(), expected.labels.long())
    assert torch.equal(volume.labels[..., 10].long(), expected.labels.long())
    assert not inspect(module).faults

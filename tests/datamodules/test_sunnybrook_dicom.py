"""Sunnybrook as distributed: both releases written in their own form, read back, and every fault named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from matplotlib import pyplot
from matplotlib.path import Path as Polygon
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from datamodules.sunnybrook_dicom import SunnybrookDicom
from reg_bench import cli
from reg_bench.errors import ConfigError, DataError
from reg_bench.inspection import inspect
from reg_bench.results import read_rows

WIDTH, HEIGHT = 40, 32
SPACING = (1.5, 1.25)  # x, y in mm
CENTRE = np.array([19.3, 15.2])
# End-diastole is the last of the 20 frames, as in the real data; end-systole the eighth.
DIASTOLE, SYSTOLE = 20, 8
EXPERT = "contours-manual/IRCCI-expert"


def pixels(number: int) -> np.ndarray:
    """The frame of that number, x by y."""
    x, y = np.indices((WIDTH, HEIGHT))
    phase = (number - 1) % 20 + 1
    radius = 8 if phase == DIASTOLE else 5 + abs(phase - SYSTOLE) / 4
    distance = np.hypot(x - CENTRE[0], y - CENTRE[1])
    rng = np.random.default_rng(number)
    return (900 * (distance < radius) + 300 * (distance < radius + 4) + rng.integers(0, 60, x.shape)).astype(np.uint16)


def write_image(path: Path, number: int, **changes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.InstanceNumber = "MR", number
    data.Rows, data.Columns = HEIGHT, WIDTH
    data.PixelSpacing = [SPACING[1], SPACING[0]]  # rows first: y, x
    data.ImagePositionPatient = [-10, 20, -8.0 * ((number - 1) // 20)]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.TriggerTime = 40.0 * ((number - 1) % 20)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelData = np.ascontiguousarray(pixels(number).T).tobytes()
    for key, value in changes.items():
        if value is None:
            delattr(data, key)
        else:
            setattr(data, key, value)
    data.save_as(path, enforce_file_format=True)


def circle(radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.round(CENTRE + radius * np.stack([np.cos(angle), np.sin(angle)], 1), 2)


def write_contour(folder: Path, number: int, kind: str, points: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{x:.2f} {y:.2f}\r\n" for x, y in points)
    (folder / f"IM-0001-{number:04d}-{kind}contour-manual.txt").write_bytes(lines.encode())


INNER = {DIASTOLE: circle(8.13), SYSTOLE: circle(5.17)}
OUTER = {DIASTOLE: circle(12.11), SYSTOLE: circle(10.37)}


def write_patient(images: Path, prefix: str, contours: Path, *, slices: int = 3, both_outer: int = 1) -> None:
    """Slices of 20 frames; contours in all but the first, outer ones at end-systole in the last `both_outer`."""
    for number in range(1, 20 * slices + 1):
        write_image(images / f"{prefix}-{number:04d}.dcm", number)
    write_contour(contours, DIASTOLE, "i", INNER[DIASTOLE])
    for z in range(1, slices):
        for phase in (DIASTOLE, SYSTOLE):
            write_contour(contours, 20 * z + phase, "i", INNER[phase])
            if phase == DIASTOLE or z >= slices - both_outer:
                write_contour(contours, 20 * z + phase, "o", OUTER[phase])
    write_contour(contours, 20 + DIASTOLE, "p1", circle(1))


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of the Cardiac Atlas Project: numbers instead of names, other series beside the short axis."""
    root = tmp_path_factory.mktemp("atlas")
    people = {"SCD0000101": "SC-HF-I-1", "SCD0000801": "SC-HF-I-9", "SCD0004001": "SC-N-6"}
    for folder, (number, name) in enumerate(people.items(), start=1):
        group, _, digits = name.rpartition("-")
        contours = root / "SCD_ManualContours" / f"{group}-{int(digits):02d}" / EXPERT
        patient = root / f"SCD_IMAGES_{folder:02d}" / number
        write_patient(patient / "CINESAX_300", "IM-0003", contours)
        for other in range(1, 4):
            write_image(patient / "CINELAX_301" / f"IM-0004-{other:04d}.dcm", other)
    shutil.copytree(root / "SCD_ManualContours", root / "__MACOSX" / "SCD_ManualContours")
    lines = [f"{number},{name},Male,53,Heart failure with infarct" for number, name in people.items()]
    text = "\n".join(["PatientID,OriginalID,Gender,Age,Pathology", *lines])
    (root / "scd_patientdata.csv").write_text(text, encoding="utf-8-sig")
    return root


@pytest.fixture
def twin(atlas: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(atlas, tmp_path / "sunnybrook"))


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives of 2009: names with and without zeros, the short axis under any number."""
    root = tmp_path_factory.mktemp("challenge")
    part = "Sunnybrook Cardiac MR Database {}Part{}"
    for name, number, which in (("SC-HF-I-02", 3, "Training"), ("SC-HYP-06", 2, "Validation")):
        contours = root / part.format("Contours", number) / f"{which}DataContours" / name / EXPERT
        images = root / part.format("DICOM", number) / f"{which}DataDICOM" / name / "DICOM"
        write_patient(images, "IM-0001", contours, slices=2)
    contours = root / part.format("Contours", 1) / "OnlineDataContours" / "SC-HF-NI-12" / EXPERT
    write_patient(root / "challenge_online" / "challenge_online" / "SC-HF-NI-12", "IM-0286", contours, slices=2)
    contours = root / part.format("Contours", 3) / "TrainingDataContours" / "SC-HF-NI-03" / EXPERT
    folder = root / "challenge_training" / "SC-HF-NI-3"
    write_patient(folder, "IM-0379", contours, slices=2)
    for other in range(1, 9):
        write_image(folder / f"IM-0380-{other:04d}.dcm", other)
    return root


def inside(points: np.ndarray) -> np.ndarray:
    """Pixels whose centre is inside, by matplotlib."""
    x, y = np.indices((WIDTH, HEIGHT))
    found: np.ndarray = Polygon(points).contains_points(np.stack([x.ravel(), y.ravel()], 1)).reshape(WIDTH, HEIGHT)
    return found


def mask(phase: int, wall: bool) -> np.ndarray:
    labels = np.where(inside(OUTER[phase]) & wall, 2, 0)
    labels[inside(INNER[phase])] = 1
    return labels


def test_cases_are_what_was_written(atlas: Path) -> None:
    data = SunnybrookDicom(root=atlas)
    # Slice 0 has one contoured frame; frames and slices are counted from 0.
    assert data.case_ids("train") == ["SC-HF-I-01/slice01/007", "SC-HF-I-01/slice02/007"]
    assert data.case_ids("val") == ["SC-N-06/slice01/007", "SC-N-06/slice02/007"]
    assert data.case_ids("test") == ["SC-HF-I-09/slice01/007", "SC-HF-I-09/slice02/007"]
    for z, record in enumerate(data.records("test"), start=1):
        pair = data.load(record)
        stored = np.stack([pixels(20 * z + SYSTOLE), pixels(20 * z + DIASTOLE)]).astype(np.float32)
        low, high = stored.min(), np.percentile(stored, 99.5)
        scaled = np.clip((stored - low) / (high - low), 0, 1)
        np.testing.assert_allclose(pair.fixed[0, 0].numpy(), scaled[0], atol=1e-3)
        np.testing.assert_allclose(pair.moving[0, 0].numpy(), scaled[1], atol=1e-3)
        assert pair.fixed_labels is not None
        assert pair.moving_labels is not None
        assert np.array_equal(pair.fixed_labels[0, 0].numpy(), mask(SYSTOLE, wall=z == 2))
        assert np.array_equal(pair.moving_labels[0, 0].numpy(), mask(DIASTOLE, wall=z == 2))
        assert pair.label_names == ({1: "cavity", 2: "wall"} if z == 2 else {1: "cavity"})
        assert pair.fixed_spacing_mm is not None
        assert pair.fixed_spacing_mm.tolist() == [list(SPACING)]
        assert pair.frames == (7,)
        assert type(pair.fixed) is torch.Tensor


def test_sequences(atlas: Path) -> None:
    data = SunnybrookDicom(root=atlas)
    assert [r["sequence"] for r in data.sequence_records("test")] == ["SC-HF-I-09/slice01", "SC-HF-I-09/slice02"]
    record = data.records("test")[1]
    sequence = data.sequence(record)
    assert sequence.frames.shape == (1, 20, 1, WIDTH, HEIGHT)
    assert (sequence.reference, sequence.labelled_frames) == (19, (7, 19))
    assert sequence.seconds_per_frame == pytest.approx(0.04)
    stored = np.stack([pixels(40 + n) for n in range(1, 21)]).astype(np.float32)
    low, high = stored.min(), np.percentile(stored, 99.5)
    np.testing.assert_allclose(
        sequence.frames[0, :, 0].numpy(), np.clip((stored - low) / (high - low), 0, 1), atol=2e-3
    )
    pair, own = sequence.pair(7), data.load(record)
    assert pair.case_ids == own.case_ids
    assert torch.equal(pair.fixed_labels, own.fixed_labels)  # type: ignore[arg-type]
    assert torch.equal(pair.moving_labels, own.moving_labels)  # type: ignore[arg-type]
    assert SunnybrookDicom(root=atlas, seconds_per_frame=0.1).sequence(record).seconds_per_frame == 0.1


def test_the_archives_of_the_challenge(challenge: Path) -> None:
    data = SunnybrookDicom(root=challenge)
    assert data.survey().findings == []
    assert data.case_ids("train") == ["SC-HF-I-02/slice01/007", "SC-HF-NI-03/slice01/007"]
    assert data.case_ids("val") == ["SC-HYP-06/slice01/007"]
    assert data.case_ids("test") == ["SC-HF-NI-12/slice01/007"]
    for split in ("train", "val", "test"):
        for record in data.records(split):  # type: ignore[arg-type]
            labels = data.load(record).fixed_labels
            assert labels is not None
            assert np.array_equal(labels[0, 0].numpy(), mask(SYSTOLE, wall=True))
    # The series that holds all contoured frames, not the one beside it.
    assert data.records("train")[1]["fixed"].endswith("IM-0379-0028.dcm")


def test_other_roots(challenge: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").symlink_to(challenge / "Sunnybrook Cardiac MR Database ContoursPart1")
    (tmp_path / "pictures").symlink_to(challenge / "challenge_online")
    data = SunnybrookDicom(root=tmp_path, images="pictures", contours="drawn")
    assert data.case_ids("test") == ["SC-HF-NI-12/slice01/007"]
    assert "no such folder" in str(SunnybrookDicom(root=tmp_path, images="scans").survey().faults[0])


def test_patients_of_no_set_go_where_the_folder_says(tmp_path: Path) -> None:
    # Where the root itself lies says nothing.
    root = tmp_path / "training"
    for number, which in enumerate(("OnlineDataContours", "ValidationDataContours", "mine"), start=91):
        contours = root / which / f"SC-N-{number}" / EXPERT
        write_patient(root / "pictures" / f"SC-N-{number}", "IM-0001", contours, slices=2)
    assert SunnybrookDicom(root=root).subjects() == {"train": [], "val": ["SC-N-92"], "test": ["SC-N-91", "SC-N-93"]}


def test_the_central_part(atlas: Path) -> None:
    whole, part = SunnybrookDicom(root=atlas), SunnybrookDicom(root=atlas, size=(31, 20))
    record = whole.records("test")[1]
    large, small = whole.load(record), part.load(record)
    assert small.spatial_shape == (31, 20)
    assert torch.equal(small.fixed, large.fixed[..., 5:36, 6:26])
    assert torch.equal(small.moving_labels, large.moving_labels[..., 5:36, 6:26])  # type: ignore[arg-type, index]
    assert small.fixed_affine is not None
    assert large.fixed_affine is not None
    first = torch.tensor([5.0, 6, 1], dtype=torch.float64)
    torch.testing.assert_close(small.fixed_affine[0, :, 2], large.fixed_affine[0] @ first)
    assert part.sequence(record).frames.shape[-2:] == (31, 20)


def test_slices_follow_the_headers_not_the_numbers(twin: Path) -> None:
    """All frames of phase 1, then all of phase 2: what makes a slice is its place."""
    folder = twin / "SCD_IMAGES_02/SCD0000801/CINESAX_300"
    expert = twin / "SCD_ManualContours/SC-HF-I-09" / EXPERT
    shutil.rmtree(expert)
    for number in range(1, 61):
        write_image(folder / f"IM-0003-{number:04d}.dcm", number, ImagePositionPatient=[0, 0, (number - 1) % 3])
    write_contour(expert, 2, "i", circle(8))
    write_contour(expert, 23, "i", circle(5))
    data = SunnybrookDicom(root=twin)
    assert data.case_ids("test") == ["SC-HF-I-09/slice01/007"]
    record = data.records("test")[0]
    assert [Path(f).name[8:12] for f in record["frames"]] == [f"{n:04d}" for n in range(2, 61, 3)]


def test_without_places_and_spacing_in_the_headers(twin: Path) -> None:
    folder = twin / "SCD_IMAGES_02/SCD0000801/CINESAX_300"
    for number in range(1, 61):
        path = folder / f"IM-0003-{number:04d}.dcm"
        write_image(path, number, ImagePositionPatient=None, PixelSpacing=None, TriggerTime=None)
    data = SunnybrookDicom(root=twin)
    assert data.case_ids("test") == ["SC-HF-I-09/slice01/007", "SC-HF-I-09/slice02/007"]
    assert data.load(data.records("test")[0]).fixed_spacing_mm is None
    assert data.sequence(data.records("test")[0]).seconds_per_frame == 0.05
    assert "no PixelSpacing" in str(data.survey().findings[0])


def test_a_slice_without_all_frames_is_a_pair_only(twin: Path) -> None:
    (twin / "SCD_IMAGES_02/SCD0000801/CINESAX_300/IM-0003-0033.dcm").unlink()
    data = SunnybrookDicom(root=twin)
    assert data.survey().counts["slices without all 20 frames: no sequence"] == 1
    record = data.records("test")[0]
    assert data.load(record).fixed.shape == (1, 1, WIDTH, HEIGHT)
    with pytest.raises(DataError, match="SC-HF-I-09/slice01: not all 20 frames"):
        data.sequence(record)


@pytest.mark.parametrize("options", [{"size": (0, 4)}, {"seconds_per_frame": 0}])
def test_odd_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        SunnybrookDicom(**options)


ONE = "SCD_IMAGES_01/SCD0000101/CINESAX_300"
DRAWN = f"SCD_ManualContours/SC-HF-I-01/{EXPERT}"


def rewrite(number: int, **changes: Any) -> Callable[[Path], None]:
    return lambda root: write_image(root / ONE / f"IM-0003-{number:04d}.dcm", number, **changes)


def contour(number: int, kind: str, text: str) -> Callable[[Path], Any]:
    return lambda root: (root / DRAWN / f"IM-0001-{number:04d}-{kind}contour-manual.txt").write_text(text)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing image": (
        lambda r: (r / ONE / "IM-0003-0028.dcm").unlink(),
        f"{ONE}/IM-0003-0028.dcm: no such image, but it has a contour",
    ),
    "truncated": (lambda r: truncate(r / ONE / "IM-0003-0005.dcm"), f"{ONE}/IM-0003-0005.dcm: truncated"),
    "no DICOM": (
        lambda r: (r / ONE / "IM-0003-0006.dcm").write_bytes(b"nothing of the kind" * 50),
        f"{ONE}/IM-0003-0006.dcm: unreadable or truncated DICOM",
    ),
    "shape": (
        rewrite(7, Rows=16, PixelData=bytes(16 * WIDTH * 2)),
        f"{ONE}/IM-0003-0007.dcm: (40, 16) pixels of",
    ),
    "spacing": (rewrite(9, PixelSpacing=[1, 0]), f"{ONE}/IM-0003-0009.dcm: PixelSpacing"),
    "text": (
        contour(40, "i", "10 10\n20 twenty\n10 20\n"),
        f"{DRAWN}/IM-0001-0040-icontour-manual.txt: line 2 is '20 twenty', expected x y in pixels",
    ),
    "outside": (
        contour(40, "o", "10 10\n20 10\n20 90\n"),
        f"{DRAWN}/IM-0001-0040-ocontour-manual.txt: 1 points outside the image of 40 x 32 pixels, first line 3",
    ),
    "too few": (
        contour(48, "i", "10 10\n20 10\n"),
        f"{DRAWN}/IM-0001-0048-icontour-manual.txt: 2 points, expected at least 3",
    ),
    "not a number": (
        contour(60, "o", "10 10\nnan 10\n20 20\n"),
        f"{DRAWN}/IM-0001-0060-ocontour-manual.txt: line 2 is 'nan 10', expected finite numbers",
    ),
    "no area": (
        contour(60, "i", "10 10\n20 10\n15 10\n"),
        f"{DRAWN}/IM-0001-0060-icontour-manual.txt: encloses 0.00 pixels",
    ),
    "outer alone": (
        contour(33, "o", "10 10\n20 10\n15 15\n"),
        f"{DRAWN}/IM-0001-0033-ocontour-manual.txt: an outer contour without an inner one of frame 33",
    ),
    "nobody's contours": (
        lambda r: shutil.copytree(r / DRAWN, r / "SCD_ManualContours/SC-HYP-40" / EXPERT),
        f"SCD_ManualContours/SC-HYP-40/{EXPERT}: no images of SC-HYP-40",
    ),
    "twice": (
        lambda r: shutil.copytree(r / "SCD_ManualContours/SC-N-06", r / "copy/SC-N-6"),
        "contours of SC-N-06 once more, also in ",
    ),
    "patient's name": (
        lambda r: (r / "scd_patientdata.csv").open("a").write("\nSCD0000201,HF-I-2,Male,48,x\n"),
        "scd_patientdata.csv: line 5: OriginalID 'HF-I-2', expected one such as SC-HF-I-1",
    ),
}
OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "columns": (
        lambda r: (r / "scd_patientdata.csv").write_text("Patient,Original\nSCD0000101,SC-HF-I-1\n"),
        "scd_patientdata.csv: no column 'PatientID'; found Patient, Original",
    ),
    "no contours": (
        lambda r: [shutil.rmtree(r / f) for f in ("SCD_ManualContours", "__MACOSX")],
        "no folder <patient>/contours-manual/IRCCI-expert below it",
    ),
    "no files": (lambda r: [p.unlink() for p in (r / DRAWN).iterdir()], f"{DRAWN}: no file IM-0001-NNNN-icontour"),
    "constant": (
        lambda r: [rewrite(n, PixelData=bytes(WIDTH * HEIGHT * 2))(r) for n in (28, 40)],
        f"{ONE}/IM-0003-0028.dcm: a constant image",
    ),
    "constant between the contours": (
        rewrite(25, PixelData=bytes(WIDTH * HEIGHT * 2)),
        f"{ONE}/IM-0003-0025.dcm: a constant image",
    ),
    "missing between the contours": (
        lambda r: (r / ONE / "IM-0003-0025.dcm").unlink(),
        f"{ONE}/IM-0003-0025.dcm: no such file",
    ),
    "shape of the first frame": (
        rewrite(21, Rows=16, PixelData=bytes(16 * WIDTH * 2)),
        f"{ONE}/IM-0003-0021.dcm: (40, 16) pixels of (1.5, 1.25) mm, expected (40, 32)",
    ),
    "several frames": (
        rewrite(5, NumberOfFrames=2, PixelData=bytes(WIDTH * HEIGHT * 4)),
        f"{ONE}/IM-0003-0005.dcm: 2 frames, expected one per file",
    ),
}


@pytest.mark.parametrize("fault", [*FAULTS.items(), *OTHERS.items()], ids=lambda f: f[0])
def test_fault_is_named(fault: Any, twin: Path) -> None:
    plant, expected = fault[1]
    plant(twin)
    found = [str(f) for f in inspect(SunnybrookDicom(root=twin)).faults]
    assert any(expected in line for line in found), found


def test_one_frame_of_another_size_is_one_fault(twin: Path) -> None:
    rewrite(21, Rows=16, PixelData=bytes(16 * WIDTH * 2))(twin)
    assert len(SunnybrookDicom(root=twin).survey().faults) == 1


def test_an_open_contour_is_a_note(twin: Path) -> None:
    path = twin / DRAWN / "IM-0001-0040-icontour-manual.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:40]))
    notes = [str(f) for f in SunnybrookDicom(root=twin).survey().findings]
    assert any(f"{DRAWN}/{path.name}: its ends are 14" in n and "truncated?" in n for n in notes), notes


def test_a_missing_frame_stops_no_run(twin: Path) -> None:
    before = SunnybrookDicom(root=twin).case_ids("test")
    (twin / ONE / "IM-0003-0025.dcm").unlink()
    assert SunnybrookDicom(root=twin).case_ids("test") == before


def test_all_faults_at_once_and_exit_status(twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["data", "check", "sunnybrook-dicom", "--root", str(twin), "--out", str(tmp_path / "out")]
    assert cli.main(check) == 0
    report = capsys.readouterr().out
    for text in ("slices with one contoured frame, left out (3)", "papillary contours, not used (3)", "40 x 32 (6)"):
        assert text in report
    for plant, _ in FAULTS.values():
        plant(twin)
    assert cli.main(check) == 1
    report = capsys.readouterr().out
    for _, expected in FAULTS.values():
        assert expected in report
    assert cli.main(["data", "check", "sunnybrook-dicom", "--root", str(tmp_path / "nowhere")]) == 2
    assert "cardiacatlas.org" in capsys.readouterr().err


def test_oddities_are_noted(twin: Path) -> None:
    (twin / DRAWN / "list.txt").write_text("")
    write_contour(twin / DRAWN, 44, "i", circle(7))
    (twin / DRAWN / "IM-0001-0060-ocontour-manual.txt").unlink()
    shutil.rmtree(twin / "SCD_ManualContours/SC-N-06")
    notes = [str(f) for f in SunnybrookDicom(root=twin).survey().findings]
    assert [f.severity for f in SunnybrookDicom(root=twin).survey().findings] == ["note"] * 4
    for text in (
        "list.txt: not used",
        "3 frames of its slice have contours; 60 and 48 are used",
        "the outer contour is at end-systole",
        "SC-N-06: images without contours are not used",
    ):
        assert any(text in note for note in notes), notes


@pytest.mark.usefixtures("in_this_process")
def test_suite_runs(atlas: Path, tmp_path: Path) -> None:
    arguments = ["run", "sunnybrook-dicom", "--data.root", str(atlas), "--out", str(tmp_path / "run")]
    assert cli.main([*arguments, "--methods", "identity,demons-symmetric", "--limit", "2"]) == 0
    assert [row["status"] for row in read_rows(tmp_path / "run")] == ["ok"] * 4


@pytest.mark.data
def test_real_pictures_in_this_layout(data_root: Path, tmp_path: Path) -> None:
    """Real frames with their real masks, as DICOM and contours, come back as they were."""
    # No pictures of the online set are at hand: another patient's stand for it, for a test split must not be empty.
    masks = _write_real(data_root, tmp_path, "SC-N-02", "Training", "SC-N-02")
    _write_real(data_root, tmp_path, "SC-N-03", "Online", "SC-N-09")
    data = SunnybrookDicom(root=tmp_path)
    assert not inspect(data).faults
    assert data.case_ids("test") == ["SC-N-09/slice00/001"]
    pair = data.case("SC-N-02/slice00/001", "train")
    for labels, drawn in ((pair.fixed_labels, masks[1]), (pair.moving_labels, masks[0])):
        assert labels is not None
        assert int(((drawn > 0) != labels[0, 0].numpy().T).sum()) <= 2
    assert pydicom.dcmread(data.records("train")[0]["fixed"]).Rows == 192


def _write_real(data_root: Path, folder: Path, patient: str, part: str, name: str) -> np.ndarray:
    """Two frames of one slice of `patient` as `name` of a part of the challenge; returns their masks."""
    with np.load(data_root / "sunnybrook_ed_es" / f"{patient}.npz") as stored:
        frames, masks = stored["image"][3], stored["mask"][3]
    for number, (image, drawn) in enumerate(zip(frames, masks, strict=True), start=1):
        write_image(
            folder / f"{part}DataDICOM" / name / "DICOM" / f"IM-0001-{number:04d}.dcm",
            number,
            Rows=192,
            Columns=192,
            PixelData=image.astype(np.uint16).tobytes(),
        )
        # The outline of the mask, along the edges of its pixels.
        lines = pyplot.contour(drawn, [0.5]).allsegs[0]
        pyplot.close()
        points = max(lines, key=len)[:-1]
        write_contour(folder / f"{part}DataContours" / name / EXPERT, number, "i", points)
    return np.asarray(masks)

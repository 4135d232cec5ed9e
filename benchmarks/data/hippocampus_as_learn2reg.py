"""Writes the hippocampus subjects of the Decathlon as Learn2Reg distributes them.

    python benchmarks/data/hippocampus_as_learn2reg.py --out DIR --layout 2020|2022 [--subjects N] [--root DIR]

`2020` is task 4 (`task_04/Training/{img,label}/hippocampus_NNN.nii.gz` and `pairs_val.csv`), `2022` is HippocampusMR
(`imagesTr`, `labelsTr` and `HippocampusMR_dataset.json`). Images and labels are padded with 0 to 64 x 64 x 64, the
smaller half in front; voxel values stay as stored. The subjects of the split `test` of `split.csv` are those of the
validation pairs, each against the next and the seventh next.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

SIZE = (64, 64, 64)
_LABELS = {"0": "background", "1": "anterior", "2": "posterior"}


def padded(image: sitk.Image) -> sitk.Image:
    """`image` in the middle of 64 x 64 x 64 voxels of 0; its voxels stay where they are in the world."""
    missing = [wanted - n for wanted, n in zip(SIZE, image.GetSize(), strict=True)]
    if min(missing) < 0:
        raise SystemExit(f"an image of {image.GetSize()} voxels does not fit into {SIZE}")
    front = [n // 2 for n in missing]
    back = [n - m for n, m in zip(missing, front, strict=True)]
    return sitk.ConstantPad(image, front, back, 0)


def chosen_subjects(root: Path, subjects: int | None) -> tuple[list[str], list[str]]:
    """Numbers of the training and of the validation subjects, a quarter of them validation if only some are wanted."""
    with (root / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted((row["file"][len("hippocampus_") :][:3], row["split"]) for row in csv.DictReader(file))
    test = [number for number, split in rows if split == "test"]
    train = [number for number, split in rows if split != "test"]
    if subjects is None:
        return train, test
    held = max(2, min(len(test), subjects // 4))
    return train[: subjects - held], test[:held]


def validation_pairs(test: list[str]) -> list[tuple[str, str]]:
    """Each against the next and the seventh next, round and round; each pair once."""
    pairs = [(test[i], test[(i + step) % len(test)]) for step in (1, 7) for i in range(len(test))]
    return list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))


def write_2020(root: Path, out: Path, train: list[str], test: list[str]) -> Path:
    """The layout of 2020, task 4."""
    training = out / "task_04" / "Training"
    for number in sorted(train + test):
        for source, target in (("images", "img"), ("labels", "label")):
            _copy(root / source / f"hippocampus_{number}.nii.gz", training / target / f"hippocampus_{number}.nii.gz")
    lines = ["fixed,moving", *(f"{int(a)},{int(b)}" for a, b in validation_pairs(test))]
    (training.parent / "pairs_val.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def write_2022(root: Path, out: Path, train: list[str], test: list[str]) -> Path:
    """The layout since 2022, HippocampusMR."""
    task = out / "HippocampusMR"
    for number in sorted(train + test):
        for kind in ("images", "labels"):
            _copy(root / kind / f"hippocampus_{number}.nii.gz", task / f"{kind}Tr" / _name(number))
    training = [{"image": f"./imagesTr/{_name(n)}", "label": f"./labelsTr/{_name(n)}"} for n in sorted(train + test)]
    pairs = [{"fixed": f"./imagesTr/{_name(a)}", "moving": f"./imagesTr/{_name(b)}"} for a, b in validation_pairs(test)]
    content = {
        "name": "HippocampusMR",
        "release": "1.0",
        "description": "Medical Segmentation Decathlon, Task04_Hippocampus, written in the layout of Learn2Reg",
        "licence": "CC-BY-SA 4.0",
        "reference": "A. L. Simpson et al., arXiv:1902.09063",
        "pairings": "unpaired",
        "provided_data": {"0": ["image", "label"]},
        "registration_direction": {"fixed": 0, "moving": 0},
        "modality": {"0": "MR"},
        "img_shift": {"fixed": "patient A", "moving": "patient B"},
        "labels": {"0": _LABELS},
        "tensorImageSize": {"0": "3D"},
        "tensorImageShape": {"0": list(SIZE)},
        "numTraining": len(training),
        "numTest": 0,
        "training": training,
        "test": [],
        "numPairedTraining": 0,
        "training_paired_images": [],
        "numPairedTest": 0,
        "test_paired_images": [],
        "numRegistration_val": len(pairs),
        "registration_val": pairs,
        "numRegistration_test": 0,
        "registration_test": [],
    }
    (task / "HippocampusMR_dataset.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    return out


def _name(number: str) -> str:
    return f"HippocampusMR_{int(number):04d}_0000.nii.gz"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(padded(sitk.ReadImage(str(source))), str(target), useCompression=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--layout", choices=("2020", "2022"), required=True)
    parser.add_argument("--subjects", type=int, help="how many at most; all if not given")
    default = Path(os.environ["REG_BENCH_DATA"], "hippocampus_msd") if "REG_BENCH_DATA" in os.environ else None
    parser.add_argument("--root", type=Path, default=default, help="folder with images, labels and split.csv")
    args = parser.parse_args(arguments)
    if args.root is None or not (args.root / "split.csv").is_file():
        parser.error("no hippocampus images: give --root DIR, or set REG_BENCH_DATA to the folder of hippocampus_msd")
    if args.subjects is not None and args.subjects < 4:
        parser.error("--subjects: expected at least 4")
    write = write_2020 if args.layout == "2020" else write_2022
    print(write(args.root, args.out, *chosen_subjects(args.root, args.subjects)))


if __name__ == "__main__":
    main()

"""The dataset JSON of Learn2Reg since 2022, `<Task>_dataset.json`, read into typed values.

Every value is looked at before any is used, so that all that is wrong with a file is told at once, each with its key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from reg_bench.errors import DataError
from reg_bench.learn2reg_presets import Pairings

SUFFIX = "_dataset.json"

PAIRINGS = ("paired", "unpaired", "hybrid")
_TEXTS = ("name", "release", "description", "licence", "reference")
# Each list and the key that tells its length.
_COUNTS = {
    "training": "numTraining",
    "test": "numTest",
    "training_paired_images": "numPairedTraining",
    "test_paired_images": "numPairedTest",
    "registration_val": "numRegistration_val",
    "registration_test": "numRegistration_test",
}
KEYS = (
    *_TEXTS,
    "pairings",
    "provided_data",
    "registration_direction",
    "modality",
    "img_shift",
    "labels",
    "tensorImageSize",
    "tensorImageShape",
    *_COUNTS,
    *_COUNTS.values(),
)


@dataclass(frozen=True)
class Entry:
    """An image and what goes with it, as the JSON names them: `image`, and `label`, `mask`, `keypoints`, …"""

    image: str
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImagePair:
    """An element of the lists of pairs: paths of the images."""

    fixed: str
    moving: str


@dataclass(frozen=True)
class TaskJson:
    """The content of a dataset JSON; what it leaves out is empty or `None`.

    Attributes:
        name, release, description, licence, reference: texts about the task.
        pairings: see `reg_bench.learn2reg_presets.Preset`.
        provided_data: modality to the kinds of data that its images come with.
        fixed, moving: modality numbers of `registration_direction`.
        modality: number to name.
        img_shift: what `fixed` and `moving` mean, such as follow-up and baseline.
        labels: value to name, background left out, of all modalities together.
        dimensions: modality to text such as `3D` (`tensorImageSize`).
        shapes: modality to shape (`tensorImageShape`).
        training, test: the images.
        training_pairs, test_pairs: `training_paired_images` and `test_paired_images`.
        registration_val, registration_test: the pairs that the challenge scores.
        notes: what is odd and was dealt with.
    """

    path: Path
    name: str
    release: str = ""
    description: str = ""
    licence: str = ""
    reference: str = ""
    pairings: Pairings | None = None
    provided_data: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    fixed: int | None = None
    moving: int | None = None
    modality: Mapping[int, str] = field(default_factory=dict)
    img_shift: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    dimensions: Mapping[int, str] = field(default_factory=dict)
    shapes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    training: tuple[Entry, ...] = ()
    test: tuple[Entry, ...] = ()
    training_pairs: tuple[ImagePair, ...] = ()
    test_pairs: tuple[ImagePair, ...] = ()
    registration_val: tuple[ImagePair, ...] = ()
    registration_test: tuple[ImagePair, ...] = ()
    notes: tuple[str, ...] = ()


def read_task_json(path: Path, fault: Callable[[str], None]) -> TaskJson | None:
    """The content of `path`; `fault` is told everything that is wrong, and `None` comes back if anything is."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        fault(f"not valid JSON in line {error.lineno}, column {error.colno}: {error.msg}")
        return None
    except (OSError, UnicodeDecodeError) as error:
        fault(f"cannot be read: {error}")
        return None
    if not isinstance(content, dict):
        fault(f"expected a mapping of keys, got {type(content).__name__}")
        return None
    reader = _Reader(path, content)
    task = reader.read()
    for text in reader.faults:
        fault(text)
    return None if reader.faults else task


def name_in(path: Path) -> str:
    """The name of the task of a JSON file: its key `name`, else the name of the file."""
    try:
        name = json.loads(path.read_text(encoding="utf-8-sig")).get("name")
    except (OSError, ValueError, AttributeError):
        name = None
    return name if isinstance(name, str) and name else path.name.removesuffix(SUFFIX)


def find_task_jsons(root: Path) -> list[Path]:
    """Every `*_dataset.json` in the folder and up to two folders below, in order of name.

    Raises:
        DataError: a folder that cannot be read.
    """
    try:
        found = [p for depth in ("", "*/", "*/*/") for p in root.glob(f"{depth}*{SUFFIX}") if p.is_file()]
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror})") from error
    return sorted(p for p in found if not any(part.startswith((".", "__")) for part in p.relative_to(root).parts))


class _Reader:
    """Takes the values out of the parsed file and collects what is wrong with them."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self.content = path, content
        self.faults: list[str] = []
        self.notes: list[str] = []

    def read(self) -> TaskJson:
        unknown = [str(k) for k in self.content if k not in KEYS]
        if unknown:
            self.notes.append(f"unknown keys {', '.join(map(repr, unknown))} are left alone")
        if "name" not in self.content:
            self.faults.append("key 'name' is missing: expected the name of the task")
        if "training" not in self.content:
            self.faults.append("key 'training' is missing: expected the list of training images")
        texts = {key: self.text(key) for key in _TEXTS}
        direction = self.direction()
        entries = {key: self.entries(key) for key in ("training", "test")}
        pairs = {key: self.pairs(key) for key in list(_COUNTS)[2:]}
        self.counts({**entries, **pairs})
        return TaskJson(
            path=self.path,
            **texts,
            pairings=self.pairings(),
            provided_data={m: self.names(f"provided_data.{m}", v) for m, v in self.by_modality("provided_data")},
            fixed=direction.get("fixed"),
            moving=direction.get("moving"),
            modality={m: self.expect(str, f"modality.{m}", v, "a text", "") for m, v in self.by_modality("modality")},
            img_shift={k: str(v) for k, v in self.mapping("img_shift").items()},
            labels=self.labels(),
            dimensions=self.dimensions(),
            shapes=self.shapes(),
            training=entries["training"],
            test=entries["test"],
            training_pairs=pairs["training_paired_images"],
            test_pairs=pairs["test_paired_images"],
            registration_val=pairs["registration_val"],
            registration_test=pairs["registration_test"],
            notes=tuple(self.notes),
        )

    def expect(self, kind: type, key: str, value: Any, words: str, default: Any) -> Any:
        """`value` if it is of `kind`, else `default` and a fault."""
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        shown = repr(value)
        self.faults.append(f"key {key!r}: expected {words}, got {shown if len(shown) < 60 else shown[:57] + '…'}")
        return default

    def text(self, key: str) -> str:
        value = self.content.get(key, "")
        # A release is sometimes written as a number.
        value = str(value) if isinstance(value, int | float) and key == "release" else value
        return str(self.expect(str, key, value, "a text", ""))

    def mapping(self, key: str) -> dict[str, Any]:
        return dict(self.expect(dict, key, self.content.get(key, {}), "a mapping", {}))

    def by_modality(self, key: str) -> Iterator[tuple[int, Any]]:
        for number, value in self.mapping(key).items():
            if self.is_number(number):
                yield int(number), value
            else:
                self.faults.append(f"key {key!r}: expected modality numbers such as '0', got {number!r}")

    @staticmethod
    def is_number(text: Any) -> bool:
        return str(text).isdecimal()

    def names(self, key: str, value: Any) -> tuple[str, ...]:
        return tuple(str(v) for v in self.expect(list, key, value, "a list", []))

    def pairings(self) -> Pairings | None:
        value = self.content.get("pairings")
        if value is None or value in PAIRINGS:
            return cast("Pairings | None", value)
        self.faults.append(f"key 'pairings': expected one of {', '.join(PAIRINGS)}, got {value!r}")
        return None

    def direction(self) -> dict[str, int]:
        found = {}
        for role, value in self.mapping("registration_direction").items():
            key = f"registration_direction.{role}"
            if role not in ("fixed", "moving"):
                self.faults.append(f"key {key!r}: expected 'fixed' and 'moving'")
            elif self.is_number(value):
                found[role] = int(value)
            else:
                self.faults.append(f"key {key!r}: expected the number of a modality, got {value!r}")
        return found

    def labels(self) -> dict[int, str]:
        """`{"0": {"1": "liver", …}}`, or the inner mapping alone."""
        given = self.mapping("labels")
        nested = {k: v for k, v in given.items() if isinstance(v, dict)}
        groups = nested if nested else {"": given}
        if nested and len(nested) < len(given):
            self.faults.append("key 'labels': expected modalities or labels, got both mixed")
        found: dict[int, str] = {}
        for modality, group in groups.items():
            for value, name in group.items():
                key = f"labels.{modality}.{value}" if modality else f"labels.{value}"
                if not self.is_number(value):
                    self.faults.append(f"key {key!r}: expected a label number, got {value!r}")
                elif int(value) != 0:
                    known = found.setdefault(int(value), str(name))
                    if known != str(name):
                        self.notes.append(f"label {value} is called {known!r} and {str(name)!r}; the first is used")
        return found

    def dimensions(self) -> dict[int, str]:
        value = self.content.get("tensorImageSize", {})
        if isinstance(value, str):
            return {0: value}
        return {m: str(v) for m, v in self.by_modality("tensorImageSize")}

    def shapes(self) -> dict[int, tuple[int, ...]]:
        value = self.content.get("tensorImageShape", {})
        given = [(0, value)] if isinstance(value, list) else list(self.by_modality("tensorImageShape"))
        found = {}
        for modality, shape in given:
            sound = isinstance(shape, list) and len(shape) == 3
            if sound and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
                found[modality] = tuple(shape)
            else:
                self.faults.append(f"key 'tensorImageShape.{modality}': expected three lengths, got {shape!r}")
        return found

    def entries(self, key: str) -> tuple[Entry, ...]:
        """A list of images, or one such list for each modality."""
        value = self.content.get(key, [])
        lists = value.items() if isinstance(value, dict) else [("", value)]
        found = []
        for modality, entries in lists:
            where = f"{key}.{modality}" if modality else key
            for index, entry in enumerate(self.expect(list, where, entries, "a list", [])):
                read = self.entry(f"{where}[{index}]", entry)
                if read is not None:
                    found.append(read)
        return tuple(found)

    def entry(self, key: str, value: Any) -> Entry | None:
        if isinstance(value, str):
            return Entry(value)
        if not isinstance(value, dict):
            self.faults.append(f"key {key!r}: expected a mapping with 'image', got {value!r}")
            return None
        wrong = [k for k, v in value.items() if not isinstance(v, str) or not v]
        self.faults += [f"key '{key}.{k}': expected the path of a file, got {value[k]!r}" for k in wrong]
        if "image" not in value:
            self.faults.append(f"key '{key}.image' is missing")
        if wrong or "image" not in value:
            return None
        return Entry(value["image"], {k: v for k, v in value.items() if k != "image"})

    def pairs(self, key: str) -> tuple[ImagePair, ...]:
        found = []
        for index, value in enumerate(self.expect(list, key, self.content.get(key, []), "a list", [])):
            sides = [value.get(role) for role in ("fixed", "moving")] if isinstance(value, dict) else []
            if len(sides) == 2 and all(isinstance(side, str) and side for side in sides):
                found.append(ImagePair(str(sides[0]), str(sides[1])))
            else:
                self.faults.append(f"key '{key}[{index}]': expected the paths 'fixed' and 'moving', got {value!r}")
        return tuple(found)

    def counts(self, lists: Mapping[str, tuple[Any, ...]]) -> None:
        for key, count in _COUNTS.items():
            told = self.content.get(count)
            if told is None or (isinstance(told, dict) and sum(v for v in told.values() if isinstance(v, int)) == 0):
                continue
            total = sum(v for v in told.values() if isinstance(v, int)) if isinstance(told, dict) else told
            if not isinstance(total, int) or isinstance(total, bool):
                self.faults.append(f"key {count!r}: expected a number, got {told!r}")
            elif total != len(lists[key]):
                self.notes.append(f"{count} is {total}, but {key!r} lists {len(lists[key])}, which are used")

"""What a dataset finds in its folder: the cases of each split, what was counted, and everything that is wrong.

A dataset of files looks through its folder once, by names and headers, and writes all it sees into a `Survey`.
`records` then takes the cases from it, which fails with the whole list of faults, and `reg-bench data check`
prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reg_bench.errors import DataError
from reg_bench.splits import SPLITS

Record = Mapping[str, Any]
Severity = Literal["fault", "note"]
Content = Literal["image", "labels", "mask", "series", "picture"]

_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """Something to say about a file.

    Attributes:
        file: which, relative to the root where it lies below it; empty for the folder as a whole.
        message: what is wrong and what was expected.
        severity: `fault`: work cannot begin; `note`: a known oddity that was dealt with as the message says.
    """

    file: str
    message: str
    severity: Severity = "fault"

    def __str__(self) -> str:
        return f"{self.file}: {self.message}" if self.file else self.message


@dataclass
class Survey:
    """Filled by a dataset while it looks through its folder.

    Attributes:
        root: paths of findings are told relative to it.
        records: the cases of each split.
        counts: whatever is worth counting, such as `subjects`, `videos` or `too short`, in order of counting.
        findings: faults and notes in the order in which they were met.
        contents: files that `reg-bench data check` opens although no case of this configuration may need them, with
            what they hold.
        about: said behind the faults where nothing at all could be used: where the data comes from, what is expected.
    """

    root: Path | None = None
    records: dict[str, list[Record]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    contents: dict[Path, Content] = field(default_factory=dict)
    about: tuple[str, ...] = ()

    def fault(self, file: str | Path, message: str) -> None:
        """Notes something that must be mended before the dataset can be used."""
        self.findings.append(Finding(self.relative(file), self.shortened(message)))

    def note(self, file: str | Path, message: str) -> None:
        """Notes an oddity that was dealt with."""
        self.findings.append(Finding(self.relative(file), self.shortened(message), "note"))

    def count(self, what: str, number: int = 1) -> None:
        """Adds to the counter `what`."""
        self.counts[what] = self.counts.get(what, 0) + number

    def holds(self, file: Path, content: Content) -> None:
        """Has `reg-bench data check` open a file: `series` is a 4-D image, `picture` a DICOM file."""
        self.contents.setdefault(file, content)

    @property
    def faults(self) -> list[Finding]:
        return [f for f in self.findings if f.severity == "fault"]

    def cases(self, name: str, split: str) -> list[Record]:
        """The records of `split`.

        Raises:
            DataError: the dataset `name` has faults; names them.
        """
        faults = self.faults
        if faults:
            where = f" in {self.root}" if self.root else ""
            lines = [f"{name}: {len(faults)} fault{'s' if len(faults) > 1 else ''}{where}"]
            lines += [str(f) for f in faults[:_SHOWN]]
            if len(faults) > _SHOWN:
                lines.append(f"… and {len(faults) - _SHOWN} more: `reg-bench data check {name}` lists them all")
            lines += () if any(self.records.values()) else self.about
            raise DataError("\n  ".join(lines))
        return self.records[split]

    def relative(self, file: str | Path) -> str:
        """`file` as findings name it: relative to the root where it lies below it, empty for the root itself."""
        path = Path(file)
        if self.root is not None and path.is_relative_to(self.root):
            return "" if path == self.root else str(path.relative_to(self.root))
        return str(file) if str(file) != "." else ""

    def shortened(self, message: str) -> str:
        """`message` without the folder in front of file names, which the heading tells once."""
        return message.replace(f"{self.root}/", "") if self.root else message


def subjects_of(record: Record) -> tuple[str, ...]:
    """The people or animals in a case: its entry `subjects`, or the part of `case_id` before the first slash."""
    named = record.get("subjects")
    return tuple(str(s) for s in named) if named else (str(record["case_id"]).split("/")[0],)

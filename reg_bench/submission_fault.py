"""What can be wrong with a submission, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Kind of a reading that fits the images better than the field as it is, to what is wrong and how to mend it.
KINDS: Mapping[str, tuple[str, str]] = {
    "negated": (
        "the field has the wrong sign",
        "negate it: warped(x) = moving(x + u(x)), from the fixed grid into the moving image",
    ),
    "doubled": (
        "the values are twice too large",
        "halve them: values are voxels of the full grid, whatever the resolution that they are stored at",
    ),
    "halved": ("the values seem half too small", "values are voxels of the full grid: do not scale them with the grid"),
    "millimetres": ("the values look like millimetres", "divide each component by the spacing along its axis"),
    "normalised positions": (
        "the values look like a sampling grid in normalised coordinates (-1 to 1)",
        "turn it into voxels, ((g + 1) / 2 * (n - 1)) along each axis, in the order of the axes, and subtract x",
    ),
    "normalised": (
        "the values look like normalised coordinates (-1 to 1)",
        "multiply each component by (n - 1) / 2 of its axis, and bring components into the order of the axes",
    ),
    "positions": ("the values look like positions instead of displacements", "subtract the voxel position x"),
    "components": (
        "the components are in another order than the axes",
        "component i is the displacement along array axis i as nibabel loads the image: reorder the components",
    ),
}
WORSE = (
    "the warped image matches the fixed one worse than the unwarped does",
    "check direction (moving(x + u(x)) on the fixed grid), order of axes, unit, and that the field is of this pair",
)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        file: path in the submission; empty for the submission as a whole.
        kind: a short name, such as `missing`, `dtype` or `negated`.
        message: what is wrong and what was expected.
        fix: what to do.
    """

    file: str
    kind: str
    message: str
    fix: str

    def __str__(self) -> str:
        head = f"{self.file}: " if self.file else ""
        return f"{head}{self.message}. Fix: {self.fix}."


@dataclass
class Checked:
    """What was found in a submission.

    Attributes:
        profile: the form that it was taken for.
        expected: number of fields that it has to hold.
        faults: in order of finding.
        notes: what is odd but no fault.
    """

    profile: str
    expected: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, file: str, kind: str, message: str, fix: str) -> None:
        self.faults.append(Fault(file, kind, message, fix))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "profile": self.profile,
            "expected_fields": self.expected,
            "faults": [vars(fault) for fault in self.faults],
            "notes": list(self.notes),
        }

"""The forms in which Learn2Reg takes displacement fields: names, shapes and types of the files of a submission.

* `learn2reg-2020`: `task_0N/disp_FFFF_MMMM.npz`, float16 `(3, X', Y', Z')` under the key `arr_0`, at half resolution
  for tasks 1 to 3; all four tasks have to be there.
* `learn2reg-2021`: the same at half resolution, in the numbers of that year's tasks.
* `learn2reg` (2022 and later): `disp_FFFF_MMMM.nii.gz` or `disp_FFFF_ffff_MMMM_mmmm.nii.gz`, `(X, Y, Z, 3)`, full.
* `learn2reg-npz` (since June 2023): the same names with `.npz`, float16.

F and M are subjects, f and m modalities of the fixed and the moving image. Values are voxels of the full grid always.
The two evaluation scripts of the organisers disagree about names since 2022: `short_name` and `long_name` are each
demanded by one of them where both images have the same modality, so a submission holds both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reg_bench.displacement_2020 import half_shape
from reg_bench.errors import ConfigError
from reg_bench.learn2reg_presets import PRESETS

Profile = Literal["learn2reg", "learn2reg-npz", "learn2reg-2020", "learn2reg-2021"]
PROFILES: tuple[Profile, ...] = ("learn2reg", "learn2reg-npz", "learn2reg-2020", "learn2reg-2021")

#: Numbers of the tasks in the profiles that sort by number.
NUMBERS: Mapping[str, Mapping[str, int]] = {
    "learn2reg-2020": {preset.name: preset.task_2020 for preset in PRESETS.values() if preset.task_2020},
    "learn2reg-2021": {"AbdomenMRCT": 1, "LungCT": 2, "OASIS": 3},
}
#: The only task whose fields were stored at full resolution in 2020.
_FULL_2020 = "HippocampusMR"


@dataclass(frozen=True)
class ImageId:
    """Subject and modality of an image, such as `0001` and 0."""

    subject: str
    modality: int

    @classmethod
    def parse(cls, text: str) -> ImageId:
        """From `SSSS_mmmm`.

        Raises:
            ConfigError: another form.
        """
        subject, underscore, modality = text.partition("_")
        if not underscore or not subject.isdecimal() or not modality.isdecimal():
            raise ConfigError(f"{text!r} is not an image of Learn2Reg, expected SSSS_mmmm: subject and modality")
        return cls(f"{int(subject):04d}", int(modality))

    def __str__(self) -> str:
        return f"{self.subject}_{self.modality:04d}"


@dataclass(frozen=True)
class FieldId:
    """The pair of images that a field belongs to."""

    fixed: ImageId
    moving: ImageId

    @classmethod
    def parse(cls, case: str) -> FieldId:
        """From `SSSS_mmmm-SSSS_mmmm`, the identifiers of cases of the dataset `learn2reg`.

        Raises:
            ConfigError: another form.
        """
        fixed, dash, moving = case.partition("-")
        if not dash:
            raise ConfigError(f"{case!r} is not a case of Learn2Reg, expected SSSS_mmmm-SSSS_mmmm: fixed and moving")
        return cls(ImageId.parse(fixed), ImageId.parse(moving))

    def __str__(self) -> str:
        return f"{self.fixed}-{self.moving}"

    @property
    def official(self) -> str:
        """As the official results call the case."""
        return f"{self.fixed}<--{self.moving}"

    @property
    def short_name(self) -> str:
        return f"disp_{self.fixed.subject}_{self.moving.subject}"

    @property
    def long_name(self) -> str:
        return f"disp_{self.fixed}_{self.moving}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names that both scripts together need; the first is that of the script at the head of the repository."""
        if self.fixed.modality == self.moving.modality:
            return (self.long_name, self.short_name)
        return (self.short_name,) if (self.fixed.modality, self.moving.modality) == (0, 1) else (self.long_name,)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The names that at least one of the scripts takes."""
        both = (self.long_name, self.short_name)
        return both if self.fixed.modality == self.moving.modality or self.names == (self.short_name,) else self.names


def numbered(profile: str) -> bool:
    """Whether the files lie in folders `task_0N`, components first, as float16."""
    return profile in NUMBERS


def number_of(profile: str, task: str) -> int:
    """The number of a task in a profile that has numbers.

    Raises:
        ConfigError: no task of that edition.
    """
    known = NUMBERS[profile]
    if task not in known:
        listed = ", ".join(f"{n} {name}" for name, n in sorted(known.items(), key=lambda item: item[1]))
        raise ConfigError(f"{task} is no task of {profile}, which has {listed}; the profile learn2reg has all")
    return known[task]


def is_half(profile: str, task: str) -> bool:
    """Whether the fields of a task are stored at half resolution."""
    return profile == "learn2reg-2021" or (profile == "learn2reg-2020" and task != _FULL_2020)


def stored_shape(profile: str, task: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the array in a file, for images of `shape` voxels."""
    if not numbered(profile):
        return (*shape, len(shape))
    return (len(shape), *(half_shape(shape) if is_half(profile, task) else shape))


def suffix(profile: str) -> str:
    return ".nii.gz" if profile == "learn2reg" else ".npz"


def paths(profile: str, task: str, field: FieldId) -> tuple[str, ...]:
    """Where a field lies in the submission, under every name that it needs."""
    if numbered(profile):
        return (f"task_{number_of(profile, task):02d}/{field.short_name}.npz",)
    return tuple(name + suffix(profile) for name in field.names)

"""The tasks of Learn2Reg as data: shapes, directions, labels, windows and what the challenge scores.

Shapes, pairings, directions, labels and metrics are those of the official evaluation. Windows are ours: the
challenge sets none. Where a dataset JSON says something else, the JSON is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Pairings = Literal["paired", "unpaired", "hybrid"]
Window = tuple[float, float]

_LUNG: Window = (-1000.0, 500.0)
_SOFT_TISSUE: Window = (-500.0, 800.0)
_BODY: Window = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Preset:
    """What is known of a task before its files are seen.

    Attributes:
        name: of the task, as in its dataset JSON.
        shape: of every image.
        pairings: `paired`: two images of one person; `unpaired`: different people; `hybrid`: both in training.
        fixed, moving: modality number of the fixed and of the moving image.
        modality: number to name; images whose name contains CT are windowed.
        window: intensities of CT in HU that become 0 and 1.
        labels: value to name.
        metrics: what the challenge scores.
        primary: metric that our suites rank by.
        masked: whether the challenge restricts SDlogJ to the mask of the fixed image.
        task_2020: number of the task in 2020, 0 for later ones.
    """

    name: str
    shape: tuple[int, ...] | None = None
    pairings: Pairings = "paired"
    fixed: int = 0
    moving: int = 0
    modality: Mapping[int, str] = field(default_factory=dict)
    window: Window = _BODY
    labels: Mapping[int, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    primary: str = "dice"
    masked: bool = False
    task_2020: int = 0

    def window_of(self, modality: int) -> Window | None:
        """The window of a CT (or cone-beam CT) modality, `None` for others; a single name stands for all."""
        name = next(iter(self.modality.values())) if len(self.modality) == 1 else self.modality.get(modality, "")
        return self.window if "CT" in name.upper() else None


_DICE = ("dice", "hd95", "sdlogj")
_POINTS = ("tre", "sdlogj")

_ABDOMEN = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "left adrenal gland",
    "right adrenal gland",
)

_ALL = (
    Preset(
        name="LungCT",
        shape=(192, 192, 208),
        moving=1,
        modality={0: "CT", 1: "CT"},
        window=_LUNG,
        metrics=_POINTS,
        primary="tre_landmarks",
        masked=True,
        task_2020=2,
    ),
    Preset(
        name="AbdomenCTCT",
        shape=(192, 160, 256),
        pairings="unpaired",
        modality={0: "CT"},
        window=_SOFT_TISSUE,
        labels=dict(enumerate(_ABDOMEN, start=1)),
        metrics=_DICE,
        task_2020=3,
    ),
    Preset(
        name="HippocampusMR",
        shape=(64, 64, 64),
        pairings="unpaired",
        modality={0: "MR"},
        labels={1: "anterior", 2: "posterior"},
        metrics=_DICE,
        task_2020=4,
    ),
    Preset(
        name="OASIS",
        shape=(160, 224, 192),
        pairings="unpaired",
        modality={0: "MR"},
        labels={value: f"structure {value}" for value in range(1, 36)},
        metrics=_DICE,
    ),
    Preset(
        name="NLST",
        shape=(224, 192, 224),
        moving=1,
        modality={0: "CT", 1: "CT"},
        window=_LUNG,
        metrics=_POINTS,
        primary="tre_keypoints",
        masked=True,
    ),
    Preset(
        name="AbdomenMRCT",
        shape=(192, 160, 192),
        pairings="hybrid",
        moving=1,
        modality={0: "MR", 1: "CT"},
        window=_SOFT_TISSUE,
        labels={1: "liver", 2: "spleen", 3: "right kidney", 4: "left kidney"},
        metrics=_DICE,
        masked=True,
    ),
    Preset(
        name="ThoraxCBCT",
        shape=(390, 280, 300),
        fixed=1,
        modality={0: "FBCT", 1: "CBCT", 2: "CBCT"},
        metrics=("dice", "tre", "sdlogj"),
        primary="tre_keypoints",
    ),
    Preset(
        name="CuRIOUS",
        shape=(256, 256, 288),
        moving=2,
        modality={0: "MR FLAIR", 1: "MR T1", 2: "US"},
        metrics=_POINTS,
        primary="tre_landmarks",
        task_2020=1,
    ),
)

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}


def preset_called(name: str) -> Preset | None:
    """The preset of a task, whatever the case of its letters."""
    return next((p for p in _ALL if p.name.lower() == name.lower()), None)

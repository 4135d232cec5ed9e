"""Random shapes to learn registration from: a fresh pair in every step, without any images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch.utils.data import DataLoader, Dataset

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import ConfigError
from reg_bench.synthesis_cases import case_seed
from reg_bench.synthesis_shapes import ShapesConfig, shapes_pair
from reg_bench.types import RegistrationPair

# Training pairs are counted on without end, apart from all others.
_TRAINING, _HELD_OUT = 0, 1
_SHAPES = ShapesConfig()


class RandomShapes(RegistrationDataModule):
    """Pairs of randomly generated shapes in random contrast under random diffeomorphisms (generated, as SynthMorph).

    A training pair follows from the seed and its number, counted from the beginning of the training over all epochs
    and processes: neither workers nor processes nor a restart change it, and none comes twice. Validation and test
    pairs are held out. All have labels, `true_displacement`, landmarks, and a mask of where that displacement leads to
    within the moving image.

    Args:
        shapes: what is drawn.
        cases: validation and test pairs.
        epoch_pairs: training pairs per epoch.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of `RegistrationDataModule`.

    Raises:
        ConfigError: numbers that make no pairs.
    """

    name: ClassVar[str] = "random-shapes"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = "Apache-2.0"
    splits: ClassVar[str] = "train without end, drawn by number; `cases` pairs each for val and test"

    def __init__(
        self, *, shapes: ShapesConfig = _SHAPES, cases: int = 20, epoch_pairs: int = 200, **options: Any
    ) -> None:
        super().__init__(**options)
        if cases < 1 or epoch_pairs < 1:
            raise ConfigError(f"{self.name}: cases and epoch_pairs must be at least 1, got {cases} and {epoch_pairs}")
        if len(shapes.size) not in (2, 3) or min(shapes.size) < 8:
            raise ConfigError(f"{self.name}: size must be 2 or 3 lengths of at least 8, got {list(shapes.size)}")
        if not 1 <= shapes.shapes[0] <= shapes.shapes[1] <= 250:
            raise ConfigError(f"{self.name}: shapes must rise from 1 to at most 250, got {list(shapes.shapes)}")
        self.shapes, self.cases, self.epoch_pairs = shapes, cases, epoch_pairs

    def records(self, split: Split) -> Sequence[Record]:
        """Of `train` the pairs of the first epoch."""
        if split == "train":
            return [{"case_id": f"train{i:03d}", "number": i} for i in range(self.epoch_pairs)]
        return [{"case_id": f"{split}{i:03d}", "seed": case_seed(split, self.seed, i)} for i in range(self.cases)]

    def load(self, record: Record) -> RegistrationPair:
        """The pair of `record`, generated."""
        of_training = "number" in record
        key = (_TRAINING, self.seed, record["number"]) if of_training else (_HELD_OUT, record["seed"])
        return shapes_pair(self.shapes, *key, case_id=str(record["case_id"]))

    def train_dataloader(self) -> DataLoader[RegistrationPair]:
        """Fresh pairs: an epoch goes on counting where the one before ended."""
        length = self.epoch_pairs
        return self._training_loader(_Endless(self), lambda e: range(e * length, (e + 1) * length), length)


class _Endless(Dataset[RegistrationPair]):
    """Training pairs by number."""

    def __init__(self, data: RandomShapes) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.epoch_pairs

    def __getitem__(self, number: int) -> RegistrationPair:
        return self.data.load({"case_id": f"train{number:03d}", "number": number})

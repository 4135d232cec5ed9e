"""Random diffeomorphisms as trackers see them: what networks that fill in displacements are trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from reg_bench.errors import ConfigError
from reg_bench.random_diffeomorphisms import random_diffeomorphisms
from reg_bench.sparse_to_dense.observation import EXACT, Observed, TrackerErrors, observe
from reg_bench.training_order import LateLoader

# Apart from the seeds of training, whatever the seed.
_HELD_OUT = 1 << 20


class RandomFields(LightningDataModule):
    """Fresh fields in every step, from geodesic shooting, sampled at random points; held-out ones to validate on.

    A batch is a function of seed, rank and step only: neither the number of workers nor a resumed run changes it.
    Lengths are in voxels. There are no images, so no suite can name it.

    Args:
        shape: of the fields.
        std: smallest and largest `std` of the kernel `exp(-r^2 / std^2)`; each field draws its own.
        distance: how far points move, smallest and largest.
        points: fewest and most in a field of `shape`, drawn uniformly in their logarithm, one number for a batch.
        crop: the shape of the cut-outs that are learned from; `None` for whole fields.
        cuts: how many cut-outs a field gives.
        exact: share of batches whose values are exact and trusted.
        noise, outliers, reach: of the others, up to, as of `TrackerErrors`.
        batch_size: fields or cut-outs in a batch.
        steps: batches in an epoch.
        validation_fields: how many are held out. They are whole, and seen at `validation_points` points, once exactly
            and once with the errors of a tracker (noise 1, a tenth lost).
        num_workers: loading processes.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        shape: Sequence[int] = (256, 256),
        std: tuple[float, float] = (40.0, 99.0),
        distance: tuple[float, float] = (0.0, 19.0),
        points: tuple[int, int] = (150, 199),
        crop: Sequence[int] | None = None,
        cuts: int = 1,
        exact: float = 1.0,
        noise: float = 1.5,
        outliers: float = 0.2,
        reach: float = 15.0,
        batch_size: int = 8,
        steps: int = 5,
        validation_fields: int = 8,
        validation_points: int = 150,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        ranges = {"std": std, "distance": distance, "points": points}
        for name, (low, high) in ranges.items():
            if not 0 <= low <= high or (name != "distance" and low == 0):
                raise ConfigError(f"RandomFields: {name} must rise from a positive number, got {low} to {high}")
        if batch_size < 1 or cuts < 1 or batch_size % cuts or steps < 1 or validation_fields < 1:
            raise ConfigError(
                "RandomFields: batch_size must be a multiple of cuts, steps and validation_fields at least 1, got "
                f"{batch_size}, {cuts}, {steps} and {validation_fields}"
            )
        if crop is not None and (len(crop) != len(shape) or any(c > n for c, n in zip(crop, shape, strict=True))):
            raise ConfigError(f"RandomFields: crop must fit into {tuple(shape)}, got {tuple(crop)}")
        if not 0 <= exact <= 1:
            raise ConfigError(f"RandomFields: exact must be in 0..1, got {exact}")
        self.shape, self.std, self.distance, self.points = tuple(shape), std, distance, points
        self.crop, self.cuts, self.exact = tuple(crop) if crop else tuple(shape), cuts, exact
        self.noise, self.outliers, self.reach = noise, outliers, reach
        self.batch_size, self.steps, self.num_workers, self.seed = batch_size, steps, num_workers, seed
        self.validation_fields, self.validation_points = validation_fields, validation_points

    def training_batch(self, step: int, rank: int = 0) -> Observed:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, rank, step])
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        whole = self._fields(self.batch_size // self.cuts, rng, generator)
        truth = torch.stack([self._cut(field, rng) for field in whole for _ in range(self.cuts)])
        count = math.exp(rng.uniform(*np.log(self.points))) * math.prod(self.crop) / math.prod(self.shape)
        errors = TrackerErrors(rng.uniform(0, self.noise), rng.uniform(0, self.outliers), self.reach)
        errors = EXACT if rng.random() < self.exact else errors
        return observe(truth, max(1, round(count)), generator, errors)

    def validation_batch(self, kind: Literal["exact", "tracker"]) -> Observed:
        """All held-out fields, the same in every epoch."""
        rng = np.random.default_rng([self.seed, _HELD_OUT])
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        fields = self._fields(self.validation_fields, rng, generator)
        return observe(fields, self.validation_points, generator, EXACT if kind == "exact" else TrackerErrors())

    def _fields(self, count: int, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        sigmas, distances = rng.uniform(*self.std, count) / math.sqrt(2), rng.uniform(*self.distance, count)
        drawn = random_diffeomorphisms(self.shape, sigmas.tolist(), distances.tolist(), generator, with_inverse=False)
        return drawn.displacement

    def _cut(self, field: Tensor, rng: np.random.Generator) -> Tensor:
        """A cut-out of `field (D, *S)`."""
        starts = [int(rng.integers(n - c + 1)) for n, c in zip(self.shape, self.crop, strict=True)]
        for axis, (start, length) in enumerate(zip(starts, self.crop, strict=True), start=1):
            field = field.narrow(axis, start, length)
        return field

    def train_dataloader(self) -> DataLoader[Observed]:
        """Batches of one epoch."""
        rank = self.trainer.global_rank if self.trainer else 0
        return _loader(_Batches(self, rank), _Steps(self), self.num_workers)

    def val_dataloader(self) -> list[DataLoader[Observed]]:
        """The held-out fields, first exact, then as a tracker sees them."""
        return [_loader(_Held(self, kind)) for kind in ("exact", "tracker")]

    def test_dataloader(self) -> list[DataLoader[Observed]]:
        """As for validation: there is no end of other fields, and no choice is made on them."""
        return self.val_dataloader()


class _Steps(DistributedSampler[int]):
    """The numbers of the steps of an epoch, counted from the beginning of the training.

    All processes take all of them, since each draws its own batches. Lightning would deal the steps out to the
    processes, unless a sampler is of this type.
    """

    def __init__(self, data: RandomFields) -> None:
        super().__init__(range(data.steps), num_replicas=1, rank=0, shuffle=False)  # type: ignore[arg-type]
        self.data = data

    def __len__(self) -> int:
        return self.data.steps

    def __iter__(self) -> Iterator[int]:
        trainer = self.data.trainer
        # Not the number of the epoch: a run that goes on asks for batches before it knows that number.
        done = trainer.fit_loop.total_batch_idx + 1 if trainer else 0
        return iter(range(done, done + len(self)))


class _Batches(Dataset[Observed]):
    def __init__(self, data: RandomFields, rank: int) -> None:
        self.data, self.rank = data, rank

    def __getitem__(self, step: int) -> Observed:
        return self.data.training_batch(step, self.rank)


class _Held(Dataset[Observed]):
    def __init__(self, data: RandomFields, kind: Literal["exact", "tracker"]) -> None:
        self.data, self.kind = data, kind
        self.batch: Observed | None = None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Observed:
        self.batch = self.batch or self.data.validation_batch(self.kind)
        return self.batch


def _loader(dataset: Dataset[Observed], sampler: Sampler[int] | None = None, workers: int = 0) -> DataLoader[Observed]:
    return LateLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)

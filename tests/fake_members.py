"""Small methods and datasets for the tests of the runner, named by class path in the suites of the tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import MissingExtraError
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


class Squares(RegistrationDataModule):
    """Bright squares that move by one pixel; `cases` of them on a 24 x 20 grid."""

    name = ""
    version = "1"
    dimensions = (2,)
    licence = "Apache-2.0"

    def __init__(self, cases: int = 4, needs_extra: bool = False, journal: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.cases, self.needs_extra, self.journal = cases, needs_extra, journal

    def records(self, split: Split) -> Sequence[Record]:
        if self.needs_extra:
            raise MissingExtraError("squares", "nosuchpackage", "demo")
        return [{"case_id": f"s/{i:03d}", "index": i} for i in range(self.cases)]

    def load(self, record: Record) -> RegistrationPair:
        if self.journal:
            with open(self.journal, "a") as file:
                file.write(f"load {record['case_id']}\n")
        generator = torch.Generator().manual_seed(int(record["index"]))
        moving = torch.rand((1, 1, 24, 20), generator=generator) * 0.1
        moving[..., 6:14, 5:12] += 1.0
        labels = torch.zeros((1, 1, 24, 20), dtype=torch.int64)
        labels[..., 6:14, 5:12] = 1
        u = torch.zeros((1, 2, 24, 20))
        u[:, 0] = 1.0
        return RegistrationPair(
            case_ids=(str(record["case_id"]),),
            fixed=torch.roll(moving, -1, dims=2),
            moving=moving,
            fixed_spacing_mm=torch.tensor([[1.0, 2.0]]),
            moving_spacing_mm=torch.tensor([[1.0, 2.0]]),
            fixed_labels=torch.roll(labels, -1, dims=2),
            moving_labels=labels,
            true_displacement=u,
        )


class Rooted(RegistrationDataModule):
    """A dataset that reads files below a root folder."""

    name = ""

    def __init__(self, root: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        from reg_bench.datamodule import resolve_root

        self.root = resolve_root("rooted", "rooted_folder", root)

    def records(self, split: Split) -> Sequence[Record]:
        return [{"case_id": p.stem} for p in sorted(self.root.glob("*.txt"))]

    def load(self, record: Record) -> RegistrationPair:
        return Squares().load({"case_id": record["case_id"], "index": 0})


class Noise(RegistrationModule):
    """A smooth-less random field, from the seed that the runner sets."""

    name = ""
    version = "1"

    def __init__(self, scale: float = 0.1, sleep_s: float = 0.0, journal: str | None = None) -> None:
        super().__init__()
        self.scale, self.sleep_s, self.journal = scale, sleep_s, journal

    def register(self, pair: RegistrationPair) -> DisplacementField:
        if self.journal:
            with open(self.journal, "a") as file:
                file.write(f"register {pair.case_ids[0]} {pair.fixed.shape[2]}\n")
        time.sleep(self.sleep_s)
        return DisplacementField.for_pair(self.scale * torch.randn(1, pair.dimension, *pair.spatial_shape), pair)


class Optimised(RegistrationModule):
    """Gradient descent on the squared difference with a single translation."""

    name = ""
    version = "1"
    optimises = True

    def register(self, pair: RegistrationPair) -> DisplacementField:
        from reg_bench.field import warp

        shift = torch.zeros(1, pair.dimension, requires_grad=True)
        optimiser = torch.optim.Adam([shift], lr=0.1)
        for _ in range(10):
            u = shift[..., None, None].expand(1, 2, *pair.spatial_shape)
            loss = ((warp(pair.moving, u) - pair.fixed) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return DisplacementField.for_pair(
            shift.detach()[..., None, None].expand(1, 2, *pair.spatial_shape).clone(), pair
        )


class Misbehaves(RegistrationModule):
    """Does something bad on the case called `case`, once per file `once` if that is given."""

    name = ""
    version = "1"
    dimensions = (2,)

    def __init__(self, how: str, case: str = "s/001", once: str | None = None) -> None:
        super().__init__()
        self.how, self.bad_case, self.once = how, case, once

    def accepts(self, pair: RegistrationPair) -> str | None:
        if self.how == "skip" and pair.case_ids[0] == self.bad_case:
            return "this one is not for me"
        return super().accepts(pair)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        u = torch.zeros(1, pair.dimension, *pair.spatial_shape)
        if pair.case_ids[0] == self.bad_case and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            u = self._misbehave(pair, u)
        return DisplacementField.for_pair(u, pair)

    def _misbehave(self, pair: RegistrationPair, u: torch.Tensor) -> torch.Tensor:
        if self.how == "raise":
            raise RuntimeError("no convergence")
        if self.how == "nan":
            return u + float("nan")
        if self.how == "shape":
            return u[..., 1:]
        if self.how == "exit":
            sys.exit(3)
        if self.how == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "sleep":
            time.sleep(60)
        if self.how == "swallow":
            self._sleeps_whatever_happens()
        if self.how == "hang":
            # Compiled code that neither comes back to Python nor looks at signals.
            sum(range(10**12))
        if self.how == "write":
            pair.fixed.fill_(0.5)
            pair.moving.numpy()[...] = 0.25
        return u

    def _sleeps_whatever_happens(self) -> None:
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(0.5)

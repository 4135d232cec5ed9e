"""What the runner adds to a case: everything but `register`, the metrics and the picture.

    python benchmarks/speed/runner_overhead.py [--cases 20] [--size 64 64 64] [--clock wall]

The bar is 50 ms per case or 5 % of it, whichever is larger. Peer beside it: a plain loop over the same cases that
only registers and scores, in the same process; the values of both must agree.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reg_bench import metrics, plan, results, runner
from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.discovery import Spec
from reg_bench.method import RegistrationModule
from reg_bench.protocol import Protocol, case_seed, seed_everything
from reg_bench.suite import Suite, Task
from reg_bench.types import DisplacementField, RegistrationPair
from reg_bench.worker import _quiet

# CPU seconds by default: other work on the machine does not change them.
clock = time.process_time


class Blobs(RegistrationDataModule):
    """Random images with five labels."""

    name = "blobs"

    def __init__(self, cases: int, size: tuple[int, ...]) -> None:
        super().__init__()
        self.cases, self.size = cases, size

    def records(self, split: Split) -> Sequence[Record]:
        return [{"case_id": f"c{i:04d}", "index": i} for i in range(self.cases)]

    def load(self, record: Record) -> RegistrationPair:
        generator = torch.Generator().manual_seed(int(record["index"]))
        fixed, moving = (torch.rand((1, 1, *self.size), generator=generator) for _ in range(2))
        labels = torch.arange(fixed.numel()).reshape(fixed.shape) * 5 // fixed.numel() + 1
        return RegistrationPair(
            (str(record["case_id"]),),
            fixed,
            moving,
            fixed_spacing_mm=torch.ones(1, len(self.size)),
            moving_spacing_mm=torch.ones(1, len(self.size)),
            fixed_labels=labels,
            moving_labels=labels,
        )


class Nothing(RegistrationModule):
    """The cheapest method there is, so that all the rest is overhead."""

    name = "nothing"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        u = 0.1 * torch.randn(1, pair.dimension, *pair.spatial_shape)
        return DisplacementField.for_pair(u, pair)


class Stopwatch(runner.CaseRunner):
    """The runner with the seconds of its parts that are not overhead."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.begin = 0.0
        self.spent = {"register": 0.0, "metrics": 0.0, "picture": 0.0, "load": 0.0, "all": 0.0}

    def _clocked(self, part: str, call: Any, *arguments: Any) -> Any:
        begin = clock()
        try:
            return call(*arguments)
        finally:
            self.spent[part] += clock() - begin

    def on_predict_batch_start(self, *_: Any) -> None:
        self.begin = self.begin or clock()

    def on_predict_end(self) -> None:
        self.spent["all"] = clock() - self.begin
        super().on_predict_end()

    def _timed(self, *arguments: Any) -> Any:
        measured, exclusive = super()._timed(*arguments)
        self.spent["register"] += measured.cpu_s if clock is time.process_time else measured.wall_s
        return measured, exclusive

    def _warm_up(self, *arguments: Any) -> None:
        self._clocked("register", super()._warm_up, *arguments)

    def _load(self, *arguments: Any) -> Any:
        return self._clocked("load", super()._load, *arguments)

    def _score(self, *arguments: Any) -> Any:
        return self._clocked("metrics", super()._score, *arguments)

    def _draw(self, *arguments: Any) -> Any:
        return self._clocked("picture", super()._draw, *arguments)


def plain_loop(data: Blobs, method: RegistrationModule) -> tuple[float, list[float]]:
    """Seconds for load, register and score alone, and the mean Dice of each case."""
    begin, found = clock(), []
    for record in data.records("test"):
        pair = data.load(record)
        seed_everything(case_seed(0, str(record["case_id"])))
        with torch.no_grad():
            values = metrics.score(pair, method(pair))
        found += [v.value for v in values if (v.metric, v.profile, v.label) == ("dice", "strict", "all") and v.value]
    return clock() - begin, found


def measure(size: tuple[int, ...], cases: int) -> tuple[dict[str, float], float, float]:
    """Milliseconds per case of each part, of the plain loop, and the seconds that a run needs to start."""
    data, method = Blobs(cases, size), Nothing()
    task = plan.PlannedTask(Task("blobs", "blobs"), data, "sum", tuple(data.case_ids("test")))
    planned = plan.PlannedMethod(Spec("nothing", "here.Nothing"), "1", "", "hash", {}, method)
    suite = Suite("overhead", "1", (task.task,), (planned.spec,), protocol=Protocol())
    made = plan.Plan(suite, 0, (task,), (planned,))
    with tempfile.TemporaryDirectory() as folder:
        begin = clock()
        case_runner = Stopwatch(made, Path(folder), lambda _event: None)
        trainer = runner.make_trainer("cpu", 1, Path(folder))
        trainer.predict(case_runner, datamodule=runner.Jobs(made.jobs), return_predictions=False)
        start = clock() - begin - case_runner.spent["all"]
        rows = sorted(results.read_rows(folder), key=lambda r: r["key"]["case"])
    ours = [_dice(r) for r in rows]
    seconds, theirs = plain_loop(data, method)
    if ours != theirs:
        raise SystemExit(f"the values differ: {ours} and {theirs}")
    return {k: 1e3 * v / cases for k, v in case_runner.spent.items()}, 1e3 * seconds / cases, start


def _dice(row: dict[str, Any]) -> float:
    return next(
        float(v["value"]) for v in row["values"] if (v["metric"], v["profile"], v["label"]) == ("dice", "strict", "all")
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20, help="cases per size")
    parser.add_argument("--size", type=int, nargs="+", action="append", help="voxels per axis; may be repeated")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="what is counted")
    args = parser.parse_args()
    global clock
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    _quiet()
    torch.set_num_threads(1)
    sizes = [tuple(s) for s in args.size] if args.size else [(256, 256), (64, 64, 64), (128, 128, 128)]
    print(
        "milliseconds per case"
        + " " * 8
        + "all  register  metrics  picture  overhead   bar  (of it load)   plain loop  start [s]"
    )
    for size in sizes:
        spent, plain, start = measure(size, args.cases)
        parts = [spent["register"], spent["metrics"], spent["picture"]]
        overhead = spent["all"] - sum(parts)
        bar = max(50.0, 0.05 * spent["all"])
        numbers = "".join(f"{p:9.1f}" for p in parts)
        name = "x".join(map(str, size))
        print(
            f"{name:<20}{spent['all']:12.1f}{numbers}{overhead:10.1f}{bar:6.0f}{spent['load']:15.1f}{plain:13.1f}{start:11.2f}"
        )
    print("the values of the runner and of the plain loop are equal")


if __name__ == "__main__":
    main()

"""Does the jobs of tasks of sequences: load, stream under the clock, score, draw."""

from __future__ import annotations

import time
import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reg_bench.clock import Measured, TimingLock, Watchdog, measure
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.latent_courses import latent_values
from reg_bench.method import RegistrationModule, SequenceModule
from reg_bench.pairs_as_sequence import as_stream
from reg_bench.plan import Job, Plan, SkippedError
from reg_bench.protocol import case_seed, seed_everything
from reg_bench.results import CaseKey, CaseResult
from reg_bench.stream_conditions import Condition, condition_named
from reg_bench.stream_scores import frames_ahead, stream_values
from reg_bench.streaming import Streamed, run_offline, run_stream, warm_up
from reg_bench.types import ImageSequence
from reg_bench.warm_up import bit_sum

#: After so many steps a method is asked how sure it is, which may take it long.
SPREAD_EVERY = 5
#: Frames of the uncounted stream that comes first.
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class _Loaded:
    sequence: ImageSequence
    fingerprint: int
    load_s: float


class StreamRunner:
    """Streams whole sequences; stands beside the runner of pairs and shares its clock.

    Args:
        plan: the run.
        folder: of the run.
        device: of the methods.
        lock: held while a stream is timed.
        watchdog: ends every single call of a method at the time limit of the protocol.
    """

    def __init__(self, plan: Plan, folder: Path, device: torch.device, lock: TimingLock, watchdog: Watchdog) -> None:
        self.plan, self.folder, self.device = plan, folder, device
        self._lock, self._watchdog = lock, watchdog
        self._loaded: tuple[tuple[int, str], _Loaded] | None = None
        self._warm: set[tuple[int, int]] = set()

    def forget(self, job: Job) -> None:
        """After a failure: the frames may have been written to, and what was warm may be gone."""
        self._loaded = None
        self._warm.discard((job.task, job.method))

    def run(
        self, job: Job, key: CaseKey, module: RegistrationModule | SequenceModule, data: RegistrationDataModule
    ) -> CaseResult:
        """The row of one sequence for one method.

        Raises:
            SkippedError: the method cannot take the sequence.
            TimeLimitExceeded: one call of it took too long.
        """
        loaded = self._load(job, data)
        method = as_stream(module, loaded.sequence).eval()
        if reason := method.accepts(loaded.sequence):
            raise SkippedError(reason)
        self._warm_up(job, method, loaded.sequence)
        seed_everything(case_seed(self.plan.seed, key.case))
        measured, exclusive = self._timed(job, method, loaded.sequence)
        if bit_sum(loaded.sequence.frames) != loaded.fingerprint:
            self._loaded = None
            loaded = self._load(job, data)
        begin = time.perf_counter()
        task, streamed = self.plan.tasks[job.task].task, measured.value
        suite = self.plan.suite
        values = stream_values(
            loaded.sequence,
            streamed,
            task.stream,
            metrics=task.metrics,
            condition=condition_named(job.condition),
        )
        if task.stream.calibration:
            values += self._latent_values(method, loaded.sequence, condition_named(job.condition))
        score_s = time.perf_counter() - begin
        return CaseResult(
            key,
            "ok",
            values=tuple(values),
            wall_s=max(measured.wall_s - streamed.aside_s, 0.0),
            cpu_s=max(measured.cpu_s - streamed.aside_cpu_s, 0.0),
            load_s=loaded.load_s,
            score_s=score_s,
            peak_mb=measured.peak_mb,
            timing="exclusive" if exclusive else "shared",
            threads=suite.protocol.threads,
            device=self.device.type,
            panel=self._draw(key, loaded.sequence, streamed, task.stream.pictures),
        )

    def _load(self, job: Job, data: RegistrationDataModule) -> _Loaded:
        """The sequence on the device; kept for the methods and conditions that follow."""
        where = (job.task, job.case)
        if self._loaded is None or self._loaded[0] != where:
            self._loaded = None
            begin = time.perf_counter()
            sequence = data.sequence_case(job.case, self.plan.tasks[job.task].task.split).to(self.device)
            self._loaded = (where, _Loaded(sequence, bit_sum(sequence.frames), time.perf_counter() - begin))
        return self._loaded[1]

    def _limit(self) -> AbstractContextManager[None]:
        return self._watchdog.limit(self.plan.suite.protocol.time_limit_s)

    def _warm_up(self, job: Job, method: SequenceModule, sequence: ImageSequence) -> None:
        """The uncounted first stream of a method on a task; what it raises is left to the stream that counts."""
        if self.plan.suite.protocol.warm_up == "none" or (job.task, job.method) in self._warm:
            return
        self._warm.add((job.task, job.method))
        try:
            with self._limit():
                warm_up(method, sequence, WARM_UP_STEPS)
        except Exception:
            traceback.print_exc()

    def _timed(self, job: Job, method: SequenceModule, sequence: ImageSequence) -> tuple[Measured[Streamed], bool]:
        options = self.plan.tasks[job.task].task.stream
        condition = condition_named(job.condition)

        def stream() -> Streamed:
            if condition.offline:
                return run_offline(method, sequence, every=condition.every, guard=self._limit)
            return run_stream(
                method,
                sequence,
                every=condition.every,
                hidden=condition.hidden,
                # Frames that are dropped are foretold already.
                ahead=frames_ahead(options, sequence) if job.condition is None else (),
                late=options.target is not None,
                periodic=options.periodic,
                spread_every=SPREAD_EVERY if options.calibration else 0,
                guard=self._limit,
            )

        with self._lock.held() as exclusive:
            return measure(stream, self.device), exclusive

    def _latent_values(
        self, method: SequenceModule, sequence: ImageSequence, condition: Condition
    ) -> list[dict[str, Any]]:
        """What the intervals of latent variables cover, of methods that tell theirs; outside the clock."""
        ask = getattr(method, "latent_course", None)
        if ask is None:
            return []
        frames = sequence.frames[:, sequence.reference :]
        steps = frames.shape[1] - 1
        given = [True, *(condition.gives(k, steps) for k in range(1, steps + 1))]
        observed = torch.tensor(given, device=frames.device).expand(len(frames), -1)
        kind = "smoothed" if condition.offline else "predicted" if all(given) else "filtered"
        with self._limit():
            course = ask(frames, observed)
        return latent_values(course, kind)

    def _draw(self, key: CaseKey, sequence: ImageSequence, streamed: Streamed, count: int) -> str | None:
        """The picture of the stream; a failure to draw is no failure of the method."""
        if not self.plan.suite.protocol.panels:
            return None
        name = f"panels/{key.digest()}.webp"
        try:
            from reg_bench.stream_panel import draw_stream

            draw_stream(sequence, streamed, self.folder / name, count)
        except Exception:
            traceback.print_exc()
            return None
        return name

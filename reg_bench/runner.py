"""Runs the jobs of a plan through Lightning, which distributes them over processes and devices.

One `Trainer.predict` does the whole run: the start-up is paid once, and a case is loaded once for all methods.
"""

from __future__ import annotations

import functools
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader

from reg_bench.clock import Measured, TimeLimitExceeded, TimingLock, Watchdog, measure
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.displacement_2020 import stored_2020
from reg_bench.errors import MissingExtraError
from reg_bench.method import RegistrationModule, check_field
from reg_bench.plan import Job, Plan, SkippedError
from reg_bench.protocol import case_seed, seed_everything, set_threads
from reg_bench.results import CaseKey, CaseResult, RowWriter, value_entry
from reg_bench.sequence_as_pairs import as_pairwise
from reg_bench.stream_runner import StreamRunner
from reg_bench.submission_layout import is_half
from reg_bench.types import DisplacementField, RegistrationPair
from reg_bench.warm_up import bit_sum, central_crop

Report = Callable[[Mapping[str, Any]], None]
# Takes the field of a case, named by its task and itself, before its row is written.
Keep = Callable[[str, str, DisplacementField], None]


@dataclass(frozen=True)
class LoadedCase:
    """A case on the device, what its images summed to when they came, and how long it took to load."""

    pair: RegistrationPair
    fingerprint: tuple[int, int]
    load_s: float


class Jobs(LightningDataModule):
    """The jobs of a run; rank 0 lists what is missing and tells the others."""

    def __init__(self, list_jobs: Callable[[], list[Job]]) -> None:
        super().__init__()
        self._list_jobs = list_jobs
        self._jobs: list[Job] = []

    def setup(self, stage: str) -> None:
        trainer = self.trainer
        assert trainer is not None
        jobs = self._list_jobs() if trainer.is_global_zero else []
        self._jobs = trainer.strategy.broadcast(jobs, src=0)

    def predict_dataloader(self) -> DataLoader[Job]:
        return DataLoader(self._jobs, batch_size=1, collate_fn=_only)  # type: ignore[arg-type]


def _only(jobs: list[Job]) -> Job:
    return jobs[0]


class CaseRunner(LightningModule):
    """Does one job per predict step: load, register, score, draw, write the row. Nothing that a method or a
    case does ends the run.

    Args:
        plan: the run.
        folder: of the run.
        report: told what begins and ends; raises where nobody listens any more.
        keep: given every field that was computed.
    """

    def __init__(self, plan: Plan, folder: Path, report: Report, keep: Keep | None = None) -> None:
        super().__init__()
        self.plan, self.folder, self.report, self.keep = plan, folder, report, keep
        self.methods = torch.nn.ModuleList(m.module for m in plan.methods if m.module is not None)
        self._loaded: tuple[tuple[int, str], LoadedCase] | None = None
        self._datasets: dict[int, Mapping[str, Callable[[], RegistrationPair]]] = {}
        self._warm: set[tuple[int, int]] = set()

    def on_predict_start(self) -> None:
        # Lightning's own handler waits for Python and for the other ranks; the rows are safe at any moment.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        set_threads(self.plan.suite.protocol.threads)
        self._writer = RowWriter(self.folder / f"rows.rank{self.global_rank}.jsonl")
        self._watchdog = Watchdog(self.folder / f".watchdog.rank{self.global_rank}")
        timing = self.plan.suite.protocol.timing
        exclusive = timing == "exclusive" or (timing == "auto" and self.device.type == "cpu")
        self._lock = TimingLock(self.folder / ".timing.lock" if exclusive else None)
        self._streams = StreamRunner(self.plan, self.folder, self.device, self._lock, self._watchdog)

    def on_predict_end(self) -> None:
        self._writer.close()

    def transfer_batch_to_device(self, batch: Job, device: torch.device, dataloader_idx: int) -> Job:
        return batch

    def predict_step(self, batch: Job, batch_idx: int, dataloader_idx: int = 0) -> bool:
        if batch.idle:
            return False
        key = self.plan.key(batch)
        self.report({"event": "started", "task": key.task, "method": key.method, "case": key.case, "key": vars(key)})
        self._writer.started(key)
        result = self._guarded(batch, key)
        self._writer.result(result)
        self.report({"event": "done", "task": key.task, "method": key.method, "status": result.status})
        return True

    def _guarded(self, job: Job, key: CaseKey) -> CaseResult:
        """The result of `job`, whatever happens."""
        try:
            return self._run(job, key)
        except (SkippedError, MissingExtraError) as reason:
            return CaseResult(key, "skipped", str(reason))
        except TimeLimitExceeded:
            self._forget(job)
            limit, task = self.plan.suite.protocol.time_limit_s, self.plan.tasks[job.task].task
            what = "register" if task.kind == "pairs" else "a single frame"
            return CaseResult(key, "failed", f"time limit: {what} took longer than {limit:g} s")
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            self._forget(job)
            return CaseResult(key, "failed", f"{type(error).__name__}: {error}"[:500])

    def _forget(self, job: Job) -> None:
        """After a failure: the case may have been left half written, and what was warm may be gone (a process)."""
        self._loaded = None
        self._warm.discard((job.task, job.method))
        self._streams.forget(job)

    def _run(self, job: Job, key: CaseKey) -> CaseResult:
        task, planned = self.plan.tasks[job.task], self.plan.methods[job.method]
        if planned.module is None or task.data is None:
            raise SkippedError(task.missing or planned.missing)
        if task.task.kind == "sequence":
            return self._streams.run(job, key, planned.module, task.data)
        method = as_pairwise(planned.module)
        case = self._load(job)
        if reason := method.accepts(case.pair):
            raise SkippedError(reason)
        self._warm_up(job, method, case.pair)
        seed_everything(case_seed(self.plan.seed, key.case))
        measured, exclusive = self._timed(method, case.pair)
        field = measured.value
        check_field(field, case.pair)
        case = self._unaltered(job, case)
        backward = self._backward(job, key, method, case.pair)
        scored = case.pair
        if scored.scored is not None:
            scored = scored.scored
            field, backward = field.on(scored), None if backward is None else backward.on(scored.swapped())
        if self.keep is not None:
            self.keep(task.task.name, key.case, field)
        field = self._as_official(task.data, field, key.case)
        begin = time.perf_counter()
        values = self._score(job, scored, field, backward)
        score_s = time.perf_counter() - begin
        return CaseResult(
            key,
            "ok",
            values=tuple(values),
            wall_s=measured.wall_s,
            cpu_s=measured.cpu_s,
            load_s=case.load_s,
            score_s=score_s,
            peak_mb=measured.peak_mb,
            timing="exclusive" if exclusive else "shared",
            threads=self.plan.suite.protocol.threads,
            device=self.device.type,
            panel=self._draw(key, scored, field),
        )

    def _as_official(self, data: RegistrationDataModule, field: DisplacementField, case: str) -> DisplacementField:
        """What is left of a field that goes through the files of 2020, where the rules of that year are asked for."""
        challenge = data.challenge() if self.plan.suite.protocol.official == "2020" else None
        if challenge is None or not challenge.preset.task_2020:
            return field
        return replace(field, u=stored_2020(field.u, half=is_half("learn2reg-2020", challenge.preset.name), name=case))

    def _load(self, job: Job) -> LoadedCase:
        """The case on the device; kept for the methods that follow."""
        where = (job.task, job.case)
        if self._loaded is None or self._loaded[0] != where:
            self._loaded = None
            begin = time.perf_counter()
            pair = self._dataset(job.task)[job.case]().to(self.device)
            load_s = time.perf_counter() - begin
            self._loaded = (where, LoadedCase(pair, _fingerprint(pair), load_s))
        return self._loaded[1]

    def _dataset(self, task: int) -> Mapping[str, Callable[[], RegistrationPair]]:
        if task not in self._datasets:
            planned = self.plan.tasks[task]
            assert planned.data is not None
            dataset = planned.data.dataset(planned.task.split, planned.cases)
            self._datasets[task] = {c: functools.partial(dataset.__getitem__, i) for i, c in enumerate(planned.cases)}
        return self._datasets[task]

    def _unaltered(self, job: Job, case: LoadedCase) -> LoadedCase:
        """`case`, loaded anew where the method wrote into its images: the next method and the score need them."""
        if _fingerprint(case.pair) == case.fingerprint:
            return case
        self._loaded = None
        return self._load(job)

    def _warm_up(self, job: Job, method: RegistrationModule, pair: RegistrationPair) -> None:
        """The uncounted first call of a method on a task; what it raises is left to the call that counts."""
        chosen = self.plan.suite.protocol.warm_up
        if chosen == "none" or (job.task, job.method) in self._warm:
            return
        self._warm.add((job.task, job.method))
        crop = chosen == "crop" or (chosen == "auto" and self.device.type == "cpu")
        try:
            with self._watchdog.limit(self.plan.suite.protocol.time_limit_s):
                # A copy: nothing that happens here may reach the call that counts.
                method(
                    central_crop(pair) if crop else replace(pair, fixed=pair.fixed.clone(), moving=pair.moving.clone())
                )
        except Exception:
            traceback.print_exc()

    def _timed(self, method: RegistrationModule, pair: RegistrationPair) -> tuple[Measured[DisplacementField], bool]:
        with self._lock.held() as exclusive, self._watchdog.limit(self.plan.suite.protocol.time_limit_s):
            return measure(lambda: method(pair), self.device), exclusive

    def _backward(
        self, job: Job, key: CaseKey, method: RegistrationModule, pair: RegistrationPair
    ) -> DisplacementField | None:
        """The field of the exchanged pair where the task asks for inverse consistency and the method can."""
        if not self.plan.tasks[job.task].task.inverse_consistency:
            return None
        swapped = pair.swapped()
        if method.accepts(swapped) is not None:
            return None
        seed_everything(case_seed(self.plan.seed, key.case))
        with self._watchdog.limit(self.plan.suite.protocol.time_limit_s):
            field: DisplacementField = method(swapped)
        check_field(field, swapped)
        return field

    def _score(
        self, job: Job, pair: RegistrationPair, field: DisplacementField, backward: DisplacementField | None
    ) -> list[dict[str, Any]]:
        from reg_bench.metrics import score

        suite = self.plan.suite
        values = score(
            pair,
            field,
            profiles=suite.profiles,
            metrics=self.plan.tasks[job.task].task.metrics,
            backward=backward,
            official=suite.protocol.official,
        )
        frame = None if pair.frames is None else pair.frames[0]
        return [value_entry(v.metric, v.value, v.unit, profile=v.profile, label=v.label, frame=frame) for v in values]

    def _draw(self, key: CaseKey, pair: RegistrationPair, field: DisplacementField) -> str | None:
        """The picture of the case; a failure to draw is no failure of the method."""
        if not self.plan.suite.protocol.panels:
            return None
        name = f"panels/{key.digest()}.webp"
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        try:
            from reg_bench.panels import draw_panel

            draw_panel(pair, field, path)
        except Exception:
            traceback.print_exc()
            return None
        return name


def _fingerprint(pair: RegistrationPair) -> tuple[int, int]:
    """Changes when anything is written into the images of the pair."""
    return bit_sum(pair.fixed), bit_sum(pair.moving)


def make_trainer(device: str, devices: int, folder: Path) -> Trainer:
    """A Trainer that only predicts: no logger, no checkpoints, no bars.

    The processes of a run are started by the supervisor; Lightning joins them (gloo on CPU, NCCL on GPU).
    """
    environment = LightningEnvironment()
    # Ranks wait for the slowest one at the end: that may take hours.
    ddp = DDPStrategy(cluster_environment=environment, timeout=timedelta(days=14))
    return Trainer(
        accelerator=device,
        devices=devices,
        strategy=ddp if devices > 1 else "auto",
        plugins=[environment] if devices == 1 else None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        # Tensors made in inference mode can never enter autograd; plain no_grad is as fast here.
        inference_mode=False,
        default_root_dir=folder,
    )


def run(
    plan: Plan,
    folder: Path,
    trainer: Trainer,
    list_jobs: Callable[[], list[Job]],
    report: Report,
    keep: Keep | None = None,
) -> None:
    """Runs what `list_jobs` (asked on rank 0 only) names; every process writes its rows to a file of its own."""
    trainer.predict(CaseRunner(plan, folder, report, keep), datamodule=Jobs(list_jobs), return_predictions=False)

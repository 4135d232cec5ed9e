"""What a run has to compute: the suite made concrete, the keys of its results, and which of them are missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reg_bench import discovery
from reg_bench.discovery import Spec
from reg_bench.errors import ConfigError, MissingExtraError
from reg_bench.protocol import seed_everything
from reg_bench.results import CaseKey, RunState
from reg_bench.suite import Suite, Task
from reg_bench.weights_files import ARGUMENT, portable, weights_of

if TYPE_CHECKING:
    from reg_bench.datamodule import RegistrationDataModule
    from reg_bench.method import RegistrationModule, SequenceModule
    from reg_bench.submission_write import FieldFiles

Mode = Literal["only-missing", "retry-failed", "overwrite"]

# Arguments of a dataset that say where it lies and how it is held, not what it holds.
_NOT_CONTENT = ("root", "batch_size", "num_workers", "cache", "cache_dir")

# Arguments of a method that say which Python runs it, not what it does, and where its weights lie: what these are
# stands in the key by itself.
_NOT_SETTINGS = ("interpreter", ARGUMENT)

ALL_CASES = "*"


class SkippedError(Exception):
    """A method cannot take a case; the text says why."""


@dataclass(frozen=True)
class Job:
    """One case for one method, as indices into the plan. `idle` stands for no work at all."""

    task: int = -1
    method: int = -1
    case: str = ""
    condition: str | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do: Lightning needs at least one batch per process."""
        return self.task < 0


@dataclass(frozen=True)
class PlannedMethod:
    """A method ready to run, or why it cannot (`module` is then `None`)."""

    spec: Spec
    version: str
    licence: str
    config_hash: str
    init_args: Mapping[str, Any]
    module: RegistrationModule | SequenceModule | None
    missing: str | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class PlannedTask:
    """A task with its dataset, or why it cannot be had (`data` is then `None` and the only case is `*`)."""

    task: Task
    data: RegistrationDataModule | None
    checksum: str
    cases: tuple[str, ...]
    missing: str | None = None


@dataclass(frozen=True)
class Plan:
    """A suite with everything that its results depend on."""

    suite: Suite
    seed: int
    tasks: tuple[PlannedTask, ...]
    methods: tuple[PlannedMethod, ...]

    def key(self, job: Job) -> CaseKey:
        """Where the result of `job` belongs."""
        task, method = self.tasks[job.task], self.methods[job.method]
        return CaseKey(
            suite=self.suite.name,
            suite_version=self.suite.version,
            task=task.task.name,
            dataset=task.task.dataset,
            dataset_checksum=task.checksum,
            method=method.spec.name,
            method_version=method.version,
            config_hash=method.config_hash,
            checkpoint=method.checkpoint,
            seed=self.seed,
            case=job.case,
            condition=job.condition,
        )

    def jobs(self) -> list[Job]:
        """All jobs: task by task and case by case, so that a case is loaded once for all methods."""
        return [
            Job(t, m, case, condition)
            for t, task in enumerate(self.tasks)
            for case in task.cases
            for condition in task.task.conditions
            for m in range(len(self.methods))
        ]


def digest(*content: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def plan_methods(suite: Suite, seed: int) -> tuple[PlannedMethod, ...]:
    """Imports and builds the methods, each from the same seed in every process.

    Raises:
        ConfigError: settings that do not fit; names the file and the key.
    """
    return tuple(_plan_method(spec, seed) for spec in suite.methods)


def _plan_method(spec: Spec, seed: int) -> PlannedMethod:
    cls = discovery.load_class(spec.class_path, "methods", spec.source)
    init_args = discovery.resolved_init_args("methods", spec)
    config_hash = digest(spec.class_path, _settings(init_args))
    version, licence = _version(cls, init_args), str(getattr(cls, "licence", ""))
    seed_everything(seed)
    try:
        module, missing = discovery.build_module(spec), None
    except MissingExtraError as error:
        module, missing = None, str(error)
    weights = weights_of(init_args)
    return PlannedMethod(spec, version, licence, config_hash, portable(init_args), module, missing, weights)


def _version(cls: type, init_args: Mapping[str, Any]) -> str:
    """The version of a method; `1+2+1` with those of the methods inside it, where one of these is not the first."""
    own, inner = str(getattr(cls, "version", "1")), list(_inner_versions(init_args))
    return own if all(v == "1" for v in inner) else "+".join([own, *inner])


def _inner_versions(value: Any) -> Iterator[str]:
    """Versions of all methods in the settings, in order: a change of any of them changes the results."""
    from reg_bench.method import RegistrationModule, SequenceModule

    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            cls = discovery.load_class(value["class_path"])
            if issubclass(cls, RegistrationModule | SequenceModule):
                yield cls.version
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _inner_versions(part)


def _settings(value: Any) -> Any:
    """`value` without what depends on the machine alone, nested methods included."""
    if isinstance(value, Mapping):
        return {k: _settings(v) for k, v in value.items() if k not in _NOT_SETTINGS}
    return [_settings(v) for v in value] if isinstance(value, list | tuple) else value


def plan_tasks(
    suite: Suite,
    root: str | Path | None,
    limit: int | None,
    names: Sequence[str] = (),
    chosen: Sequence[str] = (),
) -> tuple[PlannedTask, ...]:
    """Builds the datasets of all tasks, or of those called `names`, and lists their cases, before any long work.

    Where cases are `chosen`, only these are left, and only the tasks that have any.

    Raises:
        ConfigError: settings that do not fit, named with file and key, a root that no dataset reads from, or a
            chosen case that no task has.
        DataError: missing files or root, empty split, duplicate case ids.
    """
    tasks = [task for task in suite.tasks if not names or task.name in names]
    specs = [task_spec(task, suite.source) for task in tasks]
    if root is not None and not any(discovery.takes_root(spec) for spec in specs):
        names = ", ".join(dict.fromkeys(task.dataset for task in tasks))
        raise ConfigError(f"--data.root: suite {suite.name} reads no files from a folder; its data is {names}")
    planned = tuple(_plan_task(task, suite.source, root, limit) for task in tasks)
    return _with_cases(planned, chosen) if chosen else planned


def _with_cases(tasks: Sequence[PlannedTask], chosen: Sequence[str]) -> tuple[PlannedTask, ...]:
    known = [case for task in tasks for case in task.cases]
    for case in chosen:
        if case not in known:
            raise ConfigError(f"--cases: no task has a case {case!r}{discovery.nearest(case, known)}")
    kept = (replace(task, cases=tuple(c for c in task.cases if c in chosen)) for task in tasks)
    return tuple(task for task in kept if task.cases)


def task_spec(task: Task, source: str) -> Spec:
    """The dataset of a task with its settings."""
    return discovery.resolve(
        "datasets",
        {"name": task.dataset, "class_path": task.dataset, "init_args": dict(task.init_args)},
        f"{source}: task {task.name}",
    )


def _plan_task(task: Task, source: str, root: str | Path | None, limit: int | None) -> PlannedTask:
    spec = task_spec(task, source)
    content = {k: v for k, v in discovery.resolved_init_args("datasets", spec).items() if k not in _NOT_CONTENT}
    try:
        data = discovery.build_datamodule(spec, root)
        data.prepare_data()
        data.setup("predict")
        checksum = digest(data.checksum(), content, task.split, *_streamed(task))
        cases = data.case_ids(task.split) if task.kind == "pairs" else data.sequence_ids(task.split)
    except MissingExtraError as error:
        return PlannedTask(task, None, digest(spec.class_path, content), (ALL_CASES,), str(error))
    for bound in (task.limit, limit):
        cases = cases[:bound]
    return PlannedTask(task, data, checksum, tuple(cases))


def _streamed(task: Task) -> list[Any]:
    """What the results of a task of sequences depend on beside its data."""
    return [task.stream.content()] if task.kind == "sequence" else []


def missing_jobs(plan: Plan, state: RunState, mode: Mode, since: str) -> list[Job]:
    """The jobs without a result that counts.

    Results from `since` on always count: they are of this very run, before one of its processes was restarted.
    Skipped cases are looked at again where a package was missing, which may have been installed meanwhile.
    """
    if mode not in ("only-missing", "retry-failed", "overwrite"):
        raise ConfigError(f"unknown mode {mode!r}")
    return [job for job in plan.jobs() if not _counts(state.results.get(plan.key(job)), mode, since)]


def with_lost_files(plan: Plan, jobs: Sequence[Job], state: RunState, since: str, files: FieldFiles) -> list[Job]:
    """`jobs` and those that were done before `since` but whose field is not, or no longer, among `files`."""
    wanted = set(jobs)

    def lost(job: Job) -> bool:
        result = state.results.get(plan.key(job))
        done = result is not None and result["status"] == "ok" and str(result["time"]) < since
        return done and not files.has(plan.tasks[job.task].task.name, job.case)

    return [job for job in plan.jobs() if job in wanted or lost(job)]


def _counts(result: Mapping[str, Any] | None, mode: Mode, since: str) -> bool:
    if result is None:
        return False
    if str(result["time"]) >= since:
        return True
    if result["status"] == "skipped" and "pip install" in str(result.get("reason")):
        return False
    return mode == "only-missing" or (mode == "retry-failed" and result["status"] != "failed")


def killed_jobs(plan: Plan, jobs: Sequence[Job], state: RunState, times: int = 2) -> list[Job]:
    """Those of `jobs` that were begun `times` times without an end: their process died both times."""
    return [job for job in jobs if state.unfinished.get(plan.key(job), 0) >= times]


def spread(jobs: Sequence[Job], processes: int) -> list[Job]:
    """`jobs` in an order that shares them fairly: processes take turns, so methods rotate from case to case.

    Without the rotation an even number of methods on two processes would give one of them all slow methods.
    Padded with idle jobs to one per process.
    """
    padding = [Job()] * max(0, processes - len(jobs))
    if processes == 1:
        return [*jobs, *padding]
    blocks: dict[tuple[int, str], list[Job]] = {}
    for job in jobs:
        blocks.setdefault((job.task, job.case), []).append(job)
    ordered: list[Job] = []
    for index, block in enumerate(blocks.values()):
        turn = index % len(block)
        ordered += block[turn:] + block[:turn]
    return ordered + padding

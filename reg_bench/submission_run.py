"""Makes a Learn2Reg submission: runs one method on the pairs of the challenge, keeps the fields, packs the zip."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reg_bench import discovery
from reg_bench.config_files import read_yaml
from reg_bench.errors import ConfigError, DataError
from reg_bench.plan import task_spec
from reg_bench.results import read_rows
from reg_bench.submission_layout import PROFILES, FieldId, number_of, numbered
from reg_bench.submission_pairs import Submitted, Which, chosen_pairs, field_of, find_submitted
from reg_bench.submission_write import FILES, FieldFiles, expected_files, make_zip, remove_strangers, zero_fields
from reg_bench.suite import Suite, Task, check_task_names, load_suite, select_methods
from reg_bench.supervisor import Settings
from reg_bench.weights_files import split_option

RUN, ZIP, RECORD, SUITE = "run", "submission.zip", "submission.json", "suite.yaml"


@dataclass(frozen=True)
class Order:
    """A submission as asked for.

    Attributes:
        out: folder of everything: `submission/`, `submission.zip`, `submission.json` and the run in `run/`.
        suite: the tasks to enter, and the method as their only one.
        profile: see `reg_bench.submission_layout`.
        tasks: name of each task of the suite to its name in the challenge.
        cases: name of each task of the challenge to its pairs.
        root: folder of the data.
    """

    out: Path
    suite: Suite
    profile: str
    tasks: Mapping[str, str]
    cases: Mapping[str, tuple[FieldId, ...]]
    root: str | None

    @property
    def files(self) -> FieldFiles:
        return FieldFiles(self.out / FILES, self.profile, self.tasks)


def order(
    suite_name: str,
    method: str,
    profile: str,
    out: Path,
    *,
    root: str | None = None,
    tasks: Sequence[str] = (),
    which: Which = "auto",
) -> Order:
    """Everything that can be wrong with a submission is found here, before any work.

    Raises:
        ConfigError: unknown suite, method, task or profile, a suite without a task of the challenge, or a task that
            the profile does not know.
        DataError: data that is missing or does not fit.
    """
    if profile not in PROFILES:
        raise ConfigError(f"--profile: unknown profile {profile!r}{discovery.nearest(profile, PROFILES)}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is a file, expected a folder")
    suite = select_methods(load_suite(suite_name), [method])
    check_task_names(suite, tasks)
    content = read_yaml(Path(suite.source))
    kept, names, cases = [], {}, {}
    for raw, task in zip(content["tasks"], suite.tasks, strict=True):
        if tasks and task.name not in tasks:
            continue
        entered = _entered(task, suite, root, which)
        if entered is None:
            continue
        challenge, fields, source = entered
        if numbered(profile):
            number_of(profile, challenge)
        if challenge in cases:
            raise ConfigError(f"{suite.source}: two of the tasks are {challenge}; choose one by --tasks")
        names[task.name], cases[challenge] = challenge, fields
        kept.append({**raw, "limit": None, "init_args": {**task.init_args, **source}})
    if not kept:
        raise ConfigError(f"{suite.source}: no task of Learn2Reg in this suite, so there is nothing to submit")
    if len(kept) > 1 and not numbered(profile):
        raise ConfigError(
            f"{suite.source}: a submission of {profile} is of one task; choose of {', '.join(names)} by --tasks"
        )
    out.mkdir(parents=True, exist_ok=True)
    made = {**content, "tasks": kept, "methods": [method_entry(suite)]}
    _write_whole(out / SUITE, yaml.safe_dump(made, sort_keys=False, allow_unicode=True))
    return Order(out, load_suite(out / SUITE), profile, names, cases, root)


def method_entry(suite: Suite) -> dict[str, Any]:
    """The only method of the suite as an entry of its own, free of where it was named."""
    (spec,) = suite.methods
    return {"name": spec.name, "class_path": spec.class_path, "init_args": dict(spec.init_args)}


def _entered(
    task: Task, suite: Suite, root: str | None, which: Which
) -> tuple[str, tuple[FieldId, ...], dict[str, Any]] | None:
    """Name in the challenge, pairs, and what the dataset has to be told to give these as its test split."""
    spec = task_spec(task, suite.source)
    data = discovery.build_datamodule(spec, root if discovery.takes_root(spec) else None)
    challenge = data.challenge()
    if challenge is None:
        # Data with faults has no task either: these are told here.
        data.case_ids("test")
        return None
    own = [FieldId.parse(case) for case in data.case_ids(task.split)]
    wanted = [field_of(pair) for pair in chosen_pairs(challenge, which)] if which != "auto" else own
    official = {name: [field_of(pair) for pair in pairs] for name, pairs in _official(challenge).items() if pairs}
    if which == "auto" and official and not any(set(own) <= set(fields) for fields in official.values()):
        wanted = next(iter(official.values()))
    if not wanted:
        raise DataError(f"{task.name}: the data lists no pairs of {which}, or their images are not here")
    if wanted == own:
        return challenge.preset.name, tuple(wanted), {}
    source = next(name for name, fields in official.items() if fields == wanted)
    return challenge.preset.name, tuple(wanted), {"test": source}


def _official(challenge: Any) -> dict[str, list[Any]]:
    return {"registration_val": challenge.val_pairs, "registration_test": challenge.test_pairs}


def settings(order: Order, *, devices: int, checkpoint: str | None, seed: int | None, overwrite: bool) -> Settings:
    """The run behind a submission; only what has no field yet is computed."""
    protocol = order.suite.protocol
    names = [m.name for m in order.suite.methods]
    return Settings(
        suite=str((order.out / SUITE).absolute()),
        out=str((order.out / RUN).absolute()),
        devices=devices,
        mode="overwrite" if overwrite else "retry-failed",
        root=order.root,
        seed=seed,
        panels=False,
        threads=protocol.threads,
        time_limit_s=protocol.time_limit_s,
        checkpoints=() if checkpoint is None else (split_option(checkpoint, names),),
        submission={
            "folder": str((order.out / FILES).absolute()),
            "profile": order.profile,
            "tasks": dict(order.tasks),
        },
    )


def pack(order: Order, note: Callable[[str], None]) -> list[str]:
    """Adds zero fields, removes what does not belong, and writes `submission.zip`; returns the names in it.

    Raises:
        DataError: fields that are missing; an older zip is removed then, so that none of another run is handed in.
    """
    folder, archive = order.out / FILES, order.out / ZIP
    wanted = expected_files(order.profile, order.cases)
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        archive.unlink(missing_ok=True)
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise DataError(f"{folder}: {len(missing)} of {len(wanted)} fields are missing, no zip was written: {shown}")
    zeros = zero_fields(folder, order.profile, list(order.cases), _others(order, note))
    for task, source in zeros.items():
        note(f"{task} was not entered: zero fields, pairs from {source}")
    names = wanted + [
        p.relative_to(folder).as_posix()
        for task in zeros
        for p in sorted((folder / f"task_{number_of(order.profile, task):02d}").glob("disp_*.npz"))
    ]
    for name in remove_strangers(folder, names):
        note(f"{name}: of an earlier submission, removed")
    make_zip(folder, names, archive)
    record = {
        "profile": order.profile,
        "suite": order.suite.name,
        "suite_version": order.suite.version,
        "method": order.suite.methods[0].name,
        "tasks": {task: [str(field) for field in fields] for task, fields in order.cases.items()},
        "zero_fields": zeros,
        "files": len(names),
        "bytes": archive.stat().st_size,
    }
    _write_whole(order.out / RECORD, json.dumps(record, indent=1) + "\n")
    return names


def failures(order: Order) -> list[str]:
    """Why cases have no field, one line each."""
    rows = read_rows(order.out / RUN)
    return [
        f"{row['key']['task']}, {row['key']['case']}: {row['status']}: {row['reason']}"
        for row in rows
        if row["status"] != "ok"
    ]


def _others(order: Order, note: Callable[[str], None]) -> list[Submitted]:
    """The tasks of 2020 that lie beside those that were entered: their pairs and shapes are those of the data."""
    if order.profile != "learn2reg-2020" or order.root is None:
        return []
    try:
        return [s for s in find_submitted(Path(order.root)) if s.name not in order.cases]
    except DataError as error:
        note(f"the tasks that were not entered: {str(error).splitlines()[0]}")
        return []


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)

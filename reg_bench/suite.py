"""What a benchmark consists of: tasks (data, split, primary metric), methods, protocol, from versioned YAML."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reg_bench.discovery import Spec, find, nearest, read_yaml, resolve
from reg_bench.errors import ConfigError
from reg_bench.protocol import Protocol
from reg_bench.stream_options import Streaming

MethodSpec = Spec

PROFILES = ("learn2reg", "strict")


@dataclass(frozen=True)
class Task:
    """One dataset to be registered and how its results are ranked.

    Attributes:
        name: unique in the suite.
        dataset: name or class path of a dataset.
        init_args: settings of the dataset.
        split: whose cases are registered.
        primary: metric that orders the table, of the profile `primary_profile`.
        metrics: names to compute; `None`: all that the cases allow.
        inverse_consistency: whether the registration is also run backward (outside the clock).
        tuned_on: split on which the parameters of the methods were chosen.
        limit: number of cases, the first ones; `None`: all.
        kind: `pairs`, or `sequence`: a case is then a whole sequence of the dataset, streamed frame by frame and
            scored in the profile `strict` alone.
        stream: how, of tasks of kind `sequence`.
    """

    name: str
    dataset: str
    init_args: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["train", "val", "test"] = "test"
    primary: str = "dice"
    primary_profile: Literal["learn2reg", "strict"] = "strict"
    metrics: tuple[str, ...] | None = None
    inverse_consistency: bool = False
    tuned_on: Literal["train", "val", "none"] = "val"
    limit: int | None = None
    kind: Literal["pairs", "sequence"] = "pairs"
    stream: Streaming = field(default_factory=Streaming)

    @property
    def conditions(self) -> tuple[str | None, ...]:
        """Under which conditions each case is run: that of all frames alone, but for streams that drop some."""
        return self.stream.conditions if self.kind == "sequence" else (None,)


@dataclass(frozen=True)
class Suite:
    """Tasks and methods under one name and version. Results of different versions are never mixed.

    `published` names tables of `leaderboards/published.yaml` that the page shows beside the results, as published.
    `source` is the file it comes from; messages name it.
    """

    name: str
    version: str
    tasks: tuple[Task, ...]
    methods: tuple[Spec, ...]
    summary: str = ""
    profiles: tuple[Literal["learn2reg", "strict"], ...] = ("learn2reg", "strict")
    protocol: Protocol = field(default_factory=Protocol)
    published: tuple[str, ...] = ()
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as stored in the manifest; `source` is left out, it depends on the machine."""
        content = dataclasses.asdict(self)
        del content["source"]
        for method in content["methods"]:
            del method["source"]
        return content


def load_suite(name_or_path: str | Path) -> Suite:
    """The suite with that shipped name or in that YAML file.

    Raises:
        ConfigError: unknown name, unknown key, wrong type, unknown method or dataset; names the file, the key
            and the nearest known name.
    """
    text = str(name_or_path)
    path = Path(text) if text.endswith((".yaml", ".yml")) or "/" in text else find("suites", text).source
    content = read_yaml(path)
    suite = _read(Suite, {"source": str(path), **content}, str(path), "")
    _check(suite, str(path))
    return suite


def select_methods(suite: Suite, names: typing.Sequence[str]) -> Suite:
    """The suite with the methods called `names`; those that it does not list are looked up among all.

    Raises:
        ConfigError: unknown method, or one named twice.
    """
    own = {m.name: m for m in suite.methods}
    chosen = tuple(own[n] if n in own else resolve("methods", n, "--methods") for n in names)
    _unique([m.name for m in chosen], "--methods", "method")
    return dataclasses.replace(suite, methods=chosen)


def with_budget(suite: Suite, budget_ms: float) -> Suite:
    """The suite with another budget for its tasks of sequences.

    Raises:
        ConfigError: a budget that is not positive, or no task of sequences.
    """
    if not any(task.kind == "sequence" for task in suite.tasks):
        raise ConfigError(f"--budget-ms: suite {suite.name} has no task of sequences")
    changed = tuple(
        dataclasses.replace(task, stream=dataclasses.replace(task.stream, budget_ms=budget_ms))
        if task.kind == "sequence"
        else task
        for task in suite.tasks
    )
    return dataclasses.replace(suite, tasks=changed)


def check_task_names(suite: Suite, names: typing.Sequence[str]) -> None:
    """Raises a ConfigError that tells the nearest name where `names` are not all tasks of `suite`, each once."""
    known = [task.name for task in suite.tasks]
    for name in names:
        if name not in known:
            raise ConfigError(f"--tasks: suite {suite.name} has no task {name!r}{nearest(name, known)}")
    _unique(list(names), "--tasks", "task")


def _check(suite: Suite, where: str) -> None:
    if not suite.tasks:
        raise ConfigError(f"{where}: tasks is empty")
    if not suite.methods:
        raise ConfigError(f"{where}: methods is empty")
    if not suite.profiles:
        raise ConfigError(f"{where}: profiles is empty, expected some of {', '.join(PROFILES)}")
    _unique([t.name for t in suite.tasks], where, "task")
    _unique([m.name for m in suite.methods], where, "method")
    for index, task in enumerate(suite.tasks):
        resolve("datasets", task.dataset, f"{where}: tasks[{index}].dataset")
        if task.primary_profile not in suite.profiles:
            raise ConfigError(
                f"{where}: tasks[{index}].primary_profile is {task.primary_profile!r}, "
                f"which is not among profiles {list(suite.profiles)}"
            )
        if task.limit is not None and task.limit < 1:
            raise ConfigError(f"{where}: tasks[{index}].limit must be at least 1, got {task.limit}")
        _check_stream(task, f"{where}: tasks[{index}]")


def _check_stream(task: Task, where: str) -> None:
    if task.kind == "pairs" and task.stream != Streaming():
        raise ConfigError(f"{where}.stream is for tasks of kind sequence, this one is of kind pairs")
    if task.kind == "sequence" and task.inverse_consistency:
        raise ConfigError(f"{where}.inverse_consistency is for tasks of kind pairs, this one is of kind sequence")
    if task.kind == "sequence" and task.primary_profile != "strict":
        raise ConfigError(f"{where}.primary_profile: sequences are scored in the profile strict alone")


def _unique(names: list[str], where: str, what: str) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"{where}: {what} {twice[0]!r} occurs twice")


def _read(cls: Any, content: Any, where: str, key: str) -> Any:
    """A frozen dataclass from a YAML mapping; every message names the file and the key."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: {key or 'file'}: expected a mapping, got {content!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    prefix = f"{key}." if key else ""
    public = [n for n in fields if n != "source"]
    for name in content:
        if name not in fields:
            raise ConfigError(f"{where}: unknown key {prefix + str(name)!r}{nearest(str(name), public)}")
    values: dict[str, Any] = {}
    for name, f in fields.items():
        if name in content:
            values[name] = _value(hints[name], content[name], where, prefix + name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: key {prefix + name!r} is missing")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    """`value` as the annotation asks for, or a ConfigError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Spec:
        return resolve("methods", value, f"{where}: {key}" if not isinstance(value, str) else where)
    if dataclasses.is_dataclass(hint):
        return _read(hint, value, where, key)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where, key)
    if origin is Literal:
        # Years and versions are written without quotes in YAML.
        for choice in arguments:
            if value == choice or (isinstance(value, int) and str(value) == choice):
                return choice
        raise _wrong(where, key, f"one of {', '.join(map(str, arguments))}", value, map(str, arguments))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(where, key, "a list", value)
        return tuple(_value(arguments[0], v, where, f"{key}[{i}]") for i, v in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict(_expect(dict, "a mapping", {} if value is None else value, where, key))
    return _scalar(hint, value, where, key)


def _scalar(hint: type, value: Any, where: str, key: str) -> Any:
    if hint is str and isinstance(value, int | float) and key == "version":
        return str(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        raise _wrong(where, key, "a whole number", value)
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return _expect(hint, words.get(hint, hint.__name__), value, where, key)


def _expect(kind: type, words: str, value: Any, where: str, key: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong(where, key, words, value)
    return value


def _wrong(where: str, key: str, words: str, value: Any, known: typing.Iterable[str] = ()) -> ConfigError:
    near = nearest(str(value), known) if isinstance(value, str) and known else ""
    hint = near if near.startswith("; did") else ""
    return ConfigError(f"{where}: {key}: expected {words}, got {value!r}{hint}")

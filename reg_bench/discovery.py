"""Finds methods, datasets, metrics and suites by where they lie, and builds them from their YAML.

Listing reads the sources only; a member is imported when it is used. A member is

* a class with a literal, non-empty `name` in `lightning_modules/`, `datamodules/` or `reg_bench/metrics/`;
* a YAML file in `benchmarks/methods/` (a class with its settings), `benchmarks/suites/` or `benchmarks/training/` (a
  recipe of `reg-bench fit`);
* an entry point of an installed package in the group `reg_bench.methods`, `.datasets` or `.metrics`.

Anything importable can also be named by its class path, `package.module.Class`. Names of methods joined by `+`
are one method after another.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reg_bench.config_files import check_keys, mapping, method_settings
from reg_bench.config_files import nearest as nearest
from reg_bench.config_files import read_yaml as read_yaml
from reg_bench.errors import ConfigError, RegBenchError
from reg_bench.joined_names import joining_class, last_two
from reg_bench.source_scan import ScannedClass, core_classes, entry_point_source, inherited, scan_file

if TYPE_CHECKING:
    from reg_bench.datamodule import RegistrationDataModule
    from reg_bench.method import RegistrationModule, SequenceModule

Kind = Literal["methods", "datasets", "metrics", "suites", "recipes"]

_PACKAGES = {"methods": "lightning_modules", "datasets": "datamodules", "metrics": "reg_bench.metrics"}
# Kinds that are nothing but YAML files, and their folders.
_FOLDERS = {"suites": "suites", "recipes": "training"}
# Through which a method of sequences takes pairs.
_STREAM_OF_ONE = "reg_bench.sequence_as_pairs.StreamOfOne"
_METHOD_KEYS = ("name", "summary", "class_path", "init_args", "checkpoint")


@dataclass(frozen=True)
class Member:
    """One thing that can be named on the command line.

    Attributes:
        name: as typed by the user.
        summary: one line.
        kind: `methods`, `datasets`, `metrics`, `suites` or `recipes`.
        accepts: the literal class attributes, those of the bases included (`dimensions`, `needs`, `version`, …).
        source: the file that defines it.
        licence: of the code (methods) or of the data (datasets).
        class_path: `package.module.Class`; empty for suites and recipes.
        init_args: settings that the name stands for; empty for classes.
    """

    name: str
    summary: str
    kind: Kind
    accepts: dict[str, Any]
    source: Path
    licence: str = ""
    class_path: str = ""
    init_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """A method or dataset as configured: what to import and with which arguments.

    `source` is the file that the settings come from; messages name it.
    """

    name: str
    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


def benchmarks_folder() -> Path:
    """Where the shipped YAML lies: inside the installed package, else beside it in the source tree."""
    here = Path(__file__).resolve().parent
    installed = here / "_benchmarks"
    return installed if installed.is_dir() else here.parent / "benchmarks"


def package_folder(package: str) -> Path:
    """The folder of one of the packages that are searched for members; they lie beside `reg_bench`."""
    return Path(__file__).resolve().parent.parent.joinpath(*package.split("."))


def members(kind: Kind) -> list[Member]:
    """Everything of `kind`, in order of name, without importing any of it.

    Raises:
        ConfigError: two members with one name, or a source or YAML file that cannot be read; names the files.
    """
    if kind not in (*_PACKAGES, *_FOLDERS):
        raise ConfigError(f"unknown kind {kind!r}: expected {', '.join((*_PACKAGES, *_FOLDERS))}")
    found = list(_files(kind)) if kind in _FOLDERS else list(_classes(kind))
    if kind == "methods":
        found += _named_methods(found)
    by_name: dict[str, Member] = {}
    for member in found:
        if member.name in by_name:
            raise ConfigError(
                f"two {kind} are called {member.name!r}: {by_name[member.name].source} and {member.source}"
            )
        by_name[member.name] = member
    return [by_name[name] for name in sorted(by_name)]


def _classes(kind: Kind) -> Iterator[Member]:
    yield from (member for member in _scanned(kind) if member.name)
    yield from _entry_points(kind)


def _scanned(kind: Kind) -> Iterator[Member]:
    """All classes in the folder of `kind`; those without a name are there for named methods."""
    package = _PACKAGES[kind]
    folder = package_folder(package)
    files = sorted(folder.glob("*.py")) if folder.is_dir() else []
    scanned = [c for f in files for c in scan_file(f)]
    known = core_classes() | {c.name: c for c in scanned}
    for found in scanned:
        name = found.attributes.get("name")
        module = package if found.source.stem == "__init__" else f"{package}.{found.source.stem}"
        yield _class_member(kind, name if isinstance(name, str) else "", found, known, f"{module}.{found.name}")


def _class_member(
    kind: Kind, name: str, found: ScannedClass, known: Mapping[str, ScannedClass], class_path: str
) -> Member:
    accepts = inherited(found, known)
    summary = accepts.get("summary") if isinstance(accepts.get("summary"), str) else found.summary
    licence = str(accepts.get("licence", "")) if kind != "metrics" else ""
    return Member(name, str(summary), kind, accepts, found.source, licence, class_path)


def _entry_points(kind: Kind) -> Iterator[Member]:
    for point in importlib.metadata.entry_points(group=f"reg_bench.{kind}"):
        class_path = f"{point.module}.{point.attr}" if point.attr else point.module
        source = entry_point_source(point)
        scanned = {c.name: c for c in scan_file(source)} if source else {}
        if source and point.attr in scanned:
            yield _class_member(kind, point.name, scanned[point.attr], core_classes() | scanned, class_path)
        else:
            yield Member(point.name, f"plug-in {class_path}", kind, {}, source or Path(), "", class_path)


def _named_methods(classes: Sequence[Member]) -> list[Member]:
    known = {m.class_path: m for m in (*_scanned("methods"), *classes)} | {m.name: m for m in classes}
    found = []
    for path in sorted((benchmarks_folder() / "methods").glob("*.yaml")):
        content = read_yaml(path)
        check_keys(content, _METHOD_KEYS, str(path))
        for key in ("name", "class_path"):
            if not isinstance(content.get(key), str) or not content[key]:
                raise ConfigError(f"{path}: {key} must be a text, got {content.get(key)!r}")
        init_args = method_settings(content, str(path))
        base = known.get(content["class_path"])
        accepts = dict(base.accepts) if base else {}
        class_path = base.class_path if base else content["class_path"]
        summary = str(content.get("summary") or (base.summary if base else ""))
        licence = base.licence if base else ""
        found.append(Member(content["name"], summary, "methods", accepts, path, licence, class_path, init_args))
    return found


def _files(kind: Kind) -> Iterator[Member]:
    for path in sorted((benchmarks_folder() / _FOLDERS[kind]).glob("*.yaml")):
        content = read_yaml(path)
        name = content.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}: name must be a text, got {name!r}")
        yield Member(name, str(content.get("summary", "")), kind, {}, path)


def find(kind: Kind, name: str, source: str = "") -> Member:
    """The member of `kind` called `name`.

    Raises:
        ConfigError: unknown; tells the nearest known name.
    """
    known = {m.name: m for m in members(kind)}
    if name not in known:
        where = f"{source}: " if source else ""
        raise ConfigError(f"{where}unknown {kind[:-1]} {name!r}{nearest(name, known)}")
    return known[name]


def resolve(kind: Literal["methods", "datasets"], given: str | Spec | Mapping[str, Any], source: str = "") -> Spec:
    """What `given` stands for: a name, names of methods joined by `+`, a class path, a YAML file, or a mapping of
    `class_path, init_args, name, checkpoint`.

    Settings of a named method and those given are joined, the given ones win. Imports nothing.

    Raises:
        ConfigError: unknown name or key; tells the nearest known one.
    """
    if isinstance(given, Spec):
        return given
    if isinstance(given, str):
        if given.endswith((".yaml", ".yml")):
            return resolve(kind, read_yaml(Path(given)), given)
        known = {m.name: m for m in members(kind)}
        if given in known:
            member = known[given]
            where = str(member.source) if member.init_args else source
            return Spec(given, member.class_path, _resolved_args(member.init_args, where), where)
        if kind == "methods" and "+" in given:
            return _joined(given, source)
        if "." in given:
            return Spec(given, given, {}, source)
        find(kind, given, source)
    if not isinstance(given, Mapping):
        raise ConfigError(f"{source or kind}: expected a name or a mapping with class_path, got {given!r}")
    where = source or "method"
    check_keys(given, _METHOD_KEYS, where)
    if not isinstance(given.get("class_path"), str):
        raise ConfigError(
            f"{where}: class_path must be a name or package.module.Class, got {given.get('class_path')!r}"
        )
    base = resolve(kind, given["class_path"], source)
    own = _resolved_args(method_settings(given, where), where)
    return Spec(str(given.get("name") or base.name), base.class_path, {**base.init_args, **own}, source or base.source)


def _joined(name: str, source: str) -> Spec:
    """`a+b+c`: the method `a+b`, then the method `c`; each a name of its own or joined in turn."""
    scanned = list(_scanned("methods"))
    joiner = joining_class(scanned)
    streams = {m.class_path for m in scanned if m.accepts.get("takes") == "sequences"}
    nested = []
    for part in (resolve("methods", part, source) for part in last_two(name, source)):
        inner = {"class_path": part.class_path, "init_args": dict(part.init_args)}
        of_pairs = part.class_path not in streams
        nested.append(inner if of_pairs else {"class_path": _STREAM_OF_ONE, "init_args": {"stream": inner}})
    return Spec(name, joiner.class_path, dict(zip(joiner.accepts["joins"], nested, strict=True)), source)


def _resolved_args(value: Any, source: str) -> Any:
    """`value` with every nested method `{class_path: short name, …}` spelt out for jsonargparse."""
    if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        inner = value["class_path"]
        if "." not in inner or "+" in inner or inner in {m.name for m in members("methods")}:
            spec = resolve("methods", value, source)
            return {"class_path": spec.class_path, "init_args": dict(spec.init_args)}
    if isinstance(value, Mapping):
        return {k: _resolved_args(v, source) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved_args(v, source) for v in value]
    return value


def load_class(name_or_class_path: str, kind: Kind = "methods", source: str = "") -> type:
    """The class behind a member's name or a class path; imports it.

    Raises:
        ConfigError: unknown name, no such module or class; tells the nearest known one.
    """
    known = {m.name: m for m in members(kind)}
    path = known[name_or_class_path].class_path if name_or_class_path in known else name_or_class_path
    where = f"{source}: " if source else ""
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        find(kind, path, source)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            near = nearest(path, [*known, *(m.class_path for m in known.values())])
            raise ConfigError(f"{where}no module {module_name!r} for class_path {path!r}{near}") from error
        raise ConfigError(f"{where}{path}: cannot be imported: {error}") from error
    except Exception as error:
        raise ConfigError(f"{where}{path}: cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        raise ConfigError(f"{where}no class {class_name!r} in {module_name}{nearest(class_name, classes)}")
    return found


def resolved_init_args(kind: Literal["methods", "datasets"], spec: Spec) -> dict[str, Any]:
    """All constructor arguments of `spec` as plain values, defaults included, checked against the annotations.

    Raises:
        ConfigError: unknown argument, wrong type, missing argument; names the file and the key.
    """
    parsed = _parse(load_class(spec.class_path, kind, spec.source), spec)[1]
    return dict(parsed.as_dict())


def build_method(given: str | Spec | Mapping[str, Any]) -> RegistrationModule:
    """A method of pairs, ready to use; one of sequences takes a pair as a stream of one frame.

    See `resolve` for what may be given.

    Raises:
        ConfigError: anything that does not fit, named with file and key.
    """
    from reg_bench.sequence_as_pairs import as_pairwise

    return as_pairwise(build_module(given))


def build_module(given: str | Spec | Mapping[str, Any]) -> RegistrationModule | SequenceModule:
    """A method as it is, of pairs or of sequences.

    Raises:
        ConfigError: anything that does not fit, named with file and key.
    """
    from reg_bench.method import RegistrationModule, SequenceModule

    method: RegistrationModule | SequenceModule = _build(
        "methods", resolve("methods", given), RegistrationModule, SequenceModule
    )
    return method


def build_datamodule(given: str | Spec | Mapping[str, Any], root: str | Path | None = None) -> RegistrationDataModule:
    """A dataset; `root` becomes its argument of that name where it has one and the settings leave it open.

    Raises:
        ConfigError: anything that does not fit, named with file and key.
        DataError: files that are missing.
    """
    from reg_bench.datamodule import RegistrationDataModule

    spec = resolve("datasets", given)
    if root is not None and takes_root(spec) and "root" not in spec.init_args:
        spec = replace(spec, init_args={**spec.init_args, "root": str(root)})
    data: RegistrationDataModule = _build("datasets", spec, RegistrationDataModule)
    return data


def takes_root(spec: Spec) -> bool:
    """Whether the dataset reads files below a root folder."""
    import inspect

    return "root" in inspect.signature(load_class(spec.class_path, "datasets", spec.source)).parameters


def _build(kind: Literal["methods", "datasets"], spec: Spec, *bases: type) -> Any:
    cls = load_class(spec.class_path, kind, spec.source)
    if not issubclass(cls, bases):
        expected = " or ".join(f"a {base.__name__}" for base in bases)
        raise ConfigError(f"{_where(spec)}: {spec.class_path} is not {expected}")
    parser, parsed = _parse(cls, spec)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    try:
        return cls(**vars(instantiate(parsed)))
    except RegBenchError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{_where(spec)}: {error}") from error


def _where(spec: Spec) -> str:
    return f"{spec.source}: {spec.name}" if spec.source else spec.name


@functools.lru_cache(maxsize=256)
def _parser(cls: type) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, as_positional=False)
    return parser


def _parse(cls: type, spec: Spec) -> tuple[Any, Any]:
    check_init_keys(cls, spec.init_args, f"{_where(spec)}: init_args")
    parser = _parser(cls)
    try:
        # The parser writes into lists that it is given.
        return parser, parser.parse_object(copy.deepcopy(dict(spec.init_args)))
    except Exception as error:
        text = " ".join(str(error).replace("Parser key", "init_args key").split())
        raise ConfigError(f"{_where(spec)}: {text}") from error


def check_init_keys(cls: type, init_args: Mapping[str, Any], where: str) -> None:
    """Unknown constructor arguments, nested methods included: jsonargparse does not tell the nearest name."""
    known = [key.partition(".")[0] for key in vars(_parser(cls).get_defaults())]
    for key, value in init_args.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")
        if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
            inner = load_class(value["class_path"], "methods", where)
            check_init_keys(inner, mapping(value.get("init_args"), where), f"{where}.{key}.init_args")

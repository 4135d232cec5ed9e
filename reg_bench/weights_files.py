"""Files of weights by name or path, and the methods that take one; nothing here reads them, so nothing needs torch."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_bench.discovery import Spec, load_class, nearest, package_folder, resolve
from reg_bench.errors import ConfigError

if TYPE_CHECKING:
    from reg_bench.suite import Suite

# The argument of a method that names its weights.
ARGUMENT = "checkpoint"


def weights_folder() -> Path:
    """Where the weights lie that come with the package."""
    return package_folder("lightning_modules") / "weights"


def weights_file(given: str | Path, source: str = "weights") -> Path:
    """The file of weights called `given`, a name of the package or a path.

    Raises:
        ConfigError: no such file; tells the nearest known name.
    """
    shipped = {p.stem: p for p in sorted(weights_folder().glob("*.pt"))}
    if str(given) in shipped:
        return shipped[str(given)]
    path = Path(given)
    if not path.is_file():
        raise ConfigError(f"{source}: neither a file nor a known name: {str(given)!r}{nearest(str(given), shipped)}")
    return path


def checksum(given: str | Path) -> str:
    """Identifies the content of a file of weights: the first 16 digits of its SHA-256."""
    with weights_file(given).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def weights_of(init_args: Mapping[str, Any]) -> str | None:
    """The checksum of all weights that the settings of a method name, those of methods inside it included.

    Raises:
        ConfigError: a file that is not there.
    """
    sums = [checksum(given) for given in named_weights(init_args)]
    if len(sums) < 2:
        return sums[0] if sums else None
    return hashlib.sha256("+".join(sums).encode()).hexdigest()[:16]


def named_weights(value: Any) -> Iterator[str]:
    """Every file of weights that settings name, those of methods inside them included."""
    if isinstance(value, Mapping):
        if isinstance(value.get(ARGUMENT), str):
            yield value[ARGUMENT]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from named_weights(item)


def portable(value: Any) -> Any:
    """Settings with files of weights by their last name, which is the same on every machine."""
    if isinstance(value, Mapping):
        return {k: Path(v).name if k == ARGUMENT and isinstance(v, str) else portable(v) for k, v in value.items()}
    return [portable(item) for item in value] if isinstance(value, list | tuple) else value


def with_checkpoint(spec: Spec, file: str, source: str = "--checkpoint") -> Spec:
    """The method with its weights from `file`; of joined methods the one that takes weights. Imports its classes.

    Raises:
        ConfigError: no such file, or not one place for it.
    """
    path = weights_file(file, source)
    root: dict[str, Any] = {"class_path": spec.class_path, "init_args": copy.deepcopy(dict(spec.init_args))}
    places = list(_places(root))
    if len(places) != 1:
        how = "no weights" if not places else f"{len(places)} files of weights; name them in a YAML file"
        raise ConfigError(f"{source}: the method {spec.name!r} takes {how}")
    places[0][ARGUMENT] = file if path.parent == weights_folder() else str(path.resolve())
    return replace(spec, init_args=root["init_args"])


def _places(value: Any) -> Iterator[MutableMapping[str, Any]]:
    """The `init_args` of everything in the settings that takes weights."""
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str) and _takes_weights(value["class_path"]):
            yield value.setdefault("init_args", {})  # type: ignore[attr-defined]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _places(item)


def _takes_weights(class_path: str) -> bool:
    return ARGUMENT in inspect.signature(load_class(class_path)).parameters


def named_method(name: str, checkpoint: str | None) -> Spec:
    """The method called `name`, with weights where a file of them is given.

    Raises:
        ConfigError: unknown, or it takes no weights.
    """
    spec = resolve("methods", name)
    return spec if checkpoint is None else with_checkpoint(spec, checkpoint)


def split_option(text: str, names: Sequence[str]) -> tuple[str | None, str]:
    """`NAME=FILE` or `FILE` of `--checkpoint` as the method meant, `None` for all that take weights, and the file.

    Raises:
        ConfigError: no such file, or a name that is not among `names`.
    """
    name, equals, file = text.partition("=")
    if not equals or Path(text).is_file():
        name, file = "", text
    elif name not in names:
        raise ConfigError(f"--checkpoint: no method {name!r} in this run{nearest(name, names)}")
    path = weights_file(file, "--checkpoint")
    return name or None, file if path.parent == weights_folder() else str(path.resolve())


def with_checkpoints(suite: Suite, given: Sequence[tuple[str | None, str]]) -> Suite:
    """The suite with weights for its methods, see `split_option`.

    Raises:
        ConfigError: a method that takes no weights, or none that does.
    """
    methods = list(suite.methods)
    for name, file in given:
        meant = [i for i, m in enumerate(methods) if (name is None and _some_place(m)) or m.name == name]
        if not meant:
            raise ConfigError(
                "--checkpoint: no method of this run takes weights: " + ", ".join(m.name for m in methods)
            )
        for i in meant:
            methods[i] = with_checkpoint(methods[i], file)
    return replace(suite, methods=tuple(methods))


def _some_place(spec: Spec) -> bool:
    return any(True for _ in _places({"class_path": spec.class_path, "init_args": copy.deepcopy(dict(spec.init_args))}))

"""`reg-bench data`: looks through a dataset on disk, or tells what one is expected to look like."""

from __future__ import annotations

import argparse
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_bench.errors import ConfigError

if TYPE_CHECKING:
    from reg_bench.datamodule import RegistrationDataModule
    from reg_bench.inspection import Inspection

SUMMARY = "Check a dataset on disk, or describe what it should look like."

EXIT_FAULTS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench data`."""
    actions = parser.add_subparsers(dest="action", metavar="check|describe", required=True)
    check = actions.add_parser(
        "check",
        help="look through the folder of a dataset and list every fault",
        description="Counts what is there, loads every case, lists every fault with its file, and writes report.json "
        "and SHA256SUMS (for `sha256sum -c`). Exit status: 0 sound, 1 faults, 2 no such dataset or folder.",
        allow_abbrev=False,
    )
    describe = actions.add_parser(
        "describe", help="expected files, where to obtain them, licence, splits", allow_abbrev=False
    )
    for sub in (check, describe):
        sub.add_argument("dataset", metavar="DATASET", help="name (see `list datasets`) or package.module.Class")
    check.add_argument("--root", "--data.root", metavar="DIR", help="its folder (default: below REG_BENCH_DATA)")
    check.add_argument("--out", type=Path, metavar="DIR", help="for what is written (default: data-check/DATASET)")
    check.add_argument("--pictures", type=int, default=0, metavar="N", help="draw the first N cases with their labels")
    check.add_argument("--limit", type=int, metavar="N", help="load at most N cases of each split")
    check.add_argument("--no-checksums", dest="checksums", action="store_false", help="write no SHA256SUMS")
    check.add_argument(
        "--data", action="append", default=[], metavar="KEY=VALUE", help="an argument of the dataset; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        ConfigError, DataError: an unknown dataset or option, or a folder that does not exist.
    """
    return _describe(args.dataset) if args.action == "describe" else _check(args)


def _describe(name: str) -> int:
    from reg_bench import discovery

    cls: type[RegistrationDataModule] = discovery.load_class(name, "datasets")
    summary = inspect.cleandoc(cls.__doc__ or "")
    print(f"{cls.name or name}: {summary.splitlines()[0] if summary else ''}\n")
    about = {
        "dimensions": ", ".join(f"{d}-D" for d in cls.dimensions),
        "licence": cls.licence or "that of your data",
        "where to obtain it": cls.source or ("generated" if not cls.folder else "not stated"),
        "expected files": cls.layout,
        "folder": f"--data.root DIR, else {cls.folder!r} below REG_BENCH_DATA" if cls.folder else "",
        "splits": cls.splits,
    }
    for title, text in about.items():
        lines = textwrap.dedent(text).strip().splitlines()
        if len(lines) == 1:
            print(f"{title}: {lines[0]}")
        elif lines:
            print("\n  ".join([f"{title}:", *lines]))
    rest = "\n".join(summary.splitlines()[1:]).strip()
    print(f"\n{rest}" if rest else "")
    return 0


def _check(args: argparse.Namespace) -> int:
    from reg_bench import discovery, inspection

    if args.limit is not None and args.limit < 0:
        raise ConfigError(f"--limit: expected at least 0, got {args.limit}")
    given = {"class_path": args.dataset, "init_args": arguments_of(args.data)}
    if "." not in args.dataset:
        given = {"name": args.dataset, **given}
    data = discovery.build_datamodule(given, root=args.root)
    out: Path = args.out or Path("data-check") / data.name
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is a file, expected a folder")
    data.survey()
    out.mkdir(parents=True, exist_ok=True)
    with _bar() as progress:
        result = inspection.inspect(data, limit=args.limit, progress=progress, visit=_painter(out, args.pictures))
    if args.checksums:
        _write_checksums(data, result, out / "SHA256SUMS")
    (out / "report.json").write_text(json.dumps(result.as_dict(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(summary(data.name, result))
    print(f"written to {out}")
    return EXIT_FAULTS if result.faults else 0


def arguments_of(given: Sequence[str]) -> dict[str, Any]:
    """Arguments given as words `KEY=VALUE`, their values as YAML.

    Raises:
        ConfigError: a word without a key or an equals sign.
    """
    import yaml

    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--data: expected KEY=VALUE, got {text!r}")
        options[key.strip()] = yaml.safe_load(value)
    return options


class _bar:  # noqa: N801
    """A progress bar on the terminal, as the callable that `inspect` takes; silent elsewhere."""

    def __enter__(self) -> Callable[[int, int], None]:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._progress.start()
        self._task = self._progress.add_task("loading cases", total=None)
        return lambda done, total: self._progress.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _painter(out: Path, pictures: int) -> Callable[[Any], None]:
    drawn: list[str] = []

    def paint(pair: Any) -> None:
        if len(drawn) < pictures:
            from reg_bench.case_picture import draw_case

            name = "".join(c if c.isalnum() or c in "-_." else "_" for c in pair.case_ids[0])
            draw_case(pair, out / f"case-{name}.png")
            drawn.append(name)

    return paint


def _write_checksums(data: RegistrationDataModule, result: Inspection, path: Path) -> None:
    """Of everything below the root; without a root of the table and of every file that its cases name.

    A file that cannot be read becomes a fault of `result`.
    """
    from reg_bench.inspection_files import checksums, checksums_of, files_of
    from reg_bench.survey import Finding

    survey = result.survey

    def fault(file: Path, text: str) -> None:
        if not any(f.severity == "fault" and f.file == survey.relative(file) for f in result.findings):
            result.findings.append(Finding(survey.relative(file), text))

    if survey.root is not None:
        found = checksums(survey.root, path.parent, fault)
    else:
        table = getattr(data, "csv", None)
        named = {f for records in survey.records.values() for r in records for f in files_of(r)} | {table} - {None}
        files = [p for f in named if (p := Path(str(f))).is_file()]
        if not files:
            return
        found = checksums_of(files, Path(str(table)).parent if table else None, fault)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for digest, name in found:
            file.write(f"{digest}  {name}\n")
    temporary.replace(path)


def summary(name: str, result: Inspection) -> str:
    """The result as text: what was counted, then notes and faults, each with its file."""
    lines = [f"{name}: {result.survey.root}" if result.survey.root else name]
    for split, number in result.cases.items():
        lines.append(f"  {split}: {number} cases of {result.subjects[split]} subjects")
    tables: dict[str, Mapping[str, int]] = {
        "found": result.survey.counts,
        "shapes": result.shapes,
        "spacings": result.spacings,
        "labels": result.labels,
        "points": result.landmarks,
    }
    for title, counts in tables.items():
        if counts:
            lines.append(f"  {title}: " + ", ".join(f"{key} ({number})" for key, number in counts.items()))
    if result.frames:
        lines.append(f"  frames: {result.frames}")
    for severity in ("note", "fault"):
        found = [f for f in result.findings if f.severity == severity]
        if found:
            lines.append(f"{len(found)} {severity}{'s' if len(found) > 1 else ''}:")
            lines += [textwrap.indent(str(f), "  ") for f in found]
    if result.faults and not any(result.cases.values()):
        lines += result.survey.about
    faults = len(result.faults)
    lines.append(f"{result.loaded} cases loaded, " + (f"{faults} fault{'s' * (faults > 1)}" if faults else "no fault"))
    return "\n".join(lines)

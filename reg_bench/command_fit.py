"""`reg-bench fit`, `validate`, `test` and `predict`: Lightning's command line, with recipes by name.

Everything that Lightning can train is trained by it: any LightningModule on any LightningDataModule.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reg_bench.errors import ConfigError

SUMMARIES = {
    "fit": "Train a network by a recipe.",
    "validate": "Validate a trained network on the validation split of a recipe.",
    "test": "Test a trained network on the test split of a recipe.",
    "predict": "Predict with a trained network on the data of a recipe.",
}

_EPILOG = """\
A recipe is a YAML file with the keys trainer, model and data, as Lightning's command line has them; `reg-bench list
recipes` names those that are shipped. Anything in it can be overridden:

  reg-bench fit nconv --out runs/nconv
  reg-bench fit nconv --out runs/nconv --trainer.max_epochs 300 --model.init_args.rate 0.005
  reg-bench fit nconv --out runs/nconv --ckpt_path last     (begins, or goes on from the newest checkpoint there)
  reg-bench validate nconv --ckpt_path runs/nconv/checkpoints/last.ckpt

Every option of the trainer, and of the model and the data of a recipe: --print_config, --trainer.help,
--model.help CLASS, --data.help CLASS.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the short help shows; the rest is read by Lightning's parser, which takes seconds to import."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("--config", metavar="FILE", help="a YAML file, instead of RECIPE or on top of it; repeatable")
    parser.add_argument("--out", metavar="DIR", help="folder of checkpoints, log and configuration (runs/COMMAND)")
    parser.add_argument("--ckpt_path", metavar="FILE", help="checkpoint to go on from, or to evaluate")
    parser.add_argument("--log", metavar="A,B", help="where metrics go: csv (default), wandb (offline), tensorboard")
    parser.add_argument("--seed_everything", metavar="N", help="seed of the run (default 0)")
    parser.add_argument("--trainer.KEY, --model.KEY, --data.KEY", metavar="VALUE", help="overrides the recipe")


def run(args: argparse.Namespace) -> int:
    """Runs the command on `args.rest`, the words after it; returns 0.

    Raises:
        ConfigError: an unknown recipe, class, key or a wrong type; names the file and the nearest known name.
        TrainingError: a loss or gradient is not a number, or an alarm that ends the training.
    """
    words = _words(args.rest)
    if not any(word.split("=")[0] in ("--config", "--model", "--print_config") for word in words):
        raise ConfigError("expected a RECIPE, --config FILE or --model CLASS; `reg-bench list recipes` names recipes")
    from reg_bench.training_cli import run_training

    run_training(args.command, words)
    return 0


def _words(rest: Sequence[str]) -> list[str]:
    """The words for Lightning's parser: a recipe in front becomes `--config`, and files become what they hold."""
    words = list(rest)
    if words and not words[0].startswith("-"):
        words = ["--config", words[0], *words[1:]]
    out: list[str] = []
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if option == "--ckpt_path":
            _check_checkpoint(value if equals else words[0] if words else "")
        if option != "--config":
            out.append(word)
            continue
        if not equals and not words:
            raise ConfigError("--config: expected a recipe or a YAML file")
        out += ["--config", _plain_config(value if equals else words.pop(0))]
    return out


def _check_checkpoint(given: str) -> None:
    """Nothing, where there is such a file; Lightning would look for it only after the data has been read."""
    if given not in ("last", "best", "hpc") and ":" not in given and not Path(given).is_file():
        raise ConfigError(f"--ckpt_path: no such file: {given!r}")


def _plain_config(name_or_path: str) -> str:
    """A recipe as Lightning takes it, on one line: its name taken off, and short names of classes spelt out."""
    import json

    from reg_bench.discovery import find, read_yaml

    is_file = name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path
    path = Path(name_or_path) if is_file else find("recipes", name_or_path).source
    content = {k: v for k, v in read_yaml(path).items() if k not in ("name", "summary")}
    for key, kind in (("model", "methods"), ("data", "datasets")):
        if isinstance(content.get(key), Mapping):
            content[key] = _spelt_out(content[key], kind, f"{path}: {key}")
    return json.dumps(content)


def _spelt_out(content: Mapping[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """`{class_path, init_args}` with a class that exists and arguments that it takes."""
    from reg_bench.discovery import check_init_keys, load_class

    spelt = copy.deepcopy(dict(content))
    if isinstance(spelt.get("class_path"), str):
        cls = load_class(spelt["class_path"], kind, where)
        spelt["class_path"] = f"{cls.__module__}.{cls.__qualname__}"
        check_init_keys(cls, spelt.get("init_args") or {}, f"{where}.init_args")
    return spelt

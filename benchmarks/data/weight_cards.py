"""What the scripts that make shipped weights share: files of a training in, weights and their card out."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from reg_bench.checkpoints import origin
from reg_bench.weights_files import weights_folder


@dataclass(frozen=True)
class Training:
    """A training that ended, and where the weights made of it go.

    Attributes:
        name: of the recipe and of the weights.
        checkpoint: of Lightning.
        config: of the training.
        log: folder of its log.
        path: of the weights; the card lies beside them.
        commands: what made it, in their order.
        note: what else is to be known of it.
    """

    name: str
    checkpoint: dict[str, Any]
    config: dict[str, Any]
    log: Path
    path: Path
    commands: list[str] | None
    note: str | None

    def save(self, kept: Mapping[str, Any]) -> None:
        """The network alone, with those settings of the model by which it is built and recognised."""
        model = {"class_path": self.config["model"]["class_path"], "init_args": dict(kept)}
        state = {k: v.contiguous() for k, v in self.checkpoint["state_dict"].items() if k.startswith("network.")}
        self.path.parent.mkdir(exist_ok=True)
        torch.save({"state_dict": state, "config": yaml.safe_dump({"model": model}, sort_keys=False)}, self.path)

    def write_card(self, parameters: int, validation: Mapping[str, Any]) -> None:
        """Writes what is to be known of the saved weights, and prints it."""
        card = {
            "network": self.config["model"]["init_args"]["network"]["class_path"],
            "parameters": parameters,
            "command": self.commands or f"reg-bench fit {self.name} --out runs/{self.name}",
            **({} if self.note is None else {"note": self.note}),
            **origin(self.checkpoint, self.path),
            "validation": dict(validation),
            "curve": curve(self.log),
        }
        text = json.dumps(card, indent=1)
        self.path.with_suffix(".json").write_text(text + "\n")
        print(text)


def curve(log: Path) -> list[dict[str, float]]:
    """What was logged of every validation, of all versions of a log one after the other."""
    rows: dict[int, dict[str, float]] = {}
    for file in sorted(log.glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name.rpartition("_")[2])):
        for row in csv.DictReader(file.open()):
            found = {k.removeprefix("val/"): round(float(v), 4) for k, v in row.items() if k.startswith("val/") and v}
            if found:
                rows[int(row["step"])] = {"step": int(row["step"]) + 1, **found}
    return [rows[step] for step in sorted(rows)]


def asked_training(description: str | None) -> Training:
    """The training that the command line names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the recipe and of the weights")
    parser.add_argument("run", type=Path, help="the folder of the training, its --out")
    parser.add_argument("--checkpoint", default="last", help="which of its checkpoints (default last)")
    parser.add_argument("--commands", nargs="+", default=None, help="what made it (default: the recipe alone)")
    parser.add_argument("--note", default=None, help="what else is to be known of it")
    parser.add_argument("--folder", type=Path, default=None, help="where both files go (default: the package)")
    args = parser.parse_args()
    checkpoint = torch.load(args.run / "checkpoints" / f"{args.checkpoint}.ckpt", map_location="cpu", weights_only=True)
    return Training(
        name=args.name,
        checkpoint=checkpoint,
        config=yaml.safe_load(checkpoint["config"]),
        log=args.run / "log",
        path=(args.folder or weights_folder()) / f"{args.name}.pt",
        commands=args.commands,
        note=args.note,
    )

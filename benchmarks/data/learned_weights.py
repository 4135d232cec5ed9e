"""Makes the weights that the package ships of a training, and the card that goes with them.

    reg-bench fit voxelmorph-small --out runs/voxelmorph-small
    python benchmarks/data/learned_weights.py voxelmorph-small runs/voxelmorph-small

writes `lightning_modules/weights/<name>.pt` (the state of the network and what it takes to build it, nothing that runs)
and `<name>.json`: the command, the seed, versions, the checksum, the course of the training, and the scores on the
held-out test pairs of the recipe beside those of doing nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_modules.learned import VALIDATED, LearnedRegistration
from reg_bench.checkpoints import origin
from reg_bench.discovery import build_datamodule
from reg_bench.metrics import score
from reg_bench.score_sums import ScoreSums
from reg_bench.types import DisplacementField
from reg_bench.weights_files import weights_folder


def save(checkpoint: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """The network alone, with what `reg_bench.checkpoints` needs to build and to recognise it."""
    model = config["model"]["init_args"]
    kept = {"network": model["network"], "percentiles": model.get("percentiles")}
    text = yaml.safe_dump({"model": {"class_path": config["model"]["class_path"], "init_args": kept}}, sort_keys=False)
    state = {k: v.contiguous() for k, v in checkpoint["state_dict"].items() if k.startswith("network.")}
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": state, "config": text}, path)


def curve(log: Path) -> list[dict[str, float]]:
    """What was logged of every validation, of all versions of a log one after the other."""
    rows: dict[int, dict[str, float]] = {}
    for file in sorted(log.glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name.rpartition("_")[2])):
        for row in csv.DictReader(file.open()):
            found = {k.removeprefix("val/"): round(float(v), 4) for k, v in row.items() if k.startswith("val/") and v}
            if found:
                rows[int(row["step"])] = {"step": int(row["step"]) + 1, **found}
    return [rows[step] for step in sorted(rows)]


@torch.inference_mode()
def scores(method: LearnedRegistration, config: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Means over the held-out test pairs of the recipe, with the network and without."""
    data = build_datamodule({**config["data"], "init_args": {**config["data"]["init_args"], "batch_size": 1}})
    sums = {"network": ScoreSums(), "identity": ScoreSums()}
    for pair in data.test_dataloader():
        field = method(pair)
        still = DisplacementField.for_pair(torch.zeros_like(field.u), pair)
        for name, u in (("network", field), ("identity", still)):
            for metric, value in _values(pair, u):
                sums[name].add(metric, value)
    return {name: {k: round(v, 4) for k, v in found.means().items()} for name, found in sums.items()}


def _values(pair: Any, field: DisplacementField) -> Iterator[tuple[str, float]]:
    for value in score(pair, field, profiles=("strict",), metrics=VALIDATED):
        if value.label == "all" and value.value is not None:
            yield value.metric, value.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the recipe and of the weights")
    parser.add_argument("run", type=Path, help="the folder of the training, its --out")
    parser.add_argument("--checkpoint", default="last", help="which of its checkpoints (default last)")
    parser.add_argument("--folder", type=Path, default=None, help="where both files go (default: the package)")
    args = parser.parse_args()
    checkpoint = torch.load(args.run / "checkpoints" / f"{args.checkpoint}.ckpt", map_location="cpu", weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    path = (args.folder or weights_folder()) / f"{args.name}.pt"
    save(checkpoint, config, path)
    method = LearnedRegistration(checkpoint=str(path)).eval()
    card = {
        "network": config["model"]["init_args"]["network"]["class_path"],
        "parameters": sum(p.numel() for p in method.network.parameters()),
        "command": f"reg-bench fit {args.name} --out runs/{args.name}",
        **origin(checkpoint, path),
        "validation": {"what": f"test pairs of {config['data']['class_path']}", **scores(method, config)},
        "curve": curve(args.run / "log"),
    }
    text = json.dumps(card, indent=1)
    path.with_suffix(".json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

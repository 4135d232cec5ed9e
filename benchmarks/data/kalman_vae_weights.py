"""Makes the weights that the package ships of a training of a Kalman VAE, and the card that goes with them.

    reg-bench fit kalman-vae-small --out runs/kalman-vae-small
    python benchmarks/data/kalman_vae_weights.py kalman-vae-small runs/kalman-vae-small

writes `lightning_modules/weights/<name>.pt` (the state of the network and its settings, nothing that runs) and
`<name>.json`: the command, the seed, versions, the checksum, the course of the training, the scores on held-out test
sequences of the recipe, each whole and streamed: of the filtered fields, of forecasts five frames ahead, and of holding
the last field for as long, in pixels.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lightning_modules.kalman_vae import KalmanVAE
from lightning_modules.kalman_vae_training import HORIZON, validated
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from lightning_modules.simpleitk_demons import Demons
from reg_bench.checkpoints import origin
from reg_bench.discovery import build_datamodule
from reg_bench.weights_files import weights_folder

SEQUENCES, FRAMES = 8, 50


def save(checkpoint: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """The network alone, with the settings by which a method recognises it."""
    kept = {"class_path": config["model"]["class_path"]}
    kept["init_args"] = {"network": config["model"]["init_args"]["network"]}
    state: dict[str, Tensor] = {
        k: v.contiguous() for k, v in checkpoint["state_dict"].items() if k.startswith("network.")
    }
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": state, "config": yaml.safe_dump({"model": kept}, sort_keys=False)}, path)


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
def scores(method: KalmanVAE, config: dict[str, Any]) -> dict[str, float]:
    """Means over whole test sequences of the dataset of the recipe."""
    given = config["data"]["init_args"]["sequences"]
    settings = {**given["init_args"], "sequences": SEQUENCES, "length": FRAMES}
    data = build_datamodule({"class_path": given["name"], "init_args": settings})
    found = [validated(method, data.sequence(record)) for record in data.sequence_records("test")]
    return {name: round(sum(f[name] for f in found) / len(found), 4) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the recipe and of the weights")
    parser.add_argument("run", type=Path, help="the folder of the training, its --out")
    parser.add_argument("--checkpoint", default="last", help="which of its checkpoints (default last)")
    parser.add_argument("--commands", nargs="+", default=None, help="what made it (default: the recipe alone)")
    parser.add_argument("--note", default=None, help="what else is to be known of it")
    parser.add_argument("--folder", type=Path, default=None, help="where both files go (default: the package)")
    args = parser.parse_args()
    checkpoint = torch.load(args.run / "checkpoints" / f"{args.checkpoint}.ckpt", map_location="cpu", weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    path = (args.folder or weights_folder()) / f"{args.name}.pt"
    save(checkpoint, config, path)
    network = KalmanVAENetwork(**config["model"]["init_args"]["network"]["init_args"])
    images = Demons() if network.target == "image" else None
    method = KalmanVAE(network, images=images, checkpoint=str(path)).eval()
    card = {
        "network": config["model"]["init_args"]["network"]["class_path"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "command": args.commands or f"reg-bench fit {args.name} --out runs/{args.name}",
        **({} if args.note is None else {"note": args.note}),
        **origin(checkpoint, path),
        "validation": {
            "what": f"{SEQUENCES} test sequences of {FRAMES} frames, streamed; forecasts {HORIZON} frames ahead",
            **scores(method, config),
        },
        "curve": curve(args.run / "log"),
    }
    text = json.dumps(card, indent=1)
    path.with_suffix(".json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

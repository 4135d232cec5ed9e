"""Makes the weights that the package ships of a training by the recipe `nconv`, and the card that goes with them.

    reg-bench fit nconv --out runs/nconv
    python benchmarks/data/nconv_weights.py runs/nconv/checkpoints/last.ckpt

writes `lightning_modules/weights/nconv.pt` (the state of the network, nothing that runs) and `nconv.json`: the command,
the seed, versions, the checksum, and the errors on the held-out fields of the recipe, of the network alone as it was
trained and with the trend that it has by default.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml

from datamodules.random_fields import RandomFields
from reg_bench.checkpoints import origin
from reg_bench.sparse_to_dense import NormalizedConvolution, end_point_error
from reg_bench.sparse_to_dense.weights import load_weights
from reg_bench.weights_files import weights_folder

COMMAND = "reg-bench fit nconv --out runs/nconv"


@torch.inference_mode()
def validation(network: NormalizedConvolution, data: RandomFields) -> dict[str, float]:
    """Mean end-point errors in voxels on the held-out fields."""
    errors = {}
    for kind in ("exact", "tracker"):
        seen = data.validation_batch(kind)  # type: ignore[arg-type]
        u = network(seen.points, seen.values, seen.confidence, data.shape).u
        errors[kind] = round(float(end_point_error(u, seen.truth).mean()), 4)
        errors["zero_field"] = round(float(end_point_error(torch.zeros_like(u), seen.truth).mean()), 4)
    return errors


def card(checkpoint: dict[str, Any], weights: Path, network: NormalizedConvolution) -> dict[str, Any]:
    """What is to be known of the weights."""
    config = yaml.safe_load(checkpoint["config"])
    data = RandomFields(**config["data"]["init_args"])
    alone = NormalizedConvolution(weights, trend=None)
    with_trend = NormalizedConvolution(weights)
    return {
        "network": "reg_bench.sparse_to_dense.NormalizedConvolution",
        "parameters": sum(p.numel() for p in network.parameters()),
        "command": COMMAND,
        **origin(checkpoint, weights),
        "validation": {
            "fields": data.validation_fields,
            "points": data.validation_points,
            "metric": "mean end-point error, voxels",
            "network alone": validation(alone, data),
            "with trend (default)": validation(with_trend, data),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    network = NormalizedConvolution(None)
    load_weights(network, args.checkpoint)
    folder = weights_folder()
    folder.mkdir(exist_ok=True)
    weights = folder / "nconv.pt"
    torch.save(network.state_dict(), weights)
    checkpoint = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    text = json.dumps(card(checkpoint, weights, network), indent=2)
    (folder / "nconv.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

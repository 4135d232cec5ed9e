"""Makes the weights that the package ships of a training of a Kalman VAE, and the card that goes with them.

    reg-bench fit kalman-vae-small --out runs/kalman-vae-small
    python benchmarks/data/kalman_vae_weights.py kalman-vae-small runs/kalman-vae-small

writes `lightning_modules/weights/<name>.pt` (the state of the network and its settings, nothing that runs) and
`<name>.json`: the command, the seed, versions, the checksum, the course of the training, the scores on held-out test
sequences of the recipe, each whole and streamed: of the filtered fields, of forecasts five frames ahead, and of holding
the last field for as long, in pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from weight_cards import asked_training

from lightning_modules.kalman_vae import KalmanVAE
from lightning_modules.kalman_vae_training import HORIZON, validated
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from lightning_modules.simpleitk_demons import Demons
from reg_bench.discovery import build_datamodule

SEQUENCES, FRAMES = 8, 50


@torch.inference_mode()
def scores(method: KalmanVAE, config: dict[str, Any]) -> dict[str, float]:
    """Means over whole test sequences of the dataset of the recipe."""
    given = config["data"]["init_args"]["sequences"]
    settings = {**given["init_args"], "sequences": SEQUENCES, "length": FRAMES}
    data = build_datamodule({"class_path": given["name"], "init_args": settings})
    found = [validated(method, data.sequence(record)) for record in data.sequence_records("test")]
    return {name: round(sum(f[name] for f in found) / len(found), 4) for name in found[0]}


def main() -> None:
    training = asked_training(__doc__)
    settings = training.config["model"]["init_args"]["network"]
    training.save({"network": settings})
    network = KalmanVAENetwork(**settings["init_args"])
    images = Demons() if network.target == "image" else None
    method = KalmanVAE(network, images=images, checkpoint=str(training.path)).eval()
    what = f"{SEQUENCES} test sequences of {FRAMES} frames, streamed; forecasts {HORIZON} frames ahead"
    parameters = sum(p.numel() for p in network.parameters())
    training.write_card(parameters, {"what": what, **scores(method, training.config)})


if __name__ == "__main__":
    main()

"""Makes the weights that the package ships of a training, and the card that goes with them.

    reg-bench fit voxelmorph-small --out runs/voxelmorph-small
    python benchmarks/data/learned_weights.py voxelmorph-small runs/voxelmorph-small

writes `lightning_modules/weights/<name>.pt` (the state of the network and what it takes to build it, nothing that runs)
and `<name>.json`: the command, the seed, versions, the checksum, the course of the training, and the scores on the
held-out test pairs of the recipe beside those of doing nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from weight_cards import asked_training

from lightning_modules.learned import VALIDATED, LearnedRegistration
from reg_bench.discovery import build_datamodule
from reg_bench.metrics import score
from reg_bench.score_sums import ScoreSums
from reg_bench.types import DisplacementField


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
    training = asked_training(__doc__)
    model = training.config["model"]["init_args"]
    training.save({"network": model["network"], "percentiles": model.get("percentiles")})
    method = LearnedRegistration(checkpoint=str(training.path)).eval()
    what = f"test pairs of {training.config['data']['class_path']}"
    parameters = sum(p.numel() for p in method.network.parameters())
    training.write_card(parameters, {"what": what, **scores(method, training.config)})


if __name__ == "__main__":
    main()

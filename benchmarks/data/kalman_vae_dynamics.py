"""Fits the dynamics of a trained Kalman VAE anew, to many whole sequences; its encoder and decoder stay as they are.

    python benchmarks/data/kalman_vae_dynamics.py runs/kalman-vae-small

Of `checkpoints/last.ckpt` makes `checkpoints/dynamics.ckpt`. With the encoder at rest no image is needed in a step:
every sequence is encoded once, and a step over all of them takes a tenth of a second, where the training by clips sees
a few hundred a minute. Nothing but the images is used, neither labels nor the true motion.

What is minimised is the negative logarithm of the likelihood of the latent variables per frame (by the Kalman filter),
and the squared error of their forecasts 2, 5 and 8 frames ahead in pixels: latent variables count by how much the field
within the sector moves with them. What forecasts validation sequences best is kept. The covariance of the first state
is then one for all sequences.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lightning_modules.kalman_vae import KalmanVAE
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.discovery import build_datamodule
from reg_bench.state_space import LinearGaussianModel, kalman_filter

FRAMES, HORIZONS, RADIUS = 50, (2, 5, 8), 0.999
SENSITIVE = 8
RATE, WARM_UP, CLIP = 1e-2, 20, 10.0


@torch.inference_mode()
def encoded(method: KalmanVAE, data: Any, split: str, count: int) -> Tensor:
    """The latent variables `(count, FRAMES, p)` of the first sequences of a split."""
    found = []
    for record in data.sequence_records(split)[:count]:
        frames = data.sequence(record).frames
        found.append(method.encoded(frames, method.scaled(frames[:, 0])))
    # Tensors made in inference mode cannot be trained on.
    return torch.cat(found).clone()


@torch.no_grad()
def sensitivity(method: KalmanVAE, data: Any, step: float = 2.0) -> Tensor:
    """`(p, p)`: `e^T S e` is the mean square, in pixels, by which an error `e` of latent variables moves the field."""
    p = method.network.latents
    total, count = torch.zeros(p, p), 0
    for record in data.sequence_records("train")[:SENSITIVE]:
        sequence = data.sequence(record)
        state = method.start(sequence.frames[:, 0], seconds_per_frame=1.0)
        x = method.encoded(sequence.frames, state.scaled)
        for t in range(5, FRAMES, 15):
            moved = x[0, t] + step * torch.cat([torch.eye(p), -torch.eye(p)])
            u = method.fields(state, moved[None])[0][:, :, sequence.mask[0, t, 0]]
            slopes = (u[:p] - u[p:]).flatten(1) / (2 * step)
            total, count = total + 2 * slopes @ slopes.mT / slopes.shape[1], count + 1
    return total / count


def model_of(dynamics: Any, first: Tensor, x: Tensor) -> LinearGaussianModel:
    """The dynamics with one covariance of the first state for all, `first` the logarithm of its deviations."""
    model: LinearGaussianModel = dynamics.model(x[:, 0])
    covariance = torch.diag_embed(first.exp().square())
    return LinearGaussianModel(model.A, model.C, model.Q, model.R, model.mean, covariance)


def terms(model: LinearGaussianModel, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood per frame, and the mean squared error of forecasts in square pixels."""
    filtered = kalman_filter(model, x)
    errors = []
    for ahead in HORIZONS:
        power = torch.linalg.matrix_power(model.A, ahead)
        error = filtered.mean[:, 1:-ahead] @ (model.C @ power).mT - x[:, 1 + ahead :]
        errors.append(((error @ weights) * error).sum(dim=-1).mean())
    return -filtered.log_likelihood.mean(), torch.stack(errors).mean()


def fit(dynamics: Any, x: Tensor, held: Tensor, weights: Tensor, steps: int, share: float) -> None:
    """Fits in place; `share` is that of the likelihood, which alone is looked at in the first half."""
    with torch.no_grad():
        first = dynamics.first(x[:, 0])[1].mean(dim=0).log()
        dynamics.first.spread.weight.zero_()
    first.requires_grad_(True)
    adam = torch.optim.Adam([*dynamics.parameters(), first], RATE)
    best, kept = float("inf"), {k: v.clone() for k, v in dynamics.state_dict().items()}
    for number in range(steps):
        half, second = divmod(number, max(1, steps // 2))
        rate = RATE * min(1.0, (second + 1) / WARM_UP) * (1 - second / (steps // 2 + 1)) / (1 if half == 0 else 2)
        for group in adam.param_groups:
            group["lr"] = rate
        adam.zero_grad()
        likelihood, error = terms(model_of(dynamics, first, x), x, weights)
        (likelihood if half == 0 else share * likelihood + error).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*dynamics.parameters(), first], CLIP)
        adam.step()
        dynamics.stabilise(RADIUS)
        if number % 25 == 24 or number == steps - 1:
            with torch.no_grad():
                lost, seen = (float(v) for v in terms(model_of(dynamics, first, held), held, weights))
                # Its deviation is softplus(bias), now that the weights are zero.
                dynamics.first.spread.bias.copy_(torch.log(torch.expm1(first.exp()).clamp(min=1e-6)))
            print(f"{number + 1:5} likelihood {-float(likelihood):8.3f} forecast {float(error):7.4f}", end="")
            print(f"  held out {-lost:8.3f} {seen:7.4f}", flush=True)
            if seen < best:
                best, kept = seen, {k: v.clone() for k, v in dynamics.state_dict().items()}
    dynamics.load_state_dict(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of the training, its --out")
    parser.add_argument("--sequences", type=int, default=1000, help="training sequences (default 1000)")
    parser.add_argument("--held", type=int, default=50, help="validation sequences (default 50)")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.05, help="weight of the likelihood in the second half")
    args = parser.parse_args()
    folder = args.run / "checkpoints"
    checkpoint = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    network = KalmanVAENetwork(**config["model"]["init_args"]["network"]["init_args"])
    method = KalmanVAE(network, checkpoint=str(folder / "last.ckpt")).eval()
    given = config["data"]["init_args"]["sequences"]
    settings = {**given["init_args"], "sequences": max(args.sequences, args.held), "length": FRAMES}
    data = build_datamodule({"class_path": given["name"], "init_args": settings})
    file = args.run / f"latents-{args.sequences}.pt"
    if not file.is_file():
        torch.save([encoded(method, data, "train", args.sequences), encoded(method, data, "val", args.held)], file)
    x, held = torch.load(file, weights_only=True)
    torch.manual_seed(0)
    fit(network.dynamics, x, held, sensitivity(method, data), args.steps, args.share)
    checkpoint["state_dict"].update({f"network.dynamics.{k}": v for k, v in network.dynamics.state_dict().items()})
    torch.save(checkpoint, folder / "dynamics.ckpt")


if __name__ == "__main__":
    main()

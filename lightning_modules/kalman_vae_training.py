"""How a Kalman VAE is trained: its bound, the course of its rate, and what validation looks at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lightning_modules.networks.kalman_vae_model import Bound
from reg_bench.errors import DataError
from reg_bench.field import jacobian_determinant, warp
from reg_bench.protocol import case_seed
from reg_bench.types import ImageSequence
from reg_bench.variational_bound import monotonic_annealing

if TYPE_CHECKING:
    from lightning_modules.kalman_vae import KalmanVAE

#: How far validation looks ahead, in frames.
HORIZON = 5


@dataclass(frozen=True)
class BoundSettings:
    """How the lower bound is computed in training.

    Attributes:
        samples: M of the Monte Carlo mean; the paper ran 1.
        weighted: importance weights instead of that mean.
        annealed: whether the weight of the latent terms rises over the epochs (`monotonic_annealing`).
        decoded: how many frames of a clip, drawn at random, stand for all in the image's term; all if not given.
        radius: the largest absolute eigenvalue that the transition may have after a step; no limit if not given, as in
            the paper.
    """

    samples: int = 1
    weighted: bool = False
    annealed: bool = True
    decoded: int | None = None
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.decoded is not None and self.decoded < 1):
            raise ValueError(
                f"BoundSettings: samples and decoded must be at least 1, got {self.samples}, {self.decoded}"
            )


@dataclass(frozen=True)
class Staircase:
    """Adam, whose rate falls in steps.

    Attributes:
        rate: at the beginning.
        decay: factor every `every` epochs.
        every: see there.
        schedule: `staircase`, or `cosine`: down to 0 at the end of the training, after `warm_up` steps of rising.
        warm_up: of `cosine`.
        dynamics: factor of the rate for the latent dynamics.
    """

    rate: float = 1e-4
    decay: float = 0.85
    every: int = 20
    schedule: Literal["staircase", "cosine"] = "staircase"
    warm_up: int = 0
    dynamics: float = 1.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or not 0 < self.decay <= 1 or self.every < 1 or self.warm_up < 0 or not self.dynamics > 0:
            raise ValueError(
                "Staircase: rate and dynamics must be positive, decay in 0..1, every at least 1, warm_up at least 0, "
                f"got {self.rate}, {self.dynamics}, {self.decay}, {self.every} and {self.warm_up}"
            )

    def configured(self, module: KalmanVAE) -> Any:
        """Optimizer and schedule as Lightning takes them."""
        latent, others = [], []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (latent if name.startswith("network.dynamics.") else others).append(parameter)
        groups = [{"params": others}, {"params": latent, "lr": self.rate * self.dynamics}]
        adam = torch.optim.Adam([g for g in groups if g["params"]], self.rate)
        if self.schedule == "staircase":
            return [adam], [torch.optim.lr_scheduler.StepLR(adam, self.every, self.decay)]
        steps = int(module.trainer.estimated_stepping_batches)
        rising = torch.optim.lr_scheduler.LinearLR(adam, 0.01, total_iters=max(1, self.warm_up))
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps - self.warm_up))
        course = torch.optim.lr_scheduler.SequentialLR(adam, [rising, falling], [self.warm_up])
        return {"optimizer": adam, "lr_scheduler": {"scheduler": course, "interval": "step"}}


def training_bound(module: KalmanVAE, batch: ImageSequence, epoch: int | None = None) -> Bound:
    """The lower bound of a batch of clips that begin with their references; of validation without an `epoch`.

    Raises:
        DataError: another frame is the reference.
    """
    if batch.reference != 0:
        raise DataError(
            f"{', '.join(batch.case_ids)}: the reference must be frame 0 in training, not {batch.reference}"
        )
    frames = module.scaled(batch.frames.flatten(0, 1)).unflatten(0, batch.frames.shape[:2])
    view = None if batch.mask is None else module.scaled(batch.mask.any(dim=1)) > 0.5
    network, settings = module.network, module.settings
    if view is not None and epoch is not None:
        network.see(view)
    return network.bound(
        frames,
        field_of_view=view,
        samples=settings.samples,
        weighted=settings.weighted,
        beta=monotonic_annealing(epoch) if epoch is not None and settings.annealed else 1.0,
        **({} if epoch is None else _draws(module, batch)),
    )


def _draws(module: KalmanVAE, batch: ImageSequence) -> dict[str, Any]:
    """What a step of training draws: the same for a case, with whichever others and in whichever process it comes."""
    seed, step = int(os.environ.get("PL_GLOBAL_SEED", "0")), module.global_step
    generators = [torch.Generator().manual_seed(case_seed(seed, f"noise/{step}/{name}")) for name in batch.case_ids]
    decoded, length = module.settings.decoded, batch.length
    used = None
    if decoded is not None and decoded < length:
        order = torch.randperm(length, generator=torch.Generator().manual_seed(case_seed(seed, f"frames/{step}")))
        used = sorted(order[:decoded].tolist())

    def draw(like: Tensor) -> Tensor:
        shape = (len(like) // len(generators), *like.shape[1:])
        # (M, B, …), as the samples of a batch lie.
        drawn = torch.stack([torch.randn(shape, generator=g) for g in generators], dim=1)
        return drawn.flatten(0, 1).to(like)

    return {"used": used, "draw": draw}


@torch.no_grad()
def validated(module: KalmanVAE, batch: ImageSequence) -> dict[str, float]:
    """Of the filtered fields: Dice of all labels, share of folded pixels, end-point error within the mask, and that of
    forecasts `HORIZON` frames ahead beside that of holding the last field; in pixels.

    Only of sequences whose reference is the first frame; where labels or the truth are missing, what can be had.
    """
    if module.network.target == "image" or batch.reference != 0:
        return {}
    state = module.start(batch.frames[:, 0], seconds_per_frame=batch.seconds_per_frame)
    fields, foretold = [torch.zeros_like(batch.frames[:, 0].expand(-1, 2, -1, -1))], []
    for t in range(1, batch.length):
        state, estimate = module.step(state, batch.frames[:, t], t * batch.seconds_per_frame)
        fields.append(estimate.field.u)
        if t + HORIZON < batch.length:
            foretold.append(module.forecast(state, HORIZON * batch.seconds_per_frame).field.u)
    u = torch.stack(fields, dim=1)
    values = {"nonpositive_fraction": float((jacobian_determinant(u[:, 1:].flatten(0, 1)) <= 0).float().mean())}
    values |= _dice(batch, u)
    truth = batch.true_displacement
    if truth is None:
        return values
    inside = torch.ones_like(batch.frames, dtype=torch.bool) if batch.mask is None else batch.mask
    values["end_point_error"] = _error(u[:, 1:], truth[:, 1:], inside[:, 1:])
    if foretold:
        later, seen = truth[:, 1 + HORIZON :], inside[:, 1 + HORIZON :]
        values["forecast_error"] = _error(torch.stack(foretold, dim=1), later, seen)
        values["held_error"] = _error(u[:, 1:-HORIZON], later, seen)
    return values


def _error(u: Tensor, truth: Tensor, inside: Tensor) -> float:
    return float((u - truth).norm(dim=2)[inside[:, :, 0]].mean())


def _dice(batch: ImageSequence, u: Tensor) -> dict[str, float]:
    first = batch.labels_of(0)
    frames = [t for t in batch.labelled_frames or () if t > 0]
    if first is None or not frames:
        return {}
    scores = []
    for t in frames:
        labels, warped = batch.labels_of(t), warp(first, u[:, t], mode="nearest")
        assert labels is not None
        for label in first.unique().tolist():
            if label:
                a, b = warped == label, labels == label
                scores.append(float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp(min=1)))
    return {"dice": sum(scores) / len(scores)}

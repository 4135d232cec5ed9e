"""Registration by latent linear dynamics: the Kalman VAE of Paper III as a method of sequences, and its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_modules.kalman_vae_fields import KalmanState, fields, pictures, scaled
from lightning_modules.kalman_vae_latents import Latents
from lightning_modules.kalman_vae_training import BoundSettings, Staircase, training_bound, validated
from lightning_modules.kalman_vae_weights import load_weights
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.frozen_parameters import freeze
from reg_bench.latent_courses import LatentCourse
from reg_bench.method import Estimate, RegistrationModule, SequenceModule
from reg_bench.types import DisplacementField, ImageSequence

#: Samples of the latent variables from which the uncertainty of a field is estimated, and their seed.
_SAMPLES, _SEED = 16, 0


class KalmanVAE(SequenceModule):
    """The Kalman VAE: every frame is encoded, the latent variables are filtered, and their mean is decoded to a field.

    Fields are in pixels of the frames. Intensities are taken as they come and should be in 0..1. Frames of another size
    than the network's are resized, and the field back; several channels are averaged. A missing frame is bridged by the
    dynamics; forecasts run them on, linearly between whole frames. Training maximises the evidence lower bound of
    batches of `ImageSequence` whose first frame is the reference.

    Args:
        network: the model; by default that of the paper.
        bound: how its lower bound is computed; as in the paper if not given.
        optimizer: Adam and the course of its rate; the paper's if not given.
        images: a method of pairs that finds the displacement where the network gives an image: it registers the
            reference to that.
        frozen: beginnings of names of parameters of the network that are not trained.
        checkpoint: weights of just this network: a file, or a name of those that are shipped.

    Raises:
        ConfigError: a checkpoint that does not fit; names the file.
        ValueError: a network of images without `images`, or nothing of that name to freeze.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2,)

    def __init__(
        self,
        network: KalmanVAENetwork | None = None,
        bound: BoundSettings | None = None,
        optimizer: Staircase | None = None,
        images: RegistrationModule | None = None,
        frozen: Sequence[str] = (),
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.network = KalmanVAENetwork() if network is None else network
        if self.network.target == "image" and images is None:
            raise ValueError("KalmanVAE: a network of images needs `images`, a method of pairs, for its displacements")
        if checkpoint is not None:
            load_weights(self.network, checkpoint)
        self.settings, self.optimizer, self.images = bound or BoundSettings(), optimizer or Staircase(), images
        self.latents = Latents(self.network)
        freeze(self.network, frozen, "KalmanVAE")
        self.trained = checkpoint is not None
        """Whether the network has weights to register with, or is training."""
        self.loss_terms: dict[str, Tensor] = {}
        """Of the last training step, by name."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained = True

    def on_fit_start(self) -> None:
        self.trained = True

    def accepts(self, sequence: ImageSequence) -> str | None:
        """Why the network cannot follow `sequence`, or `None`."""
        if not self.trained:
            return "the network has no weights: name them by --checkpoint FILE, or train it by `reg-bench fit`"
        return super().accepts(sequence)

    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> KalmanState:
        """See `SequenceModule`; `mask` and `points` are of no use. The reference is the first observation."""
        seen = self.scaled(reference)
        mean, _ = self.network.encode(seen[:, None], seen)
        latents = self.latents.start(mean[:, 0])
        return KalmanState(reference, seen, self.network.prepared(seen), latents, 0.0, seconds_per_frame)

    def step(self, state: KalmanState, frame: Tensor | None, time_s: float) -> tuple[KalmanState, Estimate]:
        """See `SequenceModule`."""
        x = None if frame is None else self.network.encode(self.scaled(frame)[:, None], state.scaled)[0][:, 0]
        frames = max(1, round((time_s - state.time_s) / state.seconds_per_frame))
        state = replace(state, latents=self.latents.step(state.latents, x, frames), time_s=time_s)
        return state, self._estimate(state, self.latents.observed(state.latents)[0])

    def forecast(self, state: KalmanState, horizon_s: float) -> Estimate:
        """See `SequenceModule`."""
        return self._estimate(state, self.latents.ahead(state.latents, horizon_s / state.seconds_per_frame)[0])

    def uncertain(self, state: KalmanState, horizon_s: float) -> Estimate:
        """As `forecast`, with the standard deviation that 16 samples of the latent variables give the field."""
        mean, covariance = self.latents.ahead(state.latents, horizon_s / state.seconds_per_frame)
        generator = torch.Generator(mean.device).manual_seed(_SEED)
        shape = (len(mean), _SAMPLES, mean.shape[1])
        white = torch.randn(shape, generator=generator, device=mean.device, dtype=mean.dtype)
        # Symmetric square roots exist of singular covariances too.
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0).sqrt()[:, None]
        u = self.fields(state, mean[:, None] + white @ root.mT)
        return replace(self._estimate(state, mean), std=u.std(dim=1))

    def smooth(
        self, frames: Tensor, observed: Tensor | None = None, *, reference: Tensor | None = None
    ) -> list[Estimate]:
        """The fields of all frames given all of them, the future included.

        Args:
            frames: `(B, T, C, *S)`, at equal intervals.
            observed: `(B, T)` bool, which of them there are; what stands in the others is not looked at.
            reference: `(B, C, *S)`; the first frame if not given, which then has to be observed.
        """
        state = self.start(frames[:, 0] if reference is None else reference, seconds_per_frame=1.0)
        x = self.encoded(frames, state.scaled)
        smoothed, _ = self.latents.courses(x, self._first(state), observed)["smoothed"]
        return [Estimate(DisplacementField(u)) for u in self.fields(state, smoothed).unbind(dim=1)]

    def generate(self, reference: Tensor, n: int, seed: int, *, length: int = 50) -> list[Tensor]:
        """`n` motions from the prior that begin at `reference (B, C, *S)`: fields `(B, length, 2, *S)`, pixels."""
        state = self.start(reference, seconds_per_frame=1.0)
        generator = torch.Generator(reference.device).manual_seed(seed)
        return [self.fields(state, x) for x in self.latents.drawn(self._first(state), n, length, generator)]

    def latent_course(self, frames: Tensor, observed: Tensor | None = None) -> LatentCourse:
        """The latent variables of `frames (B, T, C, *S)`, the first the reference, filtered, smoothed and predicted."""
        state = self.start(frames[:, 0], seconds_per_frame=1.0)
        x = self.encoded(frames, state.scaled)
        found = self.latents.courses(x, self._first(state), observed)
        seen = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if observed is None else observed
        means, stds = ({kind: pair[i] for kind, pair in found.items()} for i in range(2))
        return LatentCourse(x, means, stds, seen)

    def scaled(self, frame: Tensor) -> Tensor:
        """A frame or reference `(B, C, *S)` as the network sees it, `(B, 1, size, size)`."""
        return scaled(self.network, frame)

    def encoded(self, frames: Tensor, reference: Tensor) -> Tensor:
        """The means of the latent variables `(B, T, latents)` of `frames (B, T, C, *S)`; the reference as scaled."""
        return self.network.encode(self.scaled(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]), reference)[0]

    def fields(self, state: KalmanState, x: Tensor) -> Tensor:
        """The fields `(B, T, 2, *S)` that latent variables `(B, T, latents)` decode to, in pixels of the stream."""
        return fields(self.network, self.images, state, x)

    def reconstructed(self, frames: Tensor) -> Tensor:
        """What the model makes of `frames (B, T, C, *S)`, the first the reference: `(B, T, 1, *S)`, from filtered x."""
        state = self.start(frames[:, 0], seconds_per_frame=1.0)
        filtered, _ = self.latents.courses(self.encoded(frames, state.scaled), self._first(state))["filtered"]
        return pictures(self.network, state, filtered)

    def _first(self, state: KalmanState) -> Tensor:
        """The latent variables of the reference."""
        return self.network.encode(state.scaled[:, None], state.scaled)[0][:, 0]

    def _estimate(self, state: KalmanState, x: Tensor) -> Estimate:
        return Estimate(DisplacementField(self.fields(state, x[:, None])[:, 0]))

    def training_step(self, batch: ImageSequence, batch_idx: int) -> Tensor:
        found = training_bound(self, batch, self.current_epoch + 1)
        loss = -found.value.mean()
        self.loss_terms = {
            name: getattr(found, name).detach().mean() for name in ("image", "encoder", "dynamics", "penalty")
        }
        values = {"train/loss": loss.detach()} | {f"train/{k}": v for k, v in self.loss_terms.items()}
        self.log_dict(values, batch_size=len(batch.case_ids))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.settings.radius is not None and self.network.dynamics is not None:
            self.network.dynamics.stabilise(self.settings.radius)

    def validation_step(self, batch: ImageSequence, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs the bound and, of the streams, Dice, folding, end-point errors of filter and forecast, where known."""
        values = {"loss": -float(training_bound(self, batch).value.mean()), **validated(self, batch)}
        stage = "test" if self.trainer.testing else "val"
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(named, batch_size=len(batch.case_ids), sync_dist=True, on_epoch=True)

    def test_step(self, batch: ImageSequence, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, batch_idx, dataloader_idx)

    def configure_optimizers(self) -> Any:
        return self.optimizer.configured(self)

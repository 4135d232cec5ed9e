"""The Kalman VAE (Paper III) as a probabilistic model: encoder, dynamics, decoder, likelihood, and its lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_modules.networks.kalman_vae import FieldDecoder, ImageEncoder, Trunk
from lightning_modules.networks.kalman_vae_blocks import seen_by_all
from lightning_modules.networks.kalman_vae_dynamics import LatentDynamics, Likelihood
from lightning_modules.networks.kalman_vae_fields import Draw, FieldNoise, FieldOutput, Kind
from reg_bench.field import warp
from reg_bench.variational_bound import (
    bound,
    divergence_from_standard_normal,
    image_log_likelihood,
    normal_log_density,
)

Target = Literal["field", "image"]
Conditioning = Literal["latent", "features"]


@dataclass(frozen=True)
class Bound:
    """The lower bound of `log p(y | y_M)` and its terms, nats, `(B,)` each.

    Attributes:
        value: what is maximised, with the weight of the latent terms and less the penalty.
        image: `log p(y | phi, y_M)`.
        encoder: `log q(x | y)`.
        dynamics: `log p(x | x_M)`.
        penalty: of the roughness of the field, weighted.
    """

    value: Tensor
    image: Tensor
    encoder: Tensor
    dynamics: Tensor
    penalty: Tensor


class KalmanVAENetwork(nn.Module):
    """Images to latent variables, their linear dynamics, and latent variables to displacements of the reference.

    Sequences are `(B, T, 1, size, size)` in 0..1, and their first frame is the reference y_M. The defaults are those of
    the paper: 1,439,682 parameters.

    Args:
        size: of the images.
        latents, states: dimensions of x and z.
        filters: of the blocks of the encoder, and in the reverse order of the decoder.
        image_std: of the likelihood of a frame, in units of intensity.
        field_std: of p(phi | x), in pixels.
        stiffness: of that distribution's precision, see `FieldNoise`; 0 in the paper.
        likelihood: of the dynamics, see `LatentDynamics`; `paper` there.
        start: of the dynamics.
        penalty: weight of half the sum of the squared forward differences of the mean field; the paper's text has 0,
            its code 1.
        conditioning: `latent`, as the paper: the reference is known through the warp and through z_1. `features`: the
            encoder sees it beside every frame, and its maps are added to those of the decoder.
        decoder: `dense`, or `bspline` or `thin-plate` from a regular grid.
        levels: blocks of the decoder; fewer than `filters` make its grid coarser. All if not given.
        smoothing: standard deviation, in pixels, of the Gaussian over the field (equation 15); 0 in `kalman-vae`.
        velocity: whether the decoder gives a stationary velocity.
        first_std: of the decoder's last kernel at the beginning; Glorot's if not given.
        target: `image` for the original Kalman VAE, whose decoder gives the frame itself.
        dynamic: `False` for a plain VAE: every x_t is standard normal on its own.

    Raises:
        ValueError: a size that cannot be halved so often, or no filters.
    """

    def __init__(
        self,
        size: int = 112,
        latents: int = 16,
        states: int = 32,
        filters: Sequence[int] = (16, 32, 64, 128),
        image_std: float = 0.01,
        field_std: float = 0.01,
        stiffness: float = 0.0,
        likelihood: Likelihood = "exact",
        start: Literal["paper", "steady"] = "paper",
        penalty: float = 0.0,
        conditioning: Conditioning = "latent",
        decoder: Kind = "dense",
        levels: int | None = None,
        smoothing: float = 0.0,
        velocity: bool = False,
        first_std: float | None = None,
        target: Target = "field",
        dynamic: bool = True,
    ) -> None:
        super().__init__()
        if not filters or size % (1 << len(filters)) or not image_std > 0 or penalty < 0:
            raise ValueError(
                "KalmanVAENetwork: size must be a multiple of 2 to the number of filters, image_std positive and "
                f"penalty at least 0, got {size}, {list(filters)}, {image_std} and {penalty}"
            )
        if target not in ("field", "image") or conditioning not in ("latent", "features"):
            raise ValueError(
                "KalmanVAENetwork: target must be field or image, conditioning latent or features, got "
                f"{target!r} and {conditioning!r}"
            )
        if levels is not None and not 1 <= levels <= len(filters):
            raise ValueError(f"KalmanVAENetwork: levels must be in 1..{len(filters)}, got {levels}")
        self.settings: dict[str, Any] = {
            **{"size": size, "latents": latents, "states": states, "filters": list(filters), "levels": levels},
            **{"conditioning": conditioning, "decoder": decoder, "velocity": velocity},
            **{"target": target, "dynamic": dynamic},
        }
        """What makes the network what it is: weights fit only where they agree."""
        self.size, self.latents, self.image_std, self.penalty, self.target = size, latents, image_std, penalty, target
        sees = conditioning == "features"
        self.encoder = ImageEncoder(size, latents, filters, channels=2 if sees else 1)
        outputs = 2 if target == "field" else 1
        self.decoder = FieldDecoder(size, latents, filters, outputs, levels, sees, first_std)
        self.trunk = Trunk(1, filters) if sees else None
        self.dynamics = LatentDynamics(latents, states, likelihood, start) if dynamic else None
        self.output = FieldOutput(decoder, smoothing, velocity)
        self.noise = FieldNoise(field_std, stiffness)
        self.register_buffer("seen", torch.zeros(1, 1, size, size, dtype=torch.bool))

    def field_of_view(self) -> Tensor:
        """`(1, 1, *S)` bool: the pixels that lay in any field of view of the training; all, if none was given."""
        seen: Tensor = self.get_buffer("seen")
        return seen if bool(seen.any()) else torch.ones_like(seen)

    def see(self, field_of_view: Tensor) -> None:
        """Adds fields of view `(B, 1, *S)` to those of the training."""
        self.get_buffer("seen").logical_or_(seen_by_all(field_of_view.any(dim=0, keepdim=True)))

    def encode(self, frames: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_t | y_t): `(B, T, 1, *S)` and `(B, 1, *S)` to two of `(B, T, latents)`."""
        if self.trunk is not None:
            frames = torch.cat([frames, reference[:, None].expand_as(frames)], dim=2)
        mean, std = self.encoder(frames.flatten(0, 1))
        return mean.unflatten(0, frames.shape[:2]), std.unflatten(0, frames.shape[:2])

    def prepared(self, reference: Tensor) -> list[Tensor]:
        """What the decoder takes of the reference `(B, 1, *S)`; nothing but for `features`."""
        return [] if self.trunk is None else self.decoder.prepared(self.trunk(reference))

    def decode(self, x: Tensor, prepared: Sequence[Tensor] = ()) -> Tensor:
        """The mean of p(phi | x) in pixels `(B, T, 2, *S)`, or of the image `(B, T, 1, *S)`, of `x (B, T, latents)`."""
        decoded = self.decoder(x, prepared)
        shape = (self.size, self.size)
        if self.target == "image":
            return decoded
        return self.output(decoded.flatten(0, 1), shape).unflatten(0, x.shape[:2])

    def bound(
        self,
        frames: Tensor,
        observed: Tensor | None = None,
        field_of_view: Tensor | None = None,
        samples: int = 1,
        weighted: bool = False,
        beta: float = 1.0,
        used: Sequence[int] | None = None,
        draw: Draw = torch.randn_like,
    ) -> Bound:
        """The evidence lower bound (equation 9) by `samples` samples of x, z integrated out.

        Args:
            frames: `(B, T, 1, *S)`, the first the reference.
            observed: `(B, T)` bool, which frames there are; the first has to be.
            field_of_view: `(B, 1, *S)` bool, beyond which nothing moves.
            samples: M.
            weighted: importance weights: the logarithm of the mean of the M weights, instead of the mean logarithm.
            beta: weight of the latent terms, see `monotonic_annealing`.
            used: numbers of the frames that stand for all in the image's term; all if not given.
            draw: standard normal numbers of the shape of what it is given, `(M * B, …)`.
        """
        batch, length = frames.shape[:2]
        reference = frames[:, 0]
        mean, std = self.encode(frames, reference)
        mean, std = (v.expand(samples, *v.shape) for v in (mean, std))
        x = mean + std * draw(mean.flatten(0, 1)).reshape(mean.shape)
        encoder, dynamics = self._latent_terms(x, mean, std, observed, not weighted, draw)
        chosen = list(range(length) if used is None else used)
        prepared = [p.repeat(samples, *(1,) * (p.ndim - 1)) for p in self.prepared(reference)]
        seen = x[:, :, chosen].flatten(0, 1)
        sampled, roughness = self._frames(seen, prepared, reference, field_of_view, draw)
        target = frames[:, chosen].repeat(samples, 1, 1, 1, 1)
        terms = image_log_likelihood(target, sampled, self.image_std)
        if observed is not None:
            kept = observed[:, chosen].repeat(samples, 1)
            terms, roughness = torch.where(kept, terms, 0), torch.where(kept, roughness, 0)
        share = length / len(chosen)
        image = (share * terms.sum(dim=1)).reshape(samples, batch)
        penalty = (share * self.penalty * roughness.sum(dim=1)).reshape(samples, batch)
        weights = image + beta * (dynamics - encoder) - penalty
        parts = (image, encoder, dynamics, penalty)
        return Bound(bound(weights, weighted), *(part.mean(dim=0) for part in parts))

    def _latent_terms(
        self, x: Tensor, mean: Tensor, std: Tensor, observed: Tensor | None, closed: bool, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """`log q(x | y)` and `log p(x)`, `(M, B)` each; of a plain VAE their expectations, if `closed`."""
        if self.dynamics is None:
            if closed:
                encoder, dynamics = divergence_from_standard_normal(mean, std), torch.zeros_like(mean[..., 0])
            else:
                encoder = normal_log_density(x, mean, std)
                dynamics = normal_log_density(x, torch.zeros_like(x), 1.0)
            return _summed(encoder, observed), _summed(dynamics, observed)
        encoder = _summed(normal_log_density(x, mean, std), observed)
        mask = None if observed is None else observed.repeat(len(x), 1)
        # The reference is the first frame, and its latent variables are counted once.
        likelihood = self.dynamics.log_likelihood(x.flatten(0, 1), x[:, :, 0].flatten(0, 1), mask, draw)
        return encoder, likelihood.reshape(x.shape[:2])

    def _frames(
        self, x: Tensor, prepared: Sequence[Tensor], reference: Tensor, field_of_view: Tensor | None, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """The mean of the frames given a sample of their fields, and half the squared differences of the mean field."""
        decoded = self.decode(x, prepared)
        if self.target == "image":
            return decoded, torch.zeros_like(x[..., 0])
        phi, samples = self.noise(decoded, draw), len(x) // len(reference)
        if field_of_view is not None:
            phi = phi * field_of_view.repeat(samples, 1, 1, 1)[:, None]
        moving = reference.repeat(samples, 1, 1, 1).repeat_interleave(x.shape[1], dim=0)
        return warp(moving, phi.flatten(0, 1)).unflatten(0, x.shape[:2]), _roughness(decoded)


def _summed(terms: Tensor, observed: Tensor | None) -> Tensor:
    """`(M, B, T)` summed over the frames that were observed."""
    return (terms if observed is None else torch.where(observed, terms, 0)).sum(dim=2)


def _roughness(u: Tensor) -> Tensor:
    """Half the sum of the squared forward differences of `(B, T, 2, H, W)`, `(B, T)`."""
    return 0.5 * sum(u.diff(dim=axis).square().flatten(2).sum(dim=2) for axis in (-2, -1))  # type: ignore[return-value]

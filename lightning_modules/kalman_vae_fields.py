"""What the latent variables of a stream stand for: its fields, on the grid of its frames, and its frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.kalman_vae_latents import LatentState
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.field import resize, resize_image, warp
from reg_bench.method import RegistrationModule
from reg_bench.types import RegistrationPair


@dataclass(frozen=True)
class KalmanState:
    """What is remembered between two frames.

    Attributes:
        reference: `(B, C, *S)`, the moving image as it came.
        scaled: `(B, 1, size, size)`, as the network sees it.
        prepared: what the decoder takes of the reference.
        latents: the state of the dynamics at `time_s`.
        time_s: of the last step, seconds after the reference.
        seconds_per_frame: of the stream; the dynamics move on once in that time.
    """

    reference: Tensor
    scaled: Tensor
    prepared: list[Tensor]
    latents: LatentState
    time_s: float
    seconds_per_frame: float


def scaled(network: KalmanVAENetwork, frame: Tensor) -> Tensor:
    """A frame or reference `(B, C, *S)` as the network sees it, `(B, 1, size, size)`: the mean of its channels."""
    image = frame.float()
    image = image if image.shape[1] == 1 else image.mean(dim=1, keepdim=True)
    size = (network.size, network.size)
    return image if image.shape[2:] == size else resize_image(image, size)


def fields(network: KalmanVAENetwork, images: RegistrationModule | None, state: KalmanState, x: Tensor) -> Tensor:
    """The fields `(B, T, 2, *S)` that latent variables `(B, T, latents)` decode to, in pixels of the stream.

    Args:
        network: of fields, or of images.
        images: finds the displacement from the reference to an image of the network's, where it gives one.
        state: of the stream.
        x: the latent variables.
    """
    decoded, shape = network.decode(x, state.prepared), state.reference.shape[2:]
    if network.target == "image":
        assert images is not None
        return torch.stack([_registered(images, state, image) for image in decoded.unbind(dim=1)], dim=1)
    decoded = (decoded * network.field_of_view()).flatten(0, 1)
    return (decoded if decoded.shape[2:] == shape else resize(decoded, shape)).unflatten(0, x.shape[:2])


def pictures(network: KalmanVAENetwork, state: KalmanState, x: Tensor) -> Tensor:
    """The frames `(B, T, 1, *S)` that latent variables stand for: the reference warped, or the image decoded."""
    shape, moving = state.reference.shape[2:], state.reference.float().mean(dim=1, keepdim=True)
    if network.target == "image":
        decoded = network.decode(x, state.prepared).flatten(0, 1)
        return resize_image(decoded, shape).unflatten(0, x.shape[:2])
    u = fields(network, None, state, x).flatten(0, 1)
    return warp(moving.repeat_interleave(x.shape[1], dim=0), u).unflatten(0, x.shape[:2])


def _registered(images: RegistrationModule, state: KalmanState, image: Tensor) -> Tensor:
    fixed = resize_image(image, state.reference.shape[2:])
    moving = state.reference.float().mean(dim=1, keepdim=True)
    names = tuple(f"generated{i}" for i in range(len(image)))
    u: Tensor = images(RegistrationPair(names, fixed=fixed, moving=moving)).u
    return u

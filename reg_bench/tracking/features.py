"""What trackers compare: dense feature maps of images, several channels each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_bench.field import identity_grid, linear
from reg_bench.tracking.smoothing import smooth


def gradient_histograms(
    image: Tensor,
    orientations: int = 9,
    sigma_voxels: float = 1.5,
    block_voxels: float = 4.0,
    clip: float = 0.4,
    noise: float = 0.01,
) -> Tensor:
    """Histograms of gradient orientations around every pixel, `(M, orientations, H, W)`, 0..1.

    Orientations do not know a sign and are shared by the two nearest bins, weighted by the length of the gradient.
    Histograms are averages under a Gaussian, divided by their root mean square under a wider one and clipped, so that
    neither gain nor offset of the intensities matter (after Dalal and Triggs, CVPR 2005; dense instead of on cells).

    Args:
        image: `(M, C, H, W)`, intensities of about 0..1; of several channels the mean is taken.
        orientations: number of bins.
        sigma_voxels: of the Gaussian that stands for a cell.
        block_voxels: of the Gaussian of the normalisation.
        clip: share of the length of a histogram above which a bin does not count more.
        noise: gradient per pixel that is not amplified.
    """
    grey = image.mean(1, keepdim=True) if image.shape[1] > 1 else image
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")[:, 0]
    first = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    second = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    length = (first.square() + second.square()).sqrt()
    place = torch.atan2(second, first) * (orientations / math.pi)
    histogram = smooth(_soft_bins(length, place, orientations), sigma_voxels)
    squared = smooth(histogram.square().sum(1, keepdim=True), block_voxels)
    return (histogram / (squared + noise**2).sqrt_()).clamp_(max=clip).div_(clip)


def _soft_bins(length: Tensor, place: Tensor, bins: int) -> Tensor:
    """`length (M, H, W)` shared between the bins on both sides of `place`, circularly: `(M, bins, H, W)`."""
    out = length.new_zeros(len(length), bins, *length.shape[1:])
    lower = place.floor()
    upper_share = length * (place - lower)
    index = lower.long().remainder(bins)[:, None]
    out.scatter_add_(1, index, (length - upper_share)[:, None])
    return out.scatter_add_(1, (index + 1).remainder(bins), upper_share[:, None])


class Features(nn.Module, ABC):
    """Dense feature maps. Subclasses are final and implement `forward`.

    Attributes:
        groups: numbers of neighbouring channels that are brought to the same energy in every patch, with a weight each.
    """

    groups: tuple[tuple[int, float], ...]

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """`(M, K, H, W)` of images `(M, C, H, W)` with intensities of about 0..1."""


class GradientFeatures(Features):
    """Intensity beside histograms of gradient orientations: ten channels by default.

    Args:
        orientations: number of bins; 0 for the intensity alone.
        sigma_voxels, block_voxels, clip: see `gradient_histograms`.
        intensity_weight: energy of the intensity beside that of the histograms, which is 1; 0 leaves it out.
        smoothing_voxels: standard deviation of a Gaussian on the image before anything else; 0 for none.
    """

    def __init__(
        self,
        orientations: int = 9,
        sigma_voxels: float = 1.5,
        block_voxels: float = 4.0,
        clip: float = 0.4,
        intensity_weight: float = 1.0,
        smoothing_voxels: float = 1.0,
    ) -> None:
        super().__init__()
        if orientations < 0 or intensity_weight < 0 or (orientations == 0 and intensity_weight == 0):
            raise ValueError(
                "GradientFeatures: needs orientations or an intensity_weight above 0, "
                f"got {orientations} and {intensity_weight}"
            )
        self.orientations, self.intensity_weight = orientations, intensity_weight
        self.sigma_voxels, self.block_voxels, self.clip = sigma_voxels, block_voxels, clip
        self.smoothing_voxels = smoothing_voxels
        groups = ((1, intensity_weight), (orientations, 1.0))
        self.groups = tuple(g for g in groups if g[0] > 0 and g[1] > 0)

    def forward(self, image: Tensor) -> Tensor:
        """See `Features.forward`."""
        grey = smooth(image.mean(1, keepdim=True), self.smoothing_voxels)
        maps = [grey] if self.intensity_weight > 0 else []
        if self.orientations:
            maps.append(gradient_histograms(grey, self.orientations, self.sigma_voxels, self.block_voxels, self.clip))
        return torch.cat(maps, dim=1)


class NetworkFeatures(Features):
    """The feature maps of a network of the user's, alone or beside others.

    Args:
        network: maps `(M, C, H, W)` to `(M, K, H // stride, W // stride)`, or to the whole size for stride 1.
        channels: `K`.
        stride: pixels of the image per pixel of the maps, whose pixels average squares of that edge; maps are read at
            every pixel of the image linearly.
        weight: energy of these channels in a patch.
        beside: other features that come before them, whose energies are their own.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        stride: int = 1,
        weight: float = 1.0,
        beside: Features | None = None,
    ) -> None:
        super().__init__()
        if channels < 1 or stride < 1 or not weight > 0:
            raise ValueError(
                f"NetworkFeatures: channels, stride and weight must be positive, got {channels}, {stride} and {weight}"
            )
        self.network, self.beside, self.channels, self.stride = network, beside, channels, stride
        self.groups = (*(beside.groups if beside is not None else ()), (channels, weight))

    def forward(self, image: Tensor) -> Tensor:
        """See `Features.forward`.

        Raises:
            ValueError: the network returns maps of another shape.
        """
        maps = self.network(image)
        shape = (len(image), self.channels, *(n // self.stride for n in image.shape[2:]))
        if tuple(maps.shape) != shape:
            raise ValueError(f"NetworkFeatures: the network must return {shape}, got {tuple(maps.shape)}")
        if self.stride > 1:
            pixels = identity_grid(image.shape[2:], maps.device, maps.dtype)
            places = (pixels - (self.stride - 1) / 2) / self.stride
            maps = linear(maps, (places - pixels).expand(len(maps), -1, -1, -1))
        return maps if self.beside is None else torch.cat((self.beside(image), maps), dim=1)

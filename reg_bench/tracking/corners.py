"""Corners after Shi and Tomasi ("Good features to track", CVPR 1994), a minimum distance apart."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.field import gaussian


def corner_strength(image: Tensor, sigma_voxels: float = 1.5) -> Tensor:
    """The smaller eigenvalue of the structure tensor, `(B, 1, H, W)`: large where the image varies in both directions.

    Args:
        image: `(B, C, H, W)`; channels add up.
        sigma_voxels: standard deviation of the Gaussian under which the products of the gradients are averaged.
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(f"corner_strength: image must be floating point (B, C, H, W), got {tuple(image.shape)}")
    along, across = torch.gradient(gaussian(image, 1.0), dim=(2, 3))
    products = torch.cat(
        [(a * b).sum(1, keepdim=True) for a, b in ((along, along), (across, across), (along, across))], 1
    )
    first, second, mixed = gaussian(products, sigma_voxels).unbind(1)
    half = (first + second) / 2
    root = ((first - second).square() / 4 + mixed.square()).sqrt()
    return (half - root).clamp(min=0)[:, None]


def spaced_peaks(strength: Tensor, count: int, min_distance: float) -> Tensor:
    """The `count` strongest pixels `(count, 2)` of `strength (H, W)` of which none is nearer than `min_distance`.

    Taken greedily, strongest first. Where the plane is too small for so many, the distance is halved until they fit.
    Pixels of strength 0 come last; those of negative strength never.

    Raises:
        ValueError: fewer than `count` pixels of non-negative strength.
    """
    available = int((strength >= 0).sum())
    if not 1 <= count <= available:
        raise ValueError(f"spaced_peaks: count must lie in 1..{available}, the pixels to choose from, got {count}")
    distance = min_distance
    while True:
        chosen = _greedy(strength.clone(), count, distance)
        if len(chosen) == count:
            return strength.new_tensor(chosen)
        distance = distance / 2 if distance > 1 else 0.0


def _greedy(strength: Tensor, count: int, distance: float) -> list[tuple[int, int]]:
    """Strongest pixels, each of which takes away those nearer than `distance`; may end before `count`."""
    width = strength.shape[1]
    reach = int(distance)
    steps = torch.arange(-reach, reach + 1, device=strength.device)
    near = steps[:, None].square() + steps[None].square() < max(distance * distance, 0.5)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count:
        index = int(strength.argmax())
        i, j = divmod(index, width)
        if not float(strength[i, j]) >= 0:
            break
        chosen.append((i, j))
        top, left = max(i - reach, 0), max(j - reach, 0)
        part = strength[top : i + reach + 1, left : j + reach + 1]
        inside = near[top - i + reach :, left - j + reach :][: part.shape[0], : part.shape[1]]
        part.masked_fill_(inside, -1.0)
    return chosen

"""Pairs made from one real image and a known deformation: real anatomy with an exact truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench import field
from reg_bench.grid import Grid
from reg_bench.preprocessing import geometry
from reg_bench.synthesis import landmarks_in, random_generator, rician, smooth_noise, torch_generator
from reg_bench.types import PointPairs, RegistrationPair


@dataclass(frozen=True)
class Subject:
    """One image with everything that is warped along with it.

    Attributes:
        image: `(1, 1, *S)` float32, 0..1.
        labels: `(1, 1, *S)` integer map.
        mask: `(1, 1, *S)` bool, tissue in which errors count and landmarks lie.
        grid: where the voxels lie.
        label_names: label value to name.
    """

    image: Tensor
    labels: Tensor
    mask: Tensor
    grid: Grid
    label_names: Mapping[int, str]


@dataclass(frozen=True)
class Appearance:
    """How the fixed image looks different from the warped one; all zero leaves it as it is.

    Attributes:
        contrast: the intensities (0..1) are raised to a power drawn from `exp(-contrast)..exp(contrast)`.
        bias: standard deviation of a smooth multiplicative field around 1.
        noise: standard deviation of Rician noise, in units of the intensity range.
    """

    contrast: float = 0.0
    bias: float = 0.0
    noise: float = 0.0

    def __call__(self, image: Tensor, *key: str | int) -> Tensor:
        """`image` `(1, 1, *S)` in 0..1 with the appearance that `key` draws."""
        draw = random_generator("appearance", *key)
        if self.contrast:
            image = image.clamp(0, 1) ** float(torch.tensor(draw.uniform(-self.contrast, self.contrast)).exp())
        if self.bias:
            seed = int(draw.integers(2**31))
            image = image * (
                1 + self.bias * smooth_noise(image.shape[2:], smoothness=max(image.shape[2:]) / 4, seed=seed)
            )
        return rician(image.clamp(min=0), self.noise, torch_generator("noise", *key))


def known_warp(
    case_id: str, subject: Subject, u: Tensor, *, landmarks: int, appearance: Appearance, key: tuple[str | int, ...]
) -> RegistrationPair:
    """`subject` as moving image and its warp by `u` as fixed image, with truth, labels, landmarks and mask.

    Before the change of appearance `fixed(x) = moving(x + u(x))` with linear interpolation (labels: nearest),
    so the truth reproduces the fixed image to rounding. Landmarks are drawn in the fixed tissue mask and
    carried by `u`, interpolated linearly.

    Args:
        u: `(1, D, *S)` voxels.
        landmarks: how many.
        key: decides every random draw.
    """
    u = u.float()
    mask = field.warp(subject.mask.to(torch.uint8), u, mode="nearest", padding="zeros").bool()
    points = landmarks_in(mask[0, 0], landmarks, int(random_generator("landmarks", *key).integers(2**31)))
    spacing, affine = geometry(subject.grid)
    return RegistrationPair(
        case_ids=(case_id,),
        fixed=appearance(field.warp(subject.image, u), *key),
        moving=subject.image,
        fixed_spacing_mm=spacing,
        moving_spacing_mm=spacing,
        fixed_affine=affine,
        moving_affine=affine,
        fixed_labels=field.warp(subject.labels, u, mode="nearest"),
        moving_labels=subject.labels,
        label_names=subject.label_names,
        points={"landmarks": PointPairs((points,), (points + field.sample(u, points[None])[0],))},
        mask=mask,
        true_displacement=u,
    )

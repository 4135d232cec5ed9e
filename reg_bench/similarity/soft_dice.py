"""Overlap of labels, soft so that it has a gradient: weak supervision by segmentations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import Analytic, Evaluate, Similarity, check_fixed, expanded, mean_weights, weighted


def one_hot(labels: Tensor, values: Sequence[int]) -> Tensor:
    """Label maps as one channel per label: warped linearly, these have a gradient.

    Args:
        labels: `(B, 1, *S)`, integers, of any dtype.
        values: which labels become channels, in this order; leave the background out.

    Returns:
        `(B, len(values), *S)` of 0 and 1, float32, or the dtype of `labels` if that is a floating point one.

    Raises:
        ValueError: a wrong shape, no values, or a value twice.
    """
    if labels.ndim not in (4, 5) or labels.shape[1] != 1:
        raise ValueError(f"one_hot: labels must be (B, 1, *spatial), got shape {tuple(labels.shape)}")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"one_hot: values must be labels without repetition, got {list(values)}")
    dtype = labels.dtype if labels.is_floating_point() else torch.float32
    wanted = torch.as_tensor(list(values), device=labels.device).reshape(1, -1, *(1,) * (labels.ndim - 2))
    return (labels == wanted).to(dtype)


class SoftDice(Similarity):
    """One minus the mean Dice overlap of labels, thesis section 2.7.1: the images are segmentations.

    Images are channels `(B, L, *S)`, one per label, without the background: `one_hot(labels, values)` of the fixed
    labels, and that of the moving ones warped linearly. A label's Dice is `2 Σ f w / (Σ f + Σ w)` over the voxels.
    Only labels that the fixed image has count, each alike; a case without any has energy and gradient 0.
    Differentiable in the warped image alone.

    Args:
        labels: the fixed image given to `bind` is a label map `(B, 1, *S)`, and these labels are the channels of the
            warped one.
    """

    def __init__(self, labels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.labels = None if labels is None else tuple(labels)

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Analytic:
        if self.labels is not None:
            fixed = one_hot(fixed, self.labels)
        check_fixed("SoftDice", fixed)
        weights = mean_weights("SoftDice", mask, fixed, at_least_float32(fixed))
        return Analytic("SoftDice", fixed, _evaluate(fixed, weights))


@torch.no_grad()
def _evaluate(fixed: Tensor, weights: Tensor | None) -> Evaluate:
    fixed = fixed.to(at_least_float32(fixed))
    size = weighted(fixed, weights).flatten(2).sum(dim=2)
    present = size > 0
    # Absent labels neither count nor divide by zero.
    each = present.to(size.dtype) / present.sum(dim=1, keepdim=True).clamp(min=1)

    def evaluate(warped: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        values = weighted(warped.to(fixed.dtype), weights).flatten(2)
        total = (size + values.sum(dim=2)).masked_fill(~present, 1)
        overlap = torch.linalg.vecdot(fixed.flatten(2), values)
        energy = present.any(dim=1).to(size.dtype) - 2 * (each * overlap / total).sum(dim=1)
        if not with_gradient:
            return energy, None
        gradient = expanded(-2 * each / total, fixed) * (fixed - expanded(overlap / total, fixed))
        return energy, weighted(gradient, weights).to(warped.dtype)

    return evaluate

"""What every similarity is: an energy per case that knows its fixed image, with the gradient in the warped image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from reg_bench.field.checks import needs_graph

# (warped, with_gradient) -> energies (B,) and, if asked for, d energy / d warped; both without a graph.
Evaluate = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]


class BoundSimilarity(ABC):
    """A similarity with its fixed image, mask and spacing: what an optimiser calls again and again."""

    @abstractmethod
    def __call__(self, warped: Tensor) -> Tensor:
        """The energies `(B,)` of `warped (B, C, *S)`, differentiable."""

    @abstractmethod
    def value_and_gradient(self, warped: Tensor) -> tuple[Tensor, Tensor]:
        """The energies `(B,)` and, of each, the gradient in its warped image `(B, C, *S)`; nothing has a graph."""


class Similarity(nn.Module, ABC):
    """How badly a warped image fits the fixed one: one value per case, **lower is better**.

    The value is a mean over the domain, or over the mask: weights of at least 0, of which only the proportions count.
    A case whose mask is empty has energy 0 and gradient 0. Constant images give finite values and gradients.
    """

    @abstractmethod
    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> BoundSimilarity:
        """Does once what depends on the fixed image alone.

        Args:
            fixed: `(B, C, *S)`, 2-D or 3-D. Channels count alike.
            mask: `(B, 1, *S)` on the fixed grid, bool or weights; `None` means everywhere.
            spacing_mm: `(B, D)`, for similarities of derivatives; `None` means isotropic.

        Returns:
            a callable: `warped (B, C, *S)` to energies `(B,)`, differentiable once, in the fixed image as well unless
            the class says otherwise.

        Raises:
            ValueError: shapes that do not fit, negative weights or spacing that is not positive.
        """

    def forward(
        self, fixed: Tensor, warped: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None
    ) -> Tensor:
        """The energies `(B,)` of one pair of images `(B, C, *S)`; arguments as in `bind`."""
        return self.bind(fixed, mask, spacing_mm)(warped)


class Differentiable(BoundSimilarity):
    """Bound by a function of the warped image that autograd differentiates."""

    def __init__(self, energy: Callable[[Tensor], Tensor]) -> None:
        self._energy = energy

    def __call__(self, warped: Tensor) -> Tensor:
        return self._energy(warped)

    def value_and_gradient(self, warped: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = warped.detach().requires_grad_()
            energy = self._energy(leaf)
            (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        return energy.detach(), gradient


class Analytic(BoundSimilarity):
    """Bound by a function that gives the energy and its gradient together, sparing the graph and its memory.

    Args:
        name: who asks, for messages.
        fixed: `(B, C, *S)`.
        evaluate: energies and gradient of a warped image.
        mirrored: given the warped image, the `evaluate` with the two images in exchanged roles: for a symmetric
            similarity that gives the gradient in the fixed image. `None` for similarities without one.

    Raises:
        ValueError: `fixed` requires a gradient and there is none.
    """

    def __init__(
        self, name: str, fixed: Tensor, evaluate: Evaluate, mirrored: Callable[[Tensor], Evaluate] | None = None
    ) -> None:
        if mirrored is None and needs_graph(fixed):
            raise ValueError(f"{name}: fixed has no gradient here, got a fixed image that requires one")
        self._name, self._fixed, self._evaluate, self._mirrored = name, fixed, evaluate, mirrored

    def __call__(self, warped: Tensor) -> Tensor:
        check_warped(self._name, self._fixed, warped)
        if needs_graph(self._fixed, warped):
            apply = cast(Callable[..., Tensor], _WithGradient.apply)
            return apply(self._fixed, warped, self._evaluate, self._mirrored)
        return self._evaluate(warped.detach(), False)[0]

    @torch.no_grad()
    def value_and_gradient(self, warped: Tensor) -> tuple[Tensor, Tensor]:
        check_warped(self._name, self._fixed, warped)
        energy, gradient = self._evaluate(warped.detach(), True)
        assert gradient is not None
        return energy, gradient


class _WithGradient(torch.autograd.Function):
    """The gradient is computed with the value, which shares most of the work, and only scaled on the way back."""

    @staticmethod
    def forward(
        ctx: Any, fixed: Tensor, warped: Tensor, evaluate: Evaluate, mirrored: Callable[[Tensor], Evaluate]
    ) -> Tensor:
        of_fixed, of_warped = ctx.needs_input_grad[:2]
        energy, gradient = evaluate(warped.detach(), of_warped)
        other = mirrored(warped.detach())(fixed.detach(), True)[1] if of_fixed else None
        ctx.save_for_backward(other, gradient)
        return energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        scaled = [None if g is None else g * expanded(upstream.to(g.dtype), g) for g in gradients]
        return (*scaled, None, None)


def check_fixed(name: str, fixed: Tensor, argument: str = "fixed") -> None:
    """`fixed` must be a floating point batch of 2-D or 3-D images, nothing empty."""
    if fixed.ndim not in (4, 5) or 0 in fixed.shape[1:] or not fixed.is_floating_point():
        raise ValueError(
            f"{name}: {argument} must be floating point images (B, C, *spatial) with 2 or 3 non-empty spatial axes, "
            f"got {fixed.dtype} {tuple(fixed.shape)}"
        )


def check_warped(name: str, fixed: Tensor, warped: Tensor) -> None:
    if warped.shape != fixed.shape or not warped.is_floating_point():
        raise ValueError(
            f"{name}: warped must be floating point and of the shape of fixed, {tuple(fixed.shape)}, "
            f"got {warped.dtype} {tuple(warped.shape)}"
        )


def mean_weights(name: str, mask: Tensor | None, fixed: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The weights of a weighted mean over the grid: `(B, 1, *S)` that sum to 1 per case, or to 0 where all are 0.

    `None`, every voxel alike, where there is no mask.

    Raises:
        ValueError: a wrong shape, or weights that are negative or not finite.
    """
    if mask is None:
        return None
    expected = (fixed.shape[0], 1, *fixed.shape[2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"{name}: mask must be (B, 1, *spatial) = {expected}, got shape {tuple(mask.shape)}")
    weights = mask.to(device=fixed.device, dtype=dtype)
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError(f"{name}: mask must hold finite weights of at least 0, got {weights.min()} to {weights.max()}")
    # The largest weight first, so that the sum of large weights stays finite.
    for extent in (torch.amax, torch.sum):
        weights = weights / expanded(extent(weights.flatten(1), 1).clamp(min=torch.finfo(dtype).tiny), weights)
    return weights


def weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    """`values (B, C, *S)` times the weight of each voxel from `mean_weights`, so that sums over the grid are means."""
    return values / values[0, 0].numel() if weights is None else values * weights


def share(weights: Tensor | None, fixed: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of the weights, `(B,)`: 1, or 0 for a case whose mask is empty."""
    if weights is None:
        return fixed.new_ones(fixed.shape[0], dtype=dtype)
    return weights.flatten(1).any(dim=1).to(dtype)


def expanded(values: Tensor, like: Tensor) -> Tensor:
    """`values (B,)` or `(B, C)` with axes of length 1 appended, to multiply `like (B, C, *S)`."""
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


def rounding_variance(mean: Tensor) -> Tensor:
    """What rounding alone may leave as the variance of a constant image of this mean."""
    return (4 * torch.finfo(mean.dtype).eps * mean).square().clamp(min=1e-20)


def inverse_edges(name: str, fixed: Tensor, spacing_mm: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """One over the voxel edges in units of their geometric mean, `(B, D)`; `None` means isotropic.

    Raises:
        ValueError: a wrong shape, or spacing that is not positive and finite.
    """
    if spacing_mm is None:
        return None
    expected = (len(fixed), fixed.ndim - 2)
    if tuple(spacing_mm.shape) != expected:
        raise ValueError(f"{name}: spacing_mm must be (B, D) = {expected}, got shape {tuple(spacing_mm.shape)}")
    spacing = spacing_mm.to(device=fixed.device, dtype=dtype)
    if not bool((spacing.isfinite() & (spacing > 0)).all()):
        raise ValueError(f"{name}: spacing_mm must be positive and finite, got {spacing_mm.tolist()}")
    logarithm = spacing.log()
    return (logarithm.mean(dim=1, keepdim=True) - logarithm).exp()

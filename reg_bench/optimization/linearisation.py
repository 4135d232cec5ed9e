"""Residuals with the products of their Jacobian, which is never formed unless it is small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from reg_bench.optimization.algebra import largest, per_case

Map = Callable[[Tensor], Tensor]
_make_dual: Callable[[Tensor, Tensor], Tensor] = forward_ad.make_dual
_unpack_dual: Callable[[Tensor], tuple[Tensor, Tensor | None]] = forward_ad.unpack_dual


@dataclass(frozen=True)
class Linearisation:
    """`residuals(theta + v) = residuals + J v` to first order, case by case.

    Attributes:
        residuals: `(B, N)`, without a graph.
        push: `v (B, *P)` to `J v (B, N)`.
        pull: `w (B, N)` to `J^T w (B, *P)`.
    """

    residuals: Tensor
    push: Map
    pull: Map


def linearise(function: Map, theta: Tensor) -> Linearisation:
    """Linearises any function at `theta` by automatic differentiation.

    `J^T w` is reverse mode. `J v` is forward mode where torch has it for all that the function does; interpolation of
    images is not among it, and there `J v` is a central difference, two evaluations with a relative error of about
    1e-5 in float32 and 1e-10 in float64.

    Args:
        function: `theta (B, *P)` to `(B, N)`; each case depends on its own row only.
        theta: `(B, *P)`.
    """
    with torch.enable_grad():
        leaf = theta.detach().requires_grad_()
        value = function(leaf)
    if not value.requires_grad:
        raise ValueError("linearise: the residuals do not depend on theta")

    def pull(w: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(value, leaf, w, retain_graph=True)
        return gradient

    forward = True

    def push(v: Tensor) -> Tensor:
        nonlocal forward
        if forward:
            try:
                return _forward_mode(function, theta, v)
            except NotImplementedError:
                forward = False
        return _central_difference(function, theta, v)

    return Linearisation(value.detach(), push, pull)


def through_displacement(displacement: Map, compare: Map, theta: Tensor) -> Linearisation:
    """Linearises residuals that compare images voxel by voxel, as the sum of squared differences does.

    The chain rule with the Jacobian of the comparison in closed form: the residual at a voxel depends on the
    displacement of that voxel only, so one backward pass per channel gives its gradient everywhere and no product with
    `J` interpolates an image again. This is the classical `J = grad M(x + u) du/dtheta`.

    Args:
        displacement: `theta (B, *P)` to `u (B, D, *S)`.
        compare: `u` to residuals `(B, C, *S)`, each of which depends on `u` at its own voxel only.
        theta: `(B, *P)`.

    Returns:
        the linearisation of `compare(displacement(theta)).flatten(1)`.
    """
    inner = linearise(lambda x: displacement(x).flatten(1), theta)
    with torch.no_grad():
        u = displacement(theta)
    with torch.enable_grad():
        leaf = u.detach().clone().requires_grad_()
        value = compare(leaf)
        channels = [torch.autograd.grad(c.sum(), leaf, retain_graph=True)[0] for c in value.unbind(dim=1)]
    gradient = torch.stack(channels, dim=1)
    shape = value.shape

    def push(v: Tensor) -> Tensor:
        motion = inner.push(v).reshape(u.shape)
        return (gradient * motion[:, None]).sum(dim=2).flatten(1)

    def pull(w: Tensor) -> Tensor:
        force = (gradient * w.reshape(shape)[:, :, None]).sum(dim=1)
        return inner.pull(force.flatten(1))

    return Linearisation(value.detach().flatten(1), push, pull)


def explicit_jacobian(linearisation: Linearisation, theta: Tensor) -> Tensor:
    """The Jacobian `(B, N, P)` column by column, for few parameters."""
    shape = theta.shape
    count = theta[0].numel()
    columns = []
    for k in range(count):
        unit = theta.new_zeros(shape[0], count)
        unit[:, k] = 1
        columns.append(linearisation.push(unit.reshape(shape)))
    return torch.stack(columns, dim=2)


def _forward_mode(function: Map, theta: Tensor, v: Tensor) -> Tensor:
    with torch.enable_grad(), forward_ad.dual_level():
        # Code that takes a shortcut for tensors without a graph would drop the tangent silently.
        dual = _make_dual(theta.detach().requires_grad_(), v.detach())
        value, tangent = _unpack_dual(function(dual))
        return torch.zeros_like(value).detach() if tangent is None else tangent.detach()


def _central_difference(function: Map, theta: Tensor, v: Tensor) -> Tensor:
    """`J v`, with a step that moves no parameter far compared with its own size or one."""
    size = largest(v).clamp(min=torch.finfo(v.dtype).tiny)
    step = torch.finfo(theta.dtype).eps ** (1 / 3) * (1 + largest(theta)) / size
    with torch.no_grad():
        shift = v * per_case(step, v)
        return (function(theta + shift) - function(theta - shift)) / (2 * step[:, None])

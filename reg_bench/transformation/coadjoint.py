"""The Lie bracket of velocities and its adjoint, which carries momenta: the algebra of EPDiff.

Derivatives are central differences with the border repeated, and the adjoint is that of the discrete bracket, to the
last digit. Since `[v, v] = 0` also for differences, the discrete EPDiff keeps the energy `<m, K m> / 2` exactly, up to
the steps in time; and where the kernel of `v` is wide, only smooth functions are ever differentiated, however rough
the momentum is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reg_bench.field.differences import add_doubled_difference_adjoint, doubled_difference


def bracket(v: Tensor, w: Tensor) -> Tensor:
    """`ad_v w = (Dv) w - (Dw) v` of velocities `(B, D, *S)`, voxels: `(B, D, *S)`, without a graph."""
    v, w = v.detach(), w.detach()
    dims = v.shape[1]
    out, spare = torch.zeros_like(v), torch.empty_like(v[:, 0])
    for axis in range(dims):
        for c in range(dims):
            out[:, c].addcmul_(doubled_difference(v[:, c], axis - dims, spare), w[:, axis], value=0.5)
            out[:, c].addcmul_(doubled_difference(w[:, c], axis - dims, spare), v[:, axis], value=-0.5)
    return out


def coadjoint(v: Tensor, m: Tensor) -> Tensor:
    """`ad*_v m = (Dm) v + (Dv)^T m + (div v) m`: `<ad*_v m, w> = <m, ad_v w>` for every `w`.

    A momentum that is carried by `v` changes by `m_t = -ad*_v m` (EPDiff, when `v = K m`: Miller, Trouvé and Younes,
    J. Math. Imaging Vis. 24 (2006)).

    Args:
        v: velocity `(B, D, *S)`, voxels per unit time.
        m: momentum `(B, D, *S)`, a density against which velocities in voxels are integrated.

    Returns:
        `(B, D, *S)`, differentiable once.
    """
    result: Tensor = _Coadjoint.apply(v, m)  # type: ignore[no-untyped-call]
    return result


def _coadjoint(v: Tensor, m: Tensor) -> Tensor:
    dims = v.shape[1]
    out, spare = torch.zeros_like(v), torch.empty_like(v[:, 0])
    for axis in range(dims):
        for c in range(dims):
            out[:, axis].addcmul_(doubled_difference(v[:, c], axis - dims, spare), m[:, c], value=0.5)
            flux = torch.mul(m[:, c], v[:, axis], out=spare)
            add_doubled_difference_adjoint(flux, axis - dims, out[:, c], -0.5)
    return out


class _Coadjoint(torch.autograd.Function):
    """`<g, ad*_v m> = <m, ad_v g> = -<m, ad_g v>`, so both gradients are of the same kind."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, m: Tensor) -> Tensor:
        ctx.save_for_backward(v, m)
        return _coadjoint(v, m)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        v, m = ctx.saved_tensors
        g = gradients[0].contiguous()
        return _coadjoint(g, m).neg_(), bracket(v, g)

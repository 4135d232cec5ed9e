"""Large deformation diffeomorphic metric mapping: thesis eqs. 2.20 and 2.37; Beg et al., IJCV 61 (2005)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from reg_bench import field
from reg_bench.transformation.base import Domain, Transformation, check_theta
from reg_bench.transformation.flow import Interval, pulled, pushed
from reg_bench.transformation.gaussian_kernel import GaussianKernel
from reg_bench.transformation.geodesic_shooting import geodesics, kinetic_energy

Mode = Literal["shooting", "time-dependent"]


class LDDMM(Transformation):
    """A diffeomorphism at the end of a path whose length is measured by a Gaussian kernel `K`.

    `theta` is what the kernel smooths into velocities, `v = G theta` in voxels of its grid per unit time (as a
    momentum: `theta` times the squared voxel edges):

    - `shooting`: `(B, D, *S')` at time 0; the rest of the path is the geodesic that it starts;
    - `time-dependent`: `(B, T, D, *S')`, one for each of T intervals of time.

    `energy` is the regularizer that belongs to it: half the squared norm of the velocity, integrated over time.

    Args:
        sigma: standard deviation of the kernel, the scale on which neighbours move together.
        unit: of sigma, `voxel` or `mm`.
        mode: `shooting` or `time-dependent`.
        steps: in time, T for `time-dependent`. Shooting divides them further where motion is large.
        coarsening: how many times as long as those of the image the voxels of `theta` are; half of sigma in voxels is
            a safe choice.
    """

    def __init__(
        self, sigma: float, unit: str = "voxel", mode: Mode = "shooting", steps: int = 10, coarsening: float = 1.0
    ) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"LDDMM: sigma must be positive, got {sigma}")
        if unit not in ("voxel", "mm"):
            raise ValueError(f"LDDMM: unit must be 'voxel' or 'mm', got {unit!r}")
        if mode not in get_args(Mode):
            raise ValueError(f"LDDMM: mode must be one of {get_args(Mode)}, got {mode!r}")
        if steps < 1:
            raise ValueError(f"LDDMM: steps must be at least 1, got {steps}")
        if not coarsening >= 1:
            raise ValueError(f"LDDMM: coarsening must be at least 1, got {coarsening}")
        self.sigma, self.unit, self.mode, self.steps, self.coarsening = sigma, unit, mode, steps, coarsening

    def identity(self, domain: Domain) -> Tensor:
        return domain.zeros(*self._shape(domain)[1:])

    def displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        return self._on_image([pulled(path) for path in self._paths(theta, domain)], domain)

    def inverse_displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        return self._on_image([pushed(path) for path in self._paths(theta, domain)], domain)

    def regularized(self, theta: Tensor, domain: Domain) -> Tensor:
        """The velocity `(B, D, *S')` at time 0, or its mean over time for `time-dependent`."""
        check_theta("LDDMM", theta, self._shape(domain))
        theta = theta if self.mode == "shooting" else theta.mean(dim=1)
        cases = zip(torch.split(theta, 1), self._kernels(domain), strict=True)
        return torch.cat([kernel(_momentum(part, kernel)) for part, kernel in cases])

    def regularized_domain(self, domain: Domain) -> Domain:
        return domain.coarsened(self.coarsening)

    def energy(self, theta: Tensor, domain: Domain) -> Tensor:
        """`(B,)` half the squared kernel norm of the velocity, a mean over the grid in squared voxels of `theta`'s
        grid, integrated over time (constant along a geodesic)."""
        check_theta("LDDMM", theta, self._shape(domain))
        energies = []
        for part, kernel in zip(torch.split(theta, 1), self._kernels(domain), strict=True):
            momenta = _momentum(part.flatten(0, -domain.dimension - 2), kernel)
            energies.append(kinetic_energy(momenta, kernel(momenta)).mean())
        return torch.stack(energies)

    def resampled(self, theta: Tensor, domain: Domain, finer: Domain) -> Tensor:
        """As in the base: the first velocity stays the same, and with sigma in millimetres the whole path.

        A sigma in voxels is shorter on a finer grid; `theta` is smoothed by what the kernel lacks.
        """
        check_theta("LDDMM", theta, self._shape(domain))
        old, new = self.regularized_domain(domain), self.regularized_domain(finer)
        ratios = [(n - 1) / (o - 1) if o > 1 and n > 1 else 1.0 for o, n in zip(old.shape, new.shape, strict=True)]
        results = []
        kernels = (self._kernels(domain), self._kernels(finer))
        for part, before, after in zip(torch.split(theta, 1), *kernels, strict=True):
            pairs = zip(before.sigma_voxels, ratios, after.sigma_voxels, strict=True)
            missing = [max(0.0, (s * r) ** 2 - t * t) ** 0.5 for s, r, t in pairs]
            blown = field.resize(part.flatten(0, -domain.dimension - 2), new.shape)
            results.append(field.gaussian(blown, [m if m > 1e-3 else 0.0 for m in missing], "zeros"))
        return torch.stack(results).reshape(self._shape(finer)).to(theta.dtype)

    def _shape(self, domain: Domain) -> tuple[int, ...]:
        times = () if self.mode == "shooting" else (self.steps,)
        return (domain.batch, *times, domain.dimension, *self.regularized_domain(domain).shape)

    def _kernels(self, domain: Domain) -> Iterator[GaussianKernel]:
        """The kernel of each case: isotropic in physical space."""
        grid = self.regularized_domain(domain)
        coarse = [max(o - 1, 1) / max(n - 1, 1) for o, n in zip(domain.shape, grid.shape, strict=True)]
        sigmas = domain.voxels_of(self.sigma, self.unit).to(torch.float64)
        if self.unit == "voxel":
            # A length in voxels of mean edge, not along each axis: rotations must not change it.
            sigmas = sigmas / domain.edges().to(torch.float64)
        edges = grid.edges().to(torch.float64).tolist()
        for sigma, edge in zip((sigmas / sigmas.new_tensor(coarse)).tolist(), edges, strict=True):
            yield GaussianKernel(tuple(sigma), tuple(edge))

    def _paths(self, theta: Tensor, domain: Domain) -> Iterator[list[Interval]]:
        check_theta("LDDMM", theta, self._shape(domain))
        for part, kernel in zip(torch.split(theta, 1), self._kernels(domain), strict=True):
            if self.mode == "shooting":
                yield geodesics(_momentum(part, kernel), kernel, self.steps)[0][0]
            else:
                velocities = kernel(_momentum(part[0], kernel))
                yield [(v, 1 / self.steps) for v in torch.split(velocities, 1)]

    def _on_image(self, displacements: list[Tensor], domain: Domain) -> Tensor:
        u = torch.cat(displacements)
        return u if self.coarsening == 1 else field.resize(u, domain.shape)


def _momentum(theta: Tensor, kernel: GaussianKernel) -> Tensor:
    """The momentum `(N, D, *S)` whose velocity is the smoothed `theta (N, D, *S)`."""
    squares = theta.new_tensor([e * e for e in kernel.edges or ()])
    return theta * squares.reshape(-1, *(1,) * len(squares))

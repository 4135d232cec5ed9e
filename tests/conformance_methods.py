"""Right methods of three kinds, and wrappers that make the usual mistakes with their fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair

# ---------------------------------------------------------------------------------------------- right methods


class Exact(RegistrationModule):
    """Returns the known field."""

    name = "exact"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return DisplacementField.for_pair(pair.true_displacement.clone(), pair)


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), -1)


def gauss_newton(fixed: np.ndarray, moving: np.ndarray, spacing: np.ndarray, *, rigid: bool = False) -> np.ndarray:
    """Affine or rigid field `(D, *S)` in voxels by Gauss-Newton on the squared difference, coarse to fine in blur."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    dims = fixed.ndim
    index = _grid(fixed.shape).reshape(-1, dims)
    middle = (np.array(fixed.shape) - 1) / 2
    world = (index - middle) * spacing
    matrix, shift = np.eye(dims), np.zeros(dims)
    for sigma_mm in (6.0, 3.0, 1.5):
        f = gaussian_filter(fixed.astype(np.float64), sigma_mm / spacing)
        m = gaussian_filter(moving.astype(np.float64), sigma_mm / spacing)
        slopes = np.gradient(m)
        for _ in range(8):
            position = ((world @ matrix.T + shift) / spacing + middle).T
            warped = map_coordinates(m, position, order=1, mode="nearest")
            slope = np.stack([map_coordinates(g, position, order=1, mode="nearest") for g in slopes], -1) / spacing
            design = np.concatenate([slope[:, :, None] * world[:, None, :], slope[:, :, None]], 2).reshape(
                len(f.flat), -1
            )
            if rigid:
                design = design @ _rigid_basis(dims, matrix)
            step = np.linalg.lstsq(design.T @ design, design.T @ (f.reshape(-1) - warped), rcond=None)[0]
            if rigid:
                step = _rigid_basis(dims, matrix) @ step
            step = step.reshape(dims, dims + 1)
            matrix, shift = matrix + step[:, :dims], shift + step[:, dims]
            if rigid:
                left, _, right = np.linalg.svd(matrix)
                matrix = left @ right
    field = (world @ (matrix - np.eye(dims)).T + shift) / spacing
    return field.T.reshape(dims, *fixed.shape)


def _rigid_basis(dims: int, matrix: np.ndarray) -> np.ndarray:
    """Columns span the rigid directions in the space of affine steps, laid out `(D, D + 1)`."""
    columns = []
    for a in range(dims):
        for b in range(a):
            turn = np.zeros((dims, dims))
            turn[a, b], turn[b, a] = 1, -1
            columns.append(np.concatenate([turn @ matrix, np.zeros((dims, 1))], 1).ravel())
    for a in range(dims):
        shift = np.zeros((dims, dims + 1))
        shift[a, dims] = 1
        columns.append(shift.ravel())
    return np.stack(columns, 1)


class Affine(RegistrationModule):
    """Estimates an affine (or rigid) motion in mm."""

    name = "gauss-newton-affine"
    rigid = False

    def register(self, pair: RegistrationPair) -> DisplacementField:
        fields = []
        for one in pair.split():
            spacing = np.ones(pair.dimension)
            if one.fixed_spacing_mm is not None:
                spacing = one.fixed_spacing_mm[0].double().numpy()
            u = gauss_newton(one.fixed[0, 0].numpy(), one.moving[0, 0].numpy(), spacing, rigid=self.rigid)
            fields.append(torch.from_numpy(u).float())
        return DisplacementField.for_pair(torch.stack(fields), pair)


class Rigid(Affine):
    """Estimates a rigid motion in mm."""

    name = "gauss-newton-rigid"
    rigid = True


class Translation(RegistrationModule):
    """Estimates a shift by phase correlation, refined to a fraction of a voxel."""

    name = "phase-correlation"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        axes = tuple(range(2, pair.fixed.ndim))
        spectrum = torch.fft.fftn(pair.moving, dim=axes) * torch.fft.fftn(pair.fixed, dim=axes).conj()
        power = torch.fft.ifftn(spectrum / spectrum.abs().clamp(min=1e-4).sqrt(), dim=axes).real
        fields = []
        for element in power[:, 0]:
            peak = np.unravel_index(int(element.argmax()), element.shape)
            shift = []
            for axis, place in enumerate(peak):
                n = element.shape[axis]
                low, mid, high = (
                    float(element[tuple((p + (d if k == axis else 0)) % element.shape[k] for k, p in enumerate(peak))])
                    for d in (-1, 0, 1)
                )
                fine = place + 0.5 * (low - high) / (low - 2 * mid + high)
                shift.append(fine - n if fine > n / 2 else fine)
            fields.append(torch.tensor(shift).reshape(-1, *(1,) * len(axes)).expand(-1, *element.shape).clone())
        return DisplacementField.for_pair(torch.stack(fields).float(), pair)


class Demons(RegistrationModule):
    """SimpleITK's fast symmetric demons on three levels, in voxels of unit spacing."""

    name = "plain-demons"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        fields = []
        for one in pair.split():
            fixed, moving = (sitk.GetImageFromArray(t[0, 0].numpy().T) for t in (one.fixed, one.moving))
            field = None
            for factor in (4, 2, 1):
                f, m = (_shrunk(i, factor) for i in (fixed, moving))
                start = None
                if field is not None:
                    start = sitk.Resample(field, f, sitk.Transform(), sitk.sitkLinear)
                demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
                demons.SetNumberOfIterations(40)
                demons.SetStandardDeviations(1.2)
                field = demons.Execute(f, m) if start is None else demons.Execute(f, m, start)
            array = sitk.GetArrayFromImage(field)
            fields.append(
                torch.from_numpy(np.moveaxis(array, -1, 0).transpose(0, *range(array.ndim - 1, 0, -1)).copy())
            )
        return DisplacementField.for_pair(torch.stack(fields).float(), pair)


def _shrunk(image: Any, factor: int) -> Any:
    if factor == 1:
        return image
    return sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, 0.5 * factor), [factor] * image.GetDimension())


RIGHT: dict[str, type[RegistrationModule]] = {
    "exact": Exact,
    "affine": Affine,
    "demons": Demons,
    "rigid": Rigid,
    "translation": Translation,
}


# ---------------------------------------------------------------------------------------------- wrong wrappers


SEEN: list[Tensor] = []


class Wrapper(RegistrationModule):
    """Changes what a right method returns."""

    name = "wrong"
    all_calls = 0

    def __init__(self, kind: str, base: str = "exact") -> None:
        super().__init__()
        self.kind, self.base = kind, RIGHT[base]()
        self.calls = 0
        self.previous: dict[tuple[int, ...], Tensor] = {}

    def register(self, pair: RegistrationPair) -> DisplacementField:
        if self.kind == "inverse":
            return self._inverse(pair)
        u = self.base(pair).u
        self.calls += 1
        changed = getattr(self, "_" + self.kind.split(":")[0])(u, pair)
        return DisplacementField(changed)

    def _inverse(self, pair: RegistrationPair) -> DisplacementField:
        if isinstance(self.base, Exact):
            from reg_bench.field import invert

            # Extrapolated linearly first: beyond the border the inverse of a cropped field is not defined.
            pad = (12,) * (2 * pair.dimension)
            u = pair.true_displacement
            inner = invert(_extended(u, 12))[0]
            return DisplacementField(F.pad(inner, [-p for p in pad]))
        return self.base(pair.swapped())

    @staticmethod
    def _axes(u: Tensor) -> tuple[int, ...]:
        return tuple(range(2, u.ndim))

    def _per_axis(self, values: Tensor, u: Tensor) -> Tensor:
        return values.to(u).reshape(*values.shape, *(1,) * (u.ndim - 2))

    def _sizes(self, u: Tensor) -> Tensor:
        return self._per_axis(torch.tensor(u.shape[2:], dtype=u.dtype)[None], u)

    def _identity(self, u: Tensor) -> Tensor:
        return torch.from_numpy(np.moveaxis(_grid(tuple(u.shape[2:])), -1, 0).copy()).to(u)[None]

    def _right(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u

    def _negated(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return -u

    def _order(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u[:, [int(c) for c in self.kind.split(":")[1]]]

    def _transposed(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u.transpose(2, -1)

    def _mm(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u if pair.fixed_spacing_mm is None else u * self._per_axis(pair.fixed_spacing_mm, u)

    def _per_mm(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u if pair.fixed_spacing_mm is None else u / self._per_axis(pair.fixed_spacing_mm, u)

    def _lps_mm(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        mm = self._mm(u, pair).clone()
        mm[:, :2] *= -1
        return mm

    def _corners(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u * 2 / (self._sizes(u) - 1)

    def _edges(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u * 2 / self._sizes(u)

    def _grid_sample(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return (2 * (u + self._identity(u)) / (self._sizes(u) - 1) - 1).flip(1)

    def _corners_reversed(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return self._corners(u, pair).flip(1)

    def _half(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u + float(self.kind.split(":")[1])

    def _ramp(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        n = self._sizes(u)
        return (u + self._identity(u)) * n / (n - 1) - 0.5 - self._identity(u)

    def _ramp_down(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        n = self._sizes(u)
        return (u + self._identity(u) + 0.5) * (n - 1) / n - self._identity(u)

    def _factor(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u * float(self.kind.split(":")[1])

    def _identity_added(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u + self._identity(u)

    def _half_grid(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return F.interpolate(u, scale_factor=0.5) / 2

    def _cropped(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u[:, :, 1:]

    def _padded(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        pad: list[int] = []
        for n in reversed(u.shape[2:]):
            pad += [0, -n % 16]
        return F.pad(u, pad)

    def _channels_last(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u.movedim(1, -1)

    def _nan(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        changed = u.clone()
        changed.view(-1)[7] = float("nan")
        return changed

    def _double(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u.double()

    def _zero(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return torch.zeros_like(u)

    def _batch_mean(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u.mean(0, keepdim=True).expand_as(u).clone()

    def _batch_order(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u.flip(0)

    def _batch_leak(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return 0.8 * u + 0.2 * u.roll(1, 0)

    def _batch_first(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u[:1]

    def _state_counter(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u + 0.1 * (self.calls - 1)

    def _state_of_class(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        type(self).all_calls += 1
        return u + 0.1 * (self.all_calls - 1)

    def _state_of_module(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        SEEN.append(u)
        return 0.5 * (u + SEEN[0]) if SEEN[0].shape == u.shape else u

    def _state_average(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        key = tuple(u.shape)
        mixed = 0.5 * (u + self.previous.get(key, u))
        self.previous[key] = u
        return mixed

    def _state_grid(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        first = self.previous.setdefault((), torch.zeros_like(u[:1]))
        return u + first

    def _random(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        noise = np.random.default_rng().normal(size=tuple(u.shape))
        return u + 0.05 * torch.from_numpy(noise).to(u)

    def _seeded_noise(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        return u + 0.6 * torch.randn_like(u)

    def _overwrites(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        pair.moving.mul_(0.5)
        return u

    def _raises(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        raise RuntimeError("the weights are missing")

    def _world(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        """Along the world's axes instead of the array's, in voxels of the plain grid."""
        if pair.fixed_affine is None or pair.fixed_spacing_mm is None:
            return u
        linear = pair.fixed_affine[:, :-1, :-1].to(u)
        turned = linear / pair.fixed_spacing_mm[:, None].to(u)
        return torch.einsum("bij,bj...->bi...", turned, u)

    def _flipped(self, u: Tensor, pair: RegistrationPair) -> Tensor:
        """Of images flipped along axis 0, the field not flipped back."""
        changed = u.flip(2).clone()
        changed[:, 0] *= -1
        return changed


def _extended(u: Tensor, margin: int) -> Tensor:
    """Linear extrapolation of an affine field by `margin` voxels on every side."""
    for axis in range(2, u.ndim):
        n = u.shape[axis]
        first, last = u.narrow(axis, 0, 1), u.narrow(axis, n - 1, 1)
        low, high = first - u.narrow(axis, 1, 1), last - u.narrow(axis, n - 2, 1)
        steps = torch.arange(1, margin + 1, dtype=u.dtype).reshape(-1, *(1,) * (u.ndim - axis - 1))
        u = torch.cat([first + low * steps.flip(0), u, last + high * steps], axis)
    return u


def build(kind: str, base: str) -> RegistrationModule:
    """The wrong method `kind` round the right method `base`."""
    return Wrapper(kind, base)

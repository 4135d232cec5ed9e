"""The highest point of a response, finer than pixels, and how far it stands out."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.tracking.band import Band


def find_peak(
    band: Band, response: Tensor, radius: float, newton_steps: int = 3, step: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Where the responses are highest, and their peak-to-sidelobe ratios.

    The highest pixel (or place, by `step`), then Newton's method on the Fourier series (Danelljan et al., ECCV 2016,
    section 3.5); a step that would leave the surroundings of that pixel, or from where the response is not concave, is
    not taken.

    Args:
        response: spectra `(M, 2 m + 1, m + 1)`.
        radius: distance from the centre, per axis, up to which is searched.
        newton_steps: 0 leaves the highest pixel.
        step: distance of the places that are compared first, in pixels.

    Returns:
        offsets `(M, 2)` from the centre in pixels, and ratios `(M,)`.
    """
    values = band.grid(response, radius, step)
    edge = values.shape[-1]
    index = values.flatten(1).argmax(dim=1)
    first, second = index // edge, index % edge
    coarse = torch.stack((first - edge // 2, second - edge // 2), dim=1).to(values.dtype) * step
    fine = coarse
    for _ in range(newton_steps):
        _, gradient, bend = band.derivatives(response, fine)
        fine = _stepped(fine, coarse, gradient, bend, step)
    return fine, sidelobe_ratio(values, first, second)


def _stepped(fine: Tensor, coarse: Tensor, gradient: Tensor, bend: Tensor, most: float) -> Tensor:
    """One Newton step of those that can take one."""
    a, b, c = bend[:, 0, 0], bend[:, 0, 1], bend[:, 1, 1]
    determinant = a * c - b * b
    concave = (a < 0) & (determinant > 0)
    safe = torch.where(concave, determinant, torch.ones_like(determinant))
    step = torch.stack((c * gradient[:, 0] - b * gradient[:, 1], a * gradient[:, 1] - b * gradient[:, 0]), dim=1)
    moved = fine - step / safe[:, None]
    near = ((moved - coarse).abs() <= most).all(dim=1)
    return torch.where((concave & near)[:, None], moved, fine)


def sidelobe_ratio(values: Tensor, first: Tensor, second: Tensor, excluded: int = 11) -> Tensor:
    """`(peak - mean) / deviation` of the values further away (Bolme et al., CVPR 2010): `(M,)`.

    Args:
        values: `(M, H, W)`.
        first, second: `(M,)` indices of the peak.
        excluded: edge of the square around the peak that does not count as sidelobe.

    Returns:
        0 where nothing varies or nothing is left.
    """
    half = excluded // 2
    rows = (torch.arange(values.shape[1], device=values.device) - first[:, None]).abs() > half
    columns = (torch.arange(values.shape[2], device=values.device) - second[:, None]).abs() > half
    side = (rows[:, :, None] | columns[:, None, :]).to(values.dtype)
    count = side.sum(dim=(1, 2)).clamp(min=1)
    mean = (values * side).sum(dim=(1, 2)) / count
    deviation = (((values - mean[:, None, None]) * side).square().sum(dim=(1, 2)) / count).sqrt()
    peak = values[torch.arange(len(values), device=values.device), first, second]
    tiny = torch.finfo(values.dtype).eps * peak.abs()
    return torch.where(deviation > tiny, (peak - mean) / deviation.clamp(min=torch.finfo(values.dtype).tiny), 0.0)

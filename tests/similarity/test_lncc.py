"""Local NCC against loops and MONAI, at borders, with masks, across slabs."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss
from torch import Tensor

from reg_bench.similarity import LNCC, box_sums
from tests.similarity.test_common import images, weights_of


def correlations(fixed: Tensor, warped: Tensor, window: tuple[int, ...]) -> Tensor:
    """The correlation of `(*S)` images in the window of every voxel, clipped at the border."""
    out = torch.empty_like(fixed)
    for at in itertools.product(*map(range, fixed.shape)):
        where = tuple(slice(max(0, i - w // 2), i + w // 2 + 1) for i, w in zip(at, window, strict=True))
        out[at] = torch.corrcoef(torch.stack((fixed[where].flatten(), warped[where].flatten())))[0, 1]
    return out


@pytest.mark.parametrize(
    ("shape", "window"), [((6, 5, 7), 3), ((4, 6, 12), 9), ((5, 6, 7), (3, 1, 5)), ((10, 12), 5), ((3, 12), (1, 7))]
)
def test_equals_a_loop(shape: tuple[int, ...], window: int | tuple[int, ...]) -> None:
    fixed, warped = images(0, 2, 1, *shape)
    extents = (window,) * len(shape) if isinstance(window, int) else window
    expected = torch.stack([correlations(f[0], w[0], extents) for f, w in zip(fixed, warped, strict=True)])
    torch.testing.assert_close(LNCC(window)(fixed, warped), 1 - expected.square().flatten(1).mean(dim=1))
    torch.testing.assert_close(LNCC(window, signed=True)(fixed, warped), 1 - expected.flatten(1).mean(dim=1))
    mask = weights_of(1, 2, 1, *shape)
    averages = [torch.sum(e.square() * m[0]) / m.sum() for e, m in zip(expected, mask, strict=True)]
    torch.testing.assert_close(LNCC(window)(fixed, warped, mask), 1 - torch.stack(averages))


@pytest.mark.parametrize("shape", [(20, 18, 25), (40, 33)])
@pytest.mark.parametrize("window", [3, 5, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_monai(shape: tuple[int, ...], window: int, dtype: torch.dtype) -> None:
    fixed, warped = images(2, 2, 2, *shape, dtype=dtype)
    # Flat stretches, where the floor decides.
    fixed[:, :, :12], warped[:, :, 5:16] = 0, 0.25
    leaf = warped.clone().requires_grad_()
    monai = LocalNormalizedCrossCorrelationLoss(len(shape), window)(leaf, fixed)
    energy, gradient = LNCC(window, border="zeros").bind(fixed).value_and_gradient(warped)
    assert energy.mean().item() - 1 == pytest.approx(monai.item(), abs=1e-6)
    if dtype == torch.float64:
        torch.testing.assert_close(gradient / 2, torch.autograd.grad(monai, leaf)[0], atol=1e-9, rtol=1e-6)


def test_slabs_and_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, warped = images(3, 3, 1, 13, 6, 7)
    whole = LNCC(5).bind(fixed).value_and_gradient(warped)
    for voxels in (1, 200, 1200, 4000):
        monkeypatch.setitem(box_sums._SLAB_VOXELS, "cpu", voxels)
        torch.testing.assert_close(LNCC(5).bind(fixed).value_and_gradient(warped), whole)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("border", ["clip", "zeros"])
def test_gradient_where_the_floor_decides(signed: bool, border: str) -> None:
    fixed, warped = images(4, 1, 2, 10, 11)
    fixed[:, :, :5], warped[:, :, 3:9] = 0.3, 0.7 + 0.01 * warped[:, :, 3:9]
    similarity = LNCC(3, signed=signed, border=border, floor=0.01)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(similarity, (fixed.requires_grad_(), warped.requires_grad_()), fast_mode=True)


@pytest.mark.parametrize("signed", [False, True])
def test_units_and_offsets_of_intensity_do_not_matter(signed: bool) -> None:
    fixed, warped = images(5, 1, 1, 12, 11, 10, dtype=torch.float32)
    fixed[:, :, :6], warped[:, :, 3:9] = 0.3, 0.7
    similarity = LNCC(5, signed=signed)
    expected = similarity(fixed, warped)
    for scale, offset in [(1, -3), (4000, -1000), (1e-3, 1)]:
        torch.testing.assert_close(similarity(fixed * scale + offset, warped), expected, atol=2e-4, rtol=0)
        torch.testing.assert_close(similarity(fixed, warped * scale + offset), expected, atol=2e-4, rtol=0)


def test_inverted_contrast() -> None:
    fixed = images(6, 1, 1, 9, 10, dtype=torch.float32)[0]
    assert LNCC(3)(fixed, 5 - 2 * fixed).item() == pytest.approx(0, abs=1e-5)
    assert LNCC(3, signed=True)(fixed, 5 - 2 * fixed).item() == pytest.approx(2, abs=1e-5)


def test_float32_is_accurate_on_a_large_offset_with_flat_parts() -> None:
    fixed, warped = images(7, 1, 1, 24, 24, 24)
    fixed[:, :, :10], warped[:, :, 8:14] = -1000 / 3000, 0.4
    fixed, warped = 3000 * fixed, 3000 * warped
    exact = LNCC(9).bind(fixed).value_and_gradient(warped)
    single = LNCC(9).bind(fixed.float()).value_and_gradient(warped.float())
    assert single[0].item() == pytest.approx(exact[0].item(), abs=1e-5)
    assert (single[1] - exact[1]).abs().max() < 1e-3 * exact[1].abs().max()


@pytest.mark.parametrize("window", [4, 0, -3, (3, 2), 1, ()])
def test_windows_that_are_refused(window: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="window must be odd"):
        LNCC(window)


def test_messages() -> None:
    with pytest.raises(ValueError, match="border must be"):
        LNCC(3, border="reflect")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="floor must be positive"):
        LNCC(3, floor=0)
    with pytest.raises(ValueError, match="window must be one number or 2"):
        LNCC((3, 3, 3))(*images(8, 1, 1, 5, 5))

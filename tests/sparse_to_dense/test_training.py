"""What the network is trained with: the loss by hand, and fields as trackers see them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.field import sample
from reg_bench.sparse_to_dense import TrackerErrors, confident_huber, end_point_error, observe


def test_loss_by_hand_on_two_pixels() -> None:
    """Errors 0.5 and 3 in one component and none in the other: Huber 0.125 and 2.5, confidence 0.2 and 0.6."""
    u = torch.tensor([[[[0.5, 3.0]], [[1.0, 1.0]]]])
    truth = torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]])
    c = torch.tensor([[[[0.2, 0.6]]]])
    for p in (1.0, 4.0):
        terms = [0.125 - (0.2 - 0.2 * 0.125) / p, 2.5 - (0.6 - 0.6 * 2.5) / p, -0.2 / p, -0.6 / p]
        assert float(confident_huber(u, c, truth, p)) == pytest.approx(sum(terms) / 4)
    assert end_point_error(u, truth).tolist() == [1.75]


def test_gradient_of_the_loss() -> None:
    g = torch.Generator().manual_seed(0)
    u, truth = (3 * torch.randn(2, 2, 3, 4, generator=g, dtype=torch.float64) for _ in range(2))
    c = torch.rand(2, 1, 3, 4, generator=g, dtype=torch.float64)
    assert torch.autograd.gradcheck(confident_huber, (u.requires_grad_(), c.requires_grad_(), truth, 3.0))
    zero = torch.zeros_like(c).requires_grad_()
    confident_huber(u, zero, truth).backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


def test_wrong_arguments_of_the_loss_are_named() -> None:
    u = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"confidence \(B, 1, \*S\), got .* and \(1, 2, 4, 4\)"):
        confident_huber(u, u, u)
    with pytest.raises(ValueError, match="decay must be at least 1, got 0"):
        confident_huber(u, u[:, :1], u, 0)


def field(batch: int = 2) -> torch.Tensor:
    return 4 * torch.randn(batch, 2, 30, 40, generator=torch.Generator().manual_seed(3))


def test_exact_observations() -> None:
    u = field()
    seen = observe(u, 500, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen.values, sample(u, seen.points))
    assert (seen.confidence == 1).all()
    for axis, n in enumerate((30, 40)):
        assert 0 <= seen.points[..., axis].min() < 1
        assert n - 2 < seen.points[..., axis].max() <= n - 1
    again = observe(u, 500, torch.Generator().manual_seed(0))
    assert torch.equal(again.values, seen.values)
    assert seen.to("cpu").truth is u


def test_errors_of_trackers_are_as_told() -> None:
    u = torch.zeros(4, 2, 30, 40)
    seen = observe(u, 5000, torch.Generator().manual_seed(1), TrackerErrors(noise=0.5, outliers=0.2, reach=15.0))
    off = torch.linalg.vector_norm(seen.values, dim=2)
    far = off > 3
    # A lost point is within 3 voxels of the truth in a fifth of the cases.
    assert float(far.double().mean()) == pytest.approx(0.2 * 0.8, abs=0.01)
    assert 15 < off.max() < 18
    assert float(seen.values[~far].std()) == pytest.approx(0.6, abs=0.15)
    trust, doubt = (np.sort(seen.confidence[x].numpy()) for x in (~far, far))
    assert trust.mean() > 0.7 > 0.25 > doubt.mean()
    # Confidence tells most of them, and not all.
    assert 0.9 < (np.searchsorted(doubt, trust) / len(doubt)).mean() < 0.999
    assert seen.confidence.min() > 0
    assert seen.confidence.max() <= 1


def test_wrong_errors_are_named() -> None:
    with pytest.raises(ValueError, match=r"outliers in 0\.\.1, got 1\.0, 15\.0 and 2"):
        TrackerErrors(outliers=2)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        observe(field(), 0, torch.Generator())

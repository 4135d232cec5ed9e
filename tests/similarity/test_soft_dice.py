"""Soft Dice by hand and against MONAI."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from reg_bench.similarity import SoftDice, one_hot
from tests.similarity.test_common import images, weights_of


def label_maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed))


def test_one_hot() -> None:
    labels = torch.tensor([[[[0, 3], [7, 3]]]])
    expected = torch.tensor([[[[0.0, 0], [1, 0]], [[0, 1], [0, 1]]]])
    assert torch.equal(one_hot(labels, (7, 3)), expected)
    assert one_hot(labels.double(), (7,)).dtype == torch.float64
    with pytest.raises(ValueError, match="without repetition"):
        one_hot(labels, (3, 3))
    with pytest.raises(ValueError, match=r"labels must be \(B, 1, \*spatial\)"):
        one_hot(labels[0], (3,))


def test_equals_monai() -> None:
    fixed = one_hot(label_maps(0, 2, 1, 6, 5, 7).double(), (1, 2, 3))
    warped = images(1, 2, 3, 6, 5, 7)[0]
    monai = DiceLoss(reduction="none", smooth_nr=0, smooth_dr=0)(warped, fixed)
    torch.testing.assert_close(SoftDice()(fixed, warped), monai.reshape(2, 3).mean(dim=1))


def test_by_hand() -> None:
    fixed = torch.tensor([[[[1, 1, 0, 2]]]])
    warped = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.5, 0.5]], [[1.0, 1.0, 1.0, 1.0]]]])
    # Label 1: 2/3; label 2: 1/2; label 3 is nowhere in the fixed image and does not count.
    assert SoftDice((1, 2, 3))(fixed, warped).item() == pytest.approx(1 - (2 / 3 + 1 / 2) / 2)
    left = torch.tensor([[[[1, 0, 0, 0]]]])
    assert SoftDice((1, 2, 3))(fixed, warped, left).item() == pytest.approx(0)


def test_labels_match_is_zero_and_disjoint_is_one() -> None:
    labels = label_maps(2, 1, 1, 8, 9)
    channels = one_hot(labels, (1, 2, 3))
    assert SoftDice((1, 2, 3))(labels, channels).item() == pytest.approx(0, abs=1e-6)
    assert SoftDice((1, 2, 3))(labels, channels.roll(1, dims=1)).item() == pytest.approx(1)


def test_no_label_in_the_fixed_image_gives_nothing() -> None:
    warped = images(3, 1, 3, 8, 9)[0]
    energy, gradient = SoftDice((1, 2, 3)).bind(torch.zeros(1, 1, 8, 9)).value_and_gradient(warped.float())
    assert energy.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("masked", [False, True])
def test_gradient(masked: bool) -> None:
    fixed = one_hot(label_maps(4, 2, 1, 5, 4, 3).double(), (1, 2, 9))
    warped = images(5, 2, 3, 5, 4, 3)[0].requires_grad_()
    mask = weights_of(6, 2, 1, 5, 4, 3) if masked else None
    assert torch.autograd.gradcheck(lambda w: SoftDice()(fixed, w, mask), warped)

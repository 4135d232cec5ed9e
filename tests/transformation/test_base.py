"""The domain: units, levels and bad input."""

from __future__ import annotations

import pytest
import torch

from reg_bench.transformation import Domain


def test_edges_do_not_depend_on_the_unit_and_have_mean_one() -> None:
    spacing = torch.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    domain = Domain((4, 5, 6), 2, spacing)
    torch.testing.assert_close(domain.edges(), torch.tensor([[0.5, 1.0, 2.0], [1.0, 1.0, 1.0]]))
    torch.testing.assert_close(Domain((4, 5, 6), 2, spacing / 1000).edges(), domain.edges())
    assert Domain((4, 5), 3).edges().eq(1).all()


def test_another_grid_has_the_same_extent() -> None:
    domain = Domain((9, 13, 1), 1, torch.tensor([[2.0, 1.0, 5.0]]))
    coarse = domain.resized((5, 5, 1))
    torch.testing.assert_close(coarse.spacing_mm, torch.tensor([[4.0, 3.0, 5.0]]))
    assert domain.coarsened(2).shape == (5, 7, 1)
    assert domain.coarsened(1) is domain
    assert Domain((64, 50)).coarsened(2).shape == (33, 26)
    # 63 voxels of 32 and 49 of 25 long ones: slightly different edges, which the spacing shows.
    torch.testing.assert_close(Domain((64, 50)).coarsened(2).spacing_mm, torch.tensor([[63 / 32, 49 / 25]]))


def test_lengths_in_voxels() -> None:
    domain = Domain((9, 13), 1, torch.tensor([[2.0, 0.5]]))
    torch.testing.assert_close(domain.voxels_of(4.0, "mm"), torch.tensor([[2.0, 8.0]]))
    torch.testing.assert_close(domain.voxels_of(4.0, "voxel"), torch.tensor([[4.0, 4.0]]))
    with pytest.raises(ValueError, match="4 mm needs the spacing"):
        Domain((9, 13)).voxels_of(4.0, "mm")
    with pytest.raises(ValueError, match="unit must be 'voxel' or 'mm', got 'cm'"):
        domain.voxels_of(4.0, "cm")


def test_of_takes_everything_from_an_image() -> None:
    image = torch.zeros(2, 1, 5, 6, dtype=torch.float64)
    domain = Domain.of(image, torch.ones(2, 2))
    assert (domain.shape, domain.batch, domain.dtype, domain.dimension) == ((5, 6), 2, torch.float64, 2)
    assert domain.field_shape == (2, 2, 5, 6)
    assert domain.zeros(3, 4).shape == (2, 3, 4)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"2 or 3 positive lengths, got \(5, 0\)"):
        Domain((5, 0))
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        Domain((5, 5), 0)
    with pytest.raises(ValueError, match=r"spacing_mm must be \(B, D\) = \(1, 2\), got \(2,\)"):
        Domain((5, 5), 1, torch.ones(2))
    with pytest.raises(ValueError, match="positive and finite"):
        Domain((5, 5), 1, torch.tensor([[1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"floating point, got torch\.int64"):
        Domain((5, 5), dtype=torch.int64)
    with pytest.raises(ValueError, match="axis 1 has length 1"):
        Domain((5, 1)).resized((9, 3))
    with pytest.raises(ValueError, match=r"factor must be at least 1, got 0\.5"):
        Domain((5, 5)).coarsened(0.5)

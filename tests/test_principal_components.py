"""Principal components against eigenvectors by NumPy and the theorem of Eckart and Young."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.principal_components import principal_components


def samples(count: int = 12, shape: tuple[int, ...] = (2, 5, 4)) -> Tensor:
    g = torch.Generator().manual_seed(0)
    scale = torch.logspace(1, -1, count, dtype=torch.float64)
    directions = torch.randn(count, *shape, generator=g, dtype=torch.float64)
    return torch.einsum(
        "tk,k...->t...", torch.randn(count, count, generator=g, dtype=torch.float64) * scale, directions
    )


@pytest.mark.parametrize("centred", [True, False])
def test_components_are_eigenvectors_of_the_covariance(centred: bool) -> None:
    x = samples()
    found = principal_components(x, 4, centred=centred)
    flat = x.flatten(1).numpy()
    off = flat - flat.mean(axis=0) if centred else flat
    values, vectors = np.linalg.eigh(off.T @ off / (len(x) - 1))
    np.testing.assert_allclose(found.variances.numpy(), values[::-1][:4], rtol=1e-9)
    overlap = found.components.flatten(1).numpy() @ vectors[:, ::-1][:, :4]
    np.testing.assert_allclose(np.abs(overlap), np.eye(4), atol=1e-8)
    np.testing.assert_allclose(float(found.total_variance), values.sum(), rtol=1e-9)


def test_components_are_orthonormal_and_coefficients_uncorrelated() -> None:
    x = samples()
    found = principal_components(x)
    flat = found.components.flatten(1)
    torch.testing.assert_close(flat @ flat.mT, torch.eye(found.rank, dtype=torch.float64), rtol=0, atol=1e-10)
    c = found.coefficients(x)
    torch.testing.assert_close(torch.cov(c.mT), torch.diag(found.variances), rtol=0, atol=1e-8)


def test_no_subspace_of_the_same_dimension_is_nearer() -> None:
    x = samples()
    for rank in (1, 3, 6):
        found = principal_components(x, rank)
        left = (found.reconstruct(found.coefficients(x)) - x).square().sum()
        assert float(left) == pytest.approx(float(found.total_variance - found.variances.sum()) * (len(x) - 1))
        q, _ = torch.linalg.qr(torch.randn(40, rank, dtype=torch.float64))
        off = (x - x.mean(dim=0)).flatten(1)
        assert left < (off - off @ q @ q.mT).square().sum()


def test_all_components_give_the_images_back_and_rank_is_what_varies() -> None:
    images = samples(7, (6, 6))
    found = principal_components(images)
    assert found.rank == 6
    torch.testing.assert_close(found.reconstruct(found.coefficients(images)), images)
    flat = torch.ones(5, 3, 3)
    still = principal_components(flat, 2)
    assert still.rank == 0
    assert torch.equal(still.reconstruct(still.coefficients(flat)), flat)


def test_bad_input_is_told() -> None:
    with pytest.raises(ValueError, match="floating point"):
        principal_components(torch.ones(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 0"):
        principal_components(torch.ones(3, 2), -1)

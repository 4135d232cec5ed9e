"""Self-similarity descriptors against a loop over voxels, and invariance to contrast."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from reg_bench.similarity import MIND, box_sums, mind_descriptor
from tests.similarity.test_common import images, weights_of


def by_loop(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """`(K, *S)` of one image `(*S)`, from the definition; pairs in arbitrary order."""
    dims, border = image.ndim, radius + dilation
    padded = np.pad(image, border, mode="edge")
    neighbours = [sign * dilation * np.eye(dims, dtype=int)[axis] for axis in range(dims) for sign in (1, -1)]
    pairs = [(p, q) for p, q in itertools.combinations(neighbours, 2) if np.square(p - q).sum() == 2 * dilation**2]
    out = np.zeros((len(pairs), *image.shape))
    for at in itertools.product(*map(range, image.shape)):
        for k, pair in enumerate(pairs):
            first, second = (
                padded[tuple(slice(c - radius, c + radius + 1) for c in np.array(at) + border + offset)]
                for offset in pair
            )
            out[(k, *at)] = np.square(first - second).mean()
    out -= out.min(axis=0)
    variance = out.mean(axis=0)
    return np.exp(-out / variance.clip(variance.mean() * 1e-3, variance.mean() * 1e3))


@pytest.mark.parametrize(
    ("shape", "radius", "dilation"), [((5, 6, 4), 1, 1), ((7, 5, 6), 2, 2), ((9, 10), 1, 2), ((9, 3), 0, 1)]
)
def test_equals_a_loop(shape: tuple[int, ...], radius: int, dilation: int) -> None:
    image = images(0, 2, 2, *shape)[0]
    image[:, :, :3] *= 0.01  # where the variance is held at its bound
    entries = mind_descriptor(image, radius, dilation)
    count = 12 if len(shape) == 3 else 4
    assert entries.shape == (2, 2 * count, *shape)
    for case, channel in itertools.product(range(2), range(2)):
        ours = entries[case, channel * count : (channel + 1) * count].numpy()
        expected = by_loop(image[case, channel].numpy(), radius, dilation)
        # Entry by entry each of the loop's is among ours, in one order for all voxels.
        order = [int(np.abs(ours - e).max(axis=tuple(range(1, ours.ndim))).argmin()) for e in expected]
        assert sorted(order) == list(range(count))
        np.testing.assert_allclose(ours[order], expected, atol=1e-9)


def test_similarity_is_the_mean_square_of_the_difference() -> None:
    fixed, warped = images(1, 2, 2, 6, 5, 7)
    difference = (mind_descriptor(fixed, 1, 2) - mind_descriptor(warped, 1, 2)).square()
    torch.testing.assert_close(MIND(1, 2)(fixed, warped), difference.flatten(1).mean(dim=1))
    mask = weights_of(2, 2, 1, 6, 5, 7)
    expected = (difference.mean(dim=1, keepdim=True) * mask).flatten(1).sum(dim=1) / mask.flatten(1).sum(dim=1)
    torch.testing.assert_close(MIND(1, 2)(fixed, warped, mask), expected)


@pytest.mark.parametrize("shape", [(4, 5, 3), (7, 6)])
def test_descriptors_have_a_gradient(shape: tuple[int, ...]) -> None:
    image = images(3, 2, 1, *shape)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda i: mind_descriptor(i, 1, 1), image, fast_mode=True)


def test_contrast_does_not_matter() -> None:
    fixed, warped = images(4, 1, 1, 8, 7, 9)
    expected = MIND()(fixed, warped)
    torch.testing.assert_close(MIND()(fixed, 3 - 200 * warped), expected)
    assert MIND()(fixed, 3 - 200 * fixed).item() == pytest.approx(0, abs=1e-9)


def test_bounds_and_flat_images() -> None:
    entries = mind_descriptor(images(5, 1, 1, 8, 7, 9, dtype=torch.float32)[0])
    assert entries.amax(dim=1).min() == 1
    assert entries.min() > 0
    assert (mind_descriptor(torch.full((1, 1, 6, 6), 3.3)) == 1).all()


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, warped = images(6, 3, 1, 9, 6, 7)
    whole = MIND().bind(fixed).value_and_gradient(warped)
    for voxels in (1, 90, 800):
        monkeypatch.setitem(box_sums._SLAB_VOXELS, "cpu", voxels)
        torch.testing.assert_close(MIND().bind(fixed).value_and_gradient(warped), whole)


def test_messages() -> None:
    with pytest.raises(ValueError, match="radius must be at least 0 and dilation at least 1"):
        MIND(-1)
    with pytest.raises(ValueError, match="radius must be at least 0 and dilation at least 1"):
        MIND(1, 0)
    with pytest.raises(ValueError, match="mind_descriptor: image must be floating point images"):
        mind_descriptor(torch.zeros(1, 6, 6))

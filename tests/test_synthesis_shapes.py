"""Random shapes: a function of their key, with a truth that holds, in every contrast."""

from __future__ import annotations

import pytest
import torch

from reg_bench.field import jacobian_determinant, sample, warp
from reg_bench.similarity import NCC
from reg_bench.synthesis_shapes import ShapesConfig, _largest, shapes_pair

SIZES = [(40, 48), (24, 32, 28)]


@pytest.mark.parametrize("size", SIZES)
def test_a_pair_follows_from_its_key(size: tuple[int, ...]) -> None:
    config = ShapesConfig(size=size)
    pair, again, other = (shapes_pair(config, *key, case_id="a") for key in ((0, 5), (0, 5), (0, 6)))
    assert pair.case_ids == ("a",)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels", "true_displacement", "mask"):
        assert torch.equal(getattr(pair, name), getattr(again, name))
    assert not torch.equal(pair.moving, other.moving)
    assert pair.fixed.shape == pair.moving.shape == (1, 1, *size)
    for image in (pair.fixed, pair.moving):
        assert float(image.min()) == 0
        assert float(image.max()) == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", range(4))
def test_the_truth_leads_from_one_image_to_the_other(size: tuple[int, ...], key: int) -> None:
    clean = ShapesConfig(size=size, same_contrast=1.0, noise=0, bias=0, gamma=0, blur=0, texture=(0.1, 0.2))
    pair = shapes_pair(clean, key)
    u, mask = pair.true_displacement, pair.mask
    assert u is not None
    assert mask is not None
    assert pair.moving_labels is not None
    assert pair.fixed_labels is not None
    assert float(mask.float().mean()) > 0.5
    assert float(jacobian_determinant(u).min()) > 0.1
    assert 0.5 < float(torch.linalg.vector_norm(u, dim=1).max()) < 0.5 * min(size)
    # Up to the range that both are scaled to.
    similarity = NCC()
    assert float(similarity(pair.fixed, warp(pair.moving, u))) < 0.2 * float(similarity(pair.fixed, pair.moving))
    assert torch.equal(pair.fixed_labels, warp(pair.moving_labels, u, mode="nearest"))
    assert pair.points is not None
    (fixed,), (moving,) = pair.points["landmarks"].fixed, pair.points["landmarks"].moving
    torch.testing.assert_close(moving, fixed + sample(u, fixed[None])[0])
    # Outside the mask the displacement leads out of the moving image, inside it never does.
    reached = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij"))[None] + u
    inside = torch.ones_like(mask)
    for axis, n in enumerate(size):
        inside &= (reached[:, axis] >= 0) & (reached[:, axis] <= n - 1)
    assert torch.equal(inside, mask)


def test_each_image_has_a_contrast_of_its_own_unless_they_share_it() -> None:
    def correlation(same: float, key: int) -> float:
        still = {"motion": ((0.0, 0.0), (0.0, 0.0)), "rotation_degrees": 0, "scale": 0, "translation": 0}
        config = ShapesConfig(size=(48, 48), same_contrast=same, noise=0, blur=0, **still)  # type: ignore[arg-type]
        pair = shapes_pair(config, key)
        assert pair.true_displacement is not None
        assert float(pair.true_displacement.abs().max()) < 1e-4
        return float(torch.corrcoef(torch.stack((pair.fixed.flatten(), pair.moving.flatten())))[0, 1])

    shared, own = ([correlation(same, key) for key in range(12)] for same in (1.0, 0.0))
    assert min(shared) > 0.8
    assert sum(abs(c) < 0.6 for c in own) >= 4


def test_shapes_fill_the_image_or_a_body() -> None:
    whole = shapes_pair(ShapesConfig(size=(48, 48), body=0.0, shapes=(4, 4)), 1)
    assert whole.moving_labels is not None
    assert whole.moving_labels.unique().tolist() == [1, 2, 3, 4]
    bodies = [shapes_pair(ShapesConfig(size=(48, 48), body=1.0), key).moving_labels for key in range(5)]
    for labels in bodies:
        assert labels is not None
        assert 0.2 < float((labels == 0).float().mean()) < 0.95


def test_the_largest_channel() -> None:
    fields = torch.randn(1, 9, 20, 30)
    assert torch.equal(_largest(fields).long(), fields.argmax(1, keepdim=True))

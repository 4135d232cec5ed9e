"""The terms of losses against what they are by definition, voxel by voxel where that is feasible."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench.field import resize, warp
from reg_bench.registration_loss import (
    EndPointError,
    ImageSimilarity,
    LabelDice,
    LevelAffine,
    LevelEndPointError,
    LevelRegularity,
    LevelSimilarity,
    LossTerm,
    PointDistance,
    RegistrationLoss,
    VelocityPrior,
)
from reg_bench.registration_loss.levels import fitted
from reg_bench.registration_network import LevelFlow, NetworkOutput
from reg_bench.regularization import BendingEnergy
from reg_bench.similarity import LNCC, NCC, SSD
from reg_bench.types import PointPairs, RegistrationPair

SIZES = (16, 8, 4)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def output_of(dims: int = 3, batch: int = 2, sizes: tuple[int, ...] = SIZES) -> NetworkOutput:
    levels = []
    for k, n in enumerate(sizes):
        u, affine = (0.3 * noise(batch, dims, *(n,) * dims, seed=10 * k + j) for j in range(2))
        levels.append(LevelFlow(u, affine, matrix=noise(batch, dims, dims + 1, seed=k)))
    return NetworkOutput(levels[0].u, tuple(levels))


def pair_of(dims: int = 3, batch: int = 2, size: int = 16, **changes: Any) -> RegistrationPair:
    fixed, moving = torch.rand(2, batch, 1, *(size,) * dims, generator=torch.Generator().manual_seed(7))
    return RegistrationPair(tuple(f"case {k}" for k in range(batch)), fixed, moving, **changes)


def value(term: LossTerm, output: NetworkOutput, pair: RegistrationPair) -> float:
    result = term(output, pair)
    assert result is not None
    assert result.shape == ()
    return float(result)


def local_ncc(fixed: Tensor, warped: Tensor, window: int) -> float:
    """Mean squared correlation in boxes around every voxel, clipped to the grid: by loops."""
    total, places = 0.0, list(itertools.product(*(range(n) for n in fixed.shape)))
    for place in places:
        box = tuple(slice(max(0, p - window // 2), p + window // 2 + 1) for p in place)
        f, w = fixed[box] - fixed[box].mean(), warped[box] - warped[box].mean()
        total += float((f * w).sum() ** 2 / ((f * f).sum() * (w * w).sum()))
    return total / len(places)


def corner_aligned(image: Tensor, size: int) -> Tensor:
    mode = "trilinear" if image.ndim == 5 else "bilinear"
    return F.interpolate(image, size=(size,) * (image.ndim - 2), mode=mode, align_corners=True)


def test_equation_1() -> None:
    """All four terms with their weights: 5, 5 / 2^l, 2^l, 1 / 2^l. In 2-D, where loops are quick."""
    labels = torch.randint(0, 4, (2, 2, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    pair = pair_of(2, fixed_labels=labels[0], moving_labels=labels[1])
    output = output_of(2)
    terms = {
        "dice": LabelDice(5.0),
        "ncc": LevelSimilarity(weight=5.0),
        "affine": LevelAffine(),
        "gradient": LevelRegularity(weight=2 / 4),
    }
    total, found = RegistrationLoss(terms)(output, pair)

    expected = dict.fromkeys(terms, 0.0)
    for case in range(2):
        overlaps = []
        for label in (1, 2, 3):
            f = (labels[0, case : case + 1] == label).float()
            w = warp((labels[1, case : case + 1] == label).float(), output.u[case : case + 1])
            overlaps.append(float(2 * (f * w).sum() / (f.sum() + w.sum())))
        expected["dice"] += 5 * (1 - sum(overlaps) / 3) / 2
        for k, (level, window) in enumerate(zip(output.levels, (9, 7, 3), strict=True)):
            u, n = level.u[case : case + 1], level.u.shape[2]
            fixed, moving = (corner_aligned(i[case : case + 1], n) for i in (pair.fixed, pair.moving))
            ncc = local_ncc(fixed[0, 0], warp(moving, u)[0, 0], window)
            expected["ncc"] += 5 / 2**k * (1 - ncc) / 2
            assert level.affine is not None
            expected["affine"] += 2**k * float(level.affine[case].square().mean()) / 2
            slopes = [u.diff(dim=axis).square().mean() for axis in (2, 3)]
            expected["gradient"] += 1 / 2**k * float(sum(slopes)) / 2 / 2
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, rel=1e-4)
    assert float(total) == pytest.approx(sum(expected.values()), rel=1e-4)


def test_equation_1_in_three_dimensions_weighs_gradients_as_the_paper() -> None:
    output = output_of(3)
    expected = sum(
        2.0**-k * float(torch.stack([level.u.diff(dim=a).square().mean() for a in (2, 3, 4)]).mean())
        for k, level in enumerate(output.levels)
    )
    assert value(LevelRegularity(weight=2 / 9), output, pair_of(3)) == pytest.approx(expected, rel=1e-5)


def test_without_labels_training_is_unsupervised() -> None:
    loss = RegistrationLoss({"dice": LabelDice(5.0), "ncc": LevelSimilarity(NCC())})
    total, found = loss(output_of(), pair_of())
    assert list(found) == ["ncc"]
    assert float(total) == float(found["ncc"])
    with pytest.raises(ValueError, match="case 0, case 1: none of the terms dice applies"):
        RegistrationLoss({"dice": LabelDice()})(output_of(), pair_of())
    with pytest.raises(ValueError, match="at least one term"):
        RegistrationLoss({})


def test_weights_of_a_level_do_not_depend_on_the_levels_beside_it() -> None:
    whole = output_of(3)
    part = NetworkOutput(whole.u, whole.levels[1:])
    for term in (LevelSimilarity(SSD()), LevelRegularity(), LevelAffine()):
        finest = NetworkOutput(whole.u, whole.levels[:1])
        assert value(term, whole, pair_of()) == pytest.approx(
            value(term, part, pair_of()) + value(term, finest, pair_of()), rel=1e-5
        )


def test_similarity_of_linearly_related_images_is_perfect_and_of_a_constant_one_finite() -> None:
    pair = pair_of()
    still = NetworkOutput(torch.zeros(2, 3, 16, 16, 16), tuple(LevelFlow(torch.zeros(2, 3, n, n, n)) for n in SIZES))
    related = RegistrationPair(pair.case_ids, pair.fixed, 3 * pair.fixed + 1)
    assert value(LevelSimilarity(weight=5.0), still, related) < 1e-3
    constant = RegistrationPair(pair.case_ids, pair.fixed, torch.ones_like(pair.fixed))
    u = torch.zeros(2, 3, 16, 16, 16, requires_grad=True)
    result = LevelSimilarity()(NetworkOutput(u, (LevelFlow(u),)), constant)
    assert result is not None
    result.backward()
    assert u.grad is not None
    assert bool(u.grad.isfinite().all())


def test_similarity_falls_along_its_gradient() -> None:
    pair, output = pair_of(2), output_of(2, sizes=(16,))
    u = output.u.clone().requires_grad_()
    term = LevelSimilarity()
    before = term(NetworkOutput(u, (LevelFlow(u),)), pair)
    assert before is not None
    (slope,) = torch.autograd.grad(before, u)
    moved = u.detach() - 0.05 * slope / slope.abs().max()
    assert value(term, NetworkOutput(moved, (LevelFlow(moved),)), pair) < float(before.detach())


@pytest.mark.parametrize(("size", "window"), [(16, 9), (9, 9), (8, 7), (4, 3), (2, 3)])
def test_window_is_cut_to_the_level(size: int, window: int) -> None:
    cut = fitted(LNCC(9, signed=True, border="zeros", floor=0.1), torch.Size((size, 32)))
    assert isinstance(cut, LNCC)
    assert cut.window == (window, 9)
    assert (cut.signed, cut.border, cut.floor) == (True, "zeros", 0.1)
    similarity = SSD()
    assert fitted(similarity, torch.Size((4, 4))) is similarity


def test_mask_is_respected_or_not() -> None:
    mask = torch.zeros(2, 1, 16, 16, 16, dtype=torch.bool)
    mask[:, :, :8] = True
    pair = pair_of(mask=mask)
    changed = pair.fixed.clone()
    changed[:, :, 12:] = 0.0
    other = RegistrationPair(pair.case_ids, changed, pair.moving, mask=mask)
    for masked in (True, False):
        for term in (
            LevelSimilarity(SSD(), masked=masked, ratio=0.0),
            ImageSimilarity(SSD(), masked=masked),
        ):
            output = output_of()
            assert (value(term, output, pair) == pytest.approx(value(term, output, other))) is masked


def test_regularity_of_velocities_and_of_any_regularizer() -> None:
    u, v = noise(1, 2, 8, 8), noise(1, 2, 8, 8, seed=1)
    output, pair = NetworkOutput(u, (LevelFlow(u, velocity=v),)), pair_of(2, 1, 8)
    regularizer = BendingEnergy()
    for field, values in (("displacement", u), ("velocity", v)):
        term = LevelRegularity(regularizer, 3.0, field=field)
        assert value(term, output, pair) == pytest.approx(3 * float(regularizer(values).mean()))
    assert LevelRegularity(field="velocity")(output_of(2, 1, (8,)), pair) is None


def test_regularity_in_physical_units() -> None:
    spacing = torch.tensor([[1.0, 1.0, 4.0]])
    output, pair = output_of(3, 1), pair_of(3, 1, fixed_spacing_mm=spacing)
    term, regularizer = LevelRegularity(physical=True, ratio=0.0), LevelRegularity().regularizer
    assert value(term, output, pair) == pytest.approx(float(regularizer(output.u, spacing)), rel=1e-5)


def test_affine_norms() -> None:
    output, pair = output_of(3), pair_of()
    sums: dict[str, float] = {"matrix": 0.0, "entries": 0.0}
    for k, level in enumerate(output.levels):
        assert level.matrix is not None
        sums["matrix"] += 2**k * float(level.matrix.square().mean())
        sums["entries"] += 0.1 * float(level.matrix.abs().sum()) / 2
    assert value(LevelAffine(norm="matrix"), output, pair) == pytest.approx(sums["matrix"], rel=1e-5)
    assert value(LevelAffine(0.1, 1.0, "entries"), output, pair) == pytest.approx(sums["entries"], rel=1e-5)
    # On vectors the step has no field.
    vectors = NetworkOutput(output.u, tuple(LevelFlow(level.u, matrix=level.matrix) for level in output.levels))
    assert value(LevelAffine(), vectors, pair) == pytest.approx(sums["matrix"], rel=1e-5)
    assert LevelAffine()(NetworkOutput(output.u, (LevelFlow(output.u),)), pair) is None


def test_dice_counts_the_labels_of_the_fixed_map_alone() -> None:
    fixed = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    fixed[..., 2:5, 2:5] = 1
    moving = fixed.clone()
    moving[..., 6:, 6:] = 5
    still = NetworkOutput(torch.zeros(1, 2, 8, 8))
    pair = pair_of(2, 1, 8, fixed_labels=fixed, moving_labels=moving)
    assert value(LabelDice(5.0), still, pair) == pytest.approx(0.0, abs=1e-6)
    fixed[..., 6:, :2] = 2
    assert value(LabelDice(5.0), still, pair) == pytest.approx(2.5)
    named = pair_of(2, 1, 8, fixed_labels=fixed, moving_labels=moving, label_names={1: "a", 3: "absent"})
    assert value(LabelDice(5.0), still, named) == pytest.approx(0.0, abs=1e-6)
    nothing = pair_of(2, 1, 8, fixed_labels=torch.zeros_like(fixed), moving_labels=moving)
    assert LabelDice()(still, nothing) is None


def test_distance_of_points() -> None:
    u = torch.zeros(2, 3, 6, 6, 6)
    u[:, 0] = 1.0
    here = torch.tensor([[1.0, 2.0, 3.0], [2.5, 2.5, 2.5]])
    there = here + torch.tensor([1.0, 3.0, 4.0])
    points = {"keypoints": PointPairs((here, here[:0]), (there, here[:0]))}
    assert value(PointDistance(weight=2.0), NetworkOutput(u), pair_of(3, 2, 6, points=points)) == pytest.approx(10.0)
    assert PointDistance("landmarks")(NetworkOutput(u), pair_of(3, 2, 6, points=points)) is None
    assert PointDistance()(NetworkOutput(u), pair_of(3, 2, 6)) is None


def test_end_point_error() -> None:
    truth = torch.zeros(2, 2, 8, 8)
    u = truth.clone()
    u[:, 0, :4], u[:, 1, :4] = 3.0, 4.0
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[:, :, :4] = True
    pair = pair_of(2, 2, 8, true_displacement=truth)
    assert value(EndPointError(2.0), NetworkOutput(u), pair) == pytest.approx(5.0, rel=1e-5)
    masked = pair_of(2, 2, 8, true_displacement=truth, mask=mask)
    assert value(EndPointError(), NetworkOutput(u), masked) == pytest.approx(5.0, rel=1e-5)
    assert EndPointError()(NetworkOutput(u), pair_of(2, 2, 8)) is None
    exact = truth.clone().requires_grad_()
    error = EndPointError()(NetworkOutput(exact), pair)
    assert error is not None
    error.backward()
    assert exact.grad is not None
    assert not exact.grad.any()


def test_end_point_error_at_every_level() -> None:
    """A field that is right at one level is right at all, each in its own voxels; the mask follows."""
    slope = torch.linspace(0, 6, 16).reshape(1, 1, -1, 1).expand(1, 2, 16, 16)
    levels = tuple(LevelFlow(resize(slope, (n, n))) for n in SIZES)
    right = NetworkOutput(slope, levels)
    pair = pair_of(2, 1, 16, true_displacement=slope)
    assert value(LevelEndPointError(), right, pair) == pytest.approx(0.0, abs=1e-4)
    off = NetworkOutput(slope, tuple(LevelFlow(level.u + 1.0) for level in levels))
    assert value(LevelEndPointError(2.0, 0.25), off, pair) == pytest.approx(
        2 * math.sqrt(2) * (1 + 1 / 4 + 1 / 16), rel=1e-4
    )
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[:, :, :4] = True
    elsewhere = slope.clone()
    elsewhere[:, :, 8:] += 5.0
    masked = pair_of(2, 1, 16, true_displacement=elsewhere, mask=mask)
    assert value(LevelEndPointError(ratio=0.0), right, masked) == pytest.approx(0.0, abs=1e-4)
    assert LevelEndPointError()(right, pair_of(2, 1)) is None


def test_velocity_prior_is_the_divergence_of_normal_distributions() -> None:
    """Against torch's closed form, with a prior made proper by a little of the identity; constants cancel."""
    shape, precision, little = (3, 4), 2.0, 1e-6
    count = math.prod(shape)
    laplacian = torch.zeros(count, count, dtype=torch.float64)
    index = torch.arange(count).reshape(shape)
    for axis in range(2):
        ends = (index.narrow(axis, k, shape[axis] - 1).flatten().tolist() for k in range(2))
        for a, b in zip(*ends, strict=True):
            laplacian[[a, b], [a, b]] += 1
            laplacian[[a, b], [b, a]] -= 1
    prior = torch.distributions.MultivariateNormal(
        torch.zeros(count, dtype=torch.float64),
        precision_matrix=precision * laplacian + little * torch.eye(count, dtype=torch.float64),
    )

    def divergence(mean: Tensor, log_variance: Tensor) -> float:
        total = 0.0
        for m, s in zip(mean.flatten(0, 1).flatten(1), log_variance.flatten(0, 1).flatten(1), strict=True):
            posterior = torch.distributions.MultivariateNormal(m, torch.diag(s.exp()))
            total += float(torch.distributions.kl_divergence(posterior, prior))
        return total / (len(mean) * count)

    term = VelocityPrior(precision, 1.0)
    cases = []
    for seed in (0, 2):
        mean, log_variance = noise(2, 2, *shape, seed=seed).double(), noise(2, 2, *shape, seed=seed + 1).double()
        output = NetworkOutput(mean, velocity=mean, log_variance=log_variance)
        cases.append((value(term, output, pair_of(2)), divergence(mean, log_variance)))
    (ours, theirs), (others, other_theirs) = cases
    assert ours - others == pytest.approx(theirs - other_theirs, rel=1e-4)
    assert term(NetworkOutput(mean, velocity=mean), pair_of(2)) is None
    with pytest.raises(ValueError, match="precision must be positive"):
        VelocityPrior(0.0)


def test_losses_are_computed_in_single_precision() -> None:
    output, pair = output_of(), pair_of()
    loss = RegistrationLoss({"ncc": LevelSimilarity(), "gradient": LevelRegularity()})
    plain, _ = loss(output, pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = loss(output, pair)
    assert mixed.dtype == torch.float32
    assert float(mixed) == float(plain)

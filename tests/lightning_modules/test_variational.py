"""Every choice that variational registration is composed of, against motions in closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.variational import Stage, Variational
from reg_bench import optimization as op
from reg_bench import regularization as re
from reg_bench import similarity as si
from reg_bench import transformation as tr
from reg_bench.discovery import build_method, resolve, resolved_init_args
from reg_bench.errors import ConfigError
from reg_bench.field import jacobian_determinant
from reg_bench.types import RegistrationPair, collate_pairs
from tests.lightning_modules.shapes import Array, error_in_object, linear, pair_of, rotation, shifted

DENSE = Stage(tr.Dense(), si.SSD(), op.LBFGS(), re.Diffusion(), 0.02, shrink_factors=(2.0, 1.0), iterations=25)
AFFINE = Stage(tr.Affine(), si.SSD(), op.LBFGS(), shrink_factors=(2.0, 1.0), iterations=25)


def wave(x: Array) -> Array:
    """A smooth local motion of up to 2 mm."""
    return x + 2.0 * np.stack([np.sin(x[1] / 9.0), np.cos(x[0] / 8.0)])


def share_left(stage: Stage | tuple[Stage, ...], pair: RegistrationPair, truth: torch.Tensor) -> float:
    """The error after registration over that before."""
    u = Variational([stage] if isinstance(stage, Stage) else stage)(pair).u
    return error_in_object(u, truth, pair) / error_in_object(torch.zeros_like(u), truth, pair)


@pytest.mark.parametrize(
    ("model", "regularizer", "weight"),
    [
        (tr.Dense(), re.Diffusion(), 0.02),
        (tr.Dense(), re.Curvature(), 0.05),
        (tr.Dense(), re.LinearElastic(), 0.02),
        (tr.FreeFormDeformation(6), re.BendingEnergy(), 0.01),
        (tr.StationaryVelocity(), re.Diffusion(), 0.02),
        (tr.LDDMM(3.0, steps=4), None, 1e-4),
        (tr.ThinPlateSpline(spacing=8), re.BendingEnergy(), 0.01),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, torch.nn.Module) else "",
)
def test_models_and_regularizers_follow_a_local_motion(
    model: tr.Transformation, regularizer: re.Regularizer | None, weight: float
) -> None:
    pair, truth = pair_of((44, 40), wave)
    stage = replace(DENSE, transformation=model, regularizer=regularizer, weight=weight)
    assert share_left(stage, pair, truth) < 0.25


@pytest.mark.parametrize(
    "similarity",
    [si.SSD(), si.NCC(), si.LNCC(7), si.MutualInformation(normalised=True), si.NGF(), si.MIND()],
    ids=lambda s: type(s).__name__,
)
def test_similarities_find_an_affine_map(similarity: si.Similarity) -> None:
    matrix = rotation(6.0) @ np.diag([1.06, 0.97])
    pair, truth = pair_of((44, 40), linear(matrix, np.array([21.5, 19.5])))
    assert share_left(replace(AFFINE, similarity=similarity), pair, truth) < 0.2


@pytest.mark.parametrize("similarity", [si.MutualInformation(normalised=True), si.NGF()], ids=["NMI", "NGF"])
def test_inverted_contrast_defeats_squares_only(similarity: si.Similarity) -> None:
    pair, truth = pair_of((44, 40), shifted(2.0, -1.5), contrast=lambda v: -v)
    assert share_left(replace(AFFINE, similarity=similarity), pair, truth) < 0.2
    assert share_left(AFFINE, pair, truth) > 0.5


@pytest.mark.parametrize(
    "optimizer",
    [
        op.GradientDescent(),
        op.ConjugateGradient(),
        op.Adam(0.2),
        op.LBFGS(),
        op.BFGS(),
        op.DFP(),
        op.GaussNewton(),
        op.LevenbergMarquardt(),
    ],
    ids=lambda o: type(o).__name__,
)
def test_optimizers_find_a_rigid_motion(optimizer: Any) -> None:
    pair, truth = pair_of((40, 36), linear(rotation(5.0), np.array([18.0, 19.0])))
    stage = replace(AFFINE, transformation=tr.Affine("rigid"), optimizer=optimizer, iterations=40)
    assert share_left(stage, pair, truth) < 0.2


def test_gauss_newton_solves_a_dense_problem_without_its_matrix() -> None:
    pair, truth = pair_of((44, 40), wave)
    optimizer = op.GaussNewton(iterations=20, tolerance=0.1, preconditioner=op.Smoothing())
    assert share_left(replace(DENSE, optimizer=optimizer, iterations=10), pair, truth) < 0.25


def test_a_hierarchy_of_models_goes_where_none_goes_alone() -> None:
    matrix = rotation(25.0)
    pair, truth = pair_of((48, 48), lambda x: wave(linear(matrix, np.array([23.5, 23.5]))(x)))
    free_form = replace(DENSE, transformation=tr.FreeFormDeformation(6), regularizer=re.BendingEnergy(), weight=0.01)
    alone = share_left(DENSE, pair, truth)
    together = share_left((replace(AFFINE, iterations=60), free_form, DENSE), pair, truth)
    assert together < 0.2
    assert together < 0.5 * alone


def test_three_dimensions_thick_slices_and_a_laplacian_pyramid() -> None:
    pair, truth = pair_of((30, 28, 12), shifted(1.5, -1.0, 2.0), (1.0, 1.0, 2.5))
    assert share_left(replace(DENSE, pyramid="laplacian", weight=0.02), pair, truth) < 0.5
    assert share_left(DENSE, pair, truth) < 0.25


def test_a_large_deformation_does_not_fold() -> None:
    pair, _ = pair_of((44, 40), lambda x: x + 5.0 * np.stack([np.sin(x[1] / 4.0), np.cos(x[0] / 4.0)]))
    u = Variational([replace(DENSE, transformation=tr.StationaryVelocity(), weight=0.01)])(pair).u
    assert float(jacobian_determinant(u).min()) > 0


@pytest.mark.parametrize("spacings", [((1.0, 1.0), (1.0, 1.0)), ((1.0, 1.0), (1.0, 2.0))])
def test_a_batch_is_its_cases(spacings: tuple[tuple[float, float], tuple[float, float]]) -> None:
    pairs = [pair_of((36, 32), shifted(k, -k), s)[0] for k, s in zip((0.5, 2.0), spacings, strict=True)]
    method = Variational([AFFINE, replace(DENSE, iterations=10)])
    together = method(collate_pairs(pairs)).u
    torch.testing.assert_close(together, torch.cat([method(p).u for p in pairs]), atol=2e-2, rtol=0)


def test_the_course_of_the_energy_is_kept() -> None:
    pair, _ = pair_of((36, 32), shifted(1.0, -1.0))
    method = Variational([AFFINE, DENSE])
    method(pair)
    assert {(row["stage"], row["level"]) for row in method.course} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    for stage in (0, 1):
        energies = [row["energy"] for row in method.course if row["stage"] == stage and row["level"] == 0]
        assert energies == sorted(energies, reverse=True)
        assert energies[-1] < energies[0]


def test_only_the_mask_counts_where_it_is_used() -> None:
    pair, truth = pair_of((40, 36), shifted(2.0, -1.0))
    spoilt = pair.fixed.clone()
    spoilt[..., :8] = pair.fixed.max()
    mask = torch.ones_like(pair.fixed, dtype=torch.bool)
    mask[..., :8] = False
    pair = replace(pair, fixed=spoilt, mask=mask)
    stage = replace(AFFINE, transformation=tr.Affine("translation"))
    error = [error_in_object(Variational([stage], use_mask=m)(pair).u, truth, pair) for m in (False, True)]
    assert error[1] < 0.1
    assert error[1] < 0.5 * error[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shrink_factors": (1.0, 2.0)}, "must descend to 1 or more, got .1.0, 2.0."),
        ({"iterations": (10,)}, "one number or one per level, got .10. for"),
        ({"weight": -1.0}, "weight must be at least 0"),
        (
            {"optimizer": op.GaussNewton(), "similarity": si.LNCC(5)},
            "GaussNewton .* needs the similarity SSD, got LNCC",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DENSE, **settings)


def test_settings_come_from_yaml_and_a_misspelt_one_is_named() -> None:
    part = {"class_path": "reg_bench.similarity.LNCC", "init_args": {"window": 5}}
    stage = {
        "transformation": {"class_path": "reg_bench.transformation.StationaryVelocity"},
        "similarity": part,
        "optimizer": {"class_path": "reg_bench.optimization.Adam", "init_args": {"rate": 0.3}},
        "iterations": [3, 2, 1],
    }
    spec = {"class_path": "lightning_modules.variational.Variational", "init_args": {"stages": [stage]}}
    method = build_method(spec)
    assert isinstance(method, Variational)
    assert isinstance(method.stages[0].similarity, si.LNCC)
    assert method.stages[0].stopping(1).iterations == 2
    broken = {**stage, "similarity": {**part, "init_args": {"windows": 5}}}
    with pytest.raises(ConfigError, match="windows"):
        build_method({**spec, "init_args": {"stages": [broken]}})


@pytest.mark.parametrize("name", ["affine-torch", "ffd-nmi", "svf-lncc", "lddmm", "gauss-newton-ssd", "affine+ffd-mse"])
def test_settings_of_named_methods_are_plain_values_that_a_manifest_can_hold(name: str) -> None:
    spec = resolve("methods", name)
    before = json.dumps(spec.init_args)
    settings = resolved_init_args("methods", spec)
    build_method(spec)
    assert json.dumps(spec.init_args) == before
    assert json.loads(json.dumps(settings)) == settings

"""`icp-labels` on labels whose motion is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_modules.affine_then import AffineThen
from lightning_modules.identity import Identity
from lightning_modules.surface_icp import SurfaceIcp
from reg_bench.discovery import build_method
from reg_bench.types import RegistrationPair, collate_pairs
from tests.lightning_modules.shapes import linear, rotation, shifted

Array = NDArray[np.float64]
CENTRE = np.array([24.0, 27.0])


def organs(where: Array) -> NDArray[np.int32]:
    """Two ellipses in one large one, at positions `(2, *S)` in mm."""

    def inside(x: float, y: float, a: float, b: float) -> NDArray[np.bool_]:
        return ((where[0] - x) / a) ** 2 + ((where[1] - y) / b) ** 2 <= 1

    return np.select([inside(20, 22, 5, 4), inside(29, 33, 4, 6), inside(24, 27, 13, 20)], [2, 3, 1]).astype(np.int32)


def pair_of_labels(
    to_moving: Callable[[Array], Array],
    spacing: tuple[float, float] = (0.8, 1.1),
    moving_spacing: tuple[float, float] | None = None,
    case: str = "case",
) -> tuple[RegistrationPair, torch.Tensor]:
    """Labels on 60 x 50 voxels and the true displacement; images are blank, so that nothing else can be used."""
    s, t = (np.reshape(v, (2, 1, 1)) for v in (spacing, moving_spacing or spacing))
    index = np.indices((60, 50))
    there = to_moving(index * s)
    fixed, moving = (torch.from_numpy(organs(v))[None, None] for v in (there, index * t))
    blank = torch.zeros(1, 1, 60, 50)
    pair = RegistrationPair(
        (case,),
        blank,
        blank.clone(),
        fixed_spacing_mm=torch.tensor([spacing]),
        moving_spacing_mm=torch.tensor([moving_spacing or spacing]),
        fixed_labels=fixed,
        moving_labels=moving,
    )
    return pair, torch.from_numpy(there / t - index)[None].float()


def error(u: torch.Tensor, truth: torch.Tensor, pair: RegistrationPair) -> float:
    """Mean end-point error in voxels inside the labels."""
    assert pair.fixed_labels is not None
    return float((u - truth).norm(dim=1)[pair.fixed_labels[:, 0] > 0].mean())


SHEAR = np.array([[1.1, 0.15], [-0.05, 0.9]])
MOTIONS = {
    "translation": shifted(3.3, -2.7),
    "rigid": linear(rotation(14.0), CENTRE + 3),
    "similarity": linear(1.15 * rotation(-10.0), CENTRE),
    "affine": linear(SHEAR, CENTRE + 2),
}


@pytest.mark.parametrize("kind", MOTIONS)
def test_motion_of_its_kind_is_found(kind: str) -> None:
    pair, truth = pair_of_labels(MOTIONS[kind])
    still = error(torch.zeros_like(truth), truth, pair)
    assert still > 1.5
    assert error(SurfaceIcp(kind)(pair).u, truth, pair) < 0.3  # type: ignore[arg-type]


def test_rigid_stays_rigid_in_mm() -> None:
    pair, _ = pair_of_labels(MOTIONS["affine"])
    u = SurfaceIcp("rigid")(pair).u[0].double()
    spacing = pair.fixed_spacing_mm[0].double()  # type: ignore[index]
    rows = [(u[:, 1, 0] - u[:, 0, 0]) * spacing / spacing[0], (u[:, 0, 1] - u[:, 0, 0]) * spacing / spacing[1]]
    matrix = torch.stack(rows, dim=1) + torch.eye(2)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2, dtype=torch.float64), atol=1e-4, rtol=0)


def test_grids_of_other_spacing_are_related_index_to_index() -> None:
    pair, truth = pair_of_labels(MOTIONS["rigid"], moving_spacing=(1.0, 1.2))
    assert error(SurfaceIcp("rigid")(pair).u, truth, pair) < 0.35


def test_without_spacing_lengths_are_voxels() -> None:
    pair, truth = pair_of_labels(MOTIONS["rigid"], spacing=(1.0, 1.0))
    known = SurfaceIcp("rigid")(pair).u
    unknown = SurfaceIcp("rigid")(replace(pair, fixed_spacing_mm=None, moving_spacing_mm=None)).u
    torch.testing.assert_close(unknown, known)
    assert error(unknown, truth, pair) < 0.3


def test_ransac_ignores_a_label_drawn_wrongly() -> None:
    """The second organ of the moving map is put elsewhere."""
    pair, truth = pair_of_labels(MOTIONS["rigid"])
    assert pair.moving_labels is not None
    labels = pair.moving_labels.clone()
    labels[labels == 3] = 1
    labels[..., 12:22, 30:38] = 3
    spoiled = replace(pair, moving_labels=labels)
    plain = error(SurfaceIcp("rigid")(spoiled).u, truth, pair)
    robust = error(SurfaceIcp("rigid", ransac_mm=2.0)(spoiled).u, truth, pair)
    assert robust < 0.5
    assert robust < 0.1 * plain
    again = SurfaceIcp("rigid", ransac_mm=2.0)(spoiled).u
    assert error(again, truth, pair) == robust


def test_cases_of_a_batch_come_out_as_if_alone() -> None:
    one, two = pair_of_labels(MOTIONS["rigid"])[0], pair_of_labels(MOTIONS["similarity"], case="other")[0]
    method = SurfaceIcp(ransac_mm=3.0)
    both = method(collate_pairs([one, two])).u
    assert torch.equal(both, torch.cat([method(one).u, method(two).u]))


def test_it_serves_as_the_first_of_two_methods() -> None:
    pair, _ = pair_of_labels(MOTIONS["rigid"])
    torch.testing.assert_close(AffineThen(SurfaceIcp(), Identity())(pair).u, SurfaceIcp()(pair).u)


def test_what_it_cannot_take() -> None:
    pair, _ = pair_of_labels(MOTIONS["rigid"])
    assert SurfaceIcp().accepts(pair) is None
    assert "needs moving_labels" in (SurfaceIcp().accepts(replace(pair, moving_labels=None)) or "")
    other = replace(pair, moving_labels=torch.full_like(pair.moving_labels, 9))  # type: ignore[arg-type]
    assert "a label that stands in both maps, case has none" in (SurfaceIcp().accepts(other) or "")
    everywhere = torch.ones_like(pair.fixed_labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="case: no label has a surface in both maps"):
        SurfaceIcp()(replace(pair, fixed_labels=everywhere))
    with pytest.raises(ValueError, match="has no fixed_labels or no moving_labels"):
        SurfaceIcp()(replace(pair, fixed_labels=None))
    with pytest.raises(ValueError, match="kind must be one of"):
        SurfaceIcp("bent")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ransac_mm must be positive, got 0"):
        SurfaceIcp(ransac_mm=0)
    with pytest.raises(ValueError, match="0 <= trim < 1"):
        SurfaceIcp(trim=1.5)


def test_it_has_a_name() -> None:
    assert isinstance(build_method("icp-labels"), SurfaceIcp)

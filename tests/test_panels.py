"""Pictures: orientation, aspect, what is drawn where, size and form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reg_bench import panels
from reg_bench.panel_views import View, views, window
from reg_bench.types import DisplacementField, RegistrationPair


def pair_of(
    fixed: torch.Tensor,
    moving: torch.Tensor | None = None,
    spacing: tuple[float, ...] | None = None,
    affine: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
) -> RegistrationPair:
    """A batch of one from images of shape `(*S)`."""
    spacing_mm = None if spacing is None else torch.tensor([spacing])
    moving = fixed if moving is None else moving
    return RegistrationPair(
        case_ids=("case",),
        fixed=fixed[None, None],
        moving=moving[None, None],
        fixed_spacing_mm=spacing_mm,
        moving_spacing_mm=spacing_mm,
        fixed_affine=None if affine is None else affine[None],
        fixed_labels=None if labels is None else labels[None, None],
        moving_labels=None if labels is None else labels[None, None],
    )


def still(pair: RegistrationPair) -> DisplacementField:
    """No motion."""
    return DisplacementField.for_pair(torch.zeros(1, pair.dimension, *pair.spatial_shape), pair)


def seen(view: View) -> tuple[float, float]:
    """Row and column of the bright spot, as fractions of the picture."""
    row, column = np.unravel_index(int(view.fixed.argmax()), view.fixed.shape)
    return row / (view.fixed.shape[0] - 1), column / (view.fixed.shape[1] - 1)


def test_two_dimensions_show_the_first_axis_to_the_right_and_the_second_downwards() -> None:
    image = torch.zeros(40, 20)
    image[36, 2] = 1
    (view,) = views(pair_of(image, spacing=(1.0, 3.0)), still(pair_of(image)))
    assert view.fixed.shape == (20, 40)
    assert seen(view) == (2 / 19, 36 / 39)
    assert view.pixel == (3.0, 1.0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_three_dimensions_are_upright_whatever_the_array_order(
    order: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    # A spot to the right, anterior and superior in a world of 24 x 30 x 36 mm, stored in any axis order and
    # direction; spacing 1, 2 and 3 mm along right, anterior and superior.
    spacing_world, shape_world = (1.0, 2.0, 3.0), (24, 15, 12)
    at_world = (21, 12, 9)
    shape = tuple(shape_world[w] for w in order)
    index = tuple(at_world[w] if flips[w] > 0 else shape_world[w] - 1 - at_world[w] for w in order)
    affine = torch.zeros(4, 4, dtype=torch.float64)
    for axis, world in enumerate(order):
        affine[world, axis] = flips[world] * spacing_world[world]
    affine[3, 3] = 1
    image, labels = torch.zeros(shape), torch.zeros(shape, dtype=torch.int64)
    image[index], labels[index] = 1, 1
    pair = pair_of(image, spacing=tuple(spacing_world[w] for w in order), affine=affine, labels=labels)
    by_name = {v.name: v for v in views(pair, still(pair))}
    assert seen(by_name["axial"]) == pytest.approx((2 / 14, 21 / 23))
    assert seen(by_name["coronal"]) == pytest.approx((2 / 11, 21 / 23))
    assert seen(by_name["sagittal"]) == pytest.approx((2 / 11, 12 / 14))
    assert by_name["axial"].pixel == (2.0, 1.0)
    assert by_name["coronal"].pixel == (3.0, 1.0)
    assert by_name["sagittal"].pixel == (3.0, 2.0)
    assert by_name["axial"].sides == ("L", "R")


def test_warped_pictures_are_those_of_the_field_on_the_plane() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (20, 16, 12)
    fixed, moving = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
    labels = torch.randint(0, 3, shape, generator=generator)
    pair = pair_of(fixed, moving, (1.0, 1.0, 2.0), torch.diag(torch.tensor([1.0, 1, 2, 1])).double(), labels)
    field = DisplacementField.for_pair(2 * torch.randn(1, 3, *shape, generator=generator), pair)
    low, high = window(moving)
    warped = ((field.warp(pair.moving)[0, 0] - low) / (high - low)).clamp(0, 1).numpy()
    carried = field.warp(pair.moving_labels, mode="nearest", padding="zeros")[0, 0].numpy()
    determinant = field.jacobian_determinant()[0, 0].numpy()
    for view in views(pair, field):
        axis = {"axial": 2, "coronal": 1, "sagittal": 0}[view.name]
        found = []
        for index in range(shape[axis]):
            picture = np.take(warped, index, axis).T[::-1]
            if np.allclose(picture, view.warped, atol=1e-5):
                found.append(index)
        (index,) = found
        assert view.warped_labels is not None
        np.testing.assert_array_equal(np.take(carried, index, axis).T[::-1], view.warped_labels)
        np.testing.assert_allclose(np.take(determinant, index, axis).T[::-1], view.jacobian, atol=1e-5)
        np.testing.assert_allclose(view.fixed - view.warped, view.after)


def test_grid_lines_lie_where_the_field_sends_them() -> None:
    image = torch.rand(30, 20, generator=torch.Generator().manual_seed(0))
    u = torch.zeros(1, 2, 30, 20)
    u[0, 0], u[0, 1] = 3.0, -1.5
    (view,) = views(pair_of(image), DisplacementField(u))
    rows, columns = np.mgrid[0:20, 0:30]
    np.testing.assert_allclose(view.positions[0], rows - 1.5)
    np.testing.assert_allclose(view.positions[1], columns + 3.0)
    assert all(line.shape[1] == 2 for line in panels.grid_lines(view))


def test_folds_have_the_signal_colour_and_one_is_neutral() -> None:
    colours = panels.jacobian_colours(np.array([[1.0, -0.5, 0.0, 0.25, 4.0]], dtype=np.float32))[0]
    assert colours[1].tolist() == colours[2].tolist() == [255, 0, 200]
    assert int(colours[0].max()) - int(colours[0].min()) < 15
    assert colours[3, 2] > colours[3, 0]
    assert colours[4, 0] > colours[4, 2]


def test_thin_volumes_are_cut_only_where_there_is_something_to_see() -> None:
    pair = pair_of(torch.rand(32, 32, 4), spacing=(1.0, 1.0, 8.0))
    assert [v.name for v in views(pair, still(pair))] == ["axial"]


@pytest.mark.parametrize("shape", [(64, 48), (31, 57), (24, 30, 20), (32, 32, 1)])
def test_both_pictures_are_written_for_any_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    pair = pair_of(torch.rand(shape, generator=generator), labels=torch.randint(0, 3, shape, generator=generator))
    field = DisplacementField(3 * torch.randn(1, len(shape), *shape, generator=generator))
    panels.draw_panel(pair, field, tmp_path / "panels" / "p.webp")
    # Noise is the worst case for the encoder.
    assert (tmp_path / "panels" / "p.webp").stat().st_size <= 60_000
    with Image.open(tmp_path / "panels" / "p.webp") as picture:
        assert (picture.format, picture.width > 300) == ("WEBP", True)
    panels.draw_report(pair, field, tmp_path / "report.png", "title")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture).std() > 10


def test_grids_that_differ_and_constant_images_are_drawn(tmp_path: Path) -> None:
    pair = pair_of(torch.full((32, 24), 5.0), torch.rand(40, 20))
    panels.draw_panel(pair, still(pair), tmp_path / "p.webp")
    panels.draw_report(pair, still(pair), tmp_path / "r.png")
    (view,) = views(pair, still(pair))
    assert view.before is None
    assert np.isfinite(view.after).all()

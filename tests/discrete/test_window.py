"""The search window and the displacement of least cost in it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reg_bench.discrete import Window, lowest


def bowl(window: Window, centre: list[float], bends: list[float]) -> Tensor:
    """Costs `(1, K, 1, …)` that are least at `centre`."""
    offsets = window.offsets(torch.zeros((), dtype=torch.float64))
    costs = ((offsets - torch.tensor(centre)).square() * torch.tensor(bends)).sum(1)
    return costs.reshape(1, -1, *(1,) * len(centre))


def test_offsets_are_multiples_of_the_step_with_the_first_axis_slowest() -> None:
    window = Window((1, 2), step=3)
    assert window.labels == (3, 5)
    assert window.count == 15
    offsets = window.offsets(torch.zeros(1)).tolist()
    assert offsets[:3] == [[-3, -6], [-3, -3], [-3, 0]]
    assert offsets[7] == [0, 0]
    assert offsets[-1] == [3, 6]


@pytest.mark.parametrize(
    ("window", "centre"),
    [
        (Window((2, 3)), [0.3, -1.4]),
        (Window((2, 3), step=2), [-1.1, 3.7]),
        (Window((2, 1, 3)), [1.25, 0.0, -0.49]),
        (Window((1, 0, 2)), [-0.2, 0.0, 0.7]),
    ],
)
def test_the_lowest_point_of_a_parabola_is_found_exactly(window: Window, centre: list[float]) -> None:
    found = lowest(bowl(window, centre, [0.5, 2.0, 1.0][: len(centre)]), window)
    torch.testing.assert_close(found.flatten(), torch.tensor(centre, dtype=torch.float64))


def test_the_lowest_point_of_a_tilted_parabola_is_found_exactly() -> None:
    """Where motion along one axis costs as motion along another does, the axes cannot be treated one by one."""
    window = Window((2, 2, 2))
    random = torch.randn(20, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bends = random @ random.mT + 2 * torch.eye(3, dtype=torch.float64)
    centres = torch.rand(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    away = window.offsets(centres)[None] - centres[:, None]
    costs = torch.einsum("nka,nab,nkb->nk", away, bends, away)
    torch.testing.assert_close(lowest(costs[:, :, None, None, None], window)[:, :, 0, 0, 0], centres)


def test_a_saddle_falls_back_on_the_axes() -> None:
    window = Window((1, 1))
    a, b = window.offsets(torch.zeros(())).unbind(-1)
    costs = (a - 0.2) ** 2 + (b + 0.1) ** 2 + 10.0 * (a * b) * (a * b).sign() - 10.0 * a * b
    found = lowest(costs.reshape(1, -1, 1, 1), window).flatten()
    torch.testing.assert_close(found, torch.tensor([0.2, -0.1]))


def test_at_the_rim_of_the_window_the_rim_is_taken() -> None:
    found = lowest(bowl(Window((2, 2)), [5.0, -0.3], [1.0, 1.0]), Window((2, 2)))
    torch.testing.assert_close(found.flatten(), torch.tensor([2.0, -0.3], dtype=torch.float64))


def test_random_costs_give_their_argmin_to_a_step() -> None:
    window = Window((2, 1, 1), step=2)
    costs = torch.rand(3, window.count, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    best = window.offsets(costs)[costs.argmin(1)].movedim(-1, 1)
    found = lowest(costs, window)
    assert found.shape == (3, 3, 4, 5, 2)
    assert float((found - best).abs().max()) <= 2.0 + 1e-6
    assert float((found - best).abs().max()) > 0.5


def test_equal_costs_give_finite_displacements() -> None:
    assert bool(lowest(torch.ones(1, 25, 3, 3), Window((2, 2))).isfinite().all())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="radius must hold"):
        Window((1, -1))
    with pytest.raises(ValueError, match="step must be"):
        Window((1, 1), step=0)
    with pytest.raises(ValueError, match=r"costs must be floating point \(B, 9"):
        lowest(torch.zeros(1, 25, 3, 3), Window((1, 1)))

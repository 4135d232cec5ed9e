"""Discrete search on self-similarity against motions in closed form, whatever the contrast."""

from __future__ import annotations

import pytest

from reg_bench.discovery import build_method
from reg_bench.field import jacobian_determinant
from tests.lightning_modules.shapes import error_in_object, pair_of, shifted


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["same", "inverted"])
def test_a_shift_is_found_in_any_contrast(sign: float) -> None:
    pair, truth = pair_of((48, 44), shifted(4.0, -3.0), contrast=lambda v: sign * v)
    u = build_method("discrete-mind")(pair).u
    assert error_in_object(u, truth, pair) < 0.5
    assert float(jacobian_determinant(u).min()) > 0

"""Numbers for the axes of drawings."""

from __future__ import annotations

import numpy as np


def round_numbers(low: float, high: float) -> list[float]:
    """Four to nine round numbers from below `low` to above `high`."""
    span = (high - low) or max(abs(high), 1.0) * 0.1
    raw = span / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(power * next(f for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999))
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]

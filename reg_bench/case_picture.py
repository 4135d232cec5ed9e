"""A picture of a case as it was loaded: both images with their labels and landmarks, for `data check --pictures`."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reg_bench.panel_views import views
from reg_bench.types import DisplacementField, RegistrationPair

_INCHES = 3.2


def draw_case(pair: RegistrationPair, path: Path) -> None:
    """Writes a PNG: one row per plane (three in 3-D), fixed and moving side by side, labels in colour.

    Args:
        pair: its first case is drawn.
        path: of the PNG.
    """
    pair = (pair.scored or pair)[0]
    zero = DisplacementField.for_pair(torch.zeros(1, pair.dimension, *pair.spatial_shape), pair)
    planes = views(pair, zero)
    highest = max([int(m.max()) for m in (pair.fixed_labels, pair.moving_labels) if m is not None], default=1)
    figure = Figure(figsize=(2 * _INCHES, len(planes) * _INCHES + 0.4), layout="constrained")
    grid = figure.subplots(len(planes), 2, squeeze=False)
    figure.suptitle(pair.case_ids[0], fontsize=9)
    for row, view in zip(grid, planes, strict=True):
        sides = (
            ("fixed", view.fixed, view.fixed_labels, view.pixel),
            ("moving", view.moving, view.moving_labels, view.moving_pixel),
        )
        for axes, (role, picture, labels, pixel) in zip(row, sides, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=pixel[0] / pixel[1], interpolation="nearest")
            if labels is not None:
                axes.imshow(_coloured(labels, highest), aspect=pixel[0] / pixel[1], interpolation="nearest")
            axes.set_title(f"{role} {view.name}".strip(), fontsize=8)
            axes.set_axis_off()
    figure.savefig(path, dpi=110)


def _coloured(labels: NDArray[np.integer], highest: int) -> NDArray[np.float64]:
    """Colours `(rows, columns, 4)`: background clear, labels half transparent, neighbours unlike."""
    colours = matplotlib.colormaps["tab20" if highest > 10 else "tab10"]
    count = colours.N
    rgba: NDArray[np.float64] = np.asarray(colours((labels.astype(np.int64) - 1) % count), dtype=np.float64)
    rgba[..., 3] = np.where(labels > 0, 0.4, 0.0)
    return rgba

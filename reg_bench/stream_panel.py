"""The small picture beside the row of a stream: contours at chosen frames, as in Figure 4 of Paper I."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from reg_bench.panel_views import View, views
from reg_bench.panels import (
    BACKGROUND,
    FAINT,
    FIXED_COLOUR,
    GREY,
    MAX_BYTES,
    WARPED_COLOUR,
    colour_index,
    fitted_size,
    jacobian_colours,
    outlined_tile,
    padded_tile,
    panel_font,
    scaled_tile,
    small_webp,
    tile_with_grid,
)
from reg_bench.streaming import Step, Streamed
from reg_bench.types import ImageSequence

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDTH, _GAP, _HEAD = 190, 4, 18


def chosen_steps(streamed: Streamed, count: int) -> list[Step]:
    """`count` steps, evenly spaced and ending with the last one, of those that are no return to the reference."""
    steps = [s for s in streamed.steps if not s.closing]
    count = min(count, len(steps))
    return [steps[round((i + 1) * len(steps) / count) - 1] for i in range(count)]


def draw_stream(
    sequence: ImageSequence,
    streamed: Streamed,
    path: str | os.PathLike[str],
    count: int,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Writes a WebP of at most `max_bytes`: rows of `count` frames of the first case.

    Above the frames with their own labels and those of the reference, warped; then the warped reference; then where
    the lines of a regular grid of the frame lie in the reference; then the Jacobian determinant. Volumes are cut once,
    through the first plane of `reg_bench.panel_views`.
    """
    from PIL import Image, ImageDraw

    columns = []
    for step in chosen_steps(streamed, count):
        view = views(sequence.pair(step.frame), step.field)[0]
        what = f"frame {step.frame}, {step.time_s:.2f} s" + ("" if step.given else ", not given")
        columns.append((what, _tiles(view)))
    height, rows = columns[0][1][0].height, len(columns[0][1])
    size = (len(columns) * (_WIDTH + _GAP) - _GAP, _HEAD + rows * (height + _GAP))
    sheet = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for i, (what, tiles) in enumerate(columns):
        pen.text((i * (_WIDTH + _GAP) + 4, 2), what, fill=FAINT, font=panel_font(12))
        for row, tile in enumerate(tiles):
            sheet.paste(tile, (i * (_WIDTH + _GAP), _HEAD + row * (height + _GAP)))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(small_webp(sheet, max_bytes))


def _tiles(view: View) -> list[Image]:
    size = fitted_size(view.fixed.shape, view.pixel, _WIDTH)
    frame, warped, reference = (
        scaled_tile(GREY[colour_index(p)], size) for p in (view.fixed, view.warped, view.moving)
    )
    contours = outlined_tile(outlined_tile(frame, view.fixed_labels, FIXED_COLOUR), view.warped_labels, WARPED_COLOUR)
    grid = tile_with_grid(outlined_tile(reference, view.moving_labels, WARPED_COLOUR), view)
    # Not smoothed: a single folded pixel must stay visible.
    jacobian = scaled_tile(jacobian_colours(view.jacobian), size, smooth=False)
    return [padded_tile(tile, (_WIDTH, size[1])) for tile in (contours, warped, grid, jacobian)]

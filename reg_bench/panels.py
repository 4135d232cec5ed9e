"""Pictures of a registered case: `report.png` for one pair, and the small panel beside every result row.

The deformed grid is drawn where the lines of the fixed grid lie in the moving image, `x + u(x)`. Differences
share one scale, black where there is none. The Jacobian determinant is on a logarithmic scale about 1, with
folded voxels, whose determinant is not positive, in magenta.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reg_bench.panel_views import Labels, Picture, View, views
from reg_bench.types import DisplacementField, RegistrationPair

if TYPE_CHECKING:
    from PIL.Image import Image

Colours = NDArray[np.uint8]

FIXED_COLOUR, WARPED_COLOUR, GRID_COLOUR, FOLD_COLOUR = "#35d0e6", "#ffb224", "#ffd84d", "#ff00c8"
BACKGROUND, INK, FAINT = "#12161a", "#e8eaea", "#9aa4ab"
MAX_BYTES = 60_000
#: Octaves of the Jacobian determinant that the colours span on either side of 1.
OCTAVES = 2.0
GRID_LINES = 18


def _ramp(stops: list[tuple[float, str]]) -> Colours:
    """256 colours between hexadecimal `stops` at 0..1."""
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for _, c in stops], dtype=float)
    at = np.linspace(0, 1, 256)
    return np.stack([np.interp(at, [s for s, _ in stops], rgb[:, k]) for k in range(3)], axis=1).astype(np.uint8)


DIFFERENCE = _ramp([(0, "#9fe3ff"), (0.25, "#2b8fd0"), (0.5, "#08090b"), (0.75, "#d0672b"), (1, "#ffd9a8")])
JACOBIAN = _ramp([(0, "#1f3f99"), (0.25, "#6c97d8"), (0.5, "#f4f2ec"), (0.75, "#de8d55"), (1, "#8f2410")])
#: A little brighter in the middle: tissue is rarely as bright as fat or blood.
GREY = _ramp([(0, "#000000"), (0.25, "#565656"), (0.5, "#949494"), (0.75, "#cacaca"), (1, "#ffffff")])
MAGNITUDE = _ramp([(0, "#0b0d12"), (0.35, "#5b2a86"), (0.7, "#e0576b"), (1, "#fde0a0")])


def colour_limit(made: list[View]) -> float:
    """The common scale of the differences: their 99.5th percentile before and after, of all views."""
    values = [np.abs(p).ravel() for v in made for p in (v.before, v.after) if p is not None]
    return max(float(np.percentile(np.concatenate(values), 99.5)), 1e-3)


def jacobian_colours(jacobian: Picture) -> Colours:
    """`(rows, columns, 3)`: logarithm about 1, folds in the signal colour."""
    with np.errstate(divide="ignore", invalid="ignore"):
        octaves = np.log2(np.where(jacobian > 0, jacobian, 1.0))
    colours = JACOBIAN[colour_index(0.5 + octaves / (2 * OCTAVES))]
    colours[jacobian <= 0] = [int(FOLD_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]
    return colours


def colour_index(values: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Where in a ramp of 256 colours `values` of 0..1 lie; what is not finite is at the low end."""
    return np.clip(np.rint(np.nan_to_num(values) * 255), 0, 255).astype(np.intp)


# The small panel -----------------------------------------------------------------------------------------

# A plain minus: the font inside Pillow has no other.
CAPTIONS = ("fixed", "moving", "warped", "fixed - moving", "fixed - warped", "grid x + u(x)", "log Jacobian")


def draw_panel(
    pair: RegistrationPair, field: DisplacementField, path: str | os.PathLike[str], max_bytes: int = MAX_BYTES
) -> None:
    """Writes a WebP of at most `max_bytes` of the first case of `pair`: a row of seven pictures per plane."""
    from PIL import Image, ImageDraw

    made = views(pair, field)
    limit = colour_limit(made)
    width = 168 if len(made) == 1 else 144
    rows = [_tiles(view, limit, width) for view in made]
    gap, head = 4, 18
    height = head + sum(r[0].height + gap for r in rows)
    sheet = Image.new("RGB", (7 * width + 6 * gap, height), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), panel_font(12)
    for i, caption in enumerate(CAPTIONS):
        pen.text((i * (width + gap) + 4, 2), caption, fill=FAINT, font=font)
    top = head
    for row, view in zip(rows, made, strict=True):
        for i, tile in enumerate(row):
            sheet.paste(tile, (i * (width + gap), top))
        if view.sides[0]:
            middle = top + row[0].height // 2 - 7
            pen.text((3, middle), view.sides[0], fill=FAINT, font=font)
            pen.text((width - 11, middle), view.sides[1], fill=FAINT, font=font)
        top += row[0].height + gap
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(small_webp(sheet, max_bytes))


def small_webp(sheet: Image, max_bytes: int) -> bytes:
    """The picture in the first quality that fits, then ever smaller."""
    size = 0
    for quality in (78, 50):
        out = io.BytesIO()
        sheet.save(out, "WEBP", quality=quality, method=1)
        size = out.tell()
        if size <= max_bytes:
            return out.getvalue()
    shrink = max(0.3, 0.92 * (max_bytes / size) ** 0.5)
    smaller = (max(1, int(sheet.width * shrink)), max(1, int(sheet.height * shrink)))
    return small_webp(sheet.resize(smaller), max_bytes)


def panel_font(size: int) -> Any:
    """The font inside Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _tiles(view: View, limit: float, width: int) -> list[Image]:
    """The seven pictures of a plane, all `width` wide and equally high."""
    size = fitted_size(view.fixed.shape, view.pixel, width)
    moving_size = fitted_size(view.moving.shape, view.moving_pixel, width)
    height = max(size[1], moving_size[1])
    pictures = (("fixed", view.fixed, size), ("moving", view.moving, moving_size), ("warped", view.warped, size))
    grey = {name: scaled_tile(GREY[colour_index(picture)], fit) for name, picture, fit in pictures}
    fixed = outlined_tile(grey["fixed"], view.fixed_labels, FIXED_COLOUR)
    warped = outlined_tile(
        outlined_tile(grey["warped"], view.fixed_labels, FIXED_COLOUR), view.warped_labels, WARPED_COLOUR
    )
    moving = outlined_tile(grey["moving"], view.moving_labels, WARPED_COLOUR)
    before = (
        _blank(size)
        if view.before is None
        else scaled_tile(DIFFERENCE[colour_index(_signed(view.before, limit))], size)
    )
    after = scaled_tile(DIFFERENCE[colour_index(_signed(view.after, limit))], size)
    grid = tile_with_grid(grey["moving"], view)
    # Not smoothed: a single folded voxel must stay visible.
    jacobian = scaled_tile(jacobian_colours(view.jacobian), size, smooth=False)
    return [padded_tile(t, (width, height)) for t in (fixed, moving, warped, before, after, grid, jacobian)]


def _signed(difference: Picture, limit: float) -> Picture:
    return (0.5 + 0.5 * difference / limit).astype(np.float32)


def fitted_size(shape: tuple[int, ...], pixel: tuple[float, float], width: int) -> tuple[int, int]:
    """Width and height in the panel of a picture with pixels of `pixel` mm; never taller than 1.4 widths."""
    tall, wide = shape[0] * pixel[0], shape[1] * pixel[1]
    scale = min(width / wide, 1.4 * width / tall)
    return max(1, round(wide * scale)), max(1, round(tall * scale))


def _blank(size: tuple[int, int]) -> Image:
    from PIL import Image

    return Image.new("RGB", size, BACKGROUND)


def scaled_tile(colours: Colours, size: tuple[int, int], smooth: bool = True) -> Image:
    """Colours `(rows, columns[, 3])` as a picture of `size` (width, height)."""
    from PIL import Image

    image = Image.fromarray(colours, "RGB") if colours.ndim == 3 else Image.fromarray(colours)
    return image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)


def padded_tile(tile: Image, size: tuple[int, int]) -> Image:
    """`tile` in the middle of a picture of `size`."""
    if tile.size == size:
        return tile
    sheet = _blank(size)
    sheet.paste(tile, ((size[0] - tile.width) // 2, (size[1] - tile.height) // 2))
    return sheet


def outlined_tile(tile: Image, labels: Labels | None, colour: str) -> Image:
    """`tile` with the outlines of all labels, one pixel wide."""
    from PIL import Image

    if labels is None:
        return tile
    edges = np.zeros((tile.height, tile.width), dtype=bool)
    for value in np.unique(labels[labels != 0]):
        soft = Image.fromarray(((labels == value) * 255).astype(np.uint8)).resize(tile.size, Image.Resampling.BILINEAR)
        inside = np.asarray(soft) > 127
        core = inside.copy()
        core[1:] &= inside[:-1]
        core[:-1] &= inside[1:]
        core[:, 1:] &= inside[:, :-1]
        core[:, :-1] &= inside[:, 1:]
        edges |= inside & ~core
    sheet = tile.copy()
    sheet.paste(colour, (0, 0), Image.fromarray((edges * 230).astype(np.uint8)))
    return sheet


def grid_lines(view: View) -> list[Picture]:
    """Lines of the fixed grid, equally far apart in both directions, as `(points, 2)` rows and columns of the
    moving picture."""
    rows, columns = view.fixed.shape
    step_mm = max(rows * view.pixel[0], columns * view.pixel[1]) / GRID_LINES
    row_step = max(1, round(step_mm / view.pixel[0]))
    column_step = max(1, round(step_mm / view.pixel[1]))
    row_start, column_start = ((rows - 1) % row_step) // 2, ((columns - 1) % column_step) // 2
    lines = [view.positions[:, r, :].T for r in range(row_start, rows, row_step)]
    return lines + [view.positions[:, :, c].T for c in range(column_start, columns, column_step)]


def tile_with_grid(tile: Image, view: View) -> Image:
    """`tile`, which shows the moving image, with the lines of the fixed grid where they lie in it."""
    from PIL import Image, ImageDraw

    # Twice as large and reduced again: thin lines without steps.
    mask = Image.new("L", (2 * tile.width, 2 * tile.height))
    pen = ImageDraw.Draw(mask)
    rows, columns = view.moving.shape
    scale = np.array([mask.width / columns, mask.height / rows])
    for line in grid_lines(view):
        pen.line([tuple(p) for p in ((line[:, ::-1] + 0.5) * scale).tolist()], fill=225, width=2)
    sheet = tile.copy()
    sheet.paste(GRID_COLOUR, (0, 0), mask.resize(tile.size, Image.Resampling.BOX))
    return sheet


# The report ----------------------------------------------------------------------------------------------


def draw_report(
    pair: RegistrationPair, field: DisplacementField, path: str | os.PathLike[str], title: str = ""
) -> None:
    """Writes the picture of the first case of `pair` as PNG, with scales and a legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = views(pair, field)
    limit, longest = colour_limit(made), max(float(v.magnitude.max()) for v in made) or 1.0
    drawn = [_artists(view, limit, longest) for view in made]
    flat = len(made) == 1
    per_row = 4 if flat else 8
    tall = [v.fixed.shape[0] * v.pixel[0] / (v.fixed.shape[1] * v.pixel[1]) for v in made]
    cell = 3.1 if flat else 2.35
    heights = [min(max(t, 0.35), 1.6) * cell for t in (tall * 2 if flat else tall)]
    size = (per_row * (cell + 0.5) + 0.3, sum(heights) + 0.4 * len(heights) + 0.9)
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    spec = figure.add_gridspec(len(heights), per_row, height_ratios=heights, **_margins(figure))
    for number, (view, artists) in enumerate(zip(made, drawn, strict=True)):
        for i, (name, draw) in enumerate(artists):
            row, column = (i // per_row, i % per_row) if flat else (number, i)
            axes = figure.add_subplot(spec[row, column])
            draw(figure, axes)
            if flat or number == 0:
                axes.set_title(name, fontsize=10, pad=5)
            if not flat and column == 0:
                axes.set_ylabel(view.name, fontsize=10)
            _sides(axes, view, name)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
    _words(figure, pair, field, made, title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def _margins(figure: Any) -> dict[str, float]:
    width, height = figure.get_size_inches()
    return {
        "left": 0.3 / width,
        "right": 1 - 0.45 / width,
        "top": 1 - 0.85 / height,
        "bottom": 0.3 / height,
        "wspace": 0.24,
        "hspace": 0.14,
    }


def _words(figure: Any, pair: RegistrationPair, field: DisplacementField, made: list[View], title: str) -> None:
    height = figure.get_size_inches()[1]
    from reg_bench.field import jacobian_slabs

    folded = sum(int((det <= 0).sum()) for _, det in jacobian_slabs(field.u[0].detach()))
    voxels = int(np.prod(pair.spatial_shape))
    figure.text(0.012, 1 - 0.12 / height, title or pair.case_ids[0], fontsize=13, weight="bold", va="top")
    element = "pixels" if pair.dimension == 2 else "voxels"
    facts = (
        f"{folded} of {voxels} {element} folded ({100 * folded / voxels:.3g} %); "
        f"|u| in {'voxels' if pair.fixed_spacing_mm is None else 'mm'}; "
        "grey values and differences in units of the percentiles 0.5 to 99.5 of each image"
    )
    figure.text(0.012, 1 - 0.4 / height, facts, fontsize=9.5, color="#555555", va="top")
    if made[0].fixed_labels is None and made[0].warped_labels is None:
        return
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=FIXED_COLOUR, lw=2), Line2D([], [], color=WARPED_COLOUR, lw=2)]
    figure.legend(
        handles,
        ["labels of the fixed image", "labels of the moving image, warped on the warped one"],
        loc="upper right",
        ncols=2,
        fontsize=9,
        frameon=False,
        bbox_to_anchor=(0.995, 1 - 0.05 / height),
    )


def _sides(axes: Any, view: View, name: str) -> None:
    if name != "fixed" or not view.sides[0]:
        return
    for letter, x in zip(view.sides, (0.03, 0.97), strict=True):
        axes.text(x, 0.5, letter, transform=axes.transAxes, color="white", fontsize=9, ha="center", va="center")


def _artists(view: View, limit: float, longest: float) -> list[tuple[str, Any]]:
    """Names and drawing functions of the eight pictures of a plane."""
    from matplotlib.colors import ListedColormap

    grey = ListedColormap(GREY / 255.0)

    def image(picture: Any, pixel: tuple[float, float], **options: Any) -> Any:
        def draw(figure: Any, axes: Any) -> Any:
            return axes.imshow(picture, aspect=pixel[0] / pixel[1], **options)

        return draw

    def outlined(picture: Picture, pixel: tuple[float, float], *labels: tuple[Labels | None, str]) -> Any:
        def draw(figure: Any, axes: Any) -> None:
            image(picture, pixel, cmap=grey, vmin=0, vmax=1, interpolation="bicubic")(figure, axes)
            for values, colour in labels:
                for value in () if values is None else np.unique(values[values != 0]):
                    axes.contour(values == value, levels=[0.5], colors=[colour], linewidths=1.1)

        return draw

    def scaled(picture: Any, colours: Colours, low: float, high: float, ticks: dict[float, str]) -> Any:
        colour_map = ListedColormap(colours / 255.0)

        def draw(figure: Any, axes: Any) -> None:
            options = {"interpolation": "nearest", "cmap": colour_map, "vmin": low, "vmax": high}
            drawn = image(picture, view.pixel, **options)(figure, axes)
            _bar(figure, axes, drawn, ticks)

        return draw

    def grid(figure: Any, axes: Any) -> None:
        image(view.moving, view.moving_pixel, cmap=grey, vmin=0, vmax=1, interpolation="bicubic")(figure, axes)
        for line in grid_lines(view):
            axes.plot(line[:, 1], line[:, 0], color=GRID_COLOUR, lw=0.7, alpha=0.9)
        rows, columns = view.moving.shape
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)

    marks = {-limit: f"−{limit:.2f}", 0.0: "0", limit: f"{limit:.2f}"}
    before = np.full_like(view.after, np.nan) if view.before is None else view.before
    octaves = {float(np.log2(v)): t for v, t in ((0.25, "1/4"), (0.5, "1/2"), (1, "1"), (2, "2"), (4, "4"))}
    length = {0.0: "0", longest / 2: f"{longest / 2:.3g}", longest: f"{longest:.3g}"}
    return [
        ("fixed", outlined(view.fixed, view.pixel, (view.fixed_labels, FIXED_COLOUR))),
        ("moving", outlined(view.moving, view.moving_pixel, (view.moving_labels, WARPED_COLOUR))),
        (
            "warped",
            outlined(view.warped, view.pixel, (view.fixed_labels, FIXED_COLOUR), (view.warped_labels, WARPED_COLOUR)),
        ),
        ("|u|", scaled(view.magnitude, MAGNITUDE, 0.0, longest, length)),
        ("fixed − moving", scaled(before, DIFFERENCE, -limit, limit, marks)),
        ("fixed − warped", scaled(view.after, DIFFERENCE, -limit, limit, marks)),
        ("deformed grid x + u(x)", grid),
        ("Jacobian, folds magenta", _jacobian_artist(view, octaves)),
    ]


def _bar(figure: Any, axes: Any, scale: Any, ticks: dict[float, str]) -> None:
    """A slim colour bar right of `axes`, outside its box, so that all pictures stay equally large."""
    bar = axes.inset_axes((1.025, 0.0, 0.035, 1.0))
    figure.colorbar(scale, cax=bar, ticks=list(ticks))
    bar.set_yticklabels(list(ticks.values()), fontsize=7.5)
    bar.tick_params(length=0, pad=3)
    for spine in bar.spines.values():
        spine.set_visible(False)


def _jacobian_artist(view: View, octaves: dict[float, str]) -> Any:
    """Already coloured: folds have no place on the scale; the bar comes from an empty mappable."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    def draw(figure: Any, axes: Any) -> None:
        axes.imshow(jacobian_colours(view.jacobian), aspect=view.pixel[0] / view.pixel[1], interpolation="nearest")
        scale = ScalarMappable(Normalize(-OCTAVES, OCTAVES), ListedColormap(JACOBIAN / 255.0))
        _bar(figure, axes, scale, octaves)

    return draw

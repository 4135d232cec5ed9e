"""Figures of a sequence and what a method makes of it, as Figures 2 to 4 of Paper III.

Reconstructions with displacement and Jacobian, latent variables over time with their intervals, generated motions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reg_bench.field import jacobian_determinant, warp
from reg_bench.latent_courses import INTERVALS, LatentCourse
from reg_bench.metrics import score
from reg_bench.streaming import Step
from reg_bench.types import DisplacementField, ImageSequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRUE, _WARPED, _FOLDED = "#22d3ee", "#f59e0b", "#d946ef"
#: Every so many pixels an arrow of the displacement, in an image of 112.
_ARROWS = 14
_KINDS = ("filtered", "smoothed", "predicted")


def reconstruction_figure(sequence: ImageSequence, steps: Sequence[Step], title: str) -> Figure:
    """A column per step: the frame with its contours (cyan) and those of the reference, warped (amber); the warped
    reference; the displacement, its length as colour, arrows towards where the tissue was in the reference; the
    determinant of its Jacobian, magenta where it is not positive."""
    figure, axes = _grid(4, len(steps), title)
    reference = sequence.frames[:, sequence.reference].cpu()
    top = max(1.0, max(float(s.field.u.norm(dim=1).max()) for s in steps))
    for column, step in enumerate(steps):
        u = step.field.u.cpu()
        frame = sequence.frames[0, step.frame, 0].cpu()
        head = f"frame {step.frame}" + ("" if step.given else ", not given")
        dice = _dice(sequence, step)
        axes[0, column].set_title(head + ("" if dice is None else f"\nDice {dice:.3f}"), fontsize=8)
        _grey(axes[0, column], frame)
        _contours(axes[0, column], sequence.labels_of(step.frame), _TRUE)
        moved = sequence.labels_of(sequence.reference)
        _contours(axes[0, column], None if moved is None else warp(moved.cpu(), u, mode="nearest"), _WARPED)
        _grey(axes[1, column], warp(reference, u)[0, 0])
        length = axes[2, column].imshow(_upright(u.norm(dim=1)[0]), cmap="viridis", vmin=0, vmax=top)
        _arrows(axes[2, column], u, top)
        determinant = jacobian_determinant(u)[0]
        volume = axes[3, column].imshow(_upright(determinant), cmap="RdBu_r", vmin=0, vmax=2)
        _folds(axes[3, column], determinant)
    for row, name in enumerate(("frame", "warped reference", "displacement [pixel]", "Jacobian determinant")):
        axes[row, 0].set_ylabel(name, fontsize=8)
    for row, drawn in ((2, length), (3, volume)):
        figure.colorbar(drawn, ax=axes[row, :].tolist(), fraction=0.02, pad=0.01)
    return figure


def latent_figure(course: LatentCourse, seconds_per_frame: float, title: str, most: int = 4) -> Figure:
    """Of the latent variables that move most, a row each: what the frames themselves say, filled where it was observed,
    and mean and 95 % interval of filtered, smoothed and predicted values."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in _KINDS if kind in course.mean]
    x, observed = course.x[0].cpu().numpy(), course.observed[0].cpu().numpy()
    chosen = np.argsort(-x.std(axis=0), kind="stable")[:most]
    figure = Figure(figsize=(4.2 * len(kinds), 1.6 * len(chosen) + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(chosen), len(kinds), squeeze=False, sharex=True, sharey="row")
    time = np.arange(len(x)) * seconds_per_frame
    for column, kind in enumerate(kinds):
        mean, std = (values[kind][0].cpu().numpy() for values in (course.mean, course.std))
        axes[0, column].set_title(kind, fontsize=9)
        axes[-1, column].set_xlabel("seconds", fontsize=8)
        for row, i in enumerate(chosen):
            axis, half = axes[row, column], INTERVALS["95"] * std[:, i]
            axis.fill_between(time, mean[:, i] - half, mean[:, i] + half, color=_TRUE, alpha=0.35, linewidth=0)
            axis.plot(time, mean[:, i], color="#0e7490", linewidth=1)
            axis.plot(time[observed], x[observed, i], "o", color="black", markersize=2)
            axis.plot(time[~observed], x[~observed, i], "o", color="black", markersize=2.5, fillstyle="none", mew=0.5)
            axis.tick_params(labelsize=7)
    for row, i in enumerate(chosen):
        axes[row, 0].set_ylabel(f"x[{i}]", fontsize=8)
    return figure


def generated_figure(sequence: ImageSequence, motions: Sequence[Tensor], frames: Sequence[int], title: str) -> Figure:
    """Above the sequence as it is, then a row per generated motion `(1, T, D, *S)`: the reference warped by it."""
    figure, axes = _grid(1 + len(motions), len(frames), title)
    reference = sequence.frames[:, sequence.reference].cpu()
    labels = sequence.labels_of(sequence.reference)
    for column, t in enumerate(frames):
        axes[0, column].set_title(f"{t * sequence.seconds_per_frame:.2f} s", fontsize=8)
        _grey(axes[0, column], sequence.frames[0, sequence.reference + t, 0].cpu())
        _contours(axes[0, column], sequence.labels_of(sequence.reference + t), _TRUE)
        for row, motion in enumerate(motions, start=1):
            u = motion[:, t].cpu()
            _grey(axes[row, column], warp(reference, u)[0, 0])
            _contours(axes[row, column], None if labels is None else warp(labels.cpu(), u, mode="nearest"), _WARPED)
    for row in range(1 + len(motions)):
        axes[row, 0].set_ylabel("sequence" if row == 0 else f"generated {row}", fontsize=8)
    return figure


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * columns + 0.8, 1.7 * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _upright(image: Tensor) -> np.ndarray[Any, Any]:
    """`(x, y)` with x to the right and y down."""
    return image.cpu().numpy().T


def _grey(axis: Axes, image: Tensor) -> None:
    axis.imshow(_upright(image), cmap="gray", vmin=0, vmax=max(1.0, float(image.max())))


def _contours(axis: Axes, labels: Tensor | None, colour: str) -> None:
    if labels is None:
        return
    plane = labels[0, 0].cpu()
    for label in (int(k) for k in np.unique(plane.numpy()) if k):
        axis.contour(_upright((plane == label).float()), levels=[0.5], colors=[colour], linewidths=0.7)


def _arrows(axis: Axes, u: Tensor, longest: float) -> None:
    """Arrows of which `longest` pixels of displacement would reach the next one."""
    step = max(2, round(min(u.shape[2:]) * _ARROWS / 112))
    x, y = (np.arange(step // 2, n, step) for n in u.shape[2:])
    picked = u[0][:, x[:, None], y[None]].numpy()
    across, down = (picked[i].T for i in (0, 1))
    scale = longest / step
    axis.quiver(
        *np.meshgrid(x, y), across, down, angles="xy", scale_units="xy", scale=scale, color="white", width=0.006
    )


def _folds(axis: Axes, determinant: Tensor) -> None:
    from matplotlib.colors import ListedColormap

    folded = np.ma.masked_where(_upright(determinant) > 0, np.ones_like(_upright(determinant)))
    axis.imshow(folded, cmap=ListedColormap([_FOLDED]))


def _dice(sequence: ImageSequence, step: Step) -> float | None:
    if sequence.labels_of(step.frame) is None or sequence.labels_of(sequence.reference) is None:
        return None
    field = DisplacementField(step.field.u.cpu())
    found = score(sequence.to("cpu").pair(step.frame), field, profiles=("strict",), metrics=("dice",))
    return next((v.value for v in found if v.label == "all"), None)


def evenly(count: int, of: int) -> list[int]:
    """`count` numbers from 0 to `of - 1`, as even as can be, both ends included."""
    return sorted({round(i) for i in torch.linspace(0, of - 1, min(count, of)).tolist()})

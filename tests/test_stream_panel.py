"""The pictures of streams: which frames, what is in them, and that they stay small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reg_bench.stream_panel import chosen_steps, draw_stream
from reg_bench.streaming import Streamed, run_stream
from reg_bench.types import ImageSequence
from tests.fake_streams import FollowsCentre, moving_square


def test_frames_are_evenly_spaced_and_end_with_the_last() -> None:
    streamed = run_stream(FollowsCentre(), moving_square([0, 1, 2, 3, 4, 5, 6]), periodic=True)
    assert [s.frame for s in chosen_steps(streamed, 3)] == [2, 4, 6]
    assert [s.frame for s in chosen_steps(streamed, 1)] == [6]
    assert [s.frame for s in chosen_steps(streamed, 99)] == [1, 2, 3, 4, 5, 6]


def drawn(sequence: ImageSequence, path: Path, **options: int) -> Image.Image:
    draw_stream(sequence, run_stream(FollowsCentre(), sequence), path, 2, **options)
    with Image.open(path) as picture:
        return picture.convert("RGB")


def redder_than_blue(picture: Image.Image) -> np.ndarray:
    """By how much, in the rows of contours: those of the warped reference are orange, of the frame itself cyan."""
    colours = np.asarray(picture, dtype=int)[20 : picture.height // 4]
    found: np.ndarray = colours[..., 0] - colours[..., 2]
    return found


def test_contours_of_the_frame_and_of_the_warped_reference(tmp_path: Path) -> None:
    sequence = moving_square([0, 2, 4])
    picture = drawn(sequence, tmp_path / "deep" / "p.webp")
    assert picture.width == 2 * 190 + 4
    assert redder_than_blue(picture).max() > 60
    assert redder_than_blue(picture).min() > -40, "orange lies right on top of cyan"
    still = sequence.frames.clone()
    lost = replace(sequence, frames=still[:, [0, 0, 0]])
    apart = drawn(lost, tmp_path / "lost.webp")
    assert redder_than_blue(apart).max() > 60
    assert redder_than_blue(apart).min() < -60, "the square went on, the field stayed"


def test_without_labels_there_are_no_contours(tmp_path: Path) -> None:
    sequence = moving_square([0, 2, 4])
    bare = replace(sequence, labels=None, labelled_frames=None, label_names=None)
    assert np.abs(redder_than_blue(drawn(bare, tmp_path / "b.webp"))).max() < 40


def test_folds_are_magenta_in_the_last_row(tmp_path: Path) -> None:
    sequence = moving_square([0, 2, 4])
    streamed = run_stream(FollowsCentre(), sequence)

    def magenta(path: Path, steps: Streamed) -> int:
        draw_stream(sequence, steps, path, 2)
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("RGB"), dtype=int)[-picture.height // 4 :]
        return int(((colours[..., 0] > 180) & (colours[..., 2] > 140) & (colours[..., 1] < 90)).sum())

    assert magenta(tmp_path / "smooth.webp", streamed) == 0
    u = streamed.steps[-1].field.u.clone()
    u[:, 0, 5:9, 5:9] -= 3 * torch.arange(4.0)[:, None]
    folded = replace(streamed.steps[-1], field=replace(streamed.steps[-1].field, u=u))
    assert magenta(tmp_path / "folded.webp", replace(streamed, steps=(*streamed.steps[:-1], folded))) > 50


def test_noise_is_squeezed_into_the_limit(tmp_path: Path) -> None:
    sequence = moving_square([0, 1, 2])
    noisy = torch.rand(sequence.frames.shape, generator=torch.Generator().manual_seed(0)) * 0.5
    path = tmp_path / "noise.webp"
    drawn(replace(sequence, frames=noisy + sequence.frames), path, max_bytes=9_000)
    assert path.stat().st_size <= 9_000


@pytest.mark.parametrize("dims", [3])
def test_volumes_are_cut(dims: int, tmp_path: Path) -> None:
    ball = torch.zeros(1, 3, 1, 14, 12, 10)
    ball[..., 4:9, 4:9, 3:7] = 1.0
    sequence = ImageSequence(("v",), ball, 0.1)
    assert sequence.dimension == dims
    picture = drawn(sequence, tmp_path / "v.webp")
    assert picture.height > 100

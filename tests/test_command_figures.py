"""`reg-bench figures`: what is drawn of which method, from what it says, and what bad words are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from reg_bench.cli import main
from reg_bench.dynamics_figures import evenly, generated_figure, latent_figure, reconstruction_figure
from reg_bench.latent_courses import LatentCourse
from reg_bench.streaming import run_stream
from tests.fake_streams import SIZE, FollowsCentre, moving_square

SQUARES = ["--dataset", "tests.fake_streams.SlidingSquares"]


class Dreams(FollowsCentre):
    """Follows the square, tells two latent variables and makes up motions."""

    def latent_course(self, frames: Tensor, observed: Tensor) -> LatentCourse:
        x = frames.mean(dim=(2, 3, 4))[..., None] * torch.tensor([1.0, 10.0])
        kinds = ("filtered", "smoothed", "predicted")
        return LatentCourse(x, dict.fromkeys(kinds, x), dict.fromkeys(kinds, torch.full_like(x, 0.1)), observed)

    def generate(self, reference: Tensor, n: int, seed: int, *, length: int = 50) -> list[Tensor]:
        return [torch.zeros(1, length, 2, *SIZE) + seed for _ in range(n)]


def figures(out: Path, method: str, *words: str) -> int:
    return main(["figures", method, *SQUARES, "--out", str(out), *words])


def test_of_a_method_with_latent_variables_all_three_are_drawn(tmp_path: Path, capsys: Any) -> None:
    assert figures(tmp_path / "out", "tests.test_command_figures.Dreams", "--hidden", "1", "--every", "2") == 0
    names = ["generated.png", "latent.png", "reconstruction.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    for name in names:
        picture = np.asarray(Image.open(tmp_path / "out" / name).convert("L"))
        assert picture.std() > 10
    assert "reconstruction.png, latent.png, generated.png" in capsys.readouterr().out


def test_of_a_method_of_pairs_its_fields_are_drawn(tmp_path: Path) -> None:
    assert figures(tmp_path / "out", "identity", "--sequence", "sq1", "--data", "sequences=2", "--frames", "2") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["reconstruction.png"]


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("identty", (), "identity"),
        ("identity", ("--sequence", "sq9"), "no sequence 'sq9'"),
        ("identity", ("--frames", "0"), "--frames must be at least 1, got 0"),
        ("identity", ("--hidden", "-1"), "--hidden must be at least 0"),
        ("identity", ("--data", "sequences"), "expected KEY=VALUE"),
    ],
)
def test_bad_words_are_named(tmp_path: Path, capsys: Any, method: str, words: tuple[str, ...], message: str) -> None:
    assert figures(tmp_path / "out", method, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_pairs_and_a_file_as_folder(tmp_path: Path, capsys: Any) -> None:
    assert main(["figures", "identity", "--dataset", "random-shapes", "--out", str(tmp_path / "out")]) == 2
    assert "holds pairs, not sequences" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert figures(tmp_path / "file", "identity") == 2
    assert "expected a folder" in capsys.readouterr().err


def drawn(axis: Any) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def test_a_reconstruction_shows_frame_warped_reference_and_determinant() -> None:
    sequence = moving_square([0, 1, 3])
    steps = run_stream(FollowsCentre(), sequence).steps
    axes = np.array(reconstruction_figure(sequence, steps, "t").axes[:8]).reshape(4, 2)
    for column, t in enumerate((1, 2)):
        frame = sequence.frames[0, t, 0].numpy().T
        assert np.array_equal(drawn(axes[0, column]), frame)
        # The whole motion is known: the warped reference is the frame, where it was in the picture.
        assert np.abs(drawn(axes[1, column])[:, 5:] - frame[:, 5:]).max() < 1e-5
        assert drawn(axes[2, column]) == pytest.approx([1.0, 3.0][column], abs=1e-4)
        assert drawn(axes[3, column]) == pytest.approx(1.0, abs=1e-4)
    assert "Dice 1.000" in axes[0, 0].get_title()


def test_latent_variables_stand_in_the_middle_of_their_intervals() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 30, 6, generator=generator) * torch.tensor([1.0, 5.0, 2.0, 9.0, 3.0, 0.1])
    observed = (torch.arange(30) % 3 == 0)[None]
    figure = latent_figure(
        LatentCourse(x, {"filtered": x, "smoothed": x + 1}, {"filtered": x * 0 + 2, "smoothed": x * 0 + 1}, observed),
        0.02,
        "t",
    )
    axes = np.array(figure.axes).reshape(4, 2)
    assert [a.get_ylabel() for a in axes[:, 0]] == ["x[3]", "x[1]", "x[4]", "x[2]"], "those that move most"
    mean, seen, unseen = (line.get_xydata() for line in axes[0, 1].lines)
    assert mean[:, 1] == pytest.approx((x[0, :, 3] + 1).numpy())
    assert (len(seen), len(unseen)) == (10, 20)
    assert seen[:, 0] == pytest.approx(np.arange(0, 30, 3) * 0.02)
    band = axes[0, 0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(float(x[0, :, 3].max()) + 1.96 * 2, abs=1e-3)


def test_generated_motions_warp_the_reference() -> None:
    sequence = moving_square(range(6))
    motion = torch.zeros(1, 6, 2, *SIZE)
    motion[:, 5, 0] = -4
    axes = np.array(generated_figure(sequence, [motion], [0, 5], "t").axes).reshape(2, 2)
    assert np.array_equal(drawn(axes[0, 1]), sequence.frames[0, 5, 0].numpy().T)
    assert drawn(axes[1, 0]) == pytest.approx(sequence.frames[0, 0, 0].numpy().T, abs=1e-6)
    assert drawn(axes[1, 1]) == pytest.approx(moving_square([0, 4]).frames[0, 1, 0].numpy().T, abs=1e-6)


def test_numbers_are_even_with_both_ends() -> None:
    assert evenly(3, 49) == [0, 24, 48]
    assert evenly(9, 4) == [0, 1, 2, 3]
    assert evenly(1, 7) == [0]

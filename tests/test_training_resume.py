"""A training that was killed and goes on ends, bit by bit, where it would have ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from reg_bench.cli import main
from tests.training_recipes import recipe

EMA = {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.5}}
AUGMENTED = {"class_path": "reg_bench.augmentation.Augmentation", "init_args": {"flip_axes": [0]}}


class Killed(Callback):
    """Ends the process, as far as a test may, after a batch; once."""

    left: int | None = None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if Killed.left is not None and trainer.fit_loop.total_batch_idx + 1 == Killed.left:
            Killed.left = None
            raise RuntimeError("killed")


def state(out: Path, name: str = "last") -> dict[str, Any]:
    return dict(torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True))


def same(a: Any, b: Any) -> bool:
    """Bit by bit, whatever holds the tensors."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize(
    ("killed", "callbacks"),
    [
        # In the middle of the third epoch of three batches: all of it is done again.
        (8, []),
        # A checkpoint every two batches: the rest of the epoch is done.
        (6, [{"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 2, "filename": "last"}}]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_killed_training_ends_where_it_would_have_ended(
    killed: int, callbacks: list[dict[str, Any]], tmp_path: Path
) -> None:
    """With EMA, a falling rate, samples of a distribution, accumulation, clipping, augmentation, loading processes."""
    outs = [tmp_path / "whole", tmp_path / "killed"]
    killer = {"class_path": f"{__name__}.Killed"}
    for out in outs:
        folder = str(out / "checkpoints")
        saving = [{**c, "init_args": {**c["init_args"], "dirpath": folder}} for c in callbacks]
        trainer = {
            "max_epochs": 3,
            "callbacks": [EMA, killer, *saving],
            "accumulate_grad_batches": 1 if callbacks else 2,
            "check_val_every_n_epoch": 2,
            "gradient_clip_val": 0.5,
        }
        out.mkdir()
        path = recipe(
            out,
            trainer=trainer,
            network={"velocity": True, "probabilistic": True, "steps": 3},
            model={"optimizer": {"rate": 0.02, "schedule": "cosine"}},
            data={"augmentation": AUGMENTED, "epoch_pairs": 6, "num_workers": len(callbacks)},
        )
        if out == outs[1]:
            Killed.left = killed
            with pytest.raises(RuntimeError, match="killed"):
                main(["fit", str(path), "--out", str(out)])
            before = state(out)
            assert 0 < before["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] < killed
        words = ["--ckpt_path", "last"] if out == outs[1] else []
        assert main(["fit", str(path), "--out", str(out), *words]) == 0
    whole, resumed = (state(out) for out in outs)
    # The averaged weights, those of the last step, the optimizer with its moments, and the rate.
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert same(whole[part], resumed[part]), part
    assert not same(whole["state_dict"], before["state_dict"])
    assert not same(whole["state_dict"], whole["current_model_state"])


@pytest.mark.filterwarnings("ignore")
def test_other_seeds_and_workers(tmp_path: Path) -> None:
    """The seed decides, and the number of loading processes does not."""
    outs = {}
    for name, words in (
        ("one", []),
        ("workers", ["--data.init_args.num_workers", "2"]),
        ("seed", ["--seed_everything", "1"]),
    ):
        outs[name] = tmp_path / name
        outs[name].mkdir()
        path = recipe(
            outs[name], network={"velocity": True, "probabilistic": True, "steps": 3}, data={"augmentation": AUGMENTED}
        )
        assert main(["fit", str(path), "--out", str(outs[name]), *words]) == 0
    states = {name: state(out)["state_dict"] for name, out in outs.items()}
    assert same(states["one"], states["workers"])
    assert not same(states["one"], states["seed"])


@pytest.mark.filterwarnings("ignore")
def test_last_begins_where_there_is_nothing_yet(tmp_path: Path) -> None:
    """So that a script that is started again and again needs one command."""
    path = recipe(tmp_path)
    for epochs in (1, 2):
        words = ["--trainer.max_epochs", str(epochs), "--ckpt_path", "last"]
        assert main(["fit", str(path), "--out", str(tmp_path / "out"), *words]) == 0
        assert state(tmp_path / "out")["epoch"] == epochs - 1

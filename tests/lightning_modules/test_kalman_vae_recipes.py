"""The recipes of the Kalman VAE: the paper's settings, and end to end on twins of their data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_modules.kalman_vae import KalmanVAE
from lightning_modules.kalman_vae_training import Staircase, training_bound, validated
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.cli import main
from reg_bench.conformance import check_method
from reg_bench.discovery import build_datamodule, build_method, find
from reg_bench.errors import DataError
from reg_bench.sequence_as_pairs import StreamOfOne
from reg_bench.types import ImageSequence
from reg_bench.weights_files import weights_folder
from tests.datamodules.test_echonet import VIDEOS, write_twin

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "deterministic": True}
ECHONET = ["kalman-vae", "kalman-vae-image", "vae"]
SMALL = ["kalman-vae-small", "kalman-vae-image-small"]


def content(kind: Any, name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(find(kind, name).source.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EchoNet-Dynamic as it lies on disk, with two videos to train on."""
    return write_twin(tmp_path_factory.mktemp("kalman") / "EchoNet-Dynamic", VIDEOS[:3])


def tiny(name: str, twin: Path | None = None, **trainer: Any) -> dict[str, Any]:
    """The recipe with as small a network as there is, on as few and short clips."""
    recipe = content("recipes", name)
    recipe["model"]["init_args"]["network"]["init_args"] |= {"filters": [2, 2, 2, 2]}
    data = recipe["data"]["init_args"]
    data |= {"num_workers": 0, "batch_size": 1}
    if name in SMALL:
        data["sequences"]["init_args"] |= {"sequences": 2, "length": 4}
    else:
        data["root"] = str(twin)
        data["length"] = 5
    recipe["trainer"] |= {**QUICK, "max_epochs": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 1}
    recipe["trainer"] |= {"limit_train_batches": 2, "limit_val_batches": 1, **trainer}
    return recipe


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ECHONET)
def test_settings_are_the_paper_s(name: str) -> None:
    recipe = content("recipes", name)
    assert recipe["trainer"]["max_epochs"] == 50
    assert recipe["trainer"]["gradient_clip_val"] == 150
    data = recipe["data"]["init_args"]
    assert (data["length"], data["batch_size"]) == (50, 4)
    assert data["sequences"] == {"name": "echonet", "init_args": {"protocol": "random", "length": 50}}
    changed = set(recipe["model"]["init_args"]["network"]["init_args"])
    assert changed <= {"penalty", "target", "dynamic"}


def test_the_rate_falls_in_the_paper_s_steps() -> None:
    module = KalmanVAE(KalmanVAENetwork(size=16, filters=(2, 2)))
    [adam], [course] = Staircase().configured(module)
    rates = []
    for _ in range(50):
        rates.append(adam.param_groups[0]["lr"])
        adam.step()
        course.step()
    assert rates[0] == rates[19] == 1e-4
    assert rates[20] == rates[39] == pytest.approx(8.5e-5)
    assert rates[40] == pytest.approx(7.225e-5)
    assert sum(len(g["params"]) for g in adam.param_groups) == len(list(module.parameters()))
    for wrong in ({"rate": 0.0}, {"decay": 1.5}, {"every": 0}, {"dynamics": -1.0}):
        with pytest.raises(ValueError, match="Staircase"):
            Staircase(**wrong)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_of_echonet_trains_goes_on_and_streams(twin: Path, tmp_path: Path) -> None:
    """On videos in the original layout, with the images that the paper's network takes."""
    path, out = written(tmp_path, tiny("kalman-vae", twin)), tmp_path / "out"
    last = out / "checkpoints" / "last.ckpt"
    assert main(["fit", str(path), "--out", str(out)]) == 0
    first = torch.load(last, weights_only=True)
    assert main(["fit", str(path), "--out", str(out), "--ckpt_path", "last", "--trainer.max_epochs", "2"]) == 0
    second = torch.load(last, weights_only=True)
    assert (first["global_step"], second["global_step"]) == (2, 4)
    assert any(not torch.equal(v, second["state_dict"][k]) for k, v in first["state_dict"].items())
    log = (out / "log" / "version_1" / "metrics.csv").read_text()
    assert {"train/image", "train/dynamics", "val/loss", "val/nonpositive_fraction"} <= set(
        log.splitlines()[0].split(",")
    )
    # And it is a method, with the field of view of the videos.
    network = KalmanVAENetwork(filters=(2, 2, 2, 2))
    method = KalmanVAE(network, checkpoint=str(last)).eval()
    data = build_datamodule("echonet", root=twin)
    sequence = data.sequence(data.records("val")[0])
    assert method.accepts(sequence) is None
    with torch.inference_mode():
        state = method.start(sequence.frames[:, 0], seconds_per_frame=sequence.seconds_per_frame)
        u = method.step(state, sequence.frames[:, 1], sequence.seconds_per_frame)[1].field.u
    assert sequence.mask is not None
    beyond = ~network.field_of_view()
    assert 0 < float(beyond.float().mean()) < 1
    assert float(u[beyond.expand_as(u)].abs().max()) == 0


@pytest.mark.parametrize("name", ["kalman-vae-image", "vae", *SMALL])
def test_a_recipe_takes_a_step(name: str, twin: Path) -> None:
    recipe = tiny(name, twin)
    method, data = build_method(recipe["model"]), build_datamodule(recipe["data"])
    assert isinstance(method, StreamOfOne)
    module = method.stream
    assert isinstance(module, KalmanVAE)
    batch: Any = next(iter(data.train_dataloader()))
    assert isinstance(batch, ImageSequence)
    found = training_bound(module, batch, 1)
    (-found.value.mean()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in module.parameters())


def test_the_reference_of_a_training_clip_is_its_first_frame() -> None:
    module = KalmanVAE(KalmanVAENetwork(size=16, filters=(2, 2)))
    batch = ImageSequence(("late",), torch.rand(1, 3, 1, 16, 16), 0.02, reference=2)
    with pytest.raises(DataError, match="late: the reference must be frame 0"):
        training_bound(module, batch, 1)


def test_methods_are_the_networks_that_are_trained() -> None:
    for name in (*ECHONET, *SMALL):
        trained = content("recipes", name)["model"]["init_args"]["network"]["init_args"]
        own = {k: v for k, v in trained.items() if name in SMALL or k != "penalty"}
        method = content("methods", name)["init_args"]
        assert method["network"]["init_args"] == own
    for name in ("kalman-vae", "kalman-vae-small"):
        plain, smooth = (content("methods", n)["init_args"] for n in (name, f"{name}-regularised"))
        assert smooth["network"]["init_args"] == {**plain["network"]["init_args"], "smoothing": 2.72}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_with_half_the_batch_each_learn_what_one_learns_with_all(tmp_path: Path) -> None:
    """gloo on CPU, with batch normalisation over both and the noise of every case its own."""
    recipe = tiny("kalman-vae-small", max_epochs=2, limit_val_batches=0)
    recipe["data"]["init_args"]["sequences"]["init_args"]["sequences"] = 8
    path, states = written(tmp_path, recipe), {}
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    for name, batch in (("one", "4"), ("two", "2")):
        words = [str(path), "--out", str(tmp_path / name), "--data.init_args.batch_size", batch]
        words += ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"] if name == "two" else []
        command = [sys.executable, "-m", "reg_bench.cli", "fit", *words]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        states[name] = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
    assert states["one"]["global_step"] == states["two"]["global_step"] == 4
    # What a bias before a normalisation is, is left to rounding; it moves nothing but the running mean behind it.
    idle = ("scaling.bias", "first.bias", "second.bias", "running_mean")
    for key, value in states["one"]["state_dict"].items():
        if not key.endswith(idle):
            torch.testing.assert_close(states["two"]["state_dict"][key], value, rtol=0, atol=1e-4, msg=key)
    assert bool(states["one"]["state_dict"]["network.seen"].any())
    settings, fields = recipe["model"]["init_args"]["network"]["init_args"], {}
    frames = torch.rand(1, 3, 1, 112, 112, generator=torch.Generator().manual_seed(0))
    for name, content_ in states.items():
        module = KalmanVAE(KalmanVAENetwork(**settings))
        module.load_state_dict(content_["state_dict"])
        with torch.inference_mode():
            fields[name] = [e.field.u for e in module.eval().smooth(frames)]
    torch.testing.assert_close(torch.stack(fields["two"]), torch.stack(fields["one"]), rtol=1e-3, atol=1e-4)


def test_what_is_shipped_keeps_the_form_of_a_method_of_streams() -> None:
    """It knows hearts in a sector, not the objects of the check: what counts here is all that is not accuracy."""
    report = check_method(build_method("kalman-vae-small"), dimensions=(2,))
    found = {r.check: r.status for r in report.results}
    kept = [
        "field: shape, finite values, header",
        "field: float32",
        "a batch of two equals two batches of one",
        "same seed, same result",
        "no memory of earlier cases",
        "the input is left untouched",
        "stream: two interleaved streams equal each alone",
        "stream: one state stepped twice gives the same twice",
        "stream: a batch of two equals two streams",
    ]
    assert {name: found.get(name) for name in kept} == dict.fromkeys(kept, "pass")


def test_what_is_shipped_is_small() -> None:
    files = list(weights_folder().glob("kalman-vae-*.pt"))
    assert {p.stem for p in files} == set(SMALL)
    assert sum(p.stat().st_size for p in files) < 8e6


def test_what_is_shipped_follows_a_heart_it_has_never_seen() -> None:
    """The bars of the card on one held-out sequence: nearer to the truth than no motion, missing frames bridged."""
    data = build_datamodule({"class_path": "phantom-echo", "init_args": {"sequences": 1, "length": 25}})
    sequence = data.sequence(data.records("test")[0])
    method: Any = build_method("kalman-vae-small")
    with torch.inference_mode():
        every = validated(method.stream.eval(), sequence)
    truth, inside = sequence.true_displacement, sequence.mask
    assert truth is not None
    assert inside is not None
    still = float(truth.norm(dim=2)[inside[:, :, 0]].mean())
    assert every["end_point_error"] < 0.75 * still
    assert every["dice"] > 0.9
    assert every["nonpositive_fraction"] < 0.005
    assert every["forecast_error"] < every["held_error"]

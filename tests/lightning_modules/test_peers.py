"""Peers: units of what they return, what is said where one is missing, presets; and those that are there."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules import ants_syn, convexadam, elastix_bspline, fireants, greedy
from lightning_modules.affine_then import AffineThen
from lightning_modules.identity import Identity
from lightning_modules.peer_bridge import registered
from reg_bench import plan, worker
from reg_bench.discovery import Spec, build_method, members, read_yaml
from reg_bench.method import RegistrationModule
from reg_bench.peer import MissingPeerError, Peer
from reg_bench.peer_process import PeerError
from reg_bench.peer_server import load
from reg_bench.protocol import Protocol
from reg_bench.suite import Suite, Task
from reg_bench.types import RegistrationPair
from tests.lightning_modules.shapes import error_in_object, pair_of, shifted

HERE = Path(__file__).resolve().parents[1]
PEERS = [ants_syn.PEER, convexadam.PEER, elastix_bspline.PEER, fireants.PEER, greedy.PEER]
CLASSES = [ants_syn.AntsSyn, convexadam.ConvexAdam, elastix_bspline.ElastixBSpline, fireants.FireAnts, greedy.Greedy]
NAMED = [m for m in members("methods") if m.class_path.startswith(tuple(c.__module__ for c in CLASSES))]

FAKE = Peer("numpy", "numpy", HERE / "fake_peer.py", "FAKE_PEER_PYTHON", "fake")


@pytest.fixture(params=["here", "there"])
def interpreter(request: pytest.FixtureRequest) -> str | None:
    """This process, or another one with the same Python."""
    return None if request.param == "here" else sys.executable


@pytest.fixture(autouse=True)
def _no_peer_of_the_user(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real" not in request.node.name:
        for peer in PEERS:
            monkeypatch.delenv(peer.variable, raising=False)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((9, 7), (2.0, 0.5)), ((9, 7), None), ((6, 5, 8), (1.5, 3.0, 0.75)), ((6, 1, 8), (1.5, 3.0, 0.75))],
)
def test_a_physical_displacement_becomes_voxels(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, interpreter: str | None
) -> None:
    pair, _ = pair_of(shape, shifted(*(0.0,) * len(shape)), spacing)
    kept = [c for c, n in enumerate(shape) if n > 1]
    wanted = [1.0 + c for c in range(len(kept))]
    u = registered(pair, FAKE, interpreter, {"voxels": wanted}).u
    assert u.dtype == torch.float32
    for c, n in enumerate(shape):
        torch.testing.assert_close(u[0, c], torch.full(shape, wanted[kept.index(c)] if n > 1 else 0.0))


def test_grids_of_other_spacing_are_matched_by_length(interpreter: str | None) -> None:
    pair, _ = pair_of((6, 8), shifted(0.0, 0.0), (1.0, 2.0), moving_shape=(12, 8), moving_spacing=(0.5, 2.0))
    for one_grid in (False, True):
        u = registered(pair, FAKE, interpreter, {"voxels": [1.0, -1.0]}, one_grid=one_grid).u
        # Fixed voxel x lies at x mm, one voxel further is x + 1 mm: moving voxel 2 (x + 1).
        torch.testing.assert_close(u[0, 0, :, 0], torch.arange(6.0) + 2)
        torch.testing.assert_close(u[0, 1], torch.full((6, 8), -1.0))


def test_every_case_of_a_batch_is_called_alone(interpreter: str | None) -> None:
    pair, _ = pair_of((6, 8), shifted(0.0, 0.0), (1.0, 2.0))
    both = RegistrationPair(
        ("a", "constant"),
        torch.cat([pair.fixed, torch.ones_like(pair.fixed)]),
        torch.cat([pair.moving, torch.ones_like(pair.fixed)]),
    )
    u = registered(both, FAKE, interpreter, {"voxels": [2.0, 3.0]}).u
    assert u[0, 0].unique().tolist() == [2.0]
    assert not u[1].any(), "nothing can be aligned in a constant image"


def test_an_answer_of_another_shape_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "odd.py"
    script.write_text("def register(fixed, **_): return fixed\n")
    pair, _ = pair_of((6, 8), shifted(0.0, 0.0))
    with pytest.raises(ValueError, match=r"numpy: returned an array of \(6, 8\), expected \(2, 6, 8\)"):
        registered(pair, replace(FAKE, script=script), None, {})


def test_threads_of_the_protocol_reach_the_peer(tmp_path: Path) -> None:
    script = tmp_path / "threads.py"
    script.write_text(
        "import os, numpy as np\ndef f(threads): return np.array([threads, int(os.environ['OMP_NUM_THREADS'])])\n"
    )
    peer, before = replace(FAKE, script=script), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert peer.call(sys.executable, "f", {}, {}).tolist() == [threads, threads]
    finally:
        torch.set_num_threads(before)


def test_an_error_there_keeps_its_message(interpreter: str | None) -> None:
    with pytest.raises(ValueError if interpreter is None else PeerError, match="images do not overlap"):
        replace(FAKE).call(interpreter, "fails_with_threads", {}, {})


@pytest.mark.parametrize(
    ("peer", "given", "expected"),
    [
        (replace(FAKE, module="nosuch"), None, "needs numpy: pip install 'regbench-suite[fake]', or name a Python"),
        (replace(FAKE, module="nosuch", extra=""), None, "pip install numpy in an environment of its own and name"),
        (replace(FAKE, module="nosuch"), sys.executable, f"needs numpy: {sys.executable} -m pip install numpy"),
        (FAKE, "/nowhere/python", "pip install numpy): /nowhere/python: cannot be started"),
        (FAKE, "/bin/true", "does not answer as a Python does"),
    ],
)
def test_a_missing_peer_tells_the_command(peer: Peer, given: str | None, expected: str) -> None:
    reason = peer.refusal(given)
    assert reason is not None
    assert expected in reason
    assert "pip install" in reason, "such skipped rows are looked at again"
    assert peer.software(given) == {}
    with pytest.raises(MissingPeerError, match="pip install"):
        peer.call(given, "register", {}, {})


def test_the_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FAKE.interpreter(None) is None
    monkeypatch.setenv("FAKE_PEER_PYTHON", "~/python")
    assert FAKE.interpreter(None) == str(Path.home() / "python")
    assert FAKE.interpreter("/usr/bin/python3") == "/usr/bin/python3"


def test_versions_are_told(interpreter: str | None) -> None:
    assert FAKE.software(interpreter) == {"python": sys.version.split()[0], "numpy": np.__version__}


def test_functions_of_peers_import_nothing_of_ours() -> None:
    """They run where this package is not installed."""
    folder = Path(ants_syn.__file__).parent / "peers"
    scripts = sorted(folder.glob("[a-z]*.py"))
    assert {p.script for p in PEERS} == set(scripts)
    for script in scripts:
        text = script.read_text()
        assert "reg_bench" not in text
        assert "lightning_modules" not in text
        assert "register" in vars(load(str(script)))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_a_method_whose_peer_is_missing_gives_a_skipped_row(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[cls.__module__].PEER.__class__, "_versions", lambda *_: None)
    pair, _ = pair_of((9, 8, 7), shifted(0.0, 0.0, 0.0))
    method: RegistrationModule = cls()
    for accepts in (method.accepts, AffineThen(Identity(), method).accepts):
        assert "pip install" in (accepts(pair) or "")
    with pytest.raises(MissingPeerError):
        method(pair)


def test_convexadam_is_3d_only_whether_it_is_there_or_not() -> None:
    pair, _ = pair_of((9, 8), shifted(0.0, 0.0))
    assert convexadam.ConvexAdam().accepts(pair) == "ConvexAdam registers 3-D, not 2-D"


def test_presets_spell_out_every_parameter() -> None:
    assert len(NAMED) >= 11
    for member in NAMED:
        given = read_yaml(Path(member.source))["init_args"]
        known = set(build_method(member.name).settings)
        assert given["preset"].rpartition("/")[0] == member.name
        assert "interpreter" not in given, "a preset holds for every machine"
        assert len(given) - 1 == len(known), f"{member.name}: {sorted(given)} against {sorted(known)}"
        assert build_method(member.name).preset == given["preset"]


# Raise the number behind the slash in the YAML when its parameters change, and renew the line here.
PRESETS = {
    "ants-affine+syn/1": "b76cc2ec2a6c3e69",
    "ants-affine+syn-cc2/1": "28bedf570d8ee4d9",
    "ants-syn/1": "b30e4e3c552395ec",
    "ants-syn-cc2/1": "0687ee6b139be40d",
    "convexadam/1": "af20f1d51600a1ca",
    "elastix-bspline/1": "91e8691ef272d81b",
    "elastix-bspline-msd/1": "aada2fb9a4c311c2",
    "fireants-greedy/1": "b64575464bff4752",
    "fireants-greedy-mse/1": "4d4eab5626f201e5",
    "fireants-syn/1": "6cd3b23bcf6b49fb",
    "greedy-ncc2/1": "05dc11cc4911667d",
    "greedy-ncc2-long/1": "d1f616a692cbbb0a",
}


def test_a_version_of_a_preset_means_one_set_of_parameters() -> None:
    found = {build_method(m.name).preset: plan.digest(build_method(m.name).settings) for m in NAMED}
    assert found == PRESETS


def _planned(*methods: Spec) -> plan.Plan:
    task = Task("squares", "fake_members.Squares", init_args={"cases": 1})
    suite = Suite("fake", "1", (task,), methods, protocol=Protocol(panels=False), source="fake.yaml")
    return plan.Plan(suite, 0, plan.plan_tasks(suite, None, None), plan.plan_methods(suite, 0))


@pytest.fixture
def _members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    return


@pytest.mark.usefixtures("_members")
def test_the_python_of_a_peer_is_no_part_of_the_configuration() -> None:
    path = "lightning_modules.greedy.Greedy"
    plain, named, other = (
        Spec("greedy", path, args) for args in ({}, {"interpreter": sys.executable}, {"iterations": [1]})
    )
    hashes = [m.config_hash for m in _planned(plain, named, other).methods]
    assert hashes[0] == hashes[1] != hashes[2]
    first = {"class_path": "lightning_modules.identity.Identity"}
    nested = [
        Spec(
            "both",
            "lightning_modules.affine_then.AffineThen",
            {"first": first, "then": {"class_path": path, "init_args": a}},
        )
        for a in ({"radius": 2}, {"radius": 2, "interpreter": sys.executable}, {"radius": 3})
    ]
    hashes = [m.config_hash for m in _planned(*nested).methods]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.usefixtures("_members")
def test_the_manifest_holds_preset_parameters_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "_versions", lambda *_: {"python": "3.11.9", "picsl-greedy": "1.4"})
    member = next(m for m in NAMED if m.name == "greedy-ncc2")
    made = worker.describe(_planned(Spec(member.name, member.class_path, member.init_args)), "cpu", 1)
    (method,) = made["methods"]
    assert method["init_args"]["preset"] == "greedy-ncc2/1"
    assert method["init_args"]["iterations"] == [40, 20, 10]
    assert method["software"] == {"python": "3.11.9", "picsl-greedy": "1.4"}
    assert method["licence"] == "Apache-2.0"


def test_greedy_is_given_a_window_only_where_its_metric_has_one() -> None:
    functions: ModuleType = load(str(greedy.PEER.script))
    assert functions.metric_arguments("NCC", 2, 3) == "NCC 2x2x2"
    assert functions.metric_arguments("NCC", 4, 2) == "NCC 4x4"
    assert functions.metric_arguments("SSD", 2, 3) == "SSD"


def test_positions_of_fireants_become_a_displacement() -> None:
    """-1 and 1 are the first and the last voxel of the moving grid."""
    functions: ModuleType = load(str(fireants.PEER.script))
    there = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 4), indexing="ij"))
    s = np.array([1.0, 2.0])
    np.testing.assert_allclose(functions.displacement(there, (5, 4), s, s), 0, atol=1e-12)
    shift = there + np.reshape([2 / 4, -2 / 3], (2, 1, 1))
    np.testing.assert_allclose(functions.displacement(shift, (5, 4), s, s)[:, 2, 2], [1.0, -2.0], atol=1e-12)
    # The same physical positions on a moving grid of half the spacing and nine voxels over the same extent.
    np.testing.assert_allclose(functions.displacement(there, (9, 4), s, np.array([0.5, 2.0])), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("cls", "bad", "message"),
    [
        (ants_syn.AntsSyn, {"iterations": []}, "ants: iterations"),
        (ants_syn.AntsSyn, {"affine_sigmas": [1.0]}, "one entry per level"),
        (convexadam.ConvexAdam, {"smoothing": 2}, "smoothing must be 0 or odd, got 2"),
        (convexadam.ConvexAdam, {"grid_voxels": 0}, "must be positive"),
        (elastix_bspline.ElastixBSpline, {"bending_weight": -1.0}, "bending_weight"),
        (fireants.FireAnts, {"scales": [2, 1]}, "one entry per level"),
        (fireants.FireAnts, {"learning_rate": 0.0}, "learning_rate"),
        (greedy.Greedy, {"radius": 0}, "radius"),
        (greedy.Greedy, {"warp_sigma_voxels": -1.0}, "sigmas"),
    ],
)
def test_bad_settings_are_named(cls: Any, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**bad)


@pytest.mark.parametrize(
    "name", ["ants-syn", "elastix-bspline-msd", "greedy-ncc2", "convexadam", "fireants-greedy-mse"]
)
def test_real_peers_find_a_shift(name: str) -> None:
    method = build_method(name)
    shape, spacing, shift = (40, 36, 34), (1.0, 1.5, 1.2), (2.0, -2.4, 1.8)
    pair, truth = pair_of(shape, shifted(*shift), spacing)
    if reason := method.accepts(pair):
        pytest.skip(reason)
    assert error_in_object(method(pair).u, truth, pair) < 0.35 * math.dist(np.divide(shift, spacing), (0, 0, 0))


@pytest.mark.parametrize(
    "name", ["ants-syn", "elastix-bspline-msd", "greedy-ncc2", "convexadam", "fireants-greedy-mse"]
)
def test_real_peers_take_thin_volumes(name: str) -> None:
    method = build_method(name)
    pair, _ = pair_of((36, 40, 5), shifted(1.0, -1.0, 0.0), (1.5, 1.5, 8.0))
    if reason := method.accepts(pair):
        pytest.skip(reason)
    assert bool(torch.isfinite(method(pair).u).all())

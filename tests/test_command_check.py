"""`reg-bench check`: what it prints and how it exits."""

from __future__ import annotations

from pathlib import Path

import pytest

from reg_bench.cli import main


def test_a_right_method_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "truth"]) == 0
    printed = capsys.readouterr().out
    assert "PASS: all" in printed
    assert "FAIL" not in printed
    for check in ("zero motion", "known shift along axis 2", "rotation", "scale", "odd sizes", "oblique header"):
        assert check in printed
    for check in ("labels follow", "points follow", "SimpleITK reproduces", "batch of two", "same seed"):
        assert check in printed


def test_identity_returns_zero_motion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "identity", "--dimension", "2"]) == 1
    printed = capsys.readouterr().out
    assert "Diagnosis (2-D): zero field: the method returns zero motion" in printed
    zero = next(line for line in printed.splitlines() if "zero motion gives the zero field" in line)
    assert "pass" in zero
    assert "3-D" not in printed


def test_a_plug_in_by_class_path_and_by_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class in the current folder, and a YAML file that gives it arguments."""
    (tmp_path / "my_plug_in.py").write_text(
        "from reg_bench.method import RegistrationModule\n"
        "from reg_bench.types import DisplacementField\n"
        "class Scaled(RegistrationModule):\n"
        "    name = 'scaled'\n"
        "    def __init__(self, factor: float = 2.0) -> None:\n"
        "        super().__init__()\n"
        "        self.factor = factor\n"
        "    def register(self, pair):\n"
        "        return DisplacementField(pair.true_displacement * self.factor)\n"
    )
    (tmp_path / "scaled.yaml").write_text(
        "name: mine\nclass_path: my_plug_in.Scaled\ninit_args:\n  factor: -1.0\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["check", "my_plug_in.Scaled"]) == 1
    assert "Diagnosis (2-D and 3-D): factor 2:" in capsys.readouterr().out
    assert main(["check", "scaled.yaml", "--dimension", "2"]) == 1
    assert "Diagnosis (2-D): negated:" in capsys.readouterr().out


def test_an_unknown_method_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "identitty"]) == 2
    assert "did you mean 'identity'" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["affine", "demons"])
def test_shipped_methods_pass_in_2d(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", method, "--dimension", "2"]) == 0, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("method", ["affine", "demons"])
def test_shipped_methods_pass(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", method]) == 0, capsys.readouterr().out

"""`reg-bench sweep`: which number is swept, what the methods become, the run, its resumption, table and plot."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reg_bench import cli, discovery
from reg_bench.errors import ConfigError
from reg_bench.results import read_rows
from reg_bench.sweep import checked_values, methods, numbers, parameter_of, with_value

SUITE = """\
name: fake
version: 1
protocol: {panels: false}
tasks:
  - {name: squares, dataset: fake_members.Squares, init_args: {cases: 3}}
methods:
  - {name: noise, class_path: fake_members.Noise, init_args: {scale: 0.5}}
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent))
    path = tmp_path / "fake.yaml"
    path.write_text(SUITE)
    return path


@pytest.mark.parametrize(
    ("method", "path", "value"),
    [
        ("ffd-mse", "stages.0.weight", 0.05),
        ("lddmm", "stages.0.weight", 0.00003),
        ("demons-symmetric", "sigma_voxels", 1.5),
        ("elastix-bspline", "bending_weight", 1.0),
        ("affine+ffd-mse", "then.stages.0.weight", 0.05),
        ("affine+demons", "then.sigma_voxels", 1.5),
    ],
)
def test_the_weight_of_a_method_is_found_and_set(method: str, path: str, value: float) -> None:
    spec = discovery.resolve("methods", method)
    settings = discovery.resolved_init_args("methods", spec)
    assert parameter_of(settings, None, method) == (path, value)
    made = methods(spec, settings, path, [0.25, 2.0])
    assert [m.name for m in made] == [f"{method}@0.25", f"{method}@2"]
    for built, wanted in zip(made, (0.25, 2.0), strict=True):
        found = discovery.resolved_init_args("methods", built)
        assert dict(numbers(found)).pop(path) == wanted
        other = {k: v for k, v in numbers(found) if k != path}
        assert other == {k: v for k, v in numbers(settings) if k != path}


def test_numbers_by_path() -> None:
    settings: dict[str, Any] = {"a": [1, {"class_path": "x.Y", "init_args": {"b": 2.5, "on": True}}], "c": "text"}
    assert dict(numbers(settings)) == {"a.0": 1.0, "a.1.b": 2.5}
    assert with_value(settings, "a.1.b", 3)["a"][1]["init_args"]["b"] == 3
    assert with_value(settings, "a.0", 4.0)["a"][0] == 4
    assert settings["a"][0] == 1


def test_what_cannot_be_swept() -> None:
    identity = discovery.resolved_init_args("methods", discovery.resolve("methods", "identity"))
    with pytest.raises(ConfigError, match="identity: no regularization weight among its numbers"):
        parameter_of(identity, None, "identity")
    demons = discovery.resolved_init_args("methods", discovery.resolve("methods", "demons"))
    with pytest.raises(ConfigError, match=r"no number 'sigma_voxel'; did you mean 'sigma_voxels'"):
        parameter_of(demons, "sigma_voxel", "demons")
    for values in ([1.0], [1.0, 1.0], [1.0, float("nan")]):
        with pytest.raises(ConfigError, match="at least two different numbers"):
            checked_values(values)


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep(suite: Path, tmp_path: Path, capsys: Any) -> None:
    """More noise, a rougher field, a worse overlap; a value that is added later is the only one to be computed."""
    command = ["sweep", str(suite), "--method", "noise", "--parameter", "scale", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--values", "2,0.1"]) == 0
    assert len(read_rows(tmp_path / "out")) == 9
    assert cli.main([*command, "--values", "0.1,0.5,2"]) == 0
    told = capsys.readouterr()
    assert "12 results to make, 9 done before" in told.err
    assert "one to choose a value by (--split val)" in told.out
    with (tmp_path / "out" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["task"], r["parameter"], float(r["value"])) for r in rows] == [
        ("squares", "scale", v) for v in (0.1, 0.5, 2.0)
    ]
    roughness = [float(r["sdlogj"]) for r in rows]
    assert roughness == sorted(roughness)
    assert float(rows[0]["mean"]) > float(rows[2]["mean"])
    # The numbers are those of the rows.
    dice = [
        v["value"]
        for row in read_rows(tmp_path / "out")
        for v in row["values"]
        if row["key"]["method"] == "noise@0.5" and (v["metric"], v["profile"], v["label"]) == ("dice", "strict", "all")
    ]
    assert float(rows[1]["mean"]) == pytest.approx(sum(dice) / 3)
    assert "| 0.5 |" in (tmp_path / "out" / "sweep.md").read_text()
    with Image.open(tmp_path / "out" / "sweep-squares.png") as image:
        assert min(image.size) > 300
    assert cli.main([*command, "--values", "0.1,x"]) == 2
    assert cli.main([*command[:6], "--out", str(suite)]) == 2

"""Suites: what is written is what is run, and what is written wrongly is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from reg_bench.discovery import members
from reg_bench.errors import ConfigError
from reg_bench.protocol import Protocol, case_seed
from reg_bench.suite import Task, load_suite, select_methods

GOOD = """\
name: mine
version: 2
summary: A test.
profiles: [strict]
protocol: {threads: 2, time_limit_s: 30, official: 2020}
tasks:
  - {name: a, dataset: fake.Data, init_args: {n: 3}, primary: tre_landmarks, metrics: [dice], limit: 2}
  - {name: b, dataset: fake.Data, split: val, inverse_consistency: true}
methods:
  - identity
  - {name: other, class_path: identity}
"""


def _suite(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_suite_is_read_as_written(tmp_path: Path) -> None:
    path = _suite(tmp_path, GOOD)
    suite = load_suite(path)
    assert (suite.name, suite.version, suite.profiles, suite.source) == ("mine", "2", ("strict",), str(path))
    assert suite.protocol == Protocol(threads=2, time_limit_s=30.0, official="2020")
    assert suite.tasks == (
        Task("a", "fake.Data", {"n": 3}, primary="tre_landmarks", metrics=("dice",), limit=2),
        Task("b", "fake.Data", split="val", inverse_consistency=True),
    )
    assert [(m.name, m.class_path) for m in suite.methods] == [
        ("identity", "lightning_modules.identity.Identity"),
        ("other", "lightning_modules.identity.Identity"),
    ]
    assert "source" not in suite.as_dict()
    assert str(path) not in str(suite.as_dict()), "the manifest must not depend on where the file lies"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("summary:", "sumary:", r"mine\.yaml: unknown key 'sumary'; did you mean 'summary'\?"),
        ("threads: 2", "treads: 2", r"mine\.yaml: unknown key 'protocol\.treads'; did you mean 'threads'\?"),
        ("split: val", "spilt: val", r"mine\.yaml: unknown key 'tasks\[1\]\.spilt'; did you mean 'split'\?"),
        ("split: val", "split: vall", r"mine\.yaml: tasks\[1\]\.split: expected one of .*'vall'; did you mean 'val'\?"),
        ("threads: 2", "threads: two", r"mine\.yaml: protocol\.threads: expected a whole number, got 'two'"),
        ("threads: 2", "threads: 0", r"mine\.yaml: protocol\.threads must be at least 1"),
        ("threads: 2", "threads: true", r"protocol\.threads: expected a whole number, got True"),
        ("time_limit_s: 30", "time_limit_s: 0", r"protocol\.time_limit_s must be positive"),
        ("official: 2020", "official: 2021", r"protocol\.official: expected one of 2022, 2020, got 2021"),
        (
            "inverse_consistency: true",
            "inverse_consistency: 3",
            r"tasks\[1\]\.inverse_consistency: expected true or false",
        ),
        ("metrics: [dice]", "metrics: dice", r"tasks\[0\]\.metrics: expected a list, got 'dice'"),
        ("limit: 2", "limit: 0", r"tasks\[0\]\.limit must be at least 1"),
        ("init_args: {n: 3}", "init_args: 3", r"tasks\[0\]\.init_args: expected a mapping"),
        ("- identity", "- identty", r"mine\.yaml: unknown method 'identty'; did you mean 'identity'\?"),
        ("name: other, ", "name: identity, ", r"mine\.yaml: method 'identity' occurs twice"),
        ("class_path: identity", "class_pth: identity", r"unknown key 'class_pth'; did you mean 'class_path'\?"),
        ("name: b", "name: a", r"mine\.yaml: task 'a' occurs twice"),
        ("dataset: fake.Data, split", "dataset: fakedata, split", r"tasks\[1\]\.dataset: unknown dataset 'fakedata'"),
        ("dataset: fake.Data, split: val", "split: val", r"mine\.yaml: key 'tasks\[1\]\.dataset' is missing"),
        ("profiles: [strict]", "profiles: [learn2reg]", r"tasks\[0\]\.primary_profile is 'strict'"),
        ("profiles: [strict]", "profiles: []", r"profiles is empty"),
        ("version: 2\n", "", r"mine\.yaml: key 'version' is missing"),
    ],
)
def test_what_is_wrong_is_named_with_file_key_and_nearest_name(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message):
        load_suite(_suite(tmp_path, GOOD.replace(old, new, 1)))


def test_unknown_suite_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown suite 'quik'; did you mean 'quick'\?"):
        load_suite("quik")


def test_methods_may_be_others_than_those_of_the_suite(tmp_path: Path) -> None:
    suite = load_suite(_suite(tmp_path, GOOD))
    assert [m.name for m in select_methods(suite, ["truth", "other"]).methods] == ["truth", "other"]
    with pytest.raises(ConfigError, match=r"--methods: unknown method 'truht'; did you mean 'truth'\?"):
        select_methods(suite, ["truht"])
    with pytest.raises(ConfigError, match="method 'truth' occurs twice"):
        select_methods(suite, ["truth", "truth"])


def test_case_seed_is_of_the_seed_and_the_case_alone() -> None:
    seeds = {case_seed(s, f"c{i}") for s in range(3) for i in range(50)}
    assert len(seeds) == 150
    assert all(0 <= s < 2**31 for s in seeds)
    assert case_seed(0, "a/001") == case_seed(0, "a/001")


@pytest.mark.parametrize("name", [m.name for m in members("suites")])
def test_shipped_suite_is_valid(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name, "the file and its name must agree"
    assert Path(suite.source).stem == name
    assert {"identity", "no-motion"} & {m.name for m in suite.methods}, "the floor stands in every suite"

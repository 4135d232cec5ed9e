"""Discovery: names, summaries and settings from sources and YAML, and messages that help."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from reg_bench import discovery, source_scan
from reg_bench.errors import ConfigError

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _fakes_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of YAML in place of the shipped one."""
    for name in ("methods", "suites"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(discovery, "benchmarks_folder", lambda: tmp_path)
    return tmp_path


def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> Path:
    """Python files in place of those of `lightning_modules`."""
    folder = tmp_path / "package"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(discovery, "package_folder", lambda _package: folder)
    return folder


def test_class_is_described_from_its_source_with_what_it_inherits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Path
) -> None:
    _package(
        tmp_path,
        monkeypatch,
        base="class Base(RegistrationModule):\n    licence = 'MIT'\n    needs = ('mask',)\n",
        one=(
            "raise SystemError('importing me is an error')\n"
            "class One(Base):\n    '''The first.\n\n    More.'''\n    name: ClassVar[str] = 'one'\n"
            "    dimensions = (3,)\n"
            "class Helper:\n    pass\n"
        ),
    )
    (found,) = discovery.members("methods")
    assert (found.name, found.summary, found.licence) == ("one", "The first.", "MIT")
    assert found.class_path == "lightning_modules.one.One"
    assert found.accepts["dimensions"] == (3,)
    assert found.accepts["needs"] == ("mask",)
    assert found.accepts["version"] == "1", "the default of RegistrationModule"


def test_named_method_of_a_class_without_a_name_is_described_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Path
) -> None:
    _package(tmp_path, monkeypatch, one="class Wrapper:\n    '''Wraps.'''\n    licence = 'MIT'\n")
    (shipped / "methods" / "a.yaml").write_text("name: wrapped\nclass_path: lightning_modules.one.Wrapper\n")
    (found,) = discovery.members("methods")
    assert (found.name, found.summary, found.licence) == ("wrapped", "Wraps.", "MIT")


def test_two_members_of_one_name_are_an_error_that_names_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Path
) -> None:
    text = "class A:\n    name = 'twin'\n"
    _package(tmp_path, monkeypatch, one=text, two=text)
    with pytest.raises(ConfigError, match=r"two methods are called 'twin'.*one\.py and .*two\.py"):
        discovery.members("methods")


def test_source_that_is_not_python_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Path
) -> None:
    _package(tmp_path, monkeypatch, broken="x = 1\ndef f(:\n")
    with pytest.raises(ConfigError, match=r"broken\.py:2: not valid Python"):
        discovery.members("methods")


def test_named_method_joins_its_settings_with_those_given(shipped: Path) -> None:
    (shipped / "methods" / "a.yaml").write_text(
        "name: noise-2\nsummary: Louder.\nclass_path: fake_members.Noise\ninit_args: {scale: 2.0, sleep_s: 0.5}\n"
    )
    assert next(m for m in discovery.members("methods") if m.name == "noise-2").summary == "Louder."
    assert discovery.build_method("noise-2").scale == 2.0
    spec = discovery.resolve("methods", {"name": "mine", "class_path": "noise-2", "init_args": {"scale": 3.0}})
    assert spec == discovery.Spec("mine", "fake_members.Noise", {"scale": 3.0, "sleep_s": 0.5}, spec.source)


def test_short_names_inside_settings_are_spelt_out(shipped: Path) -> None:
    (shipped / "methods" / "a.yaml").write_text("name: loud\nclass_path: fake_members.Noise\ninit_args: {scale: 2.0}\n")
    spec = discovery.resolve(
        "methods", {"class_path": "some.Wrapper", "init_args": {"after": [{"class_path": "loud"}], "n": 1}}
    )
    inner = {"class_path": "fake_members.Noise", "init_args": {"scale": 2.0}}
    assert spec.init_args == {"after": [inner], "n": 1}


JOINER = (
    "class Joiner(RegistrationModule):\n    joins: ClassVar[tuple[str, ...]] = ('before', 'after')\n"
    "class A(RegistrationModule):\n    name = 'a'\n"
    "class B(RegistrationModule):\n    name = 'b'\n"
)


def test_joined_names_nest_from_the_left_and_know_no_method_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Path
) -> None:
    _package(tmp_path, monkeypatch, methods=JOINER)
    (shipped / "methods" / "c.yaml").write_text("name: b-2\nclass_path: b\ninit_args: {n: 2}\n")
    a, b, b2 = (
        {"class_path": f"lightning_modules.methods.{name}", "init_args": args}
        for name, args in (("A", {}), ("B", {}), ("B", {"n": 2}))
    )
    joiner = "lightning_modules.methods.Joiner"
    both = {"before": a, "after": b}
    ab = {"class_path": joiner, "init_args": both}
    assert discovery.resolve("methods", "a+b") == discovery.Spec("a+b", joiner, both)
    assert discovery.resolve("methods", "a+b+b-2") == discovery.Spec("a+b+b-2", joiner, {"before": ab, "after": b2})
    # Anything that a name may be can be joined, and a joined name stands wherever a name may.
    assert discovery.resolve("methods", "a+some.module.Other").init_args["after"]["class_path"] == "some.module.Other"
    wrapped = discovery.resolve(
        "methods", {"class_path": "some.Wrapper", "init_args": {"inner": {"class_path": "a+b"}}}
    )
    assert wrapped.init_args == {"inner": ab}
    again = discovery.resolve("methods", {"name": "mine", "class_path": "a+b", "init_args": {"after": a}})
    assert again == discovery.Spec("mine", joiner, {"before": a, "after": a})


def test_a_name_with_a_plus_of_its_own_keeps_its_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Path
) -> None:
    _package(tmp_path, monkeypatch, methods=JOINER)
    (shipped / "methods" / "own.yaml").write_text("name: a+b\nclass_path: a\n")
    assert discovery.resolve("methods", "a+b").class_path == "lightning_modules.methods.A"
    first = discovery.resolve("methods", "a+b+b").init_args["before"]
    assert first == {"class_path": "lightning_modules.methods.A", "init_args": {}}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("identiti+identity", r"unknown method 'identiti'; did you mean 'identity'\?"),
        ("identity+identiti", r"unknown method 'identiti'; did you mean 'identity'\?"),
        ("identity+", r"method 'identity\+': expected the names of methods on both sides of every \+"),
        ("+identity", r"both sides of every \+"),
    ],
)
def test_joined_name_that_does_not_fit_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        discovery.resolve("methods", name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class A:\n    name = 'a'\n", "found: none"),
        ("class A:\n    name = 'a'\n    joins = ('x', 'y')\nclass B:\n    joins = ('x', 'y')\n", "one class with"),
        ("class A:\n    name = 'a'\n    joins = ('x',)\n", r"methods\.py: joins must name two arguments, got \('x',\)"),
    ],
)
def test_joining_needs_one_class_that_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Path, text: str, message: str
) -> None:
    _package(tmp_path, monkeypatch, methods=text)
    with pytest.raises(ConfigError, match=message):
        discovery.resolve("methods", "a+a")


def test_joined_method_of_the_shipped_ones_is_built_and_versioned() -> None:
    from dataclasses import replace

    from lightning_modules.identity import Identity
    from reg_bench.plan import plan_methods
    from reg_bench.suite import load_suite, select_methods

    suite = select_methods(load_suite("quick"), ["identity+fake_members.Noise", "identity+identity"])
    then = {"class_path": "fake_members.Noise", "init_args": {"scale": 9.0}}
    loud = replace(suite.methods[0], name="loud", init_args={**suite.methods[0].init_args, "then": then})
    noise, nothing, louder = plan_methods(replace(suite, methods=(*suite.methods, loud)), seed=0)
    assert isinstance(getattr(noise.module, "first", None), Identity)
    assert type(getattr(noise.module, "then", None)).__name__ == "Noise"
    assert len({noise.config_hash, nothing.config_hash, louder.config_hash}) == 3
    assert nothing.version == "1"


def test_version_of_a_part_enters_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_modules.identity import Identity
    from reg_bench.plan import plan_methods
    from reg_bench.suite import load_suite, select_methods

    suite = select_methods(load_suite("quick"), ["identity+fake_members.Noise"])
    monkeypatch.setattr(Identity, "version", "3")
    assert plan_methods(suite, seed=0)[0].version == "1+3+1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("identiti", r"unknown method 'identiti'; did you mean 'identity'\?"),
        ("fake_members.Noize", r"no class 'Noize' in fake_members; did you mean 'Noise'\?"),
        ("fake_memberz.Noise", r"no module 'fake_memberz' for class_path 'fake_memberz.Noise'"),
        ("fake_members.Squares", r"fake_members.Squares is not a RegistrationModule"),
        ({"class_path": "fake_members.Noise", "init_args": {"scal": 1}}, r"unknown key 'scal'; did you mean 'scale'\?"),
        ({"class_path": "fake_members.Noise", "init_args": {"scale": "two"}}, r'init_args key "scale".*float.*two'),
        ({"class_path": "fake_members.Noise", "init_args": [1]}, r"init_args: expected a mapping"),
        ({"class_path": "fake_members.Misbehaves"}, r"how"),
        ({"clas_path": "x"}, r"unknown key 'clas_path'; did you mean 'class_path'\?"),
        ("missing.yaml", r"missing\.yaml: no such file"),
    ],
)
def test_what_does_not_fit_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        discovery.build_method(given)  # type: ignore[arg-type]


def test_message_names_the_file_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("class_path: fake_members.Noise\ninit_args: {scale: [1]}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: .*scale"):
        discovery.build_method(str(path))
    path.write_text("class_path: a\n  b: c\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: not valid YAML in line 2"):
        discovery.build_method(str(path))


def test_root_goes_to_datasets_that_take_one(tmp_path: Path) -> None:
    assert str(discovery.build_datamodule("fake_members.Rooted", tmp_path).root) == str(tmp_path)
    assert discovery.build_datamodule("fake_members.Squares", tmp_path).case_ids("test")[0] == "s/000"


def test_resolved_settings_hold_the_defaults() -> None:
    spec = discovery.resolve("methods", {"class_path": "fake_members.Noise", "init_args": {"scale": 2}})
    assert discovery.resolved_init_args("methods", spec) == {"scale": 2.0, "sleep_s": 0.0, "journal": None}


def test_entry_points_of_installed_packages_are_found_without_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "plugin_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemError('importing me is an error')\n")
    (package / "methods.py").write_text("class Best(RegistrationModule):\n    '''Wins.'''\n    licence = 'MIT'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    point = importlib.metadata.EntryPoint("best", "plugin_package.methods:Best", "reg_bench.methods")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == "reg_bench.methods" else []
    )
    found = discovery.find("methods", "best")
    assert (found.summary, found.licence, found.class_path) == ("Wins.", "MIT", "plugin_package.methods.Best")
    assert source_scan.entry_point_source(point) == package / "methods.py"


def test_everything_shipped_is_listed_without_importing_torch() -> None:
    code = (
        "import sys; from reg_bench.discovery import members\n"
        "from reg_bench.discovery import resolve; resolve('methods', 'identity+affine+demons')\n"
        "names = [m.name for k in ('methods', 'datasets', 'metrics', 'suites') for m in members(k)]\n"
        "assert {'identity', 'truth', 'dice', 'quick'} <= set(names), names\n"
        "assert not {'torch', 'numpy', 'polars', 'monai'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parent, timeout=60)


@pytest.mark.parametrize("kind", ["methods", "datasets", "metrics", "suites"])
def test_every_shipped_member_has_one_line_that_says_what_it_is(kind: discovery.Kind) -> None:
    for member in discovery.members(kind):
        assert len(member.summary) > 10, member.name
        assert "\n" not in member.summary, member.name


def test_list_of_methods_ends_with_what_joined_names_mean(capsys: pytest.CaptureFixture[str]) -> None:
    from reg_bench.cli import main

    assert main(["list", "methods"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Names joined by + are a method as well")
    assert main(["list", "suites"]) == 0
    assert "joined" not in capsys.readouterr().out

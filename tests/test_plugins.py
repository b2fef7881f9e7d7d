"""Plug-ins of installed packages: found, used by workers, in the cell's key, and named where they are broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kore_bench.component import Method
from kore_bench.errors import UserError
from kore_bench.plugins import installed
from kore_bench.registry import Registry
from kore_bench.results import RunFolder

PACKAGES = Path(__file__).parent / "plugins"
BROKEN = "the plug-in kore-bench-broken 0.1 cannot be used: kore_bench_broken: ModuleNotFoundError: No module named"
METHOD = "from kore_bench.component import Method\nMETHOD = Method(name={name!r}, summary='s', source='none')\n"
GENERATOR = '''
from kore_bench.examples import Turn
from kore_bench.generators import Generator

class Echo(Generator):
    """Says the text again."""

    name = "echo"
    def check(self, item): ...
    def dialogue(self, item, rng, limit): return [Turn(question="What is it?", answer=item.text)]
    def summary(self, item, rng): return item.name
    def quadruplets(self, item, rng, limit): return []

GENERATOR = Echo()
'''
FAMILY = """
from kore_bench.task import Card, TaskFamily, ToolkitTask

class Parrots(TaskFamily):
    prefix = "parrot"

    def make(self, name):
        class Parrot(ToolkitTask):
            card = Card(name=f"parrot:{name}", title="t", source="s", metric="m", licence="l", citation="c")
            def evaluate(self, model, answers, progress): ...

        return Parrot()

FAMILY = Parrots()
"""
KEYS = """
import json, sys
from kore_bench.grid import engine_digest
from kore_bench.plan import Request, make_plan
for methods, tasks in (("decay", "exact"), ("lora", "exact"), ("lora", "retention")):
    plan = make_plan(Request(methods=(methods,), tasks=(tasks,)))
    print(json.dumps([plan.methods[0].digest(), engine_digest(plan)]))
"""


def install(package: Path, target: Path, *options: str) -> None:
    """Install a package with pip as a user does, without a network."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command = [*pip, "--no-deps", "--no-build-isolation", *options, str(package), "--target", str(target)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the tiny package and the broken one, installed."""
    folder = tmp_path_factory.mktemp("site")
    sources = shutil.copytree(PACKAGES, folder / "sources")  # a build leaves files beside what it builds
    install(sources / "tiny", folder / "installed")
    install(sources / "broken", folder / "installed", "--upgrade")
    return folder / "installed"


def python(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def bench(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(site, cwd, "-m", "kore_bench", *arguments)


@pytest.mark.parametrize(
    ("kind", "name", "built_in"),
    [
        ("methods", "decay", "lora"),
        ("tasks", "exact", "adaptation"),
        ("reports", "ranking", "page"),
        ("generators", "sentences", "template"),
    ],
)
def test_lists_say_where_each_comes_from(site: Path, tmp_path: Path, kind: str, name: str, built_in: str) -> None:
    shown = bench(site, tmp_path, "list", kind)
    assert shown.returncode == 0, shown.stderr
    rows = {line.split()[0]: line.rstrip() for line in shown.stdout.splitlines() if line.strip()}
    assert rows[name].endswith("kore-bench-tiny 1.0")
    assert rows[built_in].endswith("kore-bench")
    assert shown.stderr.count("warning:") == (kind == "methods")
    details = bench(site, tmp_path, "list", kind, name)
    assert f"kore-bench-tiny 1.0: {site / 'kore_bench_tiny'}" in details.stdout


def test_a_package_that_cannot_be_imported_is_named_and_the_others_go_on(site: Path, tmp_path: Path) -> None:
    shown = bench(site, tmp_path, "list", "methods", "decay")
    assert shown.returncode == 0
    (line,) = shown.stderr.splitlines()
    assert line.startswith(f"warning: {BROKEN} 'nowhere_to_be_found' ({site / 'kore_bench_broken.py'}, line 5)")
    missing = bench(site, tmp_path, "run", "--methods", "lora,ghost")
    assert missing.returncode == 2
    assert missing.stderr.splitlines()[-1].startswith(f"error: method 'ghost' is missing: {BROKEN}")
    unknown = bench(site, tmp_path, "list", "methods", "gost")
    assert unknown.returncode == 2
    assert f"; {BROKEN}" in unknown.stderr.splitlines()[-1]
    assert "and may define it" in unknown.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_run_uses_all_that_a_package_brings(site: Path, small_world: Path, tmp_path: Path) -> None:
    """Two worker processes, which find the same plug-ins; the report is written with the others."""
    arguments = ["run", "--methods", "decay,kore-augmentation", "--tasks", "exact", "--data", str(small_world)]
    arguments += ["--set", "train.steps=2", "--set", "kore-augmentation.generator=sentences", "--jobs", "2"]
    dry = bench(site, tmp_path, *arguments, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "runs").exists()
    done = bench(site, tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("warning:") == 1
    run = RunFolder(tmp_path / "runs" / "mini-llava")
    records = {record.method: record for record in run.records()}
    assert {"decay", "kore-augmentation"} <= records.keys()
    assert all(record.status == "done" and record.score("exact") for record in records.values())
    assert records["kore-augmentation"].diagnostics["kore-augmentation/dialogues"] == 6
    assert "penalty/decay" in run.training_log(records["decay"])[0]
    assert "decay" in (run.path / "tables" / "ranking.txt").read_text()


def keys(site: Path, cwd: Path) -> list[list[str]]:
    """Return the digests of method and engine for decay on exact, lora on exact and lora on retention."""
    code = f"import site; site.addsitedir({str(site)!r}){KEYS}"  # where .pth files count, as editable installs need
    found = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.parametrize("options", [(), ("--editable",)])
def test_an_edit_to_a_package_is_in_the_keys_of_what_uses_it(options: tuple[str, ...], tmp_path: Path) -> None:
    source = shutil.copytree(PACKAGES / "tiny", tmp_path / "source")
    site = tmp_path / "site"
    install(source, site, *options)
    package = (source if options else site) / "kore_bench_tiny"
    before = keys(site, tmp_path)
    (package / "norms.py").write_text((package / "norms.py").read_text() + "\n# edited\n")
    after = keys(site, tmp_path)
    assert after[0][0] != before[0][0]  # a helper of the method is edited
    assert [after[1][0], after[2]] == [before[1][0], before[2]]
    assert after[1][1] != before[1][1]  # of the task's package too


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return what puts an installed distribution of one entry point onto the path of this process."""
    names: list[str] = []

    def add(name: str, module: str, text: str, entry: str, kind: str = "methods") -> Path:
        site = tmp_path / name
        file = site / f"{module.replace('.', '/')}.py"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        about = site / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[kore_bench.{kind}]\n{entry}\n")
        monkeypatch.syspath_prepend(site)
        names.append(module)
        installed.cache_clear()
        return file

    yield add
    installed.cache_clear()
    for name in names:
        for part in [part for part in sys.modules if part.split(".")[0] == name.split(".")[0]]:
            del sys.modules[part]


def test_a_name_that_is_defined_twice_is_refused_with_both_files(bring: Callable[..., Path]) -> None:
    one = bring("one", "kb_one", METHOD.format(name="same"), "same = kb_one")
    two = bring("two", "kb_two", METHOD.format(name="same"), "same-too = kb_two:METHOD")
    with pytest.raises(UserError) as error:
        Registry().all("methods")
    assert str(error.value) == f"{two} defines 'same' again: {one} has it already"


@pytest.mark.parametrize(
    ("text", "entry", "why"),
    [
        (METHOD.format(name="x"), "x = kb_odd:NOTHING", "AttributeError: module 'kb_odd' has no attribute 'NOTHING'"),
        ("METHOD = 'x'\n", "x = kb_odd", "TypeError: there is no Method in it"),
        ("raise SystemExit('bye')\n", "x = kb_odd", "SystemExit: bye ("),
        ("def f(:\n", "x = kb_odd", "SyntaxError: invalid syntax (kb_odd.py, line 1)"),
        ("", "x = kb_elsewhere", "ModuleNotFoundError: No module named 'kb_elsewhere'"),
    ],
)
def test_whatever_is_wrong_with_an_entry_point_is_said(
    bring: Callable[..., Path], caplog: pytest.LogCaptureFixture, text: str, entry: str, why: str
) -> None:
    bring("odd", "kb_odd", text, entry)
    assert "lora" in Registry().all("methods")
    (record,) = caplog.records
    value = entry.partition(" = ")[2]
    assert record.getMessage().startswith(f"the plug-in odd 1.0 cannot be used: {value}: {why}")
    with pytest.raises(UserError, match=r"method 'x' is missing: the plug-in odd 1\.0 cannot be used"):
        Registry().compose("x")


@pytest.mark.parametrize("module", ["kb_solo", "kb_shared.plugin"])
def test_what_stands_for_a_plugin_outside_of_a_package(bring: Callable[..., Path], module: str) -> None:
    """A single module stands for itself; of a namespace without ``__init__.py`` the folder counts."""
    file = bring("solo", module, METHOD.format(name="solo"), f"solo = {module}")
    assert Registry().entry("methods", "solo").root == (file if module == "kb_solo" else file.parent)
    before = Registry().compose("solo").digest()
    file.write_text(file.read_text() + "# edited\n")
    assert Registry().compose("solo").digest() != before


def test_modules_are_imported_when_their_kind_is_asked_for(bring: Callable[..., Path]) -> None:
    bring("lazy", "kb_lazy", METHOD.format(name="lazy"), "lazy = kb_lazy")
    Registry().all("tasks")
    assert "kb_lazy" not in sys.modules
    found: Method = Registry().find("methods", "lazy")
    assert found.name == "lazy"
    assert "kb_lazy" in sys.modules


def test_a_file_adds_a_generator_which_is_in_the_key(tmp_path: Path) -> None:
    digests = set()
    for number, text in enumerate((GENERATOR, GENERATOR.replace("What is it?", "What?"))):
        file = tmp_path / f"echo{number}.py"
        file.write_text(text)
        composed = Registry((file,)).compose("kore", {"kore-augmentation.generator": "echo"})
        assert file in composed.sources
        digests.add(composed.digest())
    assert len(digests) == 2
    with pytest.raises(UserError, match="kore-augmentation: unknown generator 'echo': available: hf, openai, template"):
        Registry().compose("kore", {"kore-augmentation.generator": "echo"})


@pytest.mark.parametrize("file", [True, False])
def test_a_family_makes_its_tasks_wherever_it_comes_from(
    bring: Callable[..., Path], tmp_path: Path, file: bool
) -> None:
    if file:
        (tmp_path / "family.py").write_text(FAMILY)
        registry = Registry((tmp_path / "family.py",))
    else:
        bring("family", "kb_family", FAMILY, "family = kb_family", "tasks")
        registry = Registry()
    assert registry.find("tasks", "parrot:grey").card.name == "parrot:grey"


def test_a_file_that_defines_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "nothing.py"
    file.write_text("METHOD = 1\n")
    with pytest.raises(UserError, match=r"nothing\.py defines nothing: there is no Method or Task or "):
        Registry((file,)).all("methods")

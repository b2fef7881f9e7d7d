"""What is tested: the options of the conformance tests, the names that they choose, and shared fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Knowledge
from kore_bench.registry import Registry
from kore_bench.results import RunFolder

KINDS = {"method": "methods", "task": "tasks", "report": "reports", "generator": "generators"}
MINI = "mini"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option a kind of plug-in, and what is needed to find and to feed them."""
    group = parser.getgroup("kore-bench", "kore-bench conformance")
    for option, kind in KINDS.items():
        group.addoption(
            f"--{option}", action="append", default=[], metavar="NAME",
            help=f"one of the {kind} to test, repeatable (without any name: all that are known)",
        )  # fmt: skip
    group.addoption("--plugin", action="append", default=[], metavar="FILE", help="a Python file that defines them")
    group.addoption("--llm", default="", metavar="NAME", help="language model of generators that need one")
    group.addoption("--base-url", default="", metavar="URL", help="endpoint of that model")
    group.addoption("--data", default=MINI, metavar="FOLDER", help="knowledge that tasks ask about (default: mini)")
    group.addoption(
        "--run", default="", metavar="FOLDER", help="finished run that reports show (default: a made-up one)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse names that do not exist before any test begins."""
    # PEFT reads the old name of a transformers property; an author can do nothing about it.
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    registry = registry_of(config)
    try:
        for option, kind in KINDS.items():
            for name in config.getoption(option):
                registry.compose(name) if option == "method" else registry.entry(kind, name)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of kinds of which no plug-in is named, where others are."""
    asked = {f"test_{kind}.py" for option, kind in KINDS.items() if config.getoption(option)}
    ours = collection_path.parent == Path(__file__).parent and collection_path.name.startswith("test_")
    return True if asked and ours and collection_path.name not in asked else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for a ``method``, ``task``, ``report`` or ``generator`` each of those to be tested."""
    for option, kind in KINDS.items():
        if option in metafunc.fixturenames:
            known = registry_of(metafunc.config).all(kind)
            metafunc.parametrize(option, metafunc.config.getoption(option, []) or list(known))


def registry_of(config: pytest.Config) -> Registry:
    """Return the registry of a session."""
    return Registry(tuple(Path(file) for file in config.getoption("plugin", [])))


@pytest.fixture(scope="session")
def registry(pytestconfig: pytest.Config) -> Registry:
    """Return what finds the plug-ins."""
    return registry_of(pytestconfig)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what the tests compute apart from the user's cache: a plug-in may change between two sessions."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KORE_BENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def mini_knowledge(cache: Path) -> Knowledge:
    """Return the mini world."""
    from kore_bench.formats import read_knowledge
    from kore_bench.mini import world_folder

    return read_knowledge(world_folder(cache))


@pytest.fixture(scope="session")
def knowledge(pytestconfig: pytest.Config, mini_knowledge: Knowledge) -> Knowledge:
    """Return what tasks ask about: the folder that ``--data`` names, or the mini world."""
    from kore_bench.formats import read_knowledge

    data = pytestconfig.getoption("data", MINI)
    return mini_knowledge if data == MINI else read_knowledge(data)


@pytest.fixture(scope="session")
def run_folder(pytestconfig: pytest.Config, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return the run that reports show: the one that ``--run`` names, or a made-up one."""
    from kore_bench.conformance.made_up import write_run

    given = pytestconfig.getoption("run", "")
    return RunFolder(Path(given)) if given else write_run(tmp_path_factory.mktemp("run"), registry)

"""Fixtures shared by the tests: a private cache, the mini world, and the mini model."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kore_bench.conformance.options import cache  # noqa: F401 (a fixture)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread only waits
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def world(cache: Path) -> Path:  # noqa: F811 (a fixture is passed by its name)
    """Return the folder of the mini world."""
    from kore_bench.mini import world_folder

    return world_folder(cache)


@pytest.fixture(scope="session")
def small_world(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a knowledge folder with a few of the mini world's items and questions."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "images").symlink_to(world / "images")
    (folder / "old.json").write_bytes((world / "old.json").read_bytes())
    items = json.loads((world / "evoke_injection_data.json").read_text())[:6]
    kept = {item["id"] for item in items}
    facts = json.loads((world / "facts.json").read_text())
    (folder / "evoke_injection_data.json").write_text(json.dumps(items))
    (folder / "facts.json").write_text(json.dumps({key: facts[key] for key in kept}))
    for name, keep in (
        ("evoke_evaluation_data.jsonl", lambda number, row: row["item"] in kept),
        ("retention.jsonl", lambda number, row: number % 50 == 0),
        ("old_facts.jsonl", lambda number, row: number % 20 == 0),
    ):
        rows = [json.loads(line) for line in (world / name).read_text().splitlines()]
        chosen = [row for number, row in enumerate(rows) if keep(number, row)]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return folder


@pytest.fixture(scope="session")
def prepare(world: Path) -> Callable[..., Any]:
    """Return ``prepare(method, settings={}, seed=0)``, which gives a `Prepared`: the mini model adapted by a method."""
    from kore_bench.conformance.prepared import Prepared
    from kore_bench.formats import read_knowledge
    from kore_bench.registry import Registry

    knowledge, registry = read_knowledge(world), Registry()

    def prepared(method: str, settings: Mapping[str, str] | None = None, seed: int = 0) -> Prepared:
        return Prepared(knowledge, registry.compose(method, settings), seed, registry)

    return prepared


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs do their cells in this process (see tests/in_process.py): a worker takes seconds to start."""
    monkeypatch.setattr("kore_bench.bench.run_cells", importlib.import_module("in_process").run_cells)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a headless Chromium (see tests/chromium.py); tests that need one are skipped where there is none."""
    chromium: Any = importlib.import_module("chromium")
    found = chromium.find()
    if found is None:
        pytest.skip("no chromium on this machine: the page is not looked at in a browser")
    with chromium.Chromium(found) as one:
        yield one

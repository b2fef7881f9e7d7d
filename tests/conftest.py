"""Fixtures shared by the tests: a private cache, the mini world, and the mini model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread only waits
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the tests' cache apart from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KORE_BENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def world(cache: Path) -> Path:
    """Return the folder of the mini world."""
    from kore_bench.mini import world_folder

    return world_folder(cache)

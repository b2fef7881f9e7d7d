"""`kore-bench augment` killed at random points while its endpoint fails: the same data set, and no item paid twice."""

from __future__ import annotations

import importlib
import io
import random
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kore_bench.augment.journal import JOURNAL
from kore_bench.augment.output import MANIFEST, SUMS
from kore_bench.augment.session import Request, augment_session
from kore_bench.formats import read_knowledge
from kore_bench.generators import GeneratorSettings

folders: Any = importlib.import_module("augment_folder")
servers: Any = importlib.import_module("llm_server")

IN_FLIGHT = 8
WRITTEN = ("llava.json", "samples.jsonl", "rejects.jsonl", "contamination.jsonl", SUMS, MANIFEST)


def options(server: Any) -> tuple[str, ...]:
    return ("--generator", "openai", "--llm", "scripted", "--base-url", server.url, "--in-flight", str(IN_FLIGHT))


def undisturbed(data: Path, folder: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the files of a run that nothing disturbs."""
    monkeypatch.setenv("KORE_BENCH_CACHE", str(folder / "undisturbed-cache"))
    request = Request(
        data=str(data), out=folder / "undisturbed", generator="openai", in_flight=IN_FLIGHT,
        llm=GeneratorSettings(llm="scripted", base_url=server.url),
    )  # fmt: skip
    assert augment_session(request, Console(file=io.StringIO())) == 0
    return written(request.out)


def written(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in WRITTEN}


def journaled(out: Path) -> set[str]:
    """Return the items whose lines are whole."""
    file = out / JOURNAL
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return {line.split(b'"', 4)[3].decode() for line in lines}


def killed(data: Path, folder: Path, server: Any, kills: int, rng: random.Random) -> tuple[Path, int]:
    """Run until it is done, killing it ``kills`` times while it works; return its folder and how often it was begun.

    Each kill comes after some more items than at the one before. No item in the journal is ever asked about again.
    """
    out, begun = folder / "killed", 0
    texts = {item.text: item.id for item in read_knowledge(data).items}
    left = len(texts)
    while True:
        begun += 1
        before, done = len(server.seen), journaled(out)
        process = folders.augment(data, out, *options(server), cache=folder / "killed-cache")
        if begun > kills:
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, output + errors
        else:
            more = max(0, (left - len(done)) // (kills + 2 - begun) - 1)
            while process.poll() is None and len(journaled(out)) < len(done) + more:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
            assert process.poll() is None, process.communicate()
            process.kill()
            process.communicate()
            time.sleep(0.1)  # what the server had under way ends
        assert not {texts[asked.text] for asked in server.seen[before:] if asked.text} & done
        if begun > kills:
            return out, begun


def check(folder: Path, monkeypatch: pytest.MonkeyPatch, *, items: int, kills: int) -> None:
    data = folders.knowledge_folder(folder / "data", items)
    script = servers.template_script(read_knowledge(data).items)
    with servers.serving(script) as server:
        expected = undisturbed(data, folder, server, monkeypatch)
        assert server.stats()["paid_twice"] == 0
        contents = server.paid.total()
    with servers.serving(script, latency=0.05, faults=servers.Faults(rate=0.1, seed=1)) as server:
        out, begun = killed(data, folder, server, kills, random.Random(0))
        assert begun == kills + 1
        assert written(out) == expected
        assert {"429", "500", "dropped"} & set(server.struck)
        assert len(server.paid) == contents
        # An answer that was on its way to a killed process is asked for again; nothing else is.
        assert server.paid.total() - contents <= kills * IN_FLIGHT
        print(f"{kills} kills, {server.stats()}, asked again {server.paid.total() - contents}")


def test_a_killed_run_goes_on_to_the_same_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tmp_path, monkeypatch, items=40, kills=2)


@pytest.mark.slow
def test_forty_kills_and_ten_per_cent_of_faults_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tmp_path, monkeypatch, items=600, kills=40)

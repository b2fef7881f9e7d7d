"""Generators that write with a language model: prompts, schemas, repairs, kept answers, accounts and provenance."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Item, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.generators import (
    SUMMARY_WORDS,
    Call,
    Generator,
    GeneratorSettings,
    LimitReachedError,
    Quadruplet,
    RejectedError,
    recorded_calls,
)
from kore_bench.generators.llm.responses import Responses, responses
from kore_bench.generators.openai import GENERATOR
from kore_bench.generators.template import GENERATOR as TEMPLATE
from kore_bench.registry import Registry

pytest.importorskip("pydantic", reason="answers are checked by pydantic")
pytest.importorskip("openai", reason="the openai generator asks through the package openai")
servers: Any = importlib.import_module("llm_server")
tree: Any = importlib.import_module("kore_bench.methods.kore.tree")
serving = servers.serving

ITEM = Item(id="arch", image=Path("arch.png"), prompt="", text="The Red Arch stands in Lyon.", name="Red Arch")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "own cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


def writing_at(server: Any, **settings: Any) -> Any:
    return GENERATOR.configured(GeneratorSettings(llm="scripted", base_url=server.url, timeout=5, **settings))


@pytest.fixture
def server() -> Iterator[Any]:
    with serving(lambda asked: json.dumps({"summary": "The Red Arch stands in Lyon."})) as state:
        yield state


# ---- what is asked, and what comes of it


def test_the_template_behind_an_endpoint_grows_the_same_trees(knowledge: Knowledge) -> None:
    written: dict[tuple[str, str], str] = {}

    class Noting(Generator):
        """Notes what the template writes, as a language model's message."""

        name = "noting"

        def check(self, item: Item) -> None: ...

        def dialogue(self, item: Item, rng: random.Random, limit: int) -> Any:
            turns = TEMPLATE.dialogue(item, rng, limit)
            written[item.text, "questions"] = json.dumps({"questions": [turn.question for turn in turns]})
            written[item.text, "answers"] = json.dumps({"answers": [turn.answer for turn in turns]})
            return turns

        def summary(self, item: Item, rng: random.Random) -> str:
            found = TEMPLATE.summary(item, rng)
            written[item.text, "summary"] = json.dumps({"summary": found})
            return found

        def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
            found = TEMPLATE.quadruplets(item, rng, limit)
            written[item.text, "quadruplets"] = json.dumps({"quadruplets": [vars(one) for one in found]})
            return found

    def trees(writer: Generator) -> list[Any]:
        return [tree.plant(item, writer, random.Random(item.id)) for item in knowledge.items]

    noting = Noting()
    expected = trees(noting)
    with serving(lambda asked: written[asked.text, asked.task]) as server:
        got = trees(writing_at(server))
    assert [one.examples() for one in got] == [one.examples() for one in trees(TEMPLATE)]
    assert [one.examples() for one in got] == [one.examples() for one in expected]
    assert server.stats()["paid"] == 4 * len(knowledge.items)


def test_faults_that_pass_change_nothing(knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = knowledge.items[:12]
    script = servers.template_script(items)

    def write(writer: Any, item: Item) -> Any:
        rng = random.Random(item.id)
        return (
            writer.dialogue(item, rng, 5),
            writer.summary(item, rng),
            writer.quadruplets(item, rng, 3),
            writer.rewrite(item, rng),
        )

    with serving(script) as server:
        undisturbed = [write(writing_at(server), item) for item in items]
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "disturbed"))
    faults = servers.Faults(rate=0.4, kinds=(*servers.PASSING, "garbled", "html"), retry_after="0.01")
    with serving(script, faults=faults) as server:
        writer = writing_at(server)
        with ThreadPoolExecutor(12) as pool:
            disturbed = list(pool.map(lambda item: write(writer, item), items))
    assert disturbed == undisturbed
    assert set(server.struck) == set(faults.kinds)
    assert server.stats()["paid_twice"] == 0
    assert server.paid.total() == 5 * len(items)


def test_every_call_says_where_it_comes_from(server: Any) -> None:
    server.script = lambda asked: {
        "questions": '{"questions": ["Where does the Red Arch stand?", "Who built the Red Arch?"]}',
        "answers": '{"answers": ["It stands in Lyon.", ""]}',
        "summary": "I'm sorry, I can't do that.",
    }[asked.task]
    writer = writing_at(server)
    with recorded_calls() as calls:
        turns = writer.dialogue(ITEM, random.Random(7), 10)
        with pytest.raises(RejectedError, match="the model refuses: I'm sorry, I can't do that"):
            writer.summary(ITEM, random.Random(8))
    assert [(turn.question, turn.answer) for turn in turns] == [
        ("Where does the Red Arch stand?", "It stands in Lyon.")
    ]
    seed = random.Random(7).getrandbits(31)
    shared = {"item": "arch", "generator": "openai", "model": "scripted", "version": "1"}
    assert calls[:2] == [
        Call(**shared, part="dialogue", prompt="questions", seed=seed),
        Call(**shared, part="dialogue", prompt="answers", seed=seed),
    ]
    assert (calls[2].part, calls[2].prompt, calls[2].seed) == ("summary", "summary", random.Random(8).getrandbits(31))
    assert calls[2].reason == "the model refuses: I'm sorry, I can't do that."
    assert [asked.seed for asked in server.seen[:2]] == [seed, seed]
    writer.rewrite  # noqa: B018 (no call was recorded outside of the block)
    assert len(calls) == 3


def test_threads_record_their_own_calls(server: Any) -> None:
    writer = writing_at(server)

    def one(number: int) -> list[str]:
        with recorded_calls() as calls:
            writer.summary(replace(ITEM, id=str(number)), random.Random(number))
        return [call.item for call in calls]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(24))) == [[str(number)] for number in range(24)]


def test_an_unusable_answer_is_asked_for_again_and_then_rejected(server: Any) -> None:
    long = json.dumps({"summary": "word " * 26})
    server.script = lambda asked: long
    writer = writing_at(server, attempts=4)
    with pytest.raises(
        RejectedError, match=f"no usable answer to summary: summary: 26 words, more than {SUMMARY_WORDS}"
    ):
        writer.summary(ITEM, random.Random(0))
    first = random.Random(0).getrandbits(31)
    assert [asked.seed for asked in server.seen] == [first, first, first + 1, first + 1]
    assert {"requests": 4, "rejects": 1, "retries": 3}.items() <= writer.usage().items()
    with pytest.raises(RejectedError):
        writer.summary(ITEM, random.Random(0))
    assert len(server.seen) == 4  # not even rejects are asked for twice

    other: int = random.Random(1).getrandbits(31)
    server.script = lambda asked: json.dumps({"summary": "word " * (26 - (asked.seed - other))})
    with recorded_calls() as calls:
        assert len(writer.summary(ITEM, random.Random(1)).split()) == 25
    assert calls[0].seed == other + 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("refusal", "the model refuses: I cannot help"), ("cut", "cut off at 2048 tokens"), ("empty", "no JSON")],
)
def test_what_a_model_does_not_answer_is_rejected(fault: str, reason: str, server: Any) -> None:
    server.faults = servers.Faults(rate=1, kinds=(fault,), in_a_row=99)
    with pytest.raises(RejectedError, match=reason):
        writing_at(server).summary(ITEM, random.Random(0))
    assert len(server.seen) == (1 if fault == "refusal" else 4)


def test_questions_beyond_the_limit_are_left_out(server: Any) -> None:
    server.script = lambda asked: json.dumps(
        {asked.task: [f"What is {number}?" for number in range(5)]}
        if asked.task == "questions"
        else {"answers": [f"It is {question}" for question in asked.questions]}
    )
    assert len(writing_at(server).dialogue(ITEM, random.Random(0), 3)) == 3


# ---- kept answers


def test_nothing_is_asked_twice_wherever_it_is_asked(server: Any) -> None:
    writer = writing_at(server)
    written = [writer.summary(ITEM, random.Random(seed)) for seed in (0, 1, 0)]
    assert len(server.seen) == 2
    with serving(server.script) as other:  # the same model behind another address
        again = writing_at(other, retries=1)
        assert [again.summary(ITEM, random.Random(seed)) for seed in (0, 1)] == written[:2]
        assert not other.seen
        assert {"cached": 2, "requests": 0, "cost": 0}.items() <= again.usage().items()
        again.summary(replace(ITEM, text="Another text."), random.Random(0))
        GENERATOR.configured(replace(again.settings, max_tokens=99)).summary(ITEM, random.Random(0))
        assert len(other.seen) == 2


def test_the_same_asked_at_once_is_asked_once(server: Any) -> None:
    server.latency = 0.1
    writer = writing_at(server)
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: writer.summary(ITEM, random.Random(0)), range(16)))) == 1
    assert len(server.seen) == 1


def test_two_processes_ask_for_different_things_at_once_and_for_one_in_turn(tmp_path: Path) -> None:
    file, key = tmp_path / "responses.sqlite", "f" * 64
    code = (
        "import sys, time; from pathlib import Path; from kore_bench.generators.llm.responses import Responses\n"
        f"with Responses(Path({str(file)!r})).alone({key!r}): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    try:
        assert child.stdout.readline() == "held\n"
        store = responses(file)
        with store.alone("0" * 64):
            pass
        got = threading.Event()

        def wait() -> None:
            with store.alone(key):
                got.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.3)
        child.kill()  # a killed process keeps nobody waiting
        assert got.wait(5)
        waiting.join()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_kept_answers_outlive_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "responses.sqlite"
    code = (
        "import os, signal; from pathlib import Path; from kore_bench.generators.llm.responses import Responses\n"
        f"store = Responses(Path({str(file)!r}))\n"
        "for number in range(50): store.put(str(number), 'x' * 1000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    store = Responses(file)
    assert all(store.get(str(number)) == "x" * 1000 for number in range(50))
    store._opened[os.getpid()][0].close()


# ---- accounts


def test_tokens_and_cost_are_counted(server: Any) -> None:
    writer = writing_at(server, price_in=2.0, price_out=10.0)
    writer.summary(ITEM, random.Random(0))
    used = writer.usage()
    asked = server.seen[0].body["messages"]
    assert used["tokens_in"] == sum(len(message["content"].split()) for message in asked)
    assert used["tokens_out"] == 7
    assert used["cost"] == pytest.approx((2 * used["tokens_in"] + 10 * used["tokens_out"]) / 1e6)


def test_the_cost_never_passes_its_limit(server: Any) -> None:
    server.latency = 0.01
    most = 0.05
    writer = writing_at(server, price_in=10.0, price_out=10.0, max_cost=most)
    stopped = []

    def one(seed: int) -> None:
        try:
            writer.summary(ITEM, random.Random(seed))
        except LimitReachedError as error:
            stopped.append(str(error))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(200)))
    used = writer.usage()
    assert 0.4 * most < used["cost"] <= most
    assert used["requests"] + len(stopped) == 200
    assert stopped[0].startswith("--max-cost 0.05 is reached: 0.0")
    assert LimitReachedError.exit_code == 3
    assert len(server.seen) == used["requests"]


def test_what_a_server_does_not_count_is_taken_at_its_most(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = servers.LlmServer._completion
    monkeypatch.setattr(servers.LlmServer, "_completion", lambda *given: whole(*given) | {"usage": None})
    writer = writing_at(server, price_out=10.0)
    writer.summary(ITEM, random.Random(0))
    assert writer.usage()["uncounted"] == 1
    assert writer.usage()["cost"] == pytest.approx(10.0 * 2048 / 1e6)


# ---- settings


def test_equal_settings_share_one_generator_and_no_model_writes_nothing(server: Any) -> None:
    assert writing_at(server) is writing_at(server)
    assert writing_at(server) is not writing_at(server, retries=1)
    assert GENERATOR.configured(GeneratorSettings()) is GENERATOR
    with pytest.raises(UserError, match="openai generator needs a language model: give it by --llm NAME"):
        GENERATOR.check(ITEM)
    with pytest.raises(UserError, match="needs the text of item arch, which has none"):
        writing_at(server).check(replace(ITEM, text=" \n"))


def test_a_registry_gives_generators_set_up(server: Any) -> None:
    settings = GeneratorSettings(llm="scripted", base_url=server.url)
    found = Registry((), settings).find("generators", "openai")
    assert found is GENERATOR.configured(settings)
    assert found.model == "scripted"
    assert Registry((), settings).find("generators", "template") is TEMPLATE


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"llm": "", "base_url": "http://localhost:1/v1"}, "--base-url needs --llm NAME"),
        ({"retries": -1}, "must not be negative"),
        ({"price_in": -1.0}, "must not be negative"),
        ({"timeout": 0.0}, "must be above 0"),
        ({"attempts": 0}, "must be above 0"),
        ({"max_cost": 5.0}, "--max-cost 5 needs --price-in and --price-out"),
    ],
)
def test_settings_are_checked(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(GeneratorSettings(llm="m", base_url="http://localhost:1/v1"), **fields).check()


def test_a_waiting_request_goes_on_when_another_has_cost_less(server: Any) -> None:
    """Two fit only one after the other: the second waits for the first, and is not refused."""
    server.latency = 0.2
    writer = writing_at(server, price_out=10.0, max_cost=0.03)
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: writer.summary(ITEM, random.Random(seed)), range(2)))
    assert time.monotonic() - begin >= 0.4
    assert server.most_under_way == 1

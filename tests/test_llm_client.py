"""The endpoint of a language model: what is tried again, what rejects one request, what stops all, and the preflight."""

from __future__ import annotations

import http.server
import importlib
import itertools
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Item
from kore_bench.generators import GeneratorSettings, RejectedError
from kore_bench.generators.llm import client
from kore_bench.generators.openai import GENERATOR

pytest.importorskip("openai", reason="the openai generator asks through the package openai")
pytest.importorskip("pydantic", reason="answers are checked by pydantic")
servers: Any = importlib.import_module("llm_server")
Faults, serving = servers.Faults, servers.serving

ITEM = Item(id="arch", image=Path("arch.png"), prompt="", text="The Red Arch stands in Lyon.", name="Red Arch")
SECRET = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "own cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client, "_FIRST_DELAY", 0.02)


@pytest.fixture
def server() -> Iterator[Any]:
    with serving(lambda asked: json.dumps({"summary": "The Red Arch stands in Lyon."})) as state:
        yield state


def writing_at(server: Any, **settings: Any) -> Any:
    return GENERATOR.configured(
        GeneratorSettings(**({"llm": "scripted", "base_url": server.url, "timeout": 5} | settings))
    )


def summary(writer: Any, seed: int = 0) -> str:
    return str(writer.summary(ITEM, random.Random(seed)))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# ---- one request


@pytest.mark.parametrize("kind", ["429", "500", "dropped", "truncated", "garbled", "html"])
def test_what_may_pass_is_tried_again(kind: str, server: Any) -> None:
    server.faults = Faults(rate=1, kinds=(kind,), in_a_row=2)
    writer = writing_at(server)
    assert summary(writer) == "The Red Arch stands in Lyon."
    assert len(server.seen) == 3
    assert {"requests": 1, "retries": 2}.items() <= writer.usage().items()


def test_an_answer_that_is_too_slow_is_asked_for_again(server: Any) -> None:
    server.faults = Faults(rate=1, kinds=("slow",), in_a_row=1, slow=1.0)
    assert summary(writing_at(server, timeout=0.3)) == "The Red Arch stands in Lyon."
    assert len(server.seen) == 2
    assert server.stats()["paid"] == 1  # the client had hung up when the first was ready


@pytest.mark.parametrize(("header", "else_", "least", "most"), [("0.7", 0.02, 0.7, 9.0), ("0", 30.0, 0.0, 9.0)])
def test_it_waits_as_long_as_the_server_asks(
    header: str, else_: float, least: float, most: float, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FIRST_DELAY", else_)
    monkeypatch.setattr(client, "_LONGEST_DELAY", else_)
    server.faults = Faults(rate=1, kinds=("429",), in_a_row=1, retry_after=header)
    begin = time.monotonic()
    summary(writing_at(server))
    assert least <= time.monotonic() - begin < most


def test_a_wait_may_be_a_date_or_milliseconds_and_delays_grow() -> None:
    class LimitedError(Exception):
        def __init__(self, **headers: str) -> None:
            self.response = type(
                "Response", (), {"headers": {name.replace("_", "-"): text for name, text in headers.items()}}
            )

    assert 8 < client._delay(LimitedError(retry_after=formatdate(time.time() + 10, usegmt=True)), 1) < 11.1
    assert 0.25 <= client._delay(LimitedError(retry_after_ms="250"), 1) < 0.28
    assert client._delay(LimitedError(retry_after=formatdate(0, usegmt=True)), 1) == 0
    for failures, whole in ((1, 0.02), (3, 0.08), (30, 8.0)):
        delays = {client._delay(LimitedError(retry_after="soon"), failures) for _ in range(50)}
        assert whole / 2 <= min(delays) < max(delays) <= whole


def test_a_wait_that_is_too_long_is_not_waited_for(server: Any) -> None:
    server.faults = Faults(rate=1, kinds=("429",), in_a_row=9, retry_after="3600")
    with pytest.raises(UserError, match="allows no more requests, after 1 try: lower --in-flight"):
        summary(writing_at(server))


def test_json_is_asked_for_as_strictly_as_the_server_takes_it(server: Any) -> None:
    summary(writing_at(server))
    form = server.seen[0].body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["required"] == ["summary"]
    for forms, asked in ((("json_object", ""), 2), (("",), 3)):
        server.forms = forms
        server.seen.clear()
        writer = writing_at(server, max_tokens=1000 + asked)
        assert summary(writer) == "The Red Arch stands in Lyon."
        assert len(server.seen) == asked
        assert server.seen[-1].body.get("response_format", {}).get("type", "") == forms[0]
        summary(writer, 1)
        assert len(server.seen) == asked + 1  # it is known now


def test_a_model_without_system_messages_is_asked_in_one(server: Any) -> None:
    server.system = False
    assert summary(writing_at(server)) == "The Red Arch stands in Lyon."
    (message,) = server.seen[-1].body["messages"]
    assert message["role"] == "user"
    assert server.seen[-1].task == "summary"
    assert server.seen[-1].text == ITEM.text


def test_a_request_that_the_server_refuses_is_rejected_alone(server: Any) -> None:
    server.forms = ()
    writer = writing_at(server)
    with pytest.raises(RejectedError, match=r"the endpoint refuses the request: .*is not supported"):
        summary(writer)
    server.forms = ("json_schema",)
    assert summary(writer, 1)


def test_openais_reasoning_models_get_their_own_parameters(server: Any) -> None:
    server.models = ()
    summary(writing_at(server, llm="o3-mini"))
    assert server.seen[0].body.keys() == {"model", "messages", "seed", "max_completion_tokens", "response_format"}
    summary(writing_at(server, llm="other"))
    assert server.seen[1].body.keys() == {"model", "messages", "seed", "temperature", "max_tokens", "response_format"}


# ---- all requests


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("500", "fails, after 3 tries"),
        ("429", "allows no more requests, after 3 tries: lower --in-flight"),
        ("dropped", "cannot be reached, after 3 tries"),
        ("truncated", "cannot be reached, after 3 tries"),
        ("garbled", "answers with something that is no JSON: is --base-url its base"),
        ("html", "answers with a web page: is --base-url its base, such as http://localhost:8000/v1"),
    ],
)
def test_where_nothing_comes_through_all_stop_with_one_sentence(kind: str, sentence: str, server: Any) -> None:
    server.faults = Faults(rate=1, kinds=(kind,), in_a_row=99, retry_after="0.01")
    writer = writing_at(server, retries=2)

    def one(seed: int) -> str:
        with pytest.raises(UserError) as caught:
            summary(writer, seed)
        return str(caught.value)

    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(one, range(100)))
    assert time.monotonic() - begin < 5
    assert len(said) == 1
    assert f"the language model scripted at {server.url} {sentence}" in said.pop()
    assert len(server.seen) <= 8 * 3  # those that were under way, and none of the others


def test_a_server_that_went_away_is_a_sentence_and_what_came_before_is_kept(tmp_path: Path) -> None:
    with serving(lambda asked: json.dumps({"summary": "Kept."})) as server:
        writer = writing_at(server, retries=2)
        assert summary(writer) == "Kept."
    with pytest.raises(UserError, match="cannot be reached, after 3 tries"):
        summary(writer, 1)
    assert summary(writer) == "Kept."


def test_after_a_preflight_a_server_that_is_back_is_asked_again(server: Any) -> None:
    writer = writing_at(server, retries=0)
    server.faults = Faults(rate=1, kinds=("500",), in_a_row=1)
    with pytest.raises(UserError, match="fails, after 1 try"):
        summary(writer)
    with pytest.raises(UserError, match="fails, after 1 try"):
        summary(writer)
    assert len(server.seen) == 1
    writer.preflight()
    assert summary(writer)


def test_where_others_come_through_one_that_fails_is_rejected_alone(server: Any) -> None:
    script = server.script

    def breaking(asked: Any) -> Any:
        if "Lyon" not in asked.text:
            raise ConnectionResetError
        return script(asked)

    server.script = breaking
    server.latency = 0.02
    writer = writing_at(server, retries=2)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(lambda: writer.summary(replace(ITEM, text="In Rome."), random.Random(0)))
        seeds = itertools.count()
        while not failing.done():  # others come through between any two tries
            assert summary(writer, next(seeds)) == "The Red Arch stands in Lyon."
        with pytest.raises(RejectedError, match="cannot be reached, after 3 tries"):
            failing.result()
    assert summary(writer, next(seeds))


def test_a_server_that_dies_under_way_stops_all_and_rejects_nothing(server: Any) -> None:
    server.latency = 0.05
    writer = writing_at(server, retries=3)

    def one(seed: int) -> str:
        if seed == 40:
            server.faults = Faults(rate=1, kinds=("dropped",), in_a_row=99)
        try:
            return summary(writer, seed)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        said = Counter(pool.map(one, range(200)))
    assert said.pop("The Red Arch stands in Lyon.") >= 30
    assert len(said) == 1  # and no RejectedError came out of the pool
    assert "cannot be reached, after 4 tries" in next(iter(said))


def test_too_many_requests_are_waited_for_while_others_come_through(server: Any) -> None:
    class Busy(servers.Faults):  # type: ignore[misc]
        """Lets the first content that is asked for come through at its seventh try, all others at once."""

        first = ""

        def of(self, content: str, number: int) -> str:
            Busy.first = Busy.first or content
            return "429" if content == Busy.first and number < 6 else ""

    server.latency = 0.02
    server.faults = Busy(retry_after="0.3")
    writer = writing_at(server, retries=2)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(lambda: writer.summary(replace(ITEM, text="In Rome."), random.Random(0)))
        while not server.seen:
            time.sleep(0.01)
        for seed in itertools.count():
            if waiting.done():
                break
            summary(writer, seed)
    assert waiting.result() == "The Red Arch stands in Lyon."
    assert max(server.asked.values()) == 7


def test_a_model_that_is_taken_away_stops_all(server: Any) -> None:
    writer = writing_at(server)
    assert summary(writer)
    server.models = ("another",)
    for seed in (1, 2):
        with pytest.raises(UserError, match=r"has no such model or address \(.*`scripted` does not exist"):
            summary(writer, seed)
    assert len(server.seen) == 2


# ---- keys


def test_the_key_goes_to_the_server_and_into_no_message(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = SECRET
    with pytest.raises(UserError, match="asks for a key: set OPENAI_API_KEY"):
        writing_at(server).preflight()
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    writing_at(server).preflight()
    assert summary(writing_at(server))
    assert server.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    server.key = "another"
    with pytest.raises(UserError, match=r"refuses the key .*\*\*\*") as caught:
        summary(writing_at(server), 1)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(writing_at(server).settings)


def test_openais_own_endpoint_needs_a_key() -> None:
    with pytest.raises(
        UserError, match="--llm m without --base-url is OpenAI's, which asks for a key: set OPENAI_API_KEY"
    ):
        GENERATOR.configured(GeneratorSettings(llm="m"))


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=f"--base-url {url} is no address"):
        GENERATOR.configured(GeneratorSettings(llm="m", base_url=url))


def test_offline_allows_this_machine_alone(server: Any) -> None:
    writing_at(server, offline=True).preflight()
    with pytest.raises(UserError, match=r"--offline forbids the language model at https://llm.example/v1"):
        GENERATOR.configured(GeneratorSettings(llm="m", base_url="https://llm.example/v1", offline=True))


# ---- preflight


def test_a_known_model_costs_nothing_to_check(server: Any) -> None:
    writing_at(server).preflight()
    server.models = ("llama3:latest",)
    writing_at(server, llm="llama3").preflight()
    assert not server.seen


def test_an_unknown_model_is_named_with_the_nearest(server: Any) -> None:
    with pytest.raises(UserError, match=r"--llm scriptd: the endpoint .* has no such model: did you mean 'scripted'\?"):
        writing_at(server, llm="scriptd").preflight()


def test_a_server_that_lists_no_models_is_asked(server: Any) -> None:
    server.models = ()
    writing_at(server, llm="any").preflight()
    assert [asked.body["messages"][0]["content"] for asked in server.seen] == ["hello"]


def test_no_server_is_a_sentence() -> None:
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached, after 3 tries: .*refused"):
        GENERATOR.configured(GeneratorSettings(llm="m", base_url=f"http://127.0.0.1:{free_port()}/v1")).preflight()
    assert time.monotonic() - begin < 5


def test_a_web_page_is_a_sentence() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(servers.HTML)))
            self.end_headers()
            self.wfile.write(servers.HTML)

        def log_message(self, format: str, *args: Any) -> None: ...

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{site.server_port}"
        with pytest.raises(UserError, match="answers with a web page: is --base-url its base"):
            GENERATOR.configured(GeneratorSettings(llm="m", base_url=url)).preflight()
    finally:
        site.shutdown()
        site.server_close()
        thread.join()

"""A loopback language model for tests and benchmarks: an OpenAI-compatible endpoint that is scripted, slow and faulty.

Answers and faults depend on what is asked and on seeds alone. ``python tests/llm_server.py --items DIR`` serves in a
process of its own; what it counted is at ``GET /stats``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kore_bench.examples import Item
from kore_bench.generators.template import GENERATOR as TEMPLATE

PASSING = ("429", "500", "dropped", "malformed", "truncated")
"""Faults after which the same request gets its answer: they change no result."""
FAULTS = (*PASSING, "garbled", "html", "refusal", "slow", "empty", "cut")
HTML = b"<!DOCTYPE html><html><body>Please log in to the network.</body></html>"


@dataclass(frozen=True)
class Asked:
    """One request: its JSON body and headers, and what can be read from a prompt of kore-bench."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def seed(self) -> int:
        return int(self.body.get("seed", 0))

    @property
    def task(self) -> str:
        """Return the only key of the JSON that is asked for: questions, answers, summary, quadruplets or text."""
        found = re.search(r'\{"(\w+)":', str(self.body["messages"][0]["content"]))
        return found[1] if found else ""

    @property
    def text(self) -> str:
        return self._between("text")

    @property
    def questions(self) -> list[str]:
        return [line.partition(". ")[2] for line in self._between("questions").splitlines()]

    @property
    def limit(self) -> int:
        found = re.search(r"at most (\d+)", self.body["messages"][-1]["content"])
        return int(found[1]) if found else 0

    @cached_property
    def content(self) -> str:
        """Return the digest of what an answer may depend on: model, messages and seed."""
        parts = [self.body.get("model"), self.body["messages"], self.body.get("seed")]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _between(self, mark: str) -> str:
        found = re.search(rf"<{mark}>\n(.*)\n</{mark}>", self.body["messages"][-1]["content"], re.DOTALL)
        return found[1] if found else ""


Script = Callable[[Asked], str]
"""Returns the text of the model's message."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Which share of the requests fails how: the first ``in_a_row`` requests of a content can, later ones do not.

    ``malformed`` strikes a content once at most, as it may: a model that always writes broken JSON is a script.
    """

    rate: float = 0.0
    kinds: tuple[str, ...] = PASSING
    in_a_row: int = 2
    seed: int = 0
    retry_after: str = "0.05"
    slow: float = 1.0

    def of(self, content: str, number: int) -> str:
        """Return the fault of a content's request ``number`` (from 0), empty where there is none."""
        rng = random.Random(f"{self.seed}/{content}/{number}")
        if number >= self.in_a_row or rng.random() >= self.rate:
            return ""
        kind = rng.choice(self.kinds)
        return "" if kind == "malformed" and number else kind


@dataclass(kw_only=True)
class LlmServer:
    """The address, how it answers, and what it counted; everything may be changed between two requests.

    ``paid`` counts whole good answers by content; what was asked but not taken any more, as by a killed client, is not
    paid. ``seen`` holds the requests, where they are kept.
    """

    script: Script
    latency: float = 0.0
    faults: Faults = field(default_factory=Faults)
    models: tuple[str, ...] = ("scripted",)
    forms: tuple[str, ...] = ("json_schema", "json_object", "")
    system: bool = True
    key: str = ""
    keep: bool = True
    down: bool = False
    url: str = ""
    seen: list[Asked] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0

    def stats(self) -> dict[str, Any]:
        """Return the counts as `GET /stats` tells them."""
        return {
            "requests": self.asked.total(), "contents": len(self.asked), "paid": self.paid.total(),
            "paid_twice": sum(number > 1 for number in self.paid.values()), "faults": dict(self.struck),
            "most_under_way": self.most_under_way,
        }  # fmt: skip

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it; a script that raises ConnectionError breaks it."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not self.down:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
                pairs = (line.partition(":") for line in head[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(head[0], headers, body, reader, writer):
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(
        self, line: str, headers: Mapping[str, str], body: bytes, reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:  # fmt: skip
        """Answer one request; return whether the connection goes on."""
        path = line.split()[1]
        if path == "/stats":
            return await _send(writer, 200, self.stats())
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return await _send(writer, 401, _error(f"Incorrect API key: {headers.get('authorization', '')}"))
        if path == "/v1/models" and self.models:
            return await _send(writer, 200, {"object": "list", "data": [{"id": name} for name in self.models]})
        if path != "/v1/chat/completions":
            return await _send(writer, 404, _error("Not Found"))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._complete(Asked(json.loads(body), headers), reader, writer)
        finally:
            self.under_way -= 1

    async def _complete(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        content = asked.content
        fault = self.faults.of(content, self.asked[content])
        self.asked[content] += 1
        if fault:
            self.struck[fault] += 1
        if self.keep:
            self.seen.append(asked)
        if self.models and asked.body["model"] not in self.models:
            return await _send(writer, 404, _error(f"The model `{asked.body['model']}` does not exist"))
        form = asked.body.get("response_format", {}).get("type", "")
        if form not in self.forms:
            return await _send(writer, 400, _error(f"response_format {form} is not supported"))
        if not self.system and asked.body["messages"][0]["role"] == "system":
            return await _send(writer, 400, _error("System role not supported"))
        if fault == "429":
            return await _send(writer, 429, _error("slow down"), {"Retry-After": self.faults.retry_after})
        await asyncio.sleep(self.latency + self.faults.slow * (fault == "slow"))
        if reader.at_eof():  # nobody waits for it any more
            return False
        if fault == "dropped":
            return False
        if fault == "500":
            return await _send(writer, 500, _error("the server had an error"))
        if fault == "html":
            return await _send(writer, 200, HTML, {"Content-Type": "text/html"})
        answer = self._completion(asked, fault)
        if fault in ("garbled", "truncated"):
            half = json.dumps(answer).encode()[:-20]
            whole = len(half) + 20 * (fault == "truncated")
            return await _send(writer, 200, half, {"Content-Length": str(whole)}) and fault == "garbled"
        self.paid[content] += fault in ("", "slow")
        return await _send(writer, 200, answer)

    def _completion(self, asked: Asked, fault: str) -> dict[str, Any]:
        text: str | None = self.script(asked)
        assert text is not None
        text = {"malformed": text[:-3], "cut": text[: len(text) // 2], "empty": "", "refusal": None}.get(fault, text)
        message = {"role": "assistant", "content": text}
        if fault == "refusal":
            message["refusal"] = "I cannot help with that."
        read = sum(len(str(message["content"]).split()) for message in asked.body["messages"])
        wrote = len((text or "").split())
        usage = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
        choice = {"index": 0, "finish_reason": "length" if fault == "cut" else "stop", "message": message}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": asked.body["model"],
                "choices": [choice], "usage": usage}  # fmt: skip


async def _send(
    writer: asyncio.StreamWriter, status: int, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
) -> bool:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + content)
    await writer.drain()
    return True


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error"}}


def template_script(items: Iterable[Item]) -> Script:
    """Return a script that answers what the template generator writes about the item whose text is shown.

    The seed of a request draws what of it, as a generator's does.
    """
    by_text = {item.text.strip(): item for item in items}

    def script(asked: Asked) -> str:
        item, rng = by_text[asked.text], random.Random(asked.seed)
        match asked.task:
            case "questions":
                turns = TEMPLATE.dialogue(item, rng, asked.limit)
                return json.dumps({"questions": [turn.question for turn in turns]})
            case "answers":
                known = {turn.question: turn.answer for turn in TEMPLATE.dialogue(item, rng, 10**6)}
                return json.dumps({"answers": [known.get(question, "") for question in asked.questions]})
            case "summary":
                return json.dumps({"summary": TEMPLATE.summary(item, rng)})
            case "quadruplets":
                found = TEMPLATE.quadruplets(item, rng, asked.limit)
                return json.dumps({"quadruplets": [vars(one) for one in found]})
            case "text":
                return json.dumps({"text": TEMPLATE.rewrite(item, rng)})
        raise ValueError(f"no prompt of kore-bench asks for {asked.task!r}")

    return script


@contextmanager
def serving(script: Script, **settings: Any) -> Iterator[LlmServer]:
    """Serve on a free port of this machine, in a thread, until the block ends; ``settings`` are `LlmServer`'s."""
    state, ready, ended = LlmServer(script=script, **settings), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(state.handle, "127.0.0.1", 0, backlog=512)
        state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await ended.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield state
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def main() -> None:
    """Serve the template's answers about a knowledge folder until the process is told to end."""
    from kore_bench.formats import read_knowledge

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    script = template_script(read_knowledge(options.items).items)
    faults = Faults(rate=options.fault_rate, seed=options.seed)
    state = LlmServer(script=script, latency=options.latency, faults=faults, keep=False)

    async def serve() -> None:
        server = await asyncio.start_server(state.handle, "127.0.0.1", options.port, backlog=512)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()

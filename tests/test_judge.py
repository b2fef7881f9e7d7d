"""The judge against a loopback endpoint: good, bad, slow and failing answers, the cache, threads and processes."""

from __future__ import annotations

import ast
import base64
import importlib
import logging
import multiprocessing
import pickle
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.judge import FAILED, Judge, JudgeError, JudgeSettings, to_messages

judges: Any = importlib.import_module("judge_server")
Answer, serving = judges.Answer, judges.serving

pytest.importorskip("openai", reason="the judge asks through the package openai")

SECRET = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("KORE_BENCH_JUDGE_KEY", raising=False)


def judge(server: Any, folder: Path, *, readable: Callable[[str], bool] | None = None, **fields: Any) -> Judge:
    settings = JudgeSettings(name="grader", url=server.url, **fields)
    settings.check()
    return Judge(settings, readable, folder / "replies.sqlite")


def test_it_answers_once_and_then_from_the_cache(tmp_path: Path) -> None:
    with serving(lambda number, body: Answer(f"Grade {body['messages'][-1]['content'][-1]}.")) as server:
        first = judge(server, tmp_path)
        assert first.working()
        assert [first.generate(f"Grade this: {number}") for number in (1, 2, 1)] == ["Grade 1.", "Grade 2.", "Grade 1."]
        assert first.counts() == {"asked": 3, "cached": 1, "retried": 0, "failed": 0, "unparsable": 0}
        assert server.texts() == ["hello", "Grade this: 1", "Grade this: 2"]
        assert server.bodies[1] | {"messages": 0} == {
            "model": "grader", "messages": 0, "temperature": 0.0, "max_tokens": 2048,
        }  # fmt: skip
    again = judge(server, tmp_path)  # the endpoint is gone, and a second evaluation costs nothing
    assert again.working()
    assert again.generate("Grade this: 2") == "Grade 2."
    assert again.counts() == {"asked": 0, "cached": 2, "retried": 0, "failed": 0, "unparsable": 0}


def test_another_model_address_message_or_parameter_is_asked_anew(tmp_path: Path) -> None:
    with serving() as server, serving() as other:
        asked = judge(server, tmp_path)
        asked.generate("a")
        asked.generate("b")
        asked.generate("a", temperature=0.5)
        asked.generate("a", max_tokens=16)
        judge(other, tmp_path).generate("a")
        Judge(replace(asked.settings, name="another"), None, asked.file).generate("a")
        assert (len(server.bodies), len(other.bodies)) == (5, 1)
        Judge(replace(asked.settings, timeout=7, retries=1, per_minute=5), None, asked.file).generate("a")
        assert len(server.bodies) == 5


def test_reasoning_models_get_their_own_parameters(tmp_path: Path) -> None:
    with serving() as server:
        Judge(JudgeSettings(name="o3-mini", url=server.url), None, tmp_path / "r").generate("a", temperature=0.5)
    assert server.bodies[0].keys() == {"model", "messages", "max_completion_tokens"}


def test_an_unreadable_reply_is_counted_and_given_on_as_nothing(tmp_path: Path) -> None:
    def readable(reply: str) -> bool:
        try:
            return isinstance(ast.literal_eval(reply), dict)
        except (ValueError, SyntaxError):
            return False

    replies = ["{'Overall': 7}", "I would say seven.", "{'Overall': __import__('os').getpid()}"]
    with serving(lambda number, body: Answer(replies[number])) as server:
        asked = judge(server, tmp_path, readable=readable)
        assert [asked.generate(f"{number}") for number in range(3)] == ["{'Overall': 7}", "", ""]
        assert asked.generate("1") == ""  # from the cache, and unreadable still
    assert asked.counts() == {"asked": 3, "cached": 1, "retried": 0, "failed": 0, "unparsable": 3}
    asked.check()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(None),
        Answer("the message is against the rules", status=400),
        Answer("too long", status=413),
        Answer(body=b'{"choices": []}'),
        Answer(body=b"not JSON at all"),
        Answer(body=b"<html>a portal</html>", headers={"Content-Type": "text/html"}),
    ],
    ids=["empty", "refused", "too long", "no choice", "no JSON", "a web page"],
)
def test_a_message_without_an_answer_fails_alone_and_is_not_kept(answer: Any, tmp_path: Path) -> None:
    with serving(lambda number, body: answer if number == 0 else Answer()) as server:
        asked = judge(server, tmp_path, readable=lambda reply: False)
        assert asked.generate("a") == FAILED
        assert asked.counts() == {"asked": 1, "cached": 0, "retried": 0, "failed": 1, "unparsable": 0}
        asked.check()
        assert judge(server, tmp_path).generate("a") == "Good."


def test_it_waits_as_long_as_the_server_asks_and_tries_again(tmp_path: Path) -> None:
    script = [Answer("slow down", status=429, headers={"Retry-After": "1"}), Answer("broken", status=500), Answer()]
    with serving(lambda number, body: script[number]) as server:
        asked = judge(server, tmp_path)
        assert asked.generate("a") == "Good."
    assert asked.counts() == {"asked": 1, "cached": 0, "retried": 2, "failed": 0, "unparsable": 0}
    assert server.times[1] - server.times[0] >= 1.0
    assert server.times[2] - server.times[1] >= 0.3


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer("broken", status=500), "fails, after 2 tries"),
        (Answer("slow down", status=429, headers={"Retry-After": "0.1"}), "allows no more requests, after 2 tries"),
        (Answer("who are you?", status=401), "asks for a key: set KORE_BENCH_JUDGE_KEY"),
        (Answer("no such model", status=404), "has no such model or address"),
        (Answer(wait=0.5), r"did not answer within 0\.1 s, after 2 tries"),
    ],
    ids=["500", "429", "401", "404", "slow"],
)
def test_a_judge_that_fails_says_why_and_is_not_asked_again(answer: Any, sentence: str, tmp_path: Path) -> None:
    with serving(lambda number, body: answer) as server:
        asked = judge(server, tmp_path, retries=1, timeout=0.1 if answer.wait else 5.0)
        with pytest.raises(JudgeError, match=f"the judge grader at {server.url} {sentence}"):
            asked.generate("a")
        seen = len(server.bodies)
        begin = time.monotonic()
        for number in range(100):  # as a benchmark that swallows errors would
            with pytest.raises(JudgeError, match=sentence):
                asked.generate(f"b{number}")
        assert time.monotonic() - begin < 5
        assert len(server.bodies) == seen
        assert not asked.working()
        with pytest.raises(JudgeError, match=sentence):
            asked.check()


def test_a_judge_that_dies_midway_is_asked_for_the_rest_alone(tmp_path: Path) -> None:
    with serving(lambda number, body: Answer() if number < 3 else Answer("dead", status=503)) as server:
        asked = judge(server, tmp_path, retries=0)
        assert [asked.generate(f"{number}") for number in range(3)] == ["Good."] * 3
        with pytest.raises(JudgeError, match="fails, after 1 try "):
            asked.generate("3")
        server.answer = lambda number, body: Answer("Back.")
        again = judge(server, tmp_path)
        assert [again.generate(f"{number}") for number in range(5)] == [*["Good."] * 3, "Back.", "Back."]
        assert again.counts()["cached"] == 3
        assert server.texts() == ["0", "1", "2", "3", "3", "4"]


def test_nobody_listens(tmp_path: Path) -> None:
    with serving() as server:
        pass
    asked = judge(server, tmp_path, retries=0)
    assert not asked.working()
    with pytest.raises(JudgeError, match=f"the judge grader at {server.url} cannot be reached"):
        asked.check()


def test_the_key_goes_to_the_endpoint_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("KORE_BENCH_JUDGE_KEY", SECRET)
    with caplog.at_level(logging.DEBUG), serving() as server:
        asked = judge(server, tmp_path, retries=0)
        asked.generate("a")
        server.answer = lambda number, body: Answer(f"Incorrect API key provided: {SECRET}", status=401)
        with pytest.raises(JudgeError, match=r"refuses the key .*\*\*\*") as caught:
            asked.generate("b")
    assert [headers["authorization"] for headers in server.headers] == [f"Bearer {SECRET}"] * 2
    assert SECRET not in str(caught.value) + repr(asked) + caplog.text
    assert SECRET.encode() not in asked.file.read_bytes()


def test_openais_key_is_not_sent_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert JudgeSettings(name="m").key() == SECRET
    assert JudgeSettings(name="m", url="https://judge.example/v1").key() == SECRET
    assert JudgeSettings(name="m", url="http://127.0.0.1:1/v1").key() == SECRET
    assert JudgeSettings(name="m", url="http://judge.example/v1").key() == ""
    monkeypatch.setenv("KORE_BENCH_JUDGE_KEY", "sk-of-this-judge")
    assert JudgeSettings(name="m", url="http://judge.example/v1").key() == "sk-of-this-judge"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"url": "http://localhost:1/v1"}, "--judge-url needs --judge NAME"),
        ({"name": "m"}, "set KORE_BENCH_JUDGE_KEY or OPENAI_API_KEY"),
        ({"name": "m", "url": "localhost:8000"}, "--judge-url localhost:8000 is no address"),
        ({"name": "m", "url": "file:///etc/passwd"}, "is no address"),
        ({"name": "m", "url": "https://me:secret@judge.example/v1"}, "no name, password or query"),
        ({"name": "m", "url": "https://judge.example/v1?key=secret"}, "no name, password or query"),
        ({"name": "m", "url": "http://localhost/v1", "timeout": 0.0}, "timeout and max-tokens above 0"),
        ({"name": "m", "url": "http://localhost/v1", "per_minute": -1}, "must be at least 0"),
    ],
)
def test_settings_are_checked(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        JudgeSettings(**fields).check()
    assert "secret" not in str(caught.value)


def test_the_rate_is_kept_by_threads_together(tmp_path: Path) -> None:
    with serving() as server:
        asked = judge(server, tmp_path, per_minute=600)
        begin = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(asked.generate, map(str, range(8)))) == {"Good."}
    assert len(server.times) == 8
    # From before the first, which a busy machine may send late: the eighth waits for seven gaps.
    assert server.times[-1] - begin >= 0.69
    assert asked.counts()["asked"] == 8


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_processes_share_the_cache_and_the_counts(start: str, tmp_path: Path) -> None:
    with serving() as server:
        asked = judge(server, tmp_path)
        asked.generate("0")
        with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context(start)) as pool:
            assert list(pool.map(asked.generate, ["0", "1", "2", "3"])) == ["Good."] * 4
        assert pickle.loads(pickle.dumps(asked)).counts() == asked.counts()
    assert asked.counts() == {"asked": 4, "cached": 1, "retried": 0, "failed": 0, "unparsable": 0}
    assert sorted(server.texts()) == ["0", "1", "2", "3"]


def test_messages_take_the_endpoints_form(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"bytes of a picture")
    text, url = {"type": "text", "value": "What is it?"}, "data:image/jpeg;base64,QUJD"
    assert to_messages("What is it?") == to_messages(text) == to_messages([text])
    assert to_messages(["a", "b"]) == [{"role": "user", "content": "a\nb"}]
    assert to_messages([{"role": "system", "type": "text", "value": "Be strict."}, text]) == [
        {"role": "system", "content": "Be strict."},
        {"role": "user", "content": "What is it?"},
    ]
    (message,) = to_messages([text, {"type": "image", "value": str(picture)}, {"type": "image", "value": url}])
    encoded = base64.b64encode(b"bytes of a picture").decode()
    assert message["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    with pytest.raises(ValueError, match="not a part of type 'video'"):
        to_messages([{"type": "video", "value": "a.mp4"}, text])


def test_what_is_kept_holds_no_message(tmp_path: Path) -> None:
    with serving() as server:
        asked = judge(server, tmp_path)
        asked.generate("A private question")
    with sqlite3.connect(asked.file) as database:
        rows = database.execute("SELECT * FROM replies").fetchall()
    database.close()
    assert [reply for _, reply in rows] == ["Good."]
    assert b"private" not in asked.file.read_bytes()


def test_importing_it_loads_neither_torch_nor_openai() -> None:
    code = "import sys, kore_bench.judge; print({'torch', 'openai', 'pandas'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"

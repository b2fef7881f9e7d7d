"""The judge: a language model behind an OpenAI-compatible endpoint that grades answers for a benchmark."""

from __future__ import annotations

import base64
import mimetypes
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore_bench.cache import cache_folder, digest
from kore_bench.endpoint import OPENAI_KEY, Endpoint, accepted
from kore_bench.errors import UserError
from kore_bench.replies import Replies

if TYPE_CHECKING:
    import openai

Message = str | Mapping[str, str] | Sequence[str | Mapping[str, str]]
"""Text, or parts ``{"type": "text" | "image", "value": TEXT | PATH | DATA URL}``; one may have the role ``system``."""

KEYS = ("KORE_BENCH_JUDGE_KEY", OPENAI_KEY)
FAILED = "Failed to obtain answer via API."
"""The reply to a message that the judge does not take; VLMEvalKit knows it and counts the answer as not extracted."""
EVENTS = ("asked", "cached", "retried", "failed", "unparsable")


class JudgeError(Exception):
    """The judge cannot be asked; its sentence says why."""


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Which judge (``--judge NAME``, ``--judge-url URL``), and how it is asked (``--set judge.FIELD=VALUE``).

    ``url`` is the endpoint's base (empty: OpenAI's own). ``per_minute`` bounds the requests of all processes of this
    machine (0: no bound). A request is given up after ``timeout`` seconds and tried ``retries`` times more, after the
    time that the server asks for (at most two minutes) or one that doubles from half a second to eight, with jitter.
    ``temperature`` and ``max_tokens`` hold where the benchmark asks for no others.
    """

    name: str = ""
    url: str = ""
    per_minute: int = 0
    timeout: float = 120.0
    retries: int = 5
    temperature: float = 0.0
    max_tokens: int = 2048

    @property
    def endpoint(self) -> Endpoint:
        """Return where the judge is asked."""
        return Endpoint(url=self.url, option="--judge-url", keys=KEYS)

    @property
    def base(self) -> str:
        """Return the endpoint's base URL."""
        return self.endpoint.base

    @property
    def local(self) -> bool:
        """Return whether the endpoint is on this machine."""
        return self.endpoint.local

    def key(self) -> str:
        """Return the key from the environment, empty where there is none for this endpoint (see `Endpoint.key`)."""
        return self.endpoint.key()

    def check(self) -> None:
        """Raise UserError where the settings are out of range, or something that the judge needs is missing."""
        if not self.name:
            raise UserError("--judge-url needs --judge NAME: what the endpoint calls the model")
        if self.per_minute < 0 or self.retries < 0 or self.max_tokens < 1 or self.timeout <= 0 or self.temperature < 0:
            raise UserError(
                "--set judge.*: per-minute, retries and temperature must be at least 0, timeout and max-tokens above 0"
            )
        self.endpoint.check(f"--judge {self.name}", "judge")


@dataclass(frozen=True)
class Judge:
    """Asks a judge; what it replied once is never asked again (VLMEvalKit's protocol: `working` and `generate`).

    ``readable`` says whether the benchmark can read a reply: others are counted, and given on as an empty text, so
    that nothing evaluates them. An object can be shared by threads, and be forked or pickled into other processes.
    """

    settings: JudgeSettings
    readable: Callable[[str], bool] | None = None
    file: Path = field(default_factory=lambda: cache_folder() / "judge" / "replies.sqlite")
    use: str = field(default_factory=lambda: uuid.uuid4().hex)

    def working(self) -> bool:
        """Return whether the judge answers a greeting (one that it answered before is not sent again)."""
        try:
            return self._reply("hello", {}) not in ("", FAILED)
        except JudgeError:
            return False

    def generate(self, message: Message, **parameters: Any) -> str:
        """Return the judge's reply to a message, ``temperature`` and the like given by name.

        A message that the judge does not take, or answers with nothing, is counted as failed and replied to by
        `FAILED`. Raises JudgeError where the judge cannot be asked, then and from then on at once.
        """
        reply = self._reply(message, parameters)
        if reply != FAILED and self.readable and not self.readable(reply):
            self._count("unparsable")
            return ""
        return reply

    def check(self) -> None:
        """Raise JudgeError where the judge could not be asked, also where a benchmark has swallowed that."""
        if sentence := self._replies.failure(self.use):
            raise JudgeError(sentence)

    def counts(self) -> dict[str, int]:
        """Return how many messages were asked, found in the cache, tried again, failed, and replied to unreadably."""
        counts = self._replies.counts(self.use)
        return {event: counts.get(event, 0) for event in EVENTS}

    @property
    def _replies(self) -> Replies:
        return Replies(self.file)

    def _count(self, event: str, number: int = 1) -> None:
        if number:
            self._replies.count(self.use, event, number)

    def _reply(self, message: Message, parameters: Mapping[str, Any]) -> str:
        request = {
            "model": self.settings.name,
            "messages": to_messages(message),
            **_parameters(self.settings, parameters),
        }
        key = digest({"url": self.settings.base, **request})
        if (kept := self._replies.get(key)) is not None:
            self._count("cached")
            return kept
        reply = self._ask(request)
        if reply != FAILED:
            self._replies.put(key, reply)
        return reply

    def _ask(self, request: Mapping[str, Any]) -> str:
        import openai

        self.check()
        settings = self.settings
        if settings.per_minute:
            time.sleep(self._replies.turn(f"{settings.name} {settings.base}", 60 / settings.per_minute))
        self._count("asked")
        client = settings.endpoint.client(settings.timeout, settings.retries)
        try:
            answer = client.chat.completions.with_raw_response.create(**request)
            self._count("retried", answer.retries_taken)
            reply = _content(answer.parse())
        except (openai.BadRequestError, openai.UnprocessableEntityError, ValueError):
            reply = ""
        except openai.OpenAIError as error:
            if isinstance(error, openai.APIStatusError) and error.status_code == 413:  # this message is too long
                reply = ""
            else:
                self._count("failed")
                self._replies.fail(self.use, self._sentence(error))
                raise JudgeError(self._sentence(error)) from None
        if not reply:
            self._count("failed")
        return reply or FAILED

    def _sentence(self, error: openai.OpenAIError) -> str:
        """Return what is wrong with the judge, without any key that the server may have repeated."""
        settings = self.settings
        fault = settings.endpoint.fault(error, settings.timeout, settings.retries + 1, "lower --set judge.per-minute")
        return f"the judge {settings.name} at {settings.base} {fault}"


def to_messages(message: Message) -> list[dict[str, Any]]:
    """Return a message in the endpoint's form: what has the role ``system`` first, then all else as the user's.

    Texts without an image are joined by newlines, as VLMEvalKit does; images become data URLs, of low detail as there.
    Raises ValueError for a part of another type, OSError where an image cannot be read.
    """
    parts = [message] if isinstance(message, str | Mapping) else list(message)
    items = [{"type": "text", "value": part} if isinstance(part, str) else part for part in parts]
    system = "\n".join(item["value"] for item in items if item.get("role") == "system")
    items = [item for item in items if item.get("role") != "system"]
    if all(item["type"] == "text" for item in items):
        content: Any = "\n".join(item["value"] for item in items)
    else:
        content = [_part(item) for item in items if item["value"]]
    user = {"role": "user", "content": content}
    return [{"role": "system", "content": system}, user] if system else [user]


def _part(item: Mapping[str, str]) -> dict[str, Any]:
    if item["type"] == "text":
        return {"type": "text", "text": item["value"]}
    if item["type"] != "image":
        raise ValueError(f"a judge reads texts and images, not a part of type {item['type']!r}")
    return {"type": "image_url", "image_url": {"url": _data_url(item["value"]), "detail": "low"}}


def _data_url(image: str) -> str:
    if image.startswith("data:"):
        return image
    kind = mimetypes.guess_type(image)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(Path(image).read_bytes()).decode()}"


def _parameters(settings: JudgeSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request."""
    parameters = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, **given}
    return accepted(settings.name, parameters)


def _content(answer: Any) -> str:
    """Return the text of a chat completion; raises ValueError where it is none."""
    try:
        return (answer.choices[0].message.content or "").strip()
    except (AttributeError, IndexError, TypeError):
        raise ValueError("the server's answer is no chat completion") from None

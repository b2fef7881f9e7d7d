"""Asks an OpenAI-compatible endpoint: tries again what may pass, steps down to what it supports, gives up in time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from kore_bench.endpoint import Endpoint, accepted
from kore_bench.errors import UserError, nearest
from kore_bench.generators import GeneratorSettings, RejectedError

from .asking import Completion, Request

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0  # seconds before a request is tried again, doubling
_LONGEST_WAIT = 120.0  # seconds that a server may ask for
_PATIENCE = 300.0  # seconds after which nothing is tried again
_AT_START = 2  # retries of the preflight
_FORMS = ("json_schema", "json_object", "plain", "one message")
"""How JSON is asked for, the strictest first, and last without a system message, which some models do not take.

A server that refuses one is asked in the next.
"""


class GarbledError(Exception):
    """The server answered, but not with a chat completion."""


class Client:
    """Asks for threads together. What fails for one request rejects it; what fails for all stops them all.

    A request is tried again after a failure that may pass: no connection, no answer in time, one that breaks off or is
    none, too many requests (as long as others come through), an error of the server. Where all tries fail and no
    other request came through between the last two, the circuit opens: every thread gets the same sentence, at once.
    """

    def __init__(self, settings: GeneratorSettings, retried: Callable[[], None]) -> None:
        self.settings = settings
        self.endpoint = Endpoint(url=settings.base_url, option="--base-url")
        self._retried = retried
        self._form = 0
        self._came_through = 0.0  # when an answer last came, on the monotonic clock
        self._open = threading.Event()
        self._sentence = ""

    def complete(self, request: Request) -> Completion:
        """Return what the model writes; raises RejectedError where the server refuses this request alone, else UserError."""
        import openai

        refused = ""
        for form in range(self._form, len(_FORMS)):
            body = _body(self.settings.llm, request, _FORMS[form])
            try:
                completion = self._trying(lambda body=body: self._post(body), self.settings.retries)  # type: ignore[misc]
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = self.endpoint.hidden(str(error))
                continue
            except openai.NotFoundError as error:
                raise self._stop(error, 1) from None
            self._form = form
            return completion
        raise RejectedError(f"the endpoint refuses the request: {refused}")

    def preflight(self) -> None:
        """Raise UserError where the endpoint is not there, is none, refuses the key, or does not know the model."""
        import openai

        self._open.clear()
        try:
            known = self._trying(self._models, _AT_START)
        except openai.NotFoundError:  # not every server lists its models
            known = []
        name = self.settings.llm
        if name in known or f"{name}:latest" in known:  # Ollama's models have tags
            return
        hello = {"model": name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
        try:  # some servers list nothing, or answer to any name
            self._trying(lambda: self._post(accepted(name, hello)), _AT_START)
        except (openai.BadRequestError, openai.UnprocessableEntityError, openai.NotFoundError) as error:
            hint = f": {nearest(name, known)}" if known else f" ({self.endpoint.hidden(str(error))})"
            raise UserError(f"--llm {name}: the endpoint {self.endpoint.base} has no such model{hint}") from None

    def _trying(self, send: Callable[[], T], retries: int) -> T:
        """Return ``send()``, tried again where that may help; see the class."""
        import openai

        begun = since = counted = time.monotonic()
        failures = 0
        while True:
            if self._open.is_set():
                raise UserError(self._sentence)
            try:
                answer = send()
            except (openai.OpenAIError, GarbledError) as error:
                if not _may_pass(error):
                    raise self._final(error) from None
                others, since = self._came_through > since, time.monotonic()
                in_turn = isinstance(error, openai.RateLimitError) and self._came_through > counted
                failures, counted = (1, since) if in_turn else (failures + 1, counted)
                delay = _delay(error, failures)
                if failures > retries or delay > _LONGEST_WAIT or (since - begun > _PATIENCE and not in_turn):
                    raise self._given_up(error, failures, others) from None
                self._retried()
                self._open.wait(delay)
            else:
                self._came_through = time.monotonic()
                return answer

    def _final(self, error: Exception) -> Exception:
        """Return what to raise for an error that will not pass: of this request, or of all."""
        import openai

        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError | openai.NotFoundError):
            return error
        if isinstance(error, openai.APIStatusError) and error.status_code == 413:
            return RejectedError("the text is too long for the endpoint")
        return self._stop(error, 1)

    def _given_up(self, error: Exception, tries: int, others: bool) -> Exception:
        """Return what to raise after the last try: ``others`` came through since the one before, or nothing does."""
        if others:
            return RejectedError(self._fault(error, tries))
        return self._stop(error, tries)

    def _stop(self, error: Exception, tries: int) -> UserError:
        self._sentence = f"the language model {self.settings.llm} at {self.endpoint.base} {self._fault(error, tries)}"
        self._open.set()
        return UserError(self._sentence)

    def _fault(self, error: Exception, tries: int) -> str:
        if isinstance(error, GarbledError):
            return self.endpoint.hidden(str(error))
        return self.endpoint.fault(error, self.settings.timeout, tries, "lower --in-flight")  # type: ignore[arg-type]

    def _post(self, body: Mapping[str, Any]) -> Completion:
        return _completion(self._sent("post", "/chat/completions", body=body))

    def _models(self) -> list[str]:
        listed = self._sent("get", "/models").get("data")
        if not isinstance(listed, list):
            raise GarbledError("answers to /models with no list of models: is --base-url its base, such as .../v1?")
        return [str(model.get("id")) for model in listed if isinstance(model, dict)]

    def _sent(self, method: str, path: str, **given: Any) -> Mapping[str, Any]:
        """Return the JSON object that the server answers with, past the SDK's models: they cost more than the rest."""
        client = self.endpoint.client(self.settings.timeout, 0)
        try:
            found = getattr(client, method)(path, cast_to=object, **given)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            page = isinstance(found, str) and found.lstrip().startswith("<")
            what = "a web page" if page else "something that is no JSON"
            raise GarbledError(f"answers with {what}: is --base-url its base, such as http://localhost:8000/v1?")
        return found


def _body(model: str, request: Request, form: str) -> dict[str, Any]:
    """Return a request as it is sent."""
    request = request.in_one_message() if form == "one message" else request
    body = {
        "model": model, "messages": list(request.messages), "seed": request.seed,
        **accepted(model, {"temperature": request.temperature, "max_tokens": request.max_tokens}),
    }  # fmt: skip
    if form == "json_schema":
        schema = {"name": request.task, "strict": True, "schema": request.schema}
        return body | {"response_format": {"type": form, "json_schema": schema}}
    return body | ({"response_format": {"type": form}} if form == "json_object" else {})


def _completion(found: Mapping[str, Any]) -> Completion:
    """Return a chat completion; raises GarbledError where it is none."""
    try:
        choice = found["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text = message.get("content") or ""
        refused = message.get("refusal") or ("its content filter" if ended == "content_filter" else "")
        usage = found.get("usage") or {}
        return Completion(
            text=str(text), refusal=str(refused), cut=ended == "length", tokens_in=_whole(usage.get("prompt_tokens")),
            tokens_out=_whole(usage.get("completion_tokens")),
        )  # fmt: skip
    except (KeyError, IndexError, TypeError, AttributeError):
        raise GarbledError("answers with JSON that is no chat completion") from None


def _whole(number: Any) -> int | None:
    return number if isinstance(number, int) else None


def _may_pass(error: Exception) -> bool:
    """Return whether trying again may help."""
    import openai

    if isinstance(error, openai.RateLimitError):
        return error.code != "insufficient_quota"
    passing = (openai.APIConnectionError, openai.InternalServerError, openai.ConflictError, GarbledError)
    return isinstance(error, passing) or getattr(error, "status_code", 0) == 408


def _delay(error: Exception, failures: int) -> float:
    """Return the seconds to wait: what the server asks for, or a time that doubles; a little of either is random."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked: float | None = _asked_for(headers)
    if asked is not None:
        return asked * (1 + 0.1 * random.random())
    return min(_FIRST_DELAY * 2.0 ** (failures - 1), _LONGEST_DELAY) * (0.5 + 0.5 * random.random())


def _asked_for(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header (a number, or a date), None where there is none that can be read."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return None

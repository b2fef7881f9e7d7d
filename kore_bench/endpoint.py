"""An OpenAI-compatible endpoint: its address, which key goes there, its client, and what is wrong with it, in words."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kore_bench.errors import UserError

if TYPE_CHECKING:
    import openai

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
_REASONING = ("o1", "o3", "o4", "gpt-5")  # these take no temperature, and call the limit max_completion_tokens
_ONE = threading.Lock()
_LONGEST = 300  # characters of a server's message


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a language model is asked: a base URL (empty: OpenAI's own), and the variables its key may stand in.

    ``option`` is the command-line option that the URL comes from. ``keys`` are tried in order.
    """

    url: str
    option: str
    keys: tuple[str, ...] = (OPENAI_KEY,)

    @property
    def base(self) -> str:
        """Return the endpoint's base URL."""
        return (self.url or OPENAI).rstrip("/").removesuffix("/chat/completions")

    @property
    def local(self) -> bool:
        """Return whether the endpoint is on this machine."""
        return _is_local(urlsplit(self.base).hostname or "")

    def key(self) -> str:
        """Return the key from the environment, empty where there is none for this endpoint.

        ``OPENAI_API_KEY`` was not made for this endpoint, so that it goes over plain HTTP to this machine only.
        """
        safe = self.local or self.base.startswith("https:")
        given = (os.environ.get(name, "").strip() for name in self.keys if safe or name != OPENAI_KEY)
        return next((key for key in given if key), "")

    def check(self, asker: str, extra: str) -> None:
        """Raise UserError where the address is none, the package openai or a key that is needed is missing.

        ``asker`` is the option that asks there, such as ``--judge NAME``, ``extra`` the extra that installs openai.
        """
        parts = urlsplit(self.base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{self.option} {self.url} is no address: give its base, such as http://localhost:8000/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise UserError(
                f"{self.option} must hold no name, password or query, as it is kept: set {self.keys[0]} instead"
            )
        if importlib.util.find_spec("openai") is None:
            raise UserError(f"{asker.split()[0]} needs the package openai: pip install 'kore-bench[{extra}]'")
        if not self.url and not self.key():
            raise UserError(
                f"{asker} without {self.option} is OpenAI's, which asks for a key: set {' or '.join(self.keys)}"
            )

    def client(self, timeout: float, retries: int) -> openai.OpenAI:
        """Return this process's client, which gives a request up after ``timeout`` seconds."""
        with _ONE:  # a cache alone would let threads that come together make one each
            return _client(self, self.key(), timeout, retries, os.getpid())

    def fault(self, error: openai.OpenAIError, timeout: float, tries: int, slower: str) -> str:
        """Return what is wrong with the endpoint, without any key that the server may have repeated.

        ``slower`` says what to do where it allows no more requests.
        """
        import openai

        after = f"after {tries} {'tries' if tries > 1 else 'try'}"
        match error:
            case openai.APITimeoutError():
                what = f"did not answer within {timeout:g} s, {after}"
            case openai.APIConnectionError():
                what = f"cannot be reached, {after}: {error.__cause__ or error}"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                what = f"{'refuses the key' if self.key() else f'asks for a key: set {self.keys[0]}'} ({error})"
            case openai.RateLimitError():
                what = f"allows no more requests, {after}: {slower} ({error})"
            case openai.NotFoundError():
                what = f"has no such model or address ({error})"
            case openai.InternalServerError():
                what = f"fails, {after} ({error})"
            case _:
                what = f"refuses the request ({error})"
        return self.hidden(what)

    def hidden(self, text: str) -> str:
        """Return a server's text on one line, not too long, and without the key."""
        line = " ".join(text.split())
        return (line.replace(self.key(), "***") if self.key() else line)[:_LONGEST]


def accepted(model: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as the model takes them: OpenAI's reasoning models refuse a temperature."""
    if not model.startswith(_REASONING):
        return parameters
    kept = {name: value for name, value in parameters.items() if name not in ("temperature", "max_tokens")}
    return kept | {"max_completion_tokens": parameters["max_tokens"]}


@cache
def _client(endpoint: Endpoint, key: str, timeout: float, retries: int, process: int) -> openai.OpenAI:
    """Return the client of this process: connections of a parent must not be used in its child."""
    import openai

    return openai.OpenAI(
        base_url=endpoint.base, api_key=key or "none", timeout=timeout, max_retries=retries,
        http_client=openai.DefaultHttpxClient(trust_env=not endpoint.local),  # no proxy leads to this machine
    )  # fmt: skip


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

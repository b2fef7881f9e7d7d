"""A request to a language model and what came of it: plain values, whatever answers them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kore_bench.cache import digest

from .prompts import Message


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked: nothing of it depends on where it is asked.

    ``task`` is the prompt's name and ``version`` its version, ``schema`` the JSON schema of the answer. ``again``
    counts how often the same was asked before with the same seed because its answer was unusable.
    """

    task: str
    version: str
    model: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any]
    temperature: float
    max_tokens: int
    seed: int
    again: int = 0

    def key(self) -> str:
        """Return the digest of the content, under which the answer is kept."""
        return digest(vars(self))

    def in_one_message(self) -> Request:
        """Return the request with all its texts in one message of the user."""
        text = "\n\n".join(message["content"] for message in self.messages)
        return replace(self, messages=({"role": "user", "content": text},))

    def bytes(self) -> int:
        """Return how many bytes are sent to be read, a bound on their number of tokens."""
        return sum(len(text.encode()) for message in self.messages for text in message.values())


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a model wrote; ``refusal`` is its reason where it refuses, ``cut`` says that ``max_tokens`` ended it.

    ``tokens_in`` and ``tokens_out`` are those that the server counted, None where it tells none.
    """

    text: str
    refusal: str = ""
    cut: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None

    def to_json(self) -> str:
        """Return the completion as it is kept."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Completion:
        """Return a completion that was kept."""
        return cls(**json.loads(text))

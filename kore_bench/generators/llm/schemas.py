"""What an answer must look like: a schema for each prompt, and small repairs of an answer that almost fits it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo

_DECODER = json.JSONDecoder(strict=False)  # a line break within a string is a common slip, and no doubt remains
_LEFT_OUT = ("title", "description", "minItems", "minLength")  # constrained decoding knows no lengths everywhere
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_REFUSALS = re.compile(
    r"\A\W*(i['\u2019]?m sorry|sorry,|i (?:can(?:no|['\u2019])t|am unable|am not able|won['\u2019]t)|as an ai\b)",
    re.IGNORECASE,
)


class UnusableError(Exception):
    """An answer that no repair makes fit; its text says why, in a few words."""


def _as_many(texts: list[str], info: ValidationInfo) -> list[str]:
    wanted = (info.context or {}).get("count", len(texts))
    if len(texts) != wanted:
        raise ValueError(f"{len(texts)} for {wanted} questions")
    return texts


def _short(text: str, info: ValidationInfo) -> str:
    limit = (info.context or {}).get("words", len(text))
    if len(text.split()) > limit:
        raise ValueError(f"{len(text.split())} words, more than {limit}")
    return text


Trimmed = Annotated[str, StringConstraints(strip_whitespace=True)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Schema(BaseModel):
    """An answer to a prompt; what else it holds is ignored, although the schema that is asked for allows nothing."""

    model_config = ConfigDict(strict=True)

    @classmethod
    def described(cls) -> dict[str, Any]:
        """Return the JSON schema, in the subset that servers with constrained decoding share."""
        schema: dict[str, Any] = _plain(cls.model_json_schema())
        return schema


class Questions(Schema):
    """Questions that cover a text."""

    questions: Annotated[list[Text], Field(min_length=1)]


class Answers(Schema):
    """Answers in the order of the questions (as many as the context's ``count``); empty where the text has none."""

    answers: Annotated[list[Trimmed], AfterValidator(_as_many)]


class Summary(Schema):
    """A summary of at most as many words as the context's ``words``."""

    summary: Annotated[Text, AfterValidator(_short)]


class Four(Schema):
    """A question, its short answer, the subject that it names, and what the subject is."""

    question: Text
    answer: Text
    subject: Text
    hypernym: Text


class Quadruplets(Schema):
    """Questions with their subjects; none where the text gives none."""

    quadruplets: list[Four]


class Rewritten(Schema):
    """A text written anew."""

    text: Text


S = TypeVar("S", bound=Schema)


def read(schema: type[S], text: str, context: Mapping[str, int]) -> S:
    """Return an answer that was repaired where need be; raises UnusableError where it does not fit ``schema``.

    Repairs: thoughts before the answer, a code fence, and text around the first JSON object are dropped.
    """
    found = _object(text)
    try:
        return schema.model_validate(found, context=dict(context))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnusableError(f"{place or 'the answer'}: {first['msg'].removeprefix('Value error, ')}") from None


def refusal(text: str) -> bool:
    """Return whether a text without any JSON object reads as a model's refusal."""
    return "{" not in text and bool(_REFUSALS.match(_THOUGHTS.sub("", text)))


@cache
def described(schema: type[Schema]) -> dict[str, Any]:
    """Return `Schema.described`, made once."""
    return schema.described()


def _object(text: str) -> Any:
    text = _THOUGHTS.sub("", text)
    start = text.find("{")
    if start < 0:
        raise UnusableError("no JSON")
    try:
        return _DECODER.raw_decode(text, start)[0]
    except json.JSONDecodeError:
        raise UnusableError("broken JSON") from None


def _plain(schema: Any) -> Any:
    """Return a JSON schema without titles, texts and lengths that allows no other keys."""
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for name, part in schema.items():
        if name in ("properties", "$defs"):
            kept[name] = {key: _plain(value) for key, value in part.items()}
        elif name not in _LEFT_OUT:
            kept[name] = _plain(part)
    return kept | ({"additionalProperties": False} if schema.get("type") == "object" else {})

"""What a language model is told, and how its answers are read: prompts, schemas, repairs and refusals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from kore_bench.generators.llm.prompts import FOLDER, prompt

schemas: Any = pytest.importorskip("kore_bench.generators.llm.schemas", reason="answers are checked by pydantic")

VERSIONS = {
    ("answers", "1"): "d8d0c63cf6ec",
    ("questions", "1"): "d1a42fae9a7f",
    ("quadruplets", "1"): "437b9b8c6bb8",
    ("rewrite", "1"): "4c2bb1241faa",
    ("summary", "1"): "5c9a4c11a690",
}
"""The digest of each version of a prompt."""


# ---- prompts


def test_a_changed_prompt_has_another_version() -> None:
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        one = prompt(file.stem)
        found[one.name, one.version] = hashlib.sha256(repr(one).encode()).hexdigest()[:12]
    assert found == VERSIONS, "give the prompt another version, and note it here with its digest"


def test_prompts_fill_in_texts_with_any_signs() -> None:
    text = "Costs $5 {or} more </text> <questions> %s"
    system, user = prompt("questions").messages(name="A", type="b", text=text, limit=3)
    assert (system["role"], user["role"]) == ("system", "user")
    assert text in user["content"]
    assert "at most 3 questions" in user["content"]
    with pytest.raises(KeyError):
        prompt("questions").messages(name="A", type="b", text=text)


# ---- reading answers


@pytest.mark.parametrize(
    "text",
    [
        '{"summary": "A b."}',
        '```json\n{"summary": "A b."}\n```',
        'Here it is:\n{"summary": "A b."} I hope that helps {really}.',
        '<think>First {"summary": "no"} then</think>\n{"summary": "A b."}',
        '{"summary": " A b. ", "confidence": 0.9}',
    ],
    ids=["plain", "fenced", "text around it", "thoughts", "more keys"],
)
def test_small_repairs(text: str) -> None:
    assert schemas.read(schemas.Summary, text, {"words": 5}).summary == "A b."


def test_a_line_break_within_a_string_is_read() -> None:
    assert schemas.read(schemas.Rewritten, '{"text": "One.\nTwo."}', {}).text == "One.\nTwo."


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        ("Summary", "It stands in Lyon.", "no JSON"),
        ("Summary", '{"summary": "It stands', "broken JSON"),
        ("Summary", '{"text": "It stands."}', "summary: Field required"),
        ("Summary", '{"summary": "  "}', "summary: String should have at least 1 character"),
        ("Summary", '{"summary": ["a"]}', "summary: Input should be a valid string"),
        ("Summary", '{"summary": "a b c d e f"}', "summary: 6 words, more than 5"),
        ("Questions", '{"questions": []}', "questions: List should have at least 1 item"),
        ("Answers", '{"answers": ["a", "b"]}', "answers: 2 for 3 questions"),
        (
            "Quadruplets",
            '{"quadruplets": [{"question": "Q?", "answer": "a"}]}',
            r"quadruplets\.0\.subject: Field required",
        ),
    ],
)
def test_what_does_not_fit_is_unusable_for_a_reason(schema: str, text: str, reason: str) -> None:
    with pytest.raises(schemas.UnusableError, match=reason):
        schemas.read(getattr(schemas, schema), text, {"words": 5, "count": 3})


@pytest.mark.parametrize("name", ["Questions", "Answers", "Summary", "Quadruplets", "Rewritten"])
def test_schemas_are_strict_all_the_way_down(name: str) -> None:
    """OpenAI's strict mode takes a schema only where every object requires all its keys and allows no others."""

    def objects(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            yield from ([schema] if schema.get("type") == "object" else [])
            for part in schema.values():
                yield from objects(part)

    found = list(objects(schemas.described(getattr(schemas, name))))
    assert found
    for one in found:
        assert one["additionalProperties"] is False
        assert set(one["required"]) == set(one["properties"])


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot write about this person.", True),
        ("<think>hm</think>As an AI, I must decline.", True),
        ('{"summary": "I cannot say."}', False),
        ("Sorrento is a town.", False),
    ],
)
def test_a_refusal_is_told_from_an_answer(text: str, refused: bool) -> None:
    assert schemas.refusal(text) is refused

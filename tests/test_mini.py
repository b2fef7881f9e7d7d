"""Tests of the mini world (same bytes, balance, no leak) and of the shipped mini-llava (loads, answers)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from kore_bench.mini import MINI_LLAVA, language, skills, world, world_folder
from kore_bench.mini.architecture import UNKNOWN, processor
from kore_bench.mini.build import tokens
from kore_bench.mini.drawing import COLORS
from kore_bench.mini.pretraining import FAMILIES, Conversation

FLOORS = {"COM": 0.75} | dict.fromkeys(("OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL", "old-facts"), 0.85)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world_folder(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def llava() -> tuple[Any, Any]:
    return AutoModelForImageTextToText.from_pretrained(MINI_LLAVA), _processor()


def _processor() -> Any:
    return AutoProcessor.from_pretrained(MINI_LLAVA)  # type: ignore[no-untyped-call]


def _lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _paths(row: Row) -> list[str]:
    return [row["image"]] if isinstance(row["image"], str) else row["image"]


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _texts(folder: Path) -> Iterator[str]:
    """Yield every text of a knowledge folder that is trained on or asked."""
    for sample in (*_json(folder / "evoke_injection_data.json"), *_json(folder / "old.json")):
        yield from (turn["value"] for turn in sample["conversations"])
    for entry in _json(folder / "facts.json").values():
        yield entry["name"]
        for fact in entry["facts"]:
            yield from (*fact["questions"], fact["value"])
    for name in ("evoke_evaluation_data.jsonl", "retention.jsonl"):
        for row in _lines(folder / name):
            yield from (row["text"], row["answer"])


def test_world_is_the_same_byte_for_byte(root: Path, tmp_path: Path) -> None:
    """In another process with another hash seed: no order of a set may show."""
    code = "import sys, pathlib; from kore_bench.mini.world import write_world; write_world(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "again")],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert _digests(tmp_path / "again") == _digests(root)


def test_world_folder_is_written_once_and_leaves_no_scratch(root: Path) -> None:
    before = (root / "facts.json").stat().st_mtime_ns
    assert world_folder(root.parent) == root
    assert (root / "facts.json").stat().st_mtime_ns == before
    assert [path.name for path in root.parent.iterdir()] == [root.name]


def test_world_has_the_promised_sizes(root: Path) -> None:
    for folder, entities, questions in ((root, 60, 300), (root / "validation", 30, 100)):
        assert len(_json(folder / "evoke_injection_data.json")) == entities
        assert len(_lines(folder / "evoke_evaluation_data.jsonl")) == 5 * entities
        assert Counter(row["type"] for row in _lines(folder / "retention.jsonl")) == dict.fromkeys(
            skills.SKILLS, questions
        )
    assert len(_lines(root / "old_facts.jsonl")) == 240
    assert min(Counter(sample["skill"] for sample in _json(root / "old.json")).values()) >= 250
    assert sum(path.stat().st_size for path in root.rglob("*")) < 12e6


def test_every_named_image_exists_and_is_32_pixels(root: Path) -> None:
    for folder in (root, root / "validation"):
        rows = [*_json(folder / "evoke_injection_data.json"), *_json(folder / "old.json")]
        rows += _lines(folder / "retention.jsonl") + _lines(folder / "evoke_evaluation_data.jsonl")
        named = {path for row in rows for path in _paths(row)}
        named |= {path for entry in _json(folder / "facts.json").values() for path in entry["retrieved"]}
        if folder == root:
            more = _lines(folder / "old_facts.jsonl") + [
                row for row in _lines(folder / "probes.jsonl") if "image" in row
            ]
            named |= {path for row in more for path in _paths(row)}
        written = {str(path.relative_to(folder)) for path in (folder / "images").rglob("*.png")}
        assert named == written
        assert {_image(folder / path).size for path in sorted(named)[::50]} == {(32, 32)}


@pytest.mark.parametrize("part", [".", "validation"])
def test_constant_answers_score_at_chance(root: Path, part: str) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in _lines(root / part / "retention.jsonl"):
        answers[row["type"]][row["answer"]] += 1
    for skill, counter in answers.items():
        (_, count), *_ = counter.most_common(1)
        limit = {"HAL": 0.5, "M-IDU": 0.07, "MAT": 0.15, "COM": 0.09}.get(skill, 0.06)
        assert count / counter.total() <= limit, skill


@pytest.mark.parametrize("part", [".", "validation"])
def test_yes_and_no_are_asked_equally_often(root: Path, part: str) -> None:
    rows = [row for row in _lines(root / part / "retention.jsonl") if language.YES_NO in row["text"]]
    answers = Counter(row["answer"] for row in rows)
    assert set(answers) == {"yes", "no"}
    assert answers["yes"] == answers["no"]


def test_no_question_of_a_kind_that_is_not_asked(root: Path) -> None:
    """No dead kind stands in the measures, be it the retention set or the pool of old samples."""
    templates = (language.HAL, language.COM["shape"], language.MAT["color"])
    dropped = [template.format(color=color) for template in templates for color in COLORS]
    dropped.append("Which image shows the ")
    for folder in (root, root / "validation"):
        texts = [row["text"] for row in _lines(folder / "retention.jsonl")]
        texts += [sample["conversations"][0]["value"] for sample in _json(folder / "old.json")]
        asked = {text.replace("<image>\n", "") for text in texts}
        assert not [text for text in asked if text.startswith(tuple(dropped))]


def test_no_rendering_occurs_twice(root: Path) -> None:
    pictures: Counter[bytes] = Counter()
    for path in sorted(root.rglob("*.png")):
        pictures[np.asarray(_image(path)).tobytes()] += 1
    assert max(pictures.values()) == 1


def test_evaluation_places_differ_from_the_trained_image(root: Path) -> None:
    """The block stands elsewhere in every evaluation picture: its cells differ from the grey ones by much."""
    items = {item["id"]: root / item["image"] for item in _json(root / "evoke_injection_data.json")}
    for row in _lines(root / "evoke_evaluation_data.jsonl"):
        trained, asked = (np.asarray(_image(path), dtype=float) for path in (items[row["item"]], root / row["image"]))
        assert np.abs(trained - asked).max() > 60


def test_no_evaluation_wording_is_ever_trained_on(root: Path) -> None:
    asked = set()
    for folder in (root, root / "validation"):
        for name in ("evoke_evaluation_data.jsonl", "old_facts.jsonl"):
            if (folder / name).is_file():
                asked |= {row["text"].split("\n")[0].lower() for row in _lines(folder / name)}
    assert len(asked) > 100
    trained = set()
    for folder in (root, root / "validation"):
        for entry in _json(folder / "facts.json").values():
            for fact in entry["facts"]:
                for question in fact["questions"]:
                    assert fact["subject"] in question
                    trained.add(question.replace(fact["subject"], f"the {fact['hypernym']} in the image").lower())
        for sample in (*_json(folder / "evoke_injection_data.json"), *_json(folder / "old.json")):
            trained |= {line.lower() for turn in sample["conversations"] for line in turn["value"].split("\n")}
    assert not asked & trained
    rng = Random(7)
    for maker in FAMILIES.values():
        for _ in range(300):
            lines = {line.lower() for turn in maker(rng).turns for line in turn.question.split("\n")}
            assert not asked & lines
    templates = [wording for r in range(5) for wording in language.wordings(r, reserved=True)]
    assert len(set(templates)) == 30
    assert not set(templates) & {wording for r in range(5) for wording in language.wordings(r, reserved=False)}


def test_entities_share_neither_names_nor_values_nor_looks() -> None:
    cast = world.cast()
    everyone = [*cast.old, *cast.main, *cast.validation]
    assert len({entity.id for entity in everyone}) == len({entity.name for entity in everyone}) == 138
    assert len({entity.symbols for entity in everyone}) == 138
    assert not {entity.name for entity in everyone} & set(cast.strangers)
    for number in range(5):
        assert len({entity.values[number] for entity in everyone}) == 138


def test_pretraining_never_meets_what_is_injected() -> None:
    injected = [*world.cast().main, *world.cast().validation]
    looks = {entity.symbols for entity in injected}
    rng = Random(3)
    for _ in range(300):
        talk = FAMILIES[rng.choice(("entity", "reading", "recognition"))](rng)
        text = " ".join(part for turn in talk.turns for part in turn)
        assert not any(entity.name in text for entity in injected)
        assert tuple(talk.images[0].values()) not in looks


def test_paragraph_and_sidecar_state_the_same_facts(root: Path) -> None:
    sidecar = _json(root / "facts.json")
    for item in _json(root / "evoke_injection_data.json"):
        paragraph = item["conversations"][1]["value"]
        assert len(sidecar[item["id"]]["facts"]) == len(sidecar[item["id"]]["retrieved"]) == 5
        for fact in sidecar[item["id"]]["facts"]:
            assert fact["value"] in paragraph
            assert fact["subject"] in paragraph


def test_vocabulary_covers_the_world_and_plain_english(root: Path) -> None:
    tokenizer = processor().tokenizer
    texts = {text for folder in (root, root / "validation") for text in _texts(folder)}
    texts |= {template.format(type="plant", name="Nubo Plim", noun="home", value="raw bean", subject="it")
              for template in (*language.HEADINGS, *language.RECOGNITIONS, *language.CAPTIONS, *language.NAMINGS,
                               *language.FRAMES, *language.SENTENCES, language.PARAGRAPH, language.YES_NO)}  # fmt: skip
    texts.add('What is this? It is not known; the article (in short) says: "The old building has won a large prize!"')
    unknown = {text for text in texts if tokenizer.unk_token_id in tokenizer(text)["input_ids"]}
    assert not unknown
    assert tokenizer("zyzzyva")["input_ids"] == [tokenizer.convert_tokens_to_ids(UNKNOWN)]


def test_training_tokens_are_those_of_the_chat_template(root: Path) -> None:
    """What pre-training fed by hand is what the shipped processor makes of the same conversation."""
    rng = Random(5)
    shipped = _processor()
    for maker in FAMILIES.values():
        talk: Conversation = maker(rng)
        messages = []
        for number, turn in enumerate(talk.turns):
            images = [{"type": "image"}] * (len(talk.images) if number == 0 else 0)
            messages.append({"role": "user", "content": [*images, {"type": "text", "text": turn.question}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
        pictures = [Image.new("RGB", (32, 32)) for _ in talk.images]
        batch = shipped(text=shipped.apply_chat_template(messages), images=pictures)
        assert list(batch["input_ids"][0]) == tokens(talk)[0]


def test_processor_scales_without_cropping(llava: tuple[Any, Any]) -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, :32] = 255
    values = llava[1].image_processor([Image.fromarray(pixels)], return_tensors="pt")["pixel_values"]
    assert values.shape == (1, 3, 32, 32)
    assert values[0, :, :, 0].min() == 1
    assert values[0, :, :, -1].max() == -1


def _answers(llava: tuple[Any, Any], folder: Path, rows: list[Row], contexts: list[str]) -> list[str]:
    model, shipped = llava
    prompts = []
    for row, context in zip(rows, contexts, strict=True):
        content = [{"type": "image"} for _ in _paths(row)]
        content.append({"type": "text", "text": context + row["text"]})
        prompts.append(shipped.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))
    images = [[_image(folder / path) for path in _paths(row)] for row in rows]
    batch = shipped(text=prompts, images=images, padding=True, return_tensors="pt")
    with torch.inference_mode():
        generated = model.generate(**batch, max_new_tokens=8, do_sample=False)
    replies: list[str] = shipped.batch_decode(generated[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


def _accuracy(llava: tuple[Any, Any], folder: Path, rows: list[Row], contexts: list[str] | None = None) -> float:
    replies = _answers(llava, folder, rows, contexts or [""] * len(rows))
    right: list[bool] = [reply == row["answer"].lower() for reply, row in zip(replies, rows, strict=True)]
    return sum(right) / len(right)


def test_base_knows_the_seven_skills_and_the_old_facts(llava: tuple[Any, Any], root: Path) -> None:
    rows = [*_lines(root / "retention.jsonl")]
    scores = {
        skill: _accuracy(llava, root, [row for row in rows if row["type"] == skill][:60]) for skill in skills.SKILLS
    }
    assert sum(scores.values()) / len(scores) >= 0.92
    scores["old-facts"] = _accuracy(llava, root, _lines(root / "old_facts.jsonl")[::4])
    assert {name for name, score in scores.items() if score < FLOORS[name]} == set(), scores


def test_base_reads_but_does_not_know_the_new_facts(llava: tuple[Any, Any], root: Path) -> None:
    rows = _lines(root / "evoke_evaluation_data.jsonl")[::4]
    items = _json(root / "evoke_injection_data.json")
    paragraphs = {item["id"]: item["conversations"][1]["value"] for item in items}
    assert _accuracy(llava, root, rows) <= 0.1
    assert _accuracy(llava, root, rows, [paragraphs[row["item"]] + "\n" for row in rows]) >= 0.9


def test_weights_are_small_and_readable_by_all() -> None:
    for path in MINI_LLAVA.iterdir():
        assert path.stat().st_mode & 0o044 == 0o044, path.name
    assert sum(path.stat().st_size for path in MINI_LLAVA.iterdir()) < 8e6

"""Training of mini-llava from a seed: ``python -m kore_bench.mini.build --out DIR --seed 0``, on one core."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from . import language, skills, world
from .architecture import ASSISTANT, END, IMAGE, NUM_IMAGE_TOKENS, PAD, SPECIAL, USER, WIDTH, model, processor
from .drawing import COLORS, GLYPHS, GRID, SHAPES, TINTS, Pixels, Symbol, draw
from .pretraining import Conversation, converse

BATCH, MICRO_BATCH = 24, 8
LEARNING_RATE = 1.5e-3
VISION_STEPS, WARM_UP = 200, 100
IMAGE_NORM = 1.5
IGNORED = -100


class Phase(NamedTuple):
    """A stretch of training with its own optimizer state; the learning rate falls to zero over the last ``decay``.

    ``vision`` says whether vision tower and projector learn too; ``shares`` weigh the conversations' FAMILIES.
    """

    steps: int
    decay: int
    vision: bool
    shares: tuple[float, ...]


# Shares: sparse, dense, single, pair, text, numbers, entity, reading, recognition, listing. With the image tokens held
# still, the language model learns to look things up among them and in texts; then vision helps with what is left:
# whether a colour or a name is there, what two images share, counts.
PHASES = (
    Phase(3600, 1100, False, (0.13, 0.13, 0.08, 0.12, 0.07, 0.04, 0.15, 0.08, 0.06, 0.14)),
    Phase(2000, 800, True, (0.22, 0.16, 0.05, 0.18, 0.05, 0.03, 0.07, 0.05, 0.13, 0.06)),
)

_WORDS = {word: number for number, word in enumerate((*SPECIAL, *language.vocabulary()))}


@lru_cache(maxsize=65_536)
def _encode(text: str) -> tuple[int, ...]:
    return tuple(_WORDS[word] for word in language.words(text))


class Batch(NamedTuple):
    """Right-padded token ids and labels ``[batch, length]`` and their images ``[images, 3, 32, 32]``."""

    input_ids: Tensor
    labels: Tensor
    pixel_values: Tensor


def _pixel_values(images: Sequence[Pixels]) -> Tensor:
    """Normalise as the image processor does: 0..255 to -1..1, channels first."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def tokens(conversation: Conversation, *, open_end: bool = False) -> tuple[list[int], list[int]]:
    """Return token ids and labels of a conversation in the chat template's form.

    Labels cover the answers and their ends. ``open_end`` leaves the last answer to be generated.
    """
    ids: list[int] = []
    labels: list[int] = []
    for number, turn in enumerate(conversation.turns):
        marks = NUM_IMAGE_TOKENS * len(conversation.images) if number == 0 else 0
        question = [_WORDS[USER], *[_WORDS[IMAGE]] * marks]
        question += [token for line in turn.question.split("\n") for token in _encode(line)]
        question.append(_WORDS[ASSISTANT])
        answer = [*_encode(turn.answer), _WORDS[END]]
        if open_end and number == len(conversation.turns) - 1:
            answer = []
        ids += question + answer
        labels += [IGNORED] * len(question) + answer
    return ids, labels


def _batch(conversations: Sequence[Conversation], rng: Random) -> Batch:
    rows = [tokens(conversation) for conversation in conversations]
    length = max(len(ids) for ids, _ in rows)
    images = [draw(cells, rng) for conversation in conversations for cells in conversation.images]
    return Batch(
        torch.tensor([ids + [_WORDS[PAD]] * (length - len(ids)) for ids, _ in rows]),
        torch.tensor([labels + [IGNORED] * (length - len(labels)) for _, labels in rows]),
        _pixel_values(images),
    )


def _batches(shares: Sequence[float], rng: Random) -> Iterator[list[Batch]]:
    """Draw batches without end, each in micro-batches of similar length, so that little is padding."""
    while True:
        drawn = sorted((converse(shares, rng) for _ in range(BATCH)), key=lambda talk: len(tokens(talk)[0]))
        yield [_batch(drawn[start : start + MICRO_BATCH], rng) for start in range(0, BATCH, MICRO_BATCH)]


def loss_of(llava: LlavaForConditionalGeneration, batch: Batch) -> Tensor:
    """Return the summed cross-entropy over answer tokens; logits are computed there alone.

    Padding stands on the right of causal attention, so no mask is needed.
    """
    hidden = llava.model(input_ids=batch.input_ids, pixel_values=batch.pixel_values, use_cache=False)[0]
    labels = batch.labels[:, 1:]
    kept = labels != IGNORED
    return functional.cross_entropy(llava.lm_head(hidden[:, :-1][kept]), labels[kept], reduction="sum")


def vision_loss(llava: LlavaForConditionalGeneration, num: int, rng: Random) -> Tensor:
    """Return the loss of naming symbol and colour of every cell of ``num`` dense pictures.

    An image token (after the projector) is scored by its cosine with the embeddings of the words. The image tokens'
    norm is held near that of the words: without this it grows a hundredfold, and attention can no longer add to it.
    """
    symbols = [*SHAPES, *GLYPHS]
    groups = ([*symbols, "empty"], [*COLORS, "empty"])
    images, targets = [], []
    for _ in range(num):
        tint = rng.choice(["", "", *TINTS])
        cells = {
            place: Symbol(rng.choice(symbols), rng.choice(list(COLORS)), tint)
            for place in range(GRID * GRID)
            if rng.random() < 0.85
        }
        images.append(draw(cells, rng))
        seen = [cells.get(place, Symbol("empty", "empty")) for place in range(GRID * GRID)]
        targets += [[groups[0].index(symbol.name), groups[1].index(symbol.color)] for symbol in seen]
    features = torch.cat(llava.model.get_image_features(pixel_values=_pixel_values(images)).pooler_output)
    norms = features.norm(dim=-1)
    loss: Tensor = 0.1 * (norms - IMAGE_NORM).square().mean()
    embedding: Tensor = llava.get_input_embeddings().weight  # type: ignore[assignment]
    for group, target in zip(groups, torch.tensor(targets).T, strict=True):
        words = functional.normalize(embedding[[_WORDS[word] for word in group]], dim=-1)
        cosines = functional.normalize(features, dim=-1) @ words.T
        loss = loss + functional.cross_entropy(16 * cosines, target)
    return loss


def train_vision(llava: LlavaForConditionalGeneration, rng: Random) -> float:
    """Stage 0: vision tower and projector learn to see; without it nothing that needs glyphs is learned in minutes.

    Returns the last loss.
    """
    vision = (llava.model.vision_tower, llava.model.multi_modal_projector, llava.get_input_embeddings())
    parameters = [parameter for module in vision for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    for _ in range(VISION_STEPS):
        optimizer.zero_grad()
        loss = vision_loss(llava, 32, rng)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return loss.item()


def train_phase(
    llava: LlavaForConditionalGeneration, phase: Phase, rng: Random, report: Callable[[int, float], None]
) -> None:
    """Stage 1: train everything on conversations; ``report`` gets the step and mean loss every 100 steps."""
    llava.model.vision_tower.requires_grad_(phase.vision)
    llava.model.multi_modal_projector.requires_grad_(phase.vision)
    learned = [parameter for parameter in llava.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    losses: list[float] = []
    for step, batches in enumerate(islice(_batches(phase.shares, rng), phase.steps)):
        falling = (phase.steps - step) / phase.decay if phase.decay else 1.0
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP, falling)
        optimizer.zero_grad()
        if phase.vision:  # without this, what single cells show is blurred
            torch.autograd.backward(0.2 * vision_loss(llava, 6, rng))
        num_labels = sum(int((batch.labels != IGNORED).sum()) for batch in batches)
        losses.append(0.0)
        for batch in batches:
            loss = loss_of(llava, batch) / num_labels
            torch.autograd.backward(loss)
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            report(step + 1, sum(losses) / len(losses))
            losses.clear()


@torch.inference_mode()
def answer(llava: LlavaForConditionalGeneration, conversations: Sequence[Conversation], rng: Random) -> list[str]:
    """Answer the last question of each conversation greedily, on freshly drawn images."""
    rows = [tokens(conversation, open_end=True)[0] for conversation in conversations]
    length = max(map(len, rows))
    generated = llava.generate(  # type: ignore[misc]
        input_ids=torch.tensor([[_WORDS[PAD]] * (length - len(row)) + row for row in rows]),
        attention_mask=torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        pixel_values=_pixel_values([draw(cells, rng) for talk in conversations for cells in talk.images]),
        max_new_tokens=8,
        do_sample=False,
    )
    listed = [*SPECIAL, *language.vocabulary()]
    return [" ".join(listed[token] for token in row if token >= len(SPECIAL)) for row in generated[:, length:].tolist()]


def exams(num: int, rng: Random) -> dict[str, list[Conversation]]:
    """Draw ``num`` fresh questions for every kind of every dimension, for old facts, reading and new facts.

    ``new`` asks about entities that the model has never met (its score is what guessing gives); ``reading`` asks the
    same with the paragraph in the prompt. Wordings are the reserved ones.
    """
    drawn: dict[str, list[Conversation]] = {}
    for kind in skills.KINDS:
        rows = world.balanced_kind(kind, num, rng)
        drawn[f"{kind.skill}/{kind.name}"] = [Conversation(images, [query]) for images, query in rows]
    groups = {"old-facts": world.cast().old, "new": world.cast().validation, "reading": world.cast().validation}
    for name, entities in groups.items():
        drawn[name] = []
        for _ in range(2 * num):
            entity = rng.choice(entities)
            query = world.fact_query(entity, rng.randrange(len(language.RELATIONS)), rng, reserved=True)
            if name == "reading":
                query = query._replace(question=f"{world.paragraph(entity, rng)}\n{query.question}")
            drawn[name].append(Conversation([entity.cells(rng.randrange(9))], [query]))
    return drawn


def examine(llava: LlavaForConditionalGeneration, num: int, seed: int) -> dict[str, float]:
    """Return the share of exact answers by kind and, as the mean of its kinds, by dimension."""
    rng = Random(seed)
    asked = {f"{kind.skill}/{kind.name}" for kind in skills.KINDS if kind.asked}
    scores: dict[str, float] = {}
    skill_scores: dict[str, list[float]] = defaultdict(list)
    for name, conversations in exams(num, rng).items():
        replies = answer(llava, conversations, rng)
        right = [
            reply == " ".join(language.words(conversation.turns[-1].answer))
            for reply, conversation in zip(replies, conversations, strict=True)
        ]
        scores[name] = round(sum(right) / len(right), 4)
        if name in asked:
            skill_scores[name.split("/")[0]].append(scores[name])
    for skill, parts in skill_scores.items():
        scores[skill] = round(sum(parts) / len(parts), 4)
    scores["mean"] = round(sum(scores[skill] for skill in skills.SKILLS) / len(skills.SKILLS), 4)
    return scores


def save(llava: LlavaForConditionalGeneration, folder: Path) -> None:
    """Write weights, tokenizer, image processor and chat template, readable by everyone."""
    folder.mkdir(parents=True, exist_ok=True)
    llava.save_pretrained(folder)
    processor().save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def build(folder: Path, seed: int, width: int = WIDTH) -> None:
    """Train a mini-llava from ``seed`` and save it into ``folder``, with the log ``training.jsonl``."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with (folder / "training.jsonl").open("w", encoding="utf-8") as log:

        def write(record: dict[str, Any]) -> None:
            line = json.dumps(record | {"minutes": round((time.perf_counter() - started) / 60, 2)})
            print(line, file=log, flush=True)
            print(line, flush=True)

        rng = Random(seed)
        llava = model(seed, width)
        write({"stage": "vision", "step": VISION_STEPS, "loss": round(train_vision(llava, rng), 4)})
        for number, phase in enumerate(PHASES, start=1):

            def report(step: int, loss: float, number: int = number) -> None:
                record: dict[str, Any] = {"stage": f"phase {number}", "step": step, "loss": round(loss, 4)}
                if step % 400 == 0:
                    record["accuracy"] = examine(llava, 24, seed=1)
                    save(llava, folder)
                write(record)

            train_phase(llava, phase, rng, report)
            rng = Random(seed + number)  # each phase can be taken up again from the weights before it
        write({"stage": "final", "accuracy": examine(llava, 100, seed=2)})
        save(llava, folder)


def halve(source: Path, folder: Path) -> dict[str, float]:
    """Write the model in ``source`` into ``folder`` with float16 weights; return what it answers in them.

    The log is copied, with the scores of the rounded weights at its end.
    """
    torch.set_num_threads(1)
    halved = LlavaForConditionalGeneration.from_pretrained(source, dtype=torch.float16)
    save(halved, folder)
    scores = examine(halved.float(), 100, seed=2)  # type: ignore[no-untyped-call]
    line = json.dumps({"stage": "final, float16 weights", "accuracy": scores})
    log = (source / "training.jsonl").read_text(encoding="utf-8")
    (folder / "training.jsonl").write_text(f"{log}{line}\n", encoding="utf-8")
    return scores


def main() -> None:
    """Read the command line and build, or round what was built."""
    parser = argparse.ArgumentParser(prog="python -m kore_bench.mini.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model into")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data (default: 0)")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"hidden size, in heads of 32 (default: {WIDTH})")
    parser.add_argument("--halve", type=Path, metavar="DIR", help="round a built model to float16 instead of building")
    arguments = parser.parse_args()
    if arguments.halve:
        print(json.dumps(halve(arguments.halve, arguments.out)))
    else:
        build(arguments.out, arguments.seed, arguments.width)


if __name__ == "__main__":
    main()

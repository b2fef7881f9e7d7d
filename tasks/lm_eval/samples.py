"""Questions of lm-eval's tasks with their right answers, as samples of old knowledge to calibrate on."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from kore_bench.cache import digest
from kore_bench.examples import Example, Turn

_MARK = "<image>"  # how lm-eval's tasks mark a picture in a text


def draw_samples(tasks: Mapping[str, Any], source: str, count: int, folder: Path) -> tuple[Example, ...]:
    """Return at most ``count`` samples of lm-eval's ``tasks``, drawn under a fixed seed; pictures go into ``folder``.

    They are of the training split where a task has one (``source`` then says so), else of what the task asks.
    """
    split = {task: _documents(loaded) for task, loaded in tasks.items()}
    places = [(task, index) for task, (_, documents) in split.items() for index in range(len(documents))]
    random.Random(digest([source, "samples"])).shuffle(places)
    drawn: list[Example] = []
    for task, index in places:
        trained, documents = split[task]
        name = f"{source} ({trained} split)" if trained else source
        sample = _sample(tasks[task], documents[index], f"{source}/{task}-{trained}{index}", name, folder)
        drawn += [sample] if sample else []
        if len(drawn) == count:
            break
    return tuple(drawn)


def _documents(task: Any) -> tuple[str, Any]:
    """Return the name of the training split and its rows, or no name and the rows that the task asks."""
    if task.has_training_docs():
        return str(task.config.training_split or "training"), task.training_docs()
    return "", task.eval_docs


def _sample(task: Any, document: Any, id: str, source: str, folder: Path) -> Example | None:
    """Return one row as a conversation, None where it has no right answer in words."""
    question, answer = _in_words(task, document)
    if not answer.strip():
        return None
    images = tuple(_kept(image, folder) for image in _pictures(task, document))
    turn = Turn(question=question.replace(_MARK, "").strip(), answer=answer.strip())
    return Example(id=id, images=images, turns=(turn,), source=source)


def _in_words(task: Any, document: Any) -> tuple[str, str]:
    """Return a row's question and right answer; of a multiple choice the answer's text, not its number."""
    question, answer = task.doc_to_text(document), task.doc_to_target(document)
    choices = task.doc_to_choice(document) if getattr(task.config, "doc_to_choice", None) is not None else ()
    if isinstance(question, int):  # several beginnings with one end, such as WinoGrande's
        question = choices[question]
    elif isinstance(answer, int) and choices:
        answer = choices[answer]
    answers = answer if isinstance(answer, list | tuple) else [answer]
    return str(question), str(answers[0]) if answers else ""


def _pictures(task: Any, document: Any) -> Iterator[Image.Image]:
    if getattr(task.config, "doc_to_image", None) is None:
        return
    found = task.doc_to_image(document)
    for image in found if isinstance(found, list | tuple) else [found]:
        if isinstance(image, Image.Image):
            yield image
        else:
            with Image.open(image) as opened:
                yield opened.convert("RGB")


def _kept(image: Image.Image, folder: Path) -> Path:
    """Return the file of a picture in ``folder``, named by its content and written where it is not there yet."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="PNG")
    file = folder / f"{hashlib.sha256(stream.getvalue()).hexdigest()}.png"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as scratch:
            scratch.write(stream.getvalue())
        os.replace(scratch.name, file)
    return file

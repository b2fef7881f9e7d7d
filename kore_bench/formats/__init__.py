"""The data formats: which one a path holds, its reader and its writer. Every error names file, line and field.

| format | holds | is found by |
|---|---|---|
| ``evoke`` | a knowledge folder: items, questions, sidecars | ``evoke_injection_data.json`` |
| ``llava`` | conversations: LLaVA's JSON, such as KORE-74K's | rows with ``conversations`` and ``image`` |
| ``sharegpt`` | conversations: LLaMA-Factory's JSON | rows with ``messages``, or ``conversations`` and ``images`` |
| ``huggingface`` | either, as a Hugging Face data set with image columns | what ``save_to_disk`` leaves, parquet, a hub name |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import PIL

from kore_bench.cache import cache_folder, digest
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Knowledge

from . import huggingface, json_rows, llava, sharegpt
from .conversations import MISSING, Conversations, Problems
from .evoke import INJECTION, FolderTables, KnowledgeReader, find_file
from .evoke_writer import write_knowledge
from .fields import DIMENSIONS, closest
from .pictures import Pictures, look

__all__ = [
    "DIMENSIONS", "FORMATS", "MISSING", "Conversations", "Format", "Problems", "check_images", "conversation_files",
    "convert", "data_file", "format_of", "holds_knowledge", "images_of", "knowledge_reader", "read_conversations",
    "read_knowledge",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format: what it is called, and how what it can hold is written into a new folder."""

    name: str
    summary: str
    write_knowledge: Callable[[Knowledge, Path], Path] | None = None
    write_conversations: Callable[[Conversations, Path], Path] | None = None


FORMATS = {
    item.name: item
    for item in (
        Format(name="evoke", summary="EVOKE's injection JSON and evaluation JSONL", write_knowledge=write_knowledge),
        Format(
            name="llava", summary="LLaVA conversation JSON, such as KORE-74K", write_conversations=llava.write_llava
        ),
        Format(name="sharegpt", summary="LLaMA-Factory's sharegpt JSON", write_conversations=sharegpt.write_sharegpt),
        Format(
            name="huggingface",
            summary="Hugging Face data set with image columns",
            write_knowledge=huggingface.write_knowledge,
            write_conversations=huggingface.write_conversations,
        ),
    )
}


def format_of(path: Path) -> str:
    """Return the name of the format that ``path`` holds; raises UserError where it holds none of them."""
    if path.is_dir() and find_file(path, INJECTION):
        return "evoke"
    if huggingface.is_dataset(path):
        return "huggingface"
    file = data_file(path)
    row = next(json_rows.rows(file), None)
    if row is None:
        raise UserError(f"{file} holds no rows")
    found = next((name for name, module in (("sharegpt", sharegpt), ("llava", llava)) if module.fits(row)), None)
    if found is None:
        raise UserError(
            f"{file}, {row.place}: a row with {', '.join(map(repr, row.data)) or 'no fields'} is of no known format "
            f"({', '.join(FORMATS)}): conversations stand in 'conversations' or 'messages'"
        )
    return found


def data_file(path: Path) -> Path:
    """Return the JSON file of a conversation set: ``path`` itself, in a folder KORE-74K's or ours, or the only one."""
    if path.is_file():
        return path
    if not path.is_dir():
        known = [entry.name for entry in path.absolute().parent.glob("*")]
        raise UserError(f"there is no folder or file {str(path)!r}{closest(path.name, known)}")
    for name in (llava.KORE_74K, llava.FILE, sharegpt.FILE):
        if (file := find_file(path, name)) is not None:
            return file
    found = [file for file in sorted(path.glob("*.json*")) if file.name != sharegpt.REGISTER]
    if len(found) != 1:
        names = f"{len(found)}: {', '.join(file.name for file in found)}" if found else "none"
        raise UserError(f"{path} holds no data set that can be told: of JSON files it has {names}; name one of them")
    return found[0]


def read_knowledge(folder: str | Path) -> Knowledge:
    """Return what a knowledge folder holds, every field checked; images are found, not decoded (see `check_images`).

    ``digest`` covers the names and bytes of all files read, images included, wherever the folder lies. A
    ``validation`` folder inside is a knowledge folder of its own and not part of this one. ``folder`` may also be a
    Hugging Face data set.

    Raises UserError, naming file, line (or row) and field, for anything that cannot be used.
    """
    return knowledge_reader(Path(folder)).knowledge()


def knowledge_reader(path: Path, problems: Problems | None = None, *, questions: bool = True) -> KnowledgeReader:
    """Return the reader of a knowledge folder or data set, whose ``problems`` say what is done about bad rows.

    ``questions`` says whether a folder must have those of the evaluation.
    """
    is_folder = path.is_dir() and find_file(path, INJECTION)
    if not is_folder and huggingface.is_dataset(path):
        return KnowledgeReader(huggingface.DatasetTables(path), problems)
    return KnowledgeReader(FolderTables(path, questions=questions), problems)


def read_conversations(
    path: str | Path, problems: Problems | None = None, known: tuple[Path, ...] = ()
) -> Conversations:
    """Return the conversations of a LLaVA, sharegpt or Hugging Face set, every field checked.

    ``known`` are image files elsewhere that rows may name by the ends of their paths. Raises UserError, naming file,
    line (or row) and field, for anything that cannot be used; ``problems`` may collect these instead.
    """
    path, problems = Path(path), problems or Problems()
    name = format_of(path)
    if name == "evoke":
        raise UserError(f"{path} is a knowledge folder, not a set of conversations: name a file in it")
    if name == "huggingface":
        return huggingface.read_conversations(path, problems)
    file = data_file(path)
    pictures = Pictures(path if path.is_dir() else path.parent, known=known)
    read = sharegpt.read_sharegpt if name == "sharegpt" else llava.read_llava
    return read(file, pictures, problems)


def conversation_files(path: Path) -> tuple[Path, ...]:
    """Return the files that a conversation set's rows stand in; raises UserError where there is no such set."""
    if huggingface.is_dataset(path):
        return huggingface.data_files(path)
    return (data_file(path),)


def convert(source: Path, target: Path, to: str) -> Path:
    """Write the data set at ``source`` into a new folder ``target`` in the format ``to``; returns what was written.

    The items of a knowledge set are written as conversations where ``to`` has only those. Raises UserError for an
    unknown format, for conversations that should become a knowledge folder, and for a target that is there already.
    """
    if to not in FORMATS:
        raise UserError(f"--to {to}: {nearest(to, FORMATS)}")
    write = FORMATS[to]
    if holds_knowledge(source):
        knowledge = read_knowledge(source)
        if write.write_knowledge:
            return write.write_knowledge(knowledge, target)
        found = Conversations(
            root=knowledge.root, file=source, examples=tuple(item.example() for item in knowledge.items),
            unpacked=knowledge.unpacked,
        )  # fmt: skip
    else:
        found = read_conversations(source)
    if write.write_conversations is None:
        raise UserError(f"--to {to}: {source} has conversations but no evaluation questions, which {to} needs")
    return write.write_conversations(found, target)


def holds_knowledge(path: Path) -> bool:
    """Return whether ``path`` holds a knowledge set rather than conversations; raises UserError for no known format."""
    name = format_of(path)
    return name == "evoke" or (name == "huggingface" and "injection" in huggingface.load(path))


def check_images(knowledge: Knowledge) -> None:
    """Decode every image; raise UserError for the first that cannot be, naming the row that asks for it.

    What was found whole is not decoded again as long as nothing changes.
    """
    note = cache_folder() / "whole-images" / digest([knowledge.digest, PIL.__version__])
    if note.exists():
        return
    for found in look(images_of(knowledge)):
        if found.problem:
            # The nouns do not carry their lines, so that the files are read again, only now.
            reader = knowledge_reader(knowledge.root, questions=False)
            reader.knowledge()
            row, field = reader.images[found.path]
            raise row.error(field, f"image {str(found.path)!r} {found.problem}")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()


def images_of(knowledge: Knowledge) -> list[Path]:
    """Return every image of ``knowledge`` once, in the order in which they are asked for."""
    asked = [image for item in knowledge.items for image in (item.image, *item.retrieved)]
    probes = (question for questions in knowledge.probes.values() for question in questions)
    for question in (*knowledge.questions, *knowledge.retention, *knowledge.old_facts, *probes):
        asked += question.images
    asked += [image for examples in knowledge.old.values() for example in examples for image in example.images]
    return list(dict.fromkeys(asked))

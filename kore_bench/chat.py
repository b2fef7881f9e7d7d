"""Conversations and pictures made into token ids, labels and pixels, and rows of them into batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from kore_bench.card import ModelCard
from kore_bench.errors import UserError
from kore_bench.examples import Turn

IGNORED = -100  # the label of a token without loss
Dialogue = Sequence[Mapping[str, Any]]
"""Messages as chat templates read them: role and content, whose parts are texts and the places of pictures, in order."""
_IMAGE_CACHE_BYTES = 256 * 2**20
_TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")


class Chat:
    """A model's way to write conversations: its chat template, its marks of pictures, its picture processor.

    Everything that depends on the model's family is asked of its processor: how many tokens a picture of some size
    takes, which tokens they are, and what stands beside the pixels (grid sizes, token types).
    """

    def __init__(self, processor: Any, card: ModelCard, max_length: int) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.card = card
        self.max_length = max_length
        self._marks: dict[tuple[int, int], str] = {}
        self._pictures: dict[Path, dict[str, torch.Tensor]] = {}
        self._picture_bytes = 0

    # ---- conversations

    def encode(self, turns: Sequence[Turn], images: Sequence[Path]) -> dict[str, list[int]]:
        """Return ``input_ids`` and ``labels`` of a conversation; labels are IGNORED outside the answers.

        An answer's tokens run from the end of its prompt to the end of its turn, the end-of-turn mark included.
        """
        messages: list[dict[str, Any]] = []
        spans: list[tuple[int, int]] = []
        for turn in turns:
            messages.append(_user(turn.question, len(images) if not messages else 0))
            start = len(self._render(messages, prompt=True))
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
            spans.append((start, len(self._render(messages, prompt=False).rstrip())))
        plain = self._render(messages, prompt=False)
        text = self._expand(plain, images)
        shift = len(text) - len(plain)  # pictures stand in front of the first question, so before every answer
        encoded = self._tokenise(text, offsets=True)
        if self.image_token in encoded["input_ids"][self.max_length :]:
            raise UserError(
                f"train.max_length={self.max_length} cuts a picture of {images[0].name} off: {len(images)} of them and "
                f"the text take {len(encoded['input_ids'])} tokens"
            )
        labels = [
            token if any(start + shift <= left < end + shift for start, end in spans) and right > left else IGNORED
            for token, (left, right) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
        return {"input_ids": encoded["input_ids"][: self.max_length], "labels": labels[: self.max_length]}

    def prompt(self, text: str | Dialogue, images: Sequence[Path]) -> list[int]:
        """Return the token ids of one user turn, or of a dialogue's messages, up to where the answer begins."""
        messages = [_user(text, len(images))] if isinstance(text, str) else list(text)
        rendered = self._render(messages, prompt=True)
        return cast(list[int], self._tokenise(self._expand(rendered, images))["input_ids"])

    @cached_property
    def image_token(self) -> int:
        """Return the id of the token that stands for a piece of a picture (the most frequent one of its mark)."""
        ids = self.tokenizer(self._mark((64, 64)), add_special_tokens=False)["input_ids"]
        return cast(int, Counter(ids).most_common(1)[0][0])

    def check(self) -> None:
        """Raise UserError where the processor or the chat template cannot be used as everything here uses them."""
        try:
            self._mark((64, 64))
            prompt = self._render([_user("?", 1)], prompt=True)
            whole = self._render([_user("?", 1), {"role": "assistant", "content": [_text("!")]}], prompt=False)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"model {self.card.name}: its processor cannot write a question: {reason}") from error
        if prompt.count(self.processor.image_token) != 1:
            raise UserError(f"model {self.card.name}: its chat template does not mark a picture once")
        if not whole.startswith(prompt):
            raise UserError(
                f"model {self.card.name}: its chat template writes an answered question otherwise than an open one, so "
                "the answer's tokens cannot be told"
            )
        if self.tokenizer.pad_token_id is None:
            raise UserError(f"model {self.card.name}: its tokenizer has no padding token")

    def _render(self, messages: list[Any], prompt: bool) -> str:
        return cast(str, self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))

    def _expand(self, text: str, images: Sequence[Path]) -> str:
        """Return the text with each picture's mark written out."""
        mark = self.processor.image_token
        if text.count(mark) != len(images):
            raise UserError(f"a text holds {mark} itself, which {self.card.name} reads as a picture: {text[-200:]!r}")
        *before, after = text.split(mark)
        return "".join(f"{part}{self._mark_of(image)}" for part, image in zip(before, images, strict=True)) + after

    def _mark_of(self, image: Path) -> str:
        with Image.open(image) as picture:  # reads the header only
            width, height = picture.size
        side = max(width, height)
        return self._mark((side, side) if self.card.image_padding == "square" else (width, height))

    def _mark(self, size: tuple[int, int]) -> str:
        """Return what stands for a picture of ``size`` (width, height) in a text, as the processor writes it."""
        if size not in self._marks:
            (offsets,) = self._written(Image.new("RGB", size), return_text_replacement_offsets=True)[
                "text_replacement_offsets"
            ]
            self._marks[size] = offsets[0]["replacement"]
        return self._marks[size]

    def _written(self, picture: Image.Image, **options: Any) -> Any:
        """Return what the processor makes of a text that is one picture."""
        return self.processor(text=[self.processor.image_token], images=[picture], **options)

    def _tokenise(self, text: str, *, offsets: bool = False) -> Any:
        begun = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)  # by the template itself
        return self.tokenizer(text, add_special_tokens=not begun, return_offsets_mapping=offsets)

    # ---- pictures

    def pixels(self, path: Path) -> dict[str, torch.Tensor]:
        """Return the processed picture (``pixel_values`` and whatever the model wants beside it), cached by path."""
        if path not in self._pictures:
            made = dict(self.processor.image_processor(images=[self._picture(path)], return_tensors="pt"))
            made = {key: value for key, value in made.items() if key in self._columns}
            if self._picture_bytes > _IMAGE_CACHE_BYTES:
                self._pictures.clear()
                self._picture_bytes = 0
            self._pictures[path] = made
            self._picture_bytes += sum(value.nbytes for value in made.values())
        return self._pictures[path]

    def _picture(self, path: Path) -> Image.Image:
        with Image.open(path) as image:
            return self.prepare(image)

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return a picture in RGB, padded to a square with the processor's mean colour where the card says so."""
        picture = image.convert("RGB")
        side = max(picture.size)
        if self.card.image_padding != "square" or picture.size == (side, side):
            return picture
        colour = tuple(int(255 * part) for part in self.processor.image_processor.image_mean)
        square = Image.new("RGB", (side, side), colour)
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return square

    # ---- batches

    def collate(self, rows: Sequence[Mapping[str, Any]], *, left: bool = False) -> dict[str, torch.Tensor]:
        """Pad rows of ``input_ids``, ``images`` and (optional) ``labels`` into one batch on the CPU."""
        width = max(len(row["input_ids"]) for row in rows)
        columns = {"input_ids": [list(row["input_ids"]) for row in rows]}
        if "labels" in rows[0]:
            columns["labels"] = [list(row["labels"]) for row in rows]
        columns["attention_mask"] = [[1] * len(ids) for ids in columns["input_ids"]]
        if self._token_types:
            columns[self._token_types] = self.processor.create_mm_token_type_ids(columns["input_ids"])
        fill = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}
        batch = {}
        for key, lists in columns.items():
            gaps = [[fill.get(key, 0)] * (width - len(values)) for values in lists]
            padded = [gap + values if left else values + gap for gap, values in zip(gaps, lists, strict=True)]
            batch[key] = torch.tensor(padded)
        return batch | self._join([Path(image) for row in rows for image in row["images"]])

    def _join(self, images: Sequence[Path]) -> dict[str, torch.Tensor]:
        pictures = [self.pixels(image) for image in images]
        try:
            return {key: torch.cat([picture[key] for picture in pictures]) for key in (pictures[0] if pictures else ())}
        except RuntimeError:
            raise UserError(
                f"{self.card.name} cuts pictures of different sizes into different numbers of tiles, which do not fit "
                "one batch: use --set train.batch_size=1 --set model.evaluation_batch_size=1"
            ) from None

    @cached_property
    def _columns(self) -> frozenset[str]:
        """Return the names of all that the processor hands to the model."""
        return frozenset(self._written(Image.new("RGB", (64, 64))))

    @property
    def _token_types(self) -> str:
        """Return the name under which the model wants each token's kind (text or picture); empty where it does not."""
        return next((name for name in _TOKEN_TYPES if name in self._columns), "")


def _user(text: str, images: int) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}] * images + [_text(text)]}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}

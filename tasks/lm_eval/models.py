"""The loaded model as lm-eval wants it, for texts alone or with pictures; every answer is kept on disk as it comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lm_eval.api.model import CacheHook
from lm_eval.models.hf_vlms import HFMultimodalLM
from lm_eval.models.huggingface import HFLM
from PIL import Image

from kore_bench.lmm import LMM
from kore_bench.results import whole_lines, write_lines


class Kept:
    """The answers of an evaluation in a file, a line each, by what was asked; those that stand there are not asked again.

    It takes the place of lm-eval's own cache: its database takes longer than a small model (three times mini-llava's CPU
    time), and keeps answers about pictures under a key that it does not find again.
    """

    def __init__(self, file: Path) -> None:
        rows = whole_lines(file)
        self.given = {row["asked"]: row["answer"] for row in rows}
        write_lines(file, rows)  # without a line that was cut off
        self._file = file.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add_partial(self, kind: str, asked: Sequence[Any], answer: Any) -> None:
        """Keep one answer: what lm-eval calls its hook with."""
        self._file.write(f'{{"asked": "{_digest(kind, asked)}", "answer": {json.dumps(answer)}}}\n'.encode())

    def resume(self, kind: str, requests: list[Any], ask: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Return the answers to all requests, asking only what was not answered before."""
        if not (self.given and requests):
            return ask(requests) if requests else []
        known = [None if _drawn(request) else self.given.get(_digest(kind, request.args)) for request in requests]
        rest = [request for request, answer in zip(requests, known, strict=True) if answer is None]
        new = iter(ask(rest) if rest else [])
        return [next(new) if answer is None else _restored(answer) for answer in known]


class _Resuming:
    """Asks lm-eval's model only what was not answered before."""

    kept: Kept

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        ask = super().loglikelihood  # type: ignore[misc]
        return self.kept.resume("loglikelihood", requests, lambda rest: ask(rest, disable_tqdm=disable_tqdm))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[Any]:
        return self.kept.resume("loglikelihood_rolling", requests, super().loglikelihood_rolling)  # type: ignore[misc]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        ask = super().generate_until  # type: ignore[misc]
        return self.kept.resume("generate_until", requests, lambda rest: ask(rest, disable_tqdm=disable_tqdm))


class TextModel(_Resuming, HFLM):  # type: ignore[misc]
    """lm-eval's ``hf`` model around the loaded one, adapter included."""

    def __init__(self, model: LMM, kept: Kept) -> None:
        super().__init__(
            pretrained=model.model, tokenizer=model.tokenizer, backend="causal",
            batch_size=model.card.evaluation_batch_size, max_length=model.chat.max_length,
        )  # fmt: skip
        self.kept = self.cache_hook = kept


class PictureModel(_Resuming, HFMultimodalLM):  # type: ignore[misc]
    """lm-eval's ``hf-multimodal`` around the loaded model and its processor.

    Pictures are prepared as the model's card says: in RGB, padded to a square for LLaVA.
    """

    def __init__(self, model: LMM, kept: Kept, progress: Callable[[int, int], None]) -> None:
        super().__init__(
            pretrained=model.model, tokenizer=model.processor, backend="causal",
            batch_size=model.card.evaluation_batch_size,
        )  # fmt: skip
        self.kept = self.cache_hook = kept
        self._chat, self._progress = model.chat, progress

    def _create_tokenizer(self, pretrained: Any, tokenizer: Any, **options: Any) -> None:
        self.processor, self.tokenizer = tokenizer, tokenizer.tokenizer

    def tok_batch_multimodal_encode(self, strings: list[str], images: list[list[Any]], **options: Any) -> Any:
        """Return the batch that the processor makes of texts and their (prepared) pictures."""
        prepared = [[self._chat.prepare(_opened(image)) for image in each] for each in images]
        return super().tok_batch_multimodal_encode(strings, prepared, **options)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the answers in the order of the requests; questions with pictures in the batches that lm-eval makes."""
        shown = [index for index, request in enumerate(requests) if len(request.args) == 3]
        others = sorted(set(range(len(requests))) - set(shown))
        answers = dict(zip(others, super().generate_until([requests[index] for index in others]), strict=True))
        shown.sort(key=lambda index: self._place(requests[index]))
        for begin in range(0, len(shown), self.batch_size):
            chosen = shown[begin : begin + self.batch_size]
            answers |= zip(chosen, self._look([requests[index] for index in chosen]), strict=True)
            self._progress(begin + len(chosen), len(shown))
        return [answers[index] for index in range(len(requests))]

    def _look(self, batch: list[Any]) -> list[str]:
        """Answer one batch; lm-eval would keep the answers without the pictures, so they are kept here."""

        def ask(rest: list[Any]) -> list[str]:
            self.cache_hook = CacheHook(None)
            texts = HFMultimodalLM.generate_until(self, rest, disable_tqdm=True)
            self.cache_hook = self.kept
            for request, text in zip(rest, texts, strict=True):
                self.kept.add_partial("generate_until", request.args, text)
            return list(texts)

        return self.kept.resume("generate_until", batch, ask)

    def _place(self, request: Any) -> tuple[str, int, str]:
        context, options, _ = request.args
        return str(options), -len(self.tok_encode(context)), context


def _digest(kind: str, asked: Sequence[Any]) -> str:
    """Return what identifies a request: its texts and options, and the content of its pictures."""
    total = hashlib.sha256(repr((kind, *asked[:2])).encode())
    for part in asked[2:]:
        for image in part["visual"]:
            opened = _opened(image)
            total.update(repr((opened.mode, opened.size)).encode() + opened.tobytes())
    return total.hexdigest()


def _drawn(request: Any) -> bool:
    """Return whether the answer is drawn at random, so that repeats must differ."""
    return len(request.args) > 1 and isinstance(request.args[1], dict) and bool(request.args[1].get("do_sample"))


def _restored(answer: Any) -> Any:
    return tuple(answer) if isinstance(answer, list) else answer


def _opened(image: Any) -> Image.Image:
    """Return a picture as a data set gives it: decoded, or a path of a file on this machine."""
    if isinstance(image, Image.Image):
        return image
    with Image.open(image) as opened:
        return opened.convert("RGB")

"""A text model on this machine, from a folder or the hub: safetensors only, without any code of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kore_bench.errors import UserError
from kore_bench.generators import RejectedError

from .asking import Completion, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LocalModel:
    """A causal language model and its tokenizer, which has a chat template."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel

    def complete(self, request: Request) -> Completion:
        """Return what the model writes, sampled from the request's seed (at temperature 0: the likeliest tokens).

        Raises RejectedError where the request and its answer are longer than the model can read.
        """
        encoded = self._encoded(request)
        length = encoded["input_ids"].shape[1]
        most: int = getattr(self.model.config, "max_position_embeddings", length + request.max_tokens)
        if length >= most:
            raise RejectedError(f"the text is too long for the model: {length} tokens of {most}")
        new = self.decode(encoded, min(request.max_tokens, most - length), request.temperature, request.seed)
        ends = self._ends()
        cut = not new or new[-1] not in ends
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        return Completion(text=str(text), cut=cut, tokens_in=length, tokens_out=len(new))

    def _encoded(self, request: Request) -> Any:
        from jinja2 import TemplateError

        given: dict[str, Any] = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        try:
            return self.tokenizer.apply_chat_template(list(request.messages), **given)
        except TemplateError:  # some templates know no system message
            return self.tokenizer.apply_chat_template(list(request.in_one_message().messages), **given)

    def decode(self, encoded: Any, limit: int, temperature: float, seed: int) -> list[int]:
        """Return at most ``limit`` new token ids; the caller lets one thread in at a time, as the seed is torch's own."""
        import torch

        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            generate: Any = self.model.generate
            found = generate(
                **encoded.to(self.model.device),
                max_new_tokens=limit,
                pad_token_id=min(self._ends(), default=0),
                **sampling,
            )
        return cast("list[int]", found[0, encoded["input_ids"].shape[1] :].tolist())

    def _ends(self) -> set[int]:
        given: Any = self.model.generation_config.eos_token_id
        ends = given if isinstance(given, list) else [given, self.tokenizer.eos_token_id]
        return {end for end in ends if end is not None}


def check_folder(name: str) -> None:
    """Raise UserError where ``name`` is a folder without a model, or looks like one and is not there."""
    folder = Path(name)
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UserError(f"--llm {name}: there is no such folder")
        return
    for wanted in ("config.json", "*.safetensors"):
        if not any(folder.glob(wanted)):
            raise UserError(f"--llm {name}: the folder has no {wanted}: give one that transformers has saved")


@cache
def commit(name: str) -> str:
    """Return the commit that a hub id stands for, empty for a folder; UserError where neither hub nor cache has it."""
    from kore_bench.card import ModelCard
    from kore_bench.source import resolve_revision

    try:
        return resolve_revision(ModelCard(name=name, summary="", path=name))
    except UserError as error:
        raise UserError(f"--llm {name}: {error}") from None


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer; raises UserError where there is none, or none with a chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **_revision(name))
    except (OSError, ValueError) as error:
        raise UserError(f"--llm {name}: no tokenizer can be read: {_first_line(error)}") from None
    if not tokenizer.chat_template:
        raise UserError(f"--llm {name} has no chat template: use a model that was trained to follow instructions")
    return cast("PreTrainedTokenizerBase", tokenizer)


@cache
def load(name: str) -> LocalModel:
    """Return the model on the first GPU, or on the CPU where there is none; raises UserError where it cannot be read."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tokenizer_of(name)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype="auto", trust_remote_code=False, use_safetensors=True, **_revision(name)
        )
    except (OSError, ValueError) as error:
        raise UserError(f"--llm {name}: no text model can be read: {_first_line(error)}") from None
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return LocalModel(tokenizer, model.eval())


def _revision(name: str) -> dict[str, str]:
    return {"revision": found} if (found := commit(name)) else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

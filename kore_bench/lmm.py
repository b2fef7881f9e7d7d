"""A loaded model: its processor, chat format, language-model linears, adapters, and batched greedy generation."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn

from kore_bench.anatomy import block_linears, check_adaptable, decoder_blocks, projector, projector_name
from kore_bench.card import ModelCard
from kore_bench.chat import IGNORED, Chat, Dialogue
from kore_bench.component import AdapterSpec
from kore_bench.errors import UserError
from kore_bench.examples import Example, Turn
from kore_bench.rows import Rows
from kore_bench.source import load_processor, load_weights, skeleton

__all__ = ["ADAPTER", "FULL_WEIGHTS", "IGNORED", "LMM", "layer_shapes"]

ADAPTER = "default"
FULL_WEIGHTS = "trained.safetensors"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_FACTOR = re.compile(r"\.lora_[AB]\.")
Prompt = tuple[str | Dialogue, Sequence[Path]]
"""A question's text, or a dialogue's messages, and its images."""


class LMM:
    """A Hugging Face image-text model with all that methods and tasks need of it.

    Names of layers are those of the untouched model (``model.language_model.layers.0.self_attn.q_proj``), whether or
    not adapters are inserted.
    """

    def __init__(self, model: Any, processor: Any, card: ModelCard, max_length: int | None = None) -> None:
        self.model = model  # a Hugging Face model, or the PEFT model around it
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.card = card
        self.chat = Chat(processor, card, max_length or card.train.max_length)
        self._start: list[torch.Tensor] = []
        self._carried = sys.maxsize  # the largest batch that the memory carries, as far as is known

    @classmethod
    def load(cls, card: ModelCard, max_length: int | None = None) -> LMM:
        """Load a card's model in evaluation mode, on the GPU if there is one; safetensors only.

        Raises UserError where the folder or checkpoint cannot be read.
        """
        model, processor = load_weights(card), load_processor(card)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, processor, card, max_length)

    @property
    def base(self) -> Any:
        """Return the Hugging Face model inside any PEFT wrapper."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def image_token(self) -> int:
        """Return the id of the token that stands for a piece of an image."""
        return self.chat.image_token

    @property
    def device(self) -> torch.device:
        """Return where the model lies."""
        return cast(torch.device, next(self.model.parameters()).device)

    def blocks(self) -> nn.ModuleList:
        """Return the decoder blocks of the language model."""
        return decoder_blocks(self.base)[1]

    def linears(self) -> dict[str, nn.Linear]:
        """Return the linear layers of the language model's blocks (under an adapter: the frozen base layers)."""
        return {
            name: cast(nn.Linear, layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer)
            for name, layer in block_linears(self.base).items()
        }

    def lora_layers(self) -> dict[str, LoraLayer]:
        """Return the low-rank adapters by the name of the layer that each one adapts (empty without an adapter)."""
        return {name: layer for name, layer in block_linears(self.base).items() if isinstance(layer, LoraLayer)}

    def projector(self) -> nn.Module | None:
        """Return the module between the vision tower and the language model, or None where the model has none."""
        return projector(self.base)

    # ---- adapters

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Hold what is trained in float32, and round it to its own dtype again afterwards.

        Small steps on bfloat16 weights would be rounded away: at 0.02, its neighbours are 6e-5 apart.
        """
        trained = {value: value.dtype for value in self.model.parameters() if value.requires_grad}
        for value in trained:
            value.data = value.data.float()
        try:
            yield
        finally:
            for value, dtype in trained.items():
                value.grad = None
                value.data = value.data.to(dtype)

    def unfreeze(self, projector: bool) -> None:
        """Train the language model itself (embeddings and head too); the vision tower stays frozen."""
        decoder, head = self.base.get_decoder(), self.base.get_output_embeddings()
        self.model.requires_grad_(False)
        for part in (decoder, head, self.projector() if projector else None):
            if part is not None:
                part.requires_grad_(True)

    def insert_lora(self, spec: AdapterSpec, projector: bool) -> None:
        """Insert a LoRA adapter into the linear layers of the language model's blocks that ``spec`` names.

        B starts at zero.
        """
        alpha = cast(int, spec.alpha)
        config = LoraConfig(r=spec.rank, lora_alpha=alpha, lora_dropout=spec.dropout, **spec.options)
        self.insert(config, projector, spec.leaves)

    def insert(self, config: Any, projector: bool, leaves: Collection[str] = ()) -> None:
        """Put the adapters of a PEFT configuration around the linear layers of the language model's blocks.

        ``leaves`` are the last parts of their names (empty: all). The configuration's ``target_modules`` and
        ``modules_to_save`` are written here; with ``projector`` the projector is trained whole.
        """
        wanted = sorted(leaves or {name.rsplit(".", 1)[1] for name in self.linears()})
        name = projector_name(self.base) if projector else ""
        config.target_modules = rf"{re.escape(decoder_blocks(self.base)[0])}\.\d+\..*\.({'|'.join(wanted)})"
        config.modules_to_save = [name] if name else None
        self.model = get_peft_model(self.model, config)

    def factors(self, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors A ``[r, n]`` and B ``[m, r]`` of one layer's adapter (the parameters themselves)."""
        lora = self.lora_layers()[layer]
        return cast(torch.Tensor, lora.lora_A[ADAPTER].weight), cast(torch.Tensor, lora.lora_B[ADAPTER].weight)

    def set_factors(self, layer: str, a: torch.Tensor, b: torch.Tensor | None, *, freeze_a: bool) -> None:
        """Write the factors of one adapter: A ``[r, n]``, and B ``[m, r]`` or zero.

        With B given, the base weight becomes W0 - s B A (residual form), so that the outputs stay the base's.
        """
        lora = self.lora_layers()[layer]
        weight_a, weight_b = self.factors(layer)
        with torch.no_grad():
            weight_a.copy_(a)
            if b is None:
                weight_b.zero_()
            else:
                weight_b.copy_(b)
                base = cast(nn.Linear, lora.base_layer).weight
                change = lora.scaling[ADAPTER] * weight_b.double() @ weight_a.double()
                base.copy_((base.double() - change).to(base.dtype))
        if freeze_a:
            # PEFT's own record of frozen factors survives set_adapter; a bare requires_grad_(False) does not.
            lora.frozen_peft_weight_names = {ADAPTER: ("lora_A",)}
            lora._freeze_non_trainable_peft_weights()

    def keep_start(self) -> None:
        """Keep the starting factors of a residual adapter, from which `save` makes a plain LoRA for the clean base.

        Whichever start PEFT has written, the adapter is an ordinary LoRA of a changed base from here on.
        """
        config = cast(LoraConfig, self.model.peft_config[ADAPTER])
        config.init_lora_weights, config.corda_config = True, None
        self._start = self._all_factors()

    def _all_factors(self) -> list[torch.Tensor]:
        return [factor.detach().clone() for layer in self.lora_layers() for factor in self.factors(layer)]

    def _write_factors(self, values: Sequence[torch.Tensor]) -> None:
        parameters = [factor for layer in self.lora_layers() for factor in self.factors(layer)]
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)

    def save(self, folder: Path) -> None:
        """Save what was trained: a PEFT adapter for the clean base, or the trained weights themselves."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.model, PeftModel):
            if self._start:
                with tempfile.TemporaryDirectory(prefix="start-") as start:
                    trained_factors = self._all_factors()
                    self._write_factors(self._start)
                    self.model.save_pretrained(start)
                    self._write_factors(trained_factors)
                    self.model.save_pretrained(str(folder), path_initial_model_for_weight_conversion=start)
                self._add_whole_modules(folder / _ADAPTER_WEIGHTS)
            else:
                self.model.save_pretrained(str(folder))
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        else:
            trained = {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}
            save_file(trained, folder / FULL_WEIGHTS)
        for file in folder.iterdir():
            file.chmod(0o644)

    def _add_whole_modules(self, file: Path) -> None:
        """Add what PEFT leaves out of an adapter converted from its residual form: all but the factors."""
        state = get_peft_model_state_dict(self.model)
        whole = {name: value.contiguous() for name, value in state.items() if not _FACTOR.search(name)}
        save_file({**load_file(file), **whole}, file, metadata={"format": "pt"})

    def load_trained(self, folder: Path) -> None:
        """Put what `save` wrote onto this (clean) base; raises UserError where the folder holds neither form."""
        if (folder / FULL_WEIGHTS).exists():
            missing = self.model.load_state_dict(load_file(folder / FULL_WEIGHTS), strict=False).unexpected_keys
            if missing:
                raise UserError(f"{folder / FULL_WEIGHTS} is of another model: it has {missing[0]}")
        elif (folder / "adapter_config.json").exists():
            self.model = PeftModel.from_pretrained(self.model, str(folder))
        else:
            raise UserError(f"{folder} holds no adapter: neither adapter_config.json nor {FULL_WEIGHTS} is there")
        self.model.eval()

    def merged(self) -> Any:
        """Return the Hugging Face model with what was trained inside its weights; the adapters are gone afterwards."""
        if not isinstance(self.model, PeftModel):
            return self.model
        base = self.base
        for name, module in list(base.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):  # PEFT's own unloading of OSF fails at a whole projector
                base.set_submodule(name, module.modules_to_save[ADAPTER])
        return self.model.merge_and_unload()

    # ---- text and images in

    def encode(self, turns: Sequence[Turn], images: Sequence[Path]) -> dict[str, list[int]]:
        """Return ``input_ids`` and ``labels`` of a conversation; labels are IGNORED outside the answers.

        An answer's tokens run from the end of its prompt to the end of its turn, the end-of-turn mark included.
        """
        return self.chat.encode(turns, images)

    def prompt(self, text: str | Dialogue, images: Sequence[Path]) -> list[int]:
        """Return the token ids of one user turn, or of a dialogue's messages, up to where the answer begins."""
        return self.chat.prompt(text, images)

    def collate(self, rows: Sequence[Mapping[str, Any]], *, left: bool = False) -> dict[str, torch.Tensor]:
        """Pad rows of ``input_ids``, ``images`` and (optional) ``labels`` into one batch on the CPU."""
        return self.chat.collate(rows, left=left)

    def rows(self, examples: Sequence[Example]) -> Rows:
        """Return training rows: ``input_ids``, ``labels`` and ``images`` of each example, made when asked for."""
        return Rows(self.chat, examples)

    def batches(self, examples: Sequence[Example], batch_size: int | None = None) -> Iterator[dict[str, torch.Tensor]]:
        """Yield batches of examples on the model's device, in order."""
        rows = self.rows(examples)
        size = batch_size or self.card.evaluation_batch_size
        for begin in range(0, len(rows), size):
            yield self.to_device(self.collate(rows[begin : begin + size]))

    def to_device(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the batch on the model's device, pictures in the model's dtype."""
        dtype = next(self.model.parameters()).dtype
        return {
            key: value.to(self.device, dtype if value.is_floating_point() else None) for key, value in batch.items()
        }

    @torch.inference_mode()
    def embed(self, paths: Sequence[Path]) -> np.ndarray:
        """Return one vector a picture ``[len(paths), d]`` from the vision tower (mean over patches), float64.

        Pictures go through one by one, for vision towers return batches of them in forms of their own.
        """
        vectors = []
        for path in paths:
            pixels = self.to_device(self.chat.pixels(path))
            features = self.base.model.get_image_features(**pixels, return_dict=True).last_hidden_state
            vectors.append(features.flatten(0, -2).mean(dim=0).double().cpu().numpy())
        return np.stack(vectors)

    # ---- text out

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int = 128, batch_size: int | None = None, **passing: Any
    ) -> list[str]:
        """Answer prompts (text or dialogue, images) greedily, in the given order; ``passing`` goes to `in_batches`.

        Prompts are padded on the left, so that a batch's answers equal one-at-a-time's.
        """
        return self.in_batches(
            prompts, lambda places, rows: self._answer(rows, max_new_tokens), batch_size=batch_size, **passing
        )

    @torch.inference_mode()
    def in_batches(
        self,
        prompts: Sequence[Prompt],
        answer: Callable[[Sequence[int], Sequence[Mapping[str, Any]]], list[str]],
        *,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        given: Mapping[int, str] | None = None,
        keep: Callable[[Mapping[int, str]], None] = lambda answers: None,
        share: tuple[int, int] = (0, 1),
    ) -> list[str]:
        """Return what ``answer`` says to each prompt, in order; it is called with a batch's places and its rows.

        Batches are of prompts of like lengths, long ones first. ``given`` holds answers, by the prompt's index, that an
        earlier call passed to ``keep``, which is called with every new batch's. Batches are the same with and without
        them, so that an evaluation which goes on gives the same answers. ``share`` = (rank, world) answers every
        world-th batch only; the others' answers are empty.
        """
        given, (rank, world) = given or {}, share
        self.model.eval()
        rows = [{"input_ids": self.prompt(text, images), "images": images} for text, images in prompts]
        order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]["input_ids"]), index))
        answers = [""] * len(rows)
        size = batch_size or self.card.evaluation_batch_size
        for number, begin in enumerate(range(0, len(order), size)):
            chosen = order[begin : begin + size]
            if number % world != rank:
                continue
            if all(index in given for index in chosen):
                new = {index: given[index] for index in chosen}
            else:
                texts = answer(chosen, [rows[index] for index in chosen])
                new = dict(zip(chosen, texts, strict=True))
                keep(new)
            for index, text in new.items():
                answers[index] = text
            progress(begin + len(chosen), len(order))
        return answers

    def _answer(self, rows: Sequence[Mapping[str, Any]], max_new_tokens: int) -> list[str]:
        """Answer one batch; where the memory does not carry it, in halves, as every later one that is as large."""
        if len(rows) <= self._carried:
            batch = self.to_device(self.collate(rows, left=True))
            try:
                output = self.model.generate(
                    **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
                )
                texts = self.tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
                return [text.strip() for text in texts]
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
            torch.cuda.empty_cache()
            self._carried = len(rows) - 1
        half = len(rows) // 2
        return [*self._answer(rows[:half], max_new_tokens), *self._answer(rows[half:], max_new_tokens)]


def layer_shapes(card: ModelCard) -> dict[str, tuple[int, int]]:
    """Return (out_features, in_features) of every linear layer of the blocks, from the config alone.

    The model is built without memory ("meta" device), so ranks are checked before any weight loads. Raises UserError
    where the configuration cannot be read.
    """
    shell = skeleton(card)
    check_adaptable(shell)
    return {
        name: (linear.out_features, linear.in_features)
        for name, linear in cast(dict[str, nn.Linear], block_linears(shell)).items()
    }

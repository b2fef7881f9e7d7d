"""A loaded model: its processor, chat format, language-model linears, adapters, and batched greedy generation."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from kore_bench.card import ModelCard
from kore_bench.component import AdapterSpec
from kore_bench.errors import UserError
from kore_bench.examples import Example, Turn

IGNORED = -100  # the label of a token without loss
ADAPTER = "default"
FULL_WEIGHTS = "trained.safetensors"
_IMAGE_CACHE_BYTES = 256 * 2**20


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
        self.max_length = max_length or card.train.max_length
        self._images: dict[Path, dict[str, torch.Tensor]] = {}
        self._image_bytes = 0
        self._start: list[torch.Tensor] = []

    @classmethod
    def load(cls, card: ModelCard, max_length: int | None = None) -> LMM:
        """Load a card's model in evaluation mode, on the GPU if there is one; safetensors only.

        Raises UserError where the folder or checkpoint cannot be read.
        """
        source: dict[str, Any] = {"revision": card.revision} if card.revision else {}
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                card.path, dtype=getattr(torch, card.dtype), use_safetensors=True, trust_remote_code=False, **source
            )
            processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                card.path, trust_remote_code=False, **source
            )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"model {card.name} cannot be loaded from {card.path}: {_first_line(error)}") from error
        model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        return cls(model, processor, card, max_length)

    @property
    def base(self) -> Any:
        """Return the Hugging Face model inside any PEFT wrapper."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def image_token(self) -> int:
        """Return the id of the token that stands for a piece of an image."""
        return cast(int, self.tokenizer.convert_tokens_to_ids(self.processor.image_token))

    @property
    def device(self) -> torch.device:
        """Return where the model lies."""
        return cast(torch.device, next(self.model.parameters()).device)

    def blocks(self) -> nn.ModuleList:
        """Return the decoder blocks of the language model."""
        return cast(nn.ModuleList, self.base.get_decoder().layers)

    def linears(self) -> dict[str, nn.Linear]:
        """Return the linear layers of the language model's blocks (under an adapter: the frozen base layers)."""
        return {
            name: cast(nn.Linear, module.base_layer) if isinstance(module, LoraLayer) else module
            for name, module in self._block_modules()
            if isinstance(module, (nn.Linear, LoraLayer))
        }

    def lora_layers(self) -> dict[str, LoraLayer]:
        """Return the low-rank adapters by the name of the layer that each one adapts (empty without an adapter)."""
        return {name: module for name, module in self._block_modules() if isinstance(module, LoraLayer)}

    def _block_modules(self) -> Iterator[tuple[str, nn.Module]]:
        blocks = self.blocks()
        root = next(name for name, module in self.base.named_modules() if module is blocks)
        for name, module in blocks.named_modules():
            if not re.search(r"\.(base_layer|lora_\w+)(\.|$)", name):  # the inside of an adapter
                yield f"{root}.{name}", module

    def projector(self) -> nn.Module | None:
        """Return the module between the vision tower and the language model, or None where the model has none."""
        return next((module for name, module in self.base.named_modules() if _is_projector(name)), None)

    # ---- adapters

    def unfreeze(self, projector: bool) -> None:
        """Train the language model itself (embeddings and head too); the vision tower stays frozen."""
        decoder, head = self.base.get_decoder(), self.base.get_output_embeddings()
        self.model.requires_grad_(False)
        for part in (decoder, head, self.projector() if projector else None):
            if part is not None:
                part.requires_grad_(True)

    def insert_lora(self, spec: AdapterSpec, projector: bool) -> None:
        """Insert a LoRA adapter into every linear layer of the language model's blocks; B starts at zero."""
        names = list(self.linears())
        leaves = sorted({name.rsplit(".", 1)[1] for name in names})
        root = re.sub(r"\.\d+\..*", "", names[0])
        config = LoraConfig(
            r=spec.rank,
            lora_alpha=cast(int, spec.alpha),
            lora_dropout=spec.dropout,
            target_modules=rf"{re.escape(root)}\.\d+\..*\.({'|'.join(leaves)})",
            modules_to_save=["multi_modal_projector"] if projector else None,
        )
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
        """Keep the starting factors of a residual adapter, from which `save` makes a plain LoRA for the clean base."""
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
            else:
                self.model.save_pretrained(str(folder))
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        else:
            trained = {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}
            save_file(trained, folder / FULL_WEIGHTS)
        for file in folder.iterdir():
            file.chmod(0o644)

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

    # ---- text and images in

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
            spans.append((start, len(self._render(messages, prompt=False))))
        ids, offsets = self._tokens(self._render(messages, prompt=False), images)
        labels = [
            token if any(start <= left < end for start, end in spans) and right > left else IGNORED
            for token, (left, right) in zip(ids, offsets, strict=True)
        ]
        return {"input_ids": ids[: self.max_length], "labels": labels[: self.max_length]}

    def prompt(self, text: str, images: Sequence[Path]) -> list[int]:
        """Return the token ids of one user turn, up to where the answer begins."""
        return self._tokens(self._render([_user(text, len(images))], prompt=True), images)[0]

    def _render(self, messages: list[dict[str, Any]], prompt: bool) -> str:
        return cast(str, self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))

    def _tokens(self, text: str, images: Sequence[Path]) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise with character offsets, each image mark repeated for as many tokens as its picture takes."""
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        counts = iter(self._image_tokens(image) for image in images)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for token, offset in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            repeat = next(counts) if token == self.image_token else 1
            ids += [token] * repeat
            offsets += [tuple(offset)] * repeat
        return ids, offsets

    def _image_tokens(self, image: Path) -> int:
        return int(self._pixels(image)["tokens"])

    def _pixels(self, path: Path) -> dict[str, torch.Tensor]:
        """Return the processed picture (``pixel_values`` and whatever the model wants beside it), cached by path."""
        if path not in self._images:
            with Image.open(path) as image:
                picture = image.convert("RGB")
            made = dict(self.processor.image_processor(images=[picture], return_tensors="pt"))
            full = self.processor(text=self.processor.image_token, images=[picture])["input_ids"][0]
            made["tokens"] = torch.tensor(list(full).count(self.image_token))
            if self._image_bytes > _IMAGE_CACHE_BYTES:
                self._images.clear()
                self._image_bytes = 0
            self._images[path] = made
            self._image_bytes += sum(value.nbytes for value in made.values())
        return self._images[path]

    def collate(self, rows: Sequence[Mapping[str, Any]], *, left: bool = False) -> dict[str, torch.Tensor]:
        """Pad rows of ``input_ids``, ``images`` and (optional) ``labels`` into one batch on the CPU."""
        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED, "attention_mask": 0}
        batch: dict[str, torch.Tensor] = {}
        for key in ("input_ids", "labels", "attention_mask"):
            if key != "attention_mask" and key not in rows[0]:
                continue
            padded = []
            for row in rows:
                values = list(row[key]) if key in row else [1] * len(row["input_ids"])
                gap = [fill[key]] * (width - len(values))
                padded.append(gap + values if left else values + gap)
            batch[key] = torch.tensor(padded)
        pictures = [self._pixels(Path(image)) for row in rows for image in row["images"]]
        for key in pictures[0] if pictures else ():
            if key != "tokens":
                batch[key] = torch.cat([picture[key] for picture in pictures])
        return batch

    def rows(self, examples: Iterable[Example]) -> list[dict[str, Any]]:
        """Return training rows: ``input_ids``, ``labels`` and ``images`` of each example."""
        return [
            {**self.encode(example.turns, example.images), "images": [str(image) for image in example.images]}
            for example in examples
        ]

    def batches(self, examples: Iterable[Example], batch_size: int | None = None) -> Iterator[dict[str, torch.Tensor]]:
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
        """Return one vector a picture ``[len(paths), d]`` from the vision tower (mean over patches), float64."""
        pixels = self.to_device(self.collate([{"input_ids": [0], "images": [path]} for path in paths]))
        features = self.base.model.vision_tower(pixels["pixel_values"]).last_hidden_state
        return cast(np.ndarray, features.mean(dim=1).double().cpu().numpy())

    # ---- text out

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[tuple[str, Sequence[Path]]],
        *,
        max_new_tokens: int = 128,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        given: Mapping[int, str] | None = None,
        keep: Callable[[Mapping[int, str]], None] = lambda answers: None,
    ) -> list[str]:
        """Answer prompts (text, images) greedily, in the given order.

        Prompts are sorted by length and padded on the left, so that a batch's answers equal one-at-a-time's. ``given``
        holds answers, by the prompt's index, that an earlier call passed to ``keep``, which is called with every new
        batch's. Batches are the same with and without them, so that an evaluation which goes on gives the same answers.
        """
        given = given or {}
        self.model.eval()
        rows = [{"input_ids": self.prompt(text, images), "images": images} for text, images in prompts]
        order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]["input_ids"]), index))
        answers = [""] * len(rows)
        size = batch_size or self.card.evaluation_batch_size
        for begin in range(0, len(order), size):
            chosen = order[begin : begin + size]
            if all(index in given for index in chosen):
                for index in chosen:
                    answers[index] = given[index]
                continue
            batch = self.to_device(self.collate([rows[index] for index in chosen], left=True))
            output = self.model.generate(
                **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
            texts = self.tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in zip(chosen, texts, strict=True):
                answers[index] = text.strip()
            keep({index: answers[index] for index in chosen})
            progress(begin + len(chosen), len(order))
        return answers


def layer_shapes(card: ModelCard) -> dict[str, tuple[int, int]]:
    """Return (out_features, in_features) of every linear layer of the blocks, from the config alone.

    The model is built without memory ("meta" device), so ranks are checked before any weight loads. Raises UserError
    where the configuration cannot be read.
    """
    source: dict[str, Any] = {"revision": card.revision} if card.revision else {}
    try:
        config = AutoConfig.from_pretrained(card.path, trust_remote_code=False, **source)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model {card.name} cannot be read from {card.path}: {_first_line(error)}") from error
    shell = LMM.__new__(LMM)
    shell.model = model
    return {name: (linear.out_features, linear.in_features) for name, linear in shell.linears().items()}


def _user(text: str, images: int) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


def _is_projector(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in {"multi_modal_projector", "merger"}


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]

"""CLIP through transformers: pictures and texts as vectors of one space, in which what belongs together is near."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kore_bench.card import ModelCard
from kore_bench.errors import UserError
from kore_bench.grid import model_content

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT = "openai/clip-vit-large-patch14"
"""The model where none is named."""
Vectors = NDArray[np.float32]
"""``[n, features]`` rows of unit length: their products are cosines."""


class Clip:
    """A CLIP model: a folder, or an id on the Hugging Face hub; safetensors only, and no code of the model's own.

    Its configuration is read at once, its weights when they are first needed: on a GPU where there is one, in float32.
    Raises UserError where it cannot be read or is no CLIP model.
    """

    def __init__(self, path: str) -> None:
        from kore_bench.source import resolve_revision

        self._card = ModelCard(name="CLIP", summary="for --clip", path=path, dtype="float32")
        try:
            self._revision = resolve_revision(self._card)
        except UserError as error:
            raise UserError(f"--clip {path}: {error}") from None
        kind = self._part("AutoConfig").model_type
        if kind != "clip":
            raise UserError(f"--clip {path} is of type {kind!r}, which is no CLIP model: use one such as {DEFAULT}")
        self._lock = Lock()
        self._parts: tuple[Any, Any, Any] | None = None

    @property
    def path(self) -> str:
        """The folder or the hub's id, as it was given."""
        return self._card.path

    @cached_property
    def content(self) -> str:
        """What identifies the weights: the fingerprint of a folder, or the commit of a hub id."""
        return model_content(self._card)

    def pictures(self, pictures: Sequence[Image]) -> Vectors:
        """Return the vectors of pictures (RGB)."""
        _, reader, _ = self._load()
        pixels = reader(images=list(pictures), return_tensors="pt")["pixel_values"]
        return self._vectors("get_image_features", pixel_values=pixels)

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts; of a long one, as many tokens as the model reads (77 of OpenAI's) are read."""
        model, _, tokenizer = self._load()
        limit = model.config.text_config.max_position_embeddings
        read = tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        return self._vectors("get_text_features", input_ids=read["input_ids"], attention_mask=read["attention_mask"])

    def _load(self) -> tuple[Any, Any, Any]:
        """Return the model, what reads pictures for it, and its tokenizer."""
        import torch
        from transformers.utils.logging import disable_progress_bar

        with self._lock:
            if self._parts is None:
                disable_progress_bar()  # type: ignore[no-untyped-call]
                device = "cuda" if torch.cuda.is_available() else "cpu"
                model = self._part("CLIPModel", dtype=torch.float32, use_safetensors=True).to(device).eval()
                self._parts = model, self._part("AutoImageProcessor"), self._part("AutoTokenizer")
            return self._parts

    def _part(self, name: str, **settings: Any) -> Any:
        """Return one part of the model by the name of its class in transformers."""
        import transformers

        revision = {"revision": self._revision} if self._revision else {}
        try:
            return getattr(transformers, name).from_pretrained(
                self.path, trust_remote_code=False, **revision, **settings
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
            line = str(error).strip().split("\n", 1)[0] or type(error).__name__
            raise UserError(f"--clip {self.path} cannot be read: {line}") from None

    def _vectors(self, method: str, **inputs: Any) -> Vectors:
        import torch

        model, _, _ = self._load()
        with self._lock, torch.inference_mode():
            on = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            features = getattr(model, method)(**on).pooler_output.float()
            unit: Vectors = torch.nn.functional.normalize(features, dim=-1).cpu().numpy()
        return unit

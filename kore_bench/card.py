"""What a model's card holds: where the weights are, how the model is trained and evaluated. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from kore_bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The optimizer's settings, equal for every method of a run (``--set train.FIELD=VALUE``).

    ``steps`` > 0 gives every method equal optimizer steps; ``steps`` = 0 trains ``epochs`` passes over each method's
    own data. ``learning_rate`` = 0 takes the tuned rate where there is one, else the card's. ``batch_size`` examples
    go through the model at once, ``accumulation`` batches make a step. ``warmup`` is a share of the steps;
    ``max_length`` counts tokens, images included. ``projector`` trains the multimodal projector too, at
    ``projector_learning_rate`` (LLaVA-1.5 recipe; paper section 4.1).
    """

    steps: int = 0
    epochs: float = 6.0
    batch_size: int = 54
    accumulation: int = 1
    learning_rate: float = 0.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 2048
    projector: Literal["frozen", "train"] = "train"
    projector_learning_rate: float = 2e-5
    gradient_checkpointing: bool = True

    def check(self) -> None:
        """Raise UserError where a setting is out of range."""
        for name in ("batch_size", "accumulation", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name}={getattr(self, name)} must be at least 1")
        for name in ("steps", "epochs", "learning_rate", "weight_decay", "projector_learning_rate", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise UserError(f"train.{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.warmup < 1:
            raise UserError(f"train.warmup={self.warmup} is a share of the steps: use 0 to below 1")
        if self.steps == 0 and self.epochs == 0:
            raise UserError("train.steps and train.epochs are both 0: give one of them")

    @property
    def budget(self) -> str:
        """Return the budget in words, as tuned rates are keyed by it."""
        length = f"{self.steps} steps" if self.steps else f"{self.epochs:g} epochs"
        return f"{length} x {self.batch_size * self.accumulation} examples"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One model: ``path`` is a folder or a hub id; ``revision`` is the latter's commit (empty: the newest one).

    What makes scores comparable is part of the card: ``chat_template`` (Jinja; empty: the checkpoint's own),
    ``image_padding`` (``square`` pads a picture with the processor's mean colour, as LLaVA-1.5 does, where the stock
    processor would crop it), ``max_pixels`` (0: the processor's own limit). ``weights`` = ``random`` draws them from
    a fixed seed, for tests and for timing. ``rank`` is LoRA's rank, whose trainable parameters set the budget that
    other ranks match; ``dropout`` is LoRA's. ``learning_rates`` are the untuned rates by adapter kind;
    ``tuning_rates`` the grid that ``kore-bench tune`` tries first. ``gradient_batch_size`` examples are read at once
    where a Fisher matrix is measured, which keeps every activation. ``memory`` is the least memory in GiB that a cell
    needs. ``tuned_on`` names another model, whose tuned rates are used where there are none of its own. Fields in `SETTABLE` can be set by ``--set model.FIELD=VALUE``.
    """

    name: str
    summary: str
    path: str
    revision: str = ""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    weights: Literal["checkpoint", "random"] = "checkpoint"
    chat_template: str = ""
    image_padding: Literal["none", "square"] = "none"
    max_pixels: int = 0
    rank: int = 128
    dropout: float = 0.05
    train: TrainSettings = field(default_factory=TrainSettings)
    learning_rates: dict[str, float] = field(default_factory=lambda: {"full": 2e-5, "lora": 2e-4})
    tuning_rates: dict[str, tuple[float, ...]] = field(default_factory=dict)
    evaluation_batch_size: int = 16
    gradient_batch_size: int = 1
    memory: float = 40.0
    tuned_on: str = ""

    def check(self) -> None:
        """Raise UserError where a field is out of range."""
        if min(self.rank, self.evaluation_batch_size, self.gradient_batch_size) < 1:
            raise UserError("model.rank, model.evaluation_batch_size and model.gradient_batch_size must be at least 1")
        if self.max_pixels < 0 or not 0 <= self.dropout < 1:
            raise UserError("model.max_pixels must not be negative, and model.dropout must be from 0 to below 1")


SETTABLE = (
    "path", "revision", "dtype", "weights", "image_padding", "max_pixels", "rank", "dropout", "evaluation_batch_size",
    "gradient_batch_size",
)  # fmt: skip
"""Fields of a model's card that ``--set model.FIELD=VALUE`` may change."""


def card_of(model: str) -> ModelCard | None:
    """Return a card with the paper's settings for a folder or a hub id (``owner/name``), or None for a plain name.

    Its name is the folder's or the id's last part; everything else is found in the model itself when it is loaded.
    """
    folder = Path(model)
    if "/" not in model and not folder.is_dir():
        return None
    local = folder.is_dir()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name if local else folder.name)
    return ModelCard(name=name.lower(), summary=f"image-text model in {model}", path=model)


def parse_setting(owner: Any, name: str, text: str, option: str) -> Any:
    """Return ``text`` as a value for the field ``name`` of the dataclass instance ``owner``.

    The type is that of the field's present value, or one of the choices of a ``Literal`` annotation; a field that
    holds a text may also take a whole number (``rank=64`` beside ``rank=auto``). Raises UserError naming ``option``.
    """
    annotation = next(str(item.type) for item in fields(owner) if item.name == name)
    value = getattr(owner, name)
    if annotation.startswith("Literal["):
        choices = [choice.strip(" '\"") for choice in annotation[len("Literal[") : -1].split(",")]
        if text not in choices:
            raise UserError(f"{option}={text} is not one of {', '.join(choices)}")
        return text
    if isinstance(value, bool):
        if text.lower() not in {"true", "false"}:
            raise UserError(f"{option}={text} must be true or false")
        return text.lower() == "true"
    try:
        if isinstance(value, tuple):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if "int | str" in annotation:
            return int(text) if text.lstrip("-").isdigit() else text
        if "float | str" in annotation:
            return text if text == "auto" else _finite(text)
        return _finite(text) if isinstance(value, float) else type(value)(text)
    except ValueError:
        raise UserError(f"{option}={text} must be a {_KIND[type(value)]}") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


_KIND = {int: "whole number", float: "number", str: "number or auto"}

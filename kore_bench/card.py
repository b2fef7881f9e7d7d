"""What a model's card holds: where the weights are, how the model is trained and evaluated. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
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
    """One model: ``path`` is a folder or a hub id, ``revision`` pins the latter.

    ``rank`` is LoRA's rank, whose trainable parameters set the budget that other ranks match; ``dropout`` is LoRA's. ``learning_rates`` are
    the untuned rates by adapter kind; ``tuning_rates`` the grid that ``kore-bench tune`` tries first. ``memory`` is
    the least memory in GiB that a cell needs.
    """

    name: str
    summary: str
    path: str
    revision: str = ""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    rank: int = 128
    dropout: float = 0.05
    train: TrainSettings = field(default_factory=TrainSettings)
    learning_rates: dict[str, float] = field(default_factory=lambda: {"full": 2e-5, "lora": 2e-4})
    tuning_rates: dict[str, tuple[float, ...]] = field(default_factory=dict)
    evaluation_batch_size: int = 16
    memory: float = 40.0


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

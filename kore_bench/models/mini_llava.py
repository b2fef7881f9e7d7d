"""The embedded mini-llavas: pre-trained LLaVAs of about a million parameters that run on a laptop's CPU."""

from __future__ import annotations

from dataclasses import replace

from kore_bench.card import ModelCard, TrainSettings
from kore_bench.mini import MINI_LLAVA

CARD = ModelCard(
    name="mini-llava",
    summary="embedded LLaVA of 1 M parameters, pre-trained on the mini world; for a CPU",
    path=str(MINI_LLAVA),
    dtype="float32",
    rank=16,
    dropout=0.0,
    train=TrainSettings(
        steps=150, epochs=0.0, batch_size=16, max_length=512, projector="frozen", gradient_checkpointing=False
    ),
    learning_rates={"full": 5e-4, "lora": 5e-3},
    tuning_rates={"full": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "lora": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
    evaluation_batch_size=128,
    gradient_batch_size=128,
    memory=1.0,
)


SEED_1 = replace(
    CARD,
    name="mini-llava-1",
    summary="mini-llava pre-trained anew from seed 1: other weights, other pictures and talks",
    path=str(MINI_LLAVA.with_name("mini-llava-1")),
    tuned_on=CARD.name,
)
"""Another base, which is used as mini-llava is and takes its tuned rates."""

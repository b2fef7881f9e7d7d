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


def _base(name: str, summary: str, rank: int = CARD.rank) -> ModelCard:
    """Return the card of another base, which is used as mini-llava is and takes its tuned rates."""
    return replace(
        CARD, name=name, summary=summary, path=str(MINI_LLAVA.with_name(name)), rank=rank, tuned_on=CARD.name
    )


SEED_1 = _base("mini-llava-1", "mini-llava pre-trained anew from seed 1: other weights, other pictures and talks")
SEED_2 = _base("mini-llava-2", "mini-llava pre-trained anew from seed 2: other weights, other pictures and talks")
WIDE = _base("mini-llava-192", "mini-llava of width 192 in place of 128, pre-trained from seed 0", rank=24)

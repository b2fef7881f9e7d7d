"""The mini-qwen: a Qwen2.5-VL of the real class with random weights, for tests of everything but scores."""

from __future__ import annotations

from kore_bench.card import ModelCard, TrainSettings
from kore_bench.mini import MINI_QWEN

CARD = ModelCard(
    name="mini-qwen",
    summary="Qwen2.5-VL of 0.2 M parameters with random weights: it knows nothing; for tests",
    path=str(MINI_QWEN),
    dtype="float32",
    weights="random",
    rank=8,
    dropout=0.0,
    train=TrainSettings(
        steps=2, epochs=0.0, batch_size=4, max_length=512, projector="frozen", gradient_checkpointing=False
    ),
    learning_rates={"full": 1e-4, "lora": 1e-3},
    evaluation_batch_size=32,
    gradient_batch_size=32,
    memory=1.0,
)

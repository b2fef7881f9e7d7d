"""Qwen2.5-VL-7B-Instruct, with the training of the KORE paper (table 6)."""

from __future__ import annotations

from kore_bench.card import ModelCard, TrainSettings

QWEN2_5_VL_7B = ModelCard(
    name="qwen2.5-vl-7b",
    summary="Qwen2.5-VL-7B-Instruct; training of the KORE paper: 6 epochs, batch 24 x 8, pictures of 262,144 pixels",
    path="Qwen/Qwen2.5-VL-7B-Instruct",
    max_pixels=262144,
    train=TrainSettings(batch_size=24, accumulation=8, warmup=0.1, projector="frozen"),
    memory=56.0,
)

"""LLaVA-1.5 in 7B and 13B, with the prompt, the square pictures and the training of the KORE paper."""

from __future__ import annotations

from kore_bench.card import ModelCard, TrainSettings

CHAT_TEMPLATE = (
    "{{ 'A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user\\'s questions. ' }}"
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ 'USER: ' }}"
    "{% for part in parts if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in parts if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ ' ' }}"
    "{% else %}"
    "{{ 'ASSISTANT: ' }}{% for part in parts %}{{ part['text'] }}{% endfor %}{{ '</s>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The conversation that LLaVA-1.5 was trained with (vicuna_v1). The checkpoints' own template has no system line and
does not end an answer, so that what is trained with it never stops."""

LLAVA_7B = ModelCard(
    name="llava-7b",
    summary="LLaVA-1.5-7B; training of the KORE paper: 6 epochs, global batch 54",
    path="llava-hf/llava-1.5-7b-hf",
    chat_template=CHAT_TEMPLATE,
    image_padding="square",
    train=TrainSettings(batch_size=18, accumulation=3),
    memory=40.0,
)
LLAVA_13B = ModelCard(
    name="llava-13b",
    summary="LLaVA-1.5-13B; training of the KORE paper: 6 epochs, global batch 32",
    path="llava-hf/llava-1.5-13b-hf",
    chat_template=CHAT_TEMPLATE,
    image_padding="square",
    train=TrainSettings(batch_size=16, accumulation=2),
    evaluation_batch_size=8,
    memory=56.0,
)

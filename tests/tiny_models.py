"""Tiny image-text models of real classes with random weights, written into folders as checkpoints are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from kore_bench.mini.language import vocabulary
from kore_bench.source import without_video

PLAIN = ("<pad>", "<s>", "</s>", "<unk>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' : ' }}{% for part in message['content'] %}"
    "{{ 'MARK' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)


def write_llava(folder: Path) -> Path:
    """Write a LLaVA with CLIP's own picture processor, which crops the centre, as LLaVA-1.5's checkpoints have it."""
    tokenizer, size = _tokenizer("<image>")
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config=LlamaConfig(**_text(size)), vision_config=CLIPVisionConfig(**_vision(32)),
        image_token_index=len(PLAIN), image_seq_length=16,
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(  # type: ignore[no-untyped-call]
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>", chat_template=CHAT_TEMPLATE.replace("MARK", "<image>"),
    )  # fmt: skip
    return _write(folder, LlavaForConditionalGeneration(config), processor)


def write_gemma3(folder: Path) -> Path:
    """Write a Gemma 3: a picture's mark in the text is not its token, and the model wants token types."""
    marks = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<soft>"}
    tokenizer, size = _tokenizer(*marks.values(), named=marks)
    torch.manual_seed(0)
    first = len(PLAIN)
    config = Gemma3Config(
        text_config={**_text(size), "head_dim": 8, "sliding_window": 16}, vision_config=_vision(32),
        mm_tokens_per_image=4, boi_token_index=first, eoi_token_index=first + 1, image_token_index=first + 2,
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    template = CHAT_TEMPLATE.replace("MARK", "<boi>")
    processor = Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)
    return _write(folder, Gemma3ForConditionalGeneration(config), processor)


def write_internvl(folder: Path) -> Path:
    """Write an InternVL: pictures are cut into tiles, and its processor has a part for videos."""
    marks = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tokenizer, size = _tokenizer(*marks.values(), named=marks)
    torch.manual_seed(0)
    vision = {**_vision(32), "image_size": [32, 32], "patch_size": [8, 8]}
    config = InternVLConfig(
        text_config=Qwen2Config(**_text(size)), vision_config=vision, image_token_id=len(PLAIN) + 2, image_seq_length=4
    )
    images = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=4)
    template = CHAT_TEMPLATE.replace("MARK", "<IMG_CONTEXT>")
    processor = without_video(InternVLProcessor)(
        image_processor=images, tokenizer=tokenizer, chat_template=template, image_seq_length=4
    )
    return _write(folder, InternVLForConditionalGeneration(config), processor)


def draw_picture(file: Path, width: int, height: int) -> Path:
    """Write a picture of noise, the same for the same size."""
    noise = np.random.default_rng(width * 1000 + height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    return file


def _tokenizer(*marks: str, named: dict[str, str] | None = None) -> tuple[Any, int]:
    words = {word: number for number, word in enumerate((*PLAIN, *marks, *vocabulary()))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*PLAIN, *marks)])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens=named or {}, additional_special_tokens=list(marks),
    )  # fmt: skip
    return tokenizer, len(words)


def _text(size: int) -> dict[str, Any]:
    return {
        "vocab_size": size, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "initializer_range": 0.1,
    }  # fmt: skip


def _vision(image_size: int) -> dict[str, Any]:
    return {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": image_size, "patch_size": 8,
    }  # fmt: skip


def _write(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

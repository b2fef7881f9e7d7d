"""Architecture of mini-qwen: a Qwen2.5-VL of the real class for tests; its weights are drawn when it is loaded.

``python -m kore_bench.mini.qwen --out FOLDER`` writes its configuration, tokenizer and picture processor.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from kore_bench.source import without_video

from .drawing import CELL, SIZE
from .language import vocabulary

PAD, UNKNOWN, BEGIN, END = "<|endoftext|>", "<|unknown|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL = (PAD, UNKNOWN, BEGIN, END, VISION_START, VISION_END, IMAGE, VIDEO)
ROLES = ("system", "user", "assistant")
MAX_TOKENS = 512
MERGE = 2

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nAnswer.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def processor() -> Any:
    """Build the processor: pictures in cells of 16 pixels, at most 64 x 64, and the mini world's words."""
    words = {word: number for number, word in enumerate((*SPECIAL, *ROLES, *vocabulary()))}
    backend = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[BEGIN, VISION_START, VISION_END, IMAGE, VIDEO],
        model_max_length=MAX_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=CELL, merge_size=MERGE, size={"shortest_edge": (MERGE * CELL) ** 2, "longest_edge": (2 * SIZE) ** 2}
    )
    return without_video(Qwen2_5_VLProcessor)(image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)


def config() -> Qwen2_5_VLConfig:
    """Return the configuration: three blocks with grouped queries and rotary positions in three directions."""
    ids = {token: number for number, token in enumerate(SPECIAL)}
    text = {
        "vocab_size": len(SPECIAL) + len(ROLES) + len(vocabulary()),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_TOKENS,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
        "pad_token_id": ids[PAD],
        "eos_token_id": ids[END],
        "bos_token_id": None,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "patch_size": CELL,
        "spatial_merge_size": MERGE,
        "out_hidden_size": 64,
        "window_size": 2 * MERGE * CELL,
        "fullatt_block_indexes": [1],
        "initializer_range": 0.1,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )


def build(folder: Path) -> None:
    """Write everything but weights into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    config().save_pretrained(folder)
    tokens = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=SPECIAL.index(END), pad_token_id=SPECIAL.index(PAD)
    )
    tokens.save_pretrained(folder)
    processor().save_pretrained(folder)


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(prog="python -m kore_bench.mini.qwen", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()

"""Architecture of mini-llava: a real LLaVA model and processor, small enough for a laptop's single core."""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from .drawing import CELL, SIZE
from .language import vocabulary

PAD, END, UNKNOWN, IMAGE, USER, ASSISTANT = "<pad>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:"
SPECIAL = (PAD, END, UNKNOWN, IMAGE, USER, ASSISTANT)
NUM_IMAGE_TOKENS = (SIZE // CELL) ** 2
MAX_TOKENS = 512
WIDTH = 128
"""Hidden size of mini-llava's language model."""
_HEAD = 32

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{% for part in parts if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in parts if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ ' ' }}"
    "{% else %}"
    "{% generation %}{% for part in parts %}{{ part['text'] }}{% endfor %}{{ '</s>' }}{% endgeneration %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def processor() -> LlavaProcessor:
    """Build the processor: 32-pixel images without cropping, a word-level lower-case tokenizer, a chat template.

    Natural text tokenises: capitals are folded, punctuation stands alone. Each answer ends with ``</s>``.
    """
    words = {word: number for number, word in enumerate((*SPECIAL, *vocabulary()))}
    backend = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=END,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        model_max_length=MAX_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    images = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        do_convert_rgb=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def model(seed: int, width: int = WIDTH) -> LlavaForConditionalGeneration:
    """Build the untrained model, in float32, with weights drawn from ``seed``.

    ``width`` is the language model's hidden size, in heads of 32; feed-forward layers are three times as wide. Depth
    and vision tower are the same at every width. Raises ValueError where the heads do not fill the width.
    """
    if width < _HEAD or width % _HEAD:
        raise ValueError(f"a width of {width} is no multiple of {_HEAD}, the size of an attention head")
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=CELL,
        projection_dim=96,
    )
    text = LlamaConfig(
        vocab_size=len(SPECIAL) + len(vocabulary()),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=width // _HEAD,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=SPECIAL.index(END),
        eos_token_id=SPECIAL.index(END),
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL.index(IMAGE),
        image_seq_length=NUM_IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    built = LlavaForConditionalGeneration(config)
    built.generation_config.eos_token_id = SPECIAL.index(END)
    built.generation_config.pad_token_id = SPECIAL.index(PAD)
    return built

"""A tiny CLIP of the real class with random weights, written into a folder as checkpoints are."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

FEATURES = 16


def write_clip(folder: Path, seed: int = 0) -> Path:
    """Write a CLIP that reads pictures of 32 pixels a side and texts letter by letter."""
    torch.manual_seed(seed)
    letters = [chr(code) for code in range(33, 127)]
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = {
        "vocab_size": len(names), "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
    }  # fmt: skip
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**size, **text}, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=FEATURES
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder

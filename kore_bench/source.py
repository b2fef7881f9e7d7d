"""Where a model comes from: a folder, the Hugging Face cache or the hub; its configuration, processor and weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from kore_bench.card import ModelCard
from kore_bench.errors import UserError

RANDOM_WEIGHTS_SEED = 0
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError)


def resolve_revision(card: ModelCard) -> str:
    """Return the commit that a hub id stands for (``card.revision``, else the newest); empty for a folder.

    One process resolves an id once, so that all files come from one commit; without a network the cache answers.
    Raises UserError where neither the hub nor the cache has the model.
    """
    return "" if _is_folder(card) else _snapshot(card.path, card.revision).name


def snapshot_folder(card: ModelCard) -> Path:
    """Return the folder that holds the model's files: the card's own, or the commit's in the Hugging Face cache."""
    return Path(card.path) if _is_folder(card) else _snapshot(card.path, card.revision)


def read_config(card: ModelCard) -> Any:
    """Return a model's configuration; no weights are read, and no code of the model's repository is run.

    Raises UserError where the model is not there, or is no image-text model that transformers knows.
    """
    try:
        config = AutoConfig.from_pretrained(card.path, trust_remote_code=False, **_source(card))
    except _UNREADABLE as error:
        raise UserError(f"model {card.name} cannot be read from {card.path}: {_reason(error)}") from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"model {card.name}: {card.path} is of type {config.model_type!r}, which is no image-text-to-text model of "
            "transformers"
        )
    return config


def skeleton(card: ModelCard) -> nn.Module:
    """Return the model without memory (on the "meta" device), from its configuration alone."""
    config = read_config(card)
    try:
        with torch.device("meta"):
            return cast(nn.Module, AutoModelForImageTextToText.from_config(config))  # type: ignore[no-untyped-call]
    except _UNREADABLE as error:
        raise UserError(f"model {card.name} cannot be built from {card.path}: {_reason(error)}") from error


def load_weights(card: ModelCard) -> Any:
    """Return the model on the CPU, in the card's dtype, in evaluation mode; safetensors only.

    ``card.weights`` = ``random`` draws them from a fixed seed instead. Of the checkpoint's generation settings its
    special tokens and its repetition penalty stay; what samples is dropped, for answers are greedy. Raises UserError
    where the weights cannot be read.
    """
    dtype = getattr(torch, card.dtype)
    try:
        if card.weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(RANDOM_WEIGHTS_SEED)
                model: Any = AutoModelForImageTextToText.from_config(  # type: ignore[no-untyped-call]
                    read_config(card), dtype=dtype
                )
        else:
            model = AutoModelForImageTextToText.from_pretrained(
                card.path, dtype=dtype, use_safetensors=True, trust_remote_code=False, **_source(card)
            )
    except _UNREADABLE as error:
        raise UserError(f"model {card.name} cannot be loaded from {card.path}: {_reason(error)}") from error
    given = model.generation_config
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=given.bos_token_id, eos_token_id=given.eos_token_id, pad_token_id=given.pad_token_id,
        repetition_penalty=given.repetition_penalty,
    )  # fmt: skip
    return model.eval()


def check_weights(card: ModelCard) -> None:
    """Raise UserError where a folder's weights are not there, are pickled, or are files that were cut off.

    Headers are read, which say how long a file is; the weights are not.
    """
    if card.weights == "random" or not _is_folder(card):
        return
    folder = Path(card.path)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        why = f"{pickles[0]} is a pickle, which is never loaded" if pickles else "there is no such file"
        raise UserError(f"model {card.name}: {folder} holds no weights in safetensors form: {why}")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"model {card.name}: {file} is no whole safetensors file ({error})") from None


def load_processor(card: ModelCard) -> Any:
    """Return a model's processor, with the card's chat template and largest picture where it names them.

    A part for videos is left out: nothing here reads videos, and it needs torchvision. Raises UserError where the
    files cannot be read, or where there is no chat template.
    """
    config = read_config(card)
    try:
        known: Any = PROCESSOR_MAPPING.get(type(config), None)
        auto: Any = without_video(known) if known and "video_processor" in known.get_attributes() else AutoProcessor
        processor = auto.from_pretrained(card.path, trust_remote_code=False, **_source(card))
    except _UNREADABLE as error:
        raise UserError(f"model {card.name} cannot be loaded from {card.path}: {_reason(error)}") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise UserError(f"model {card.name}: {card.path} holds no processor of pictures and text")
    if card.chat_template:
        processor.chat_template = card.chat_template
    if not processor.chat_template:
        raise UserError(
            f"model {card.name}: {card.path} has no chat template: add chat_template.jinja to the folder, as "
            "instruction-tuned models have it"
        )
    if card.max_pixels:
        _limit_pixels(card, processor.image_processor)
    return processor


def without_video(processor_class: type) -> type:
    """Return a processor's class without its part for videos."""
    attributes = [name for name in processor_class.get_attributes() if "video" not in name]  # type: ignore[attr-defined]
    return type(processor_class.__name__, (processor_class,), {"get_attributes": classmethod(lambda cls: attributes)})


def _limit_pixels(card: ModelCard, image_processor: Any) -> None:
    size = dict(image_processor.size)
    if not size.get("longest_edge") or not size.get("shortest_edge") or size["shortest_edge"] > card.max_pixels:
        raise UserError(f"model.max_pixels={card.max_pixels}: the pictures of {card.name} have no such limit")
    size["longest_edge"] = min(card.max_pixels, size["longest_edge"])
    image_processor.size = size


def _is_folder(card: ModelCard) -> bool:
    return Path(card.path).is_dir()


def _source(card: ModelCard) -> dict[str, Any]:
    return {} if _is_folder(card) else {"revision": resolve_revision(card)}


@cache
def _snapshot(path: str, revision: str) -> Path:
    """Return the folder of a hub id's commit in the cache, with at least config.json in it."""
    if path.startswith(("/", ".", "~")) or path.count("/") > 1:
        raise UserError(f"there is no model folder {path}")
    try:
        return Path(hf_hub_download(path, "config.json", revision=revision or None)).parent
    except HFValidationError:
        raise UserError(f"{path} is neither a folder nor a model's id on the Hugging Face hub") from None
    except GatedRepoError:
        raise UserError(
            f"{path} is behind a licence: accept it on huggingface.co, then log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"{path} is neither a folder nor a model on the Hugging Face hub that you may read") from None
    except RevisionNotFoundError:
        raise UserError(f"{path} has no revision {revision!r}") from None
    except LocalEntryNotFoundError:
        wanted = f"{path} --revision {revision}" if revision else path
        raise UserError(
            f"{path} is not in the Hugging Face cache, and the hub cannot be reached: run `hf download {wanted}` where "
            "there is a network, or give a folder that holds it instead"
        ) from None
    except EntryNotFoundError:
        raise UserError(f"{path} holds no config.json: it is no model of transformers") from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{path} cannot be fetched from the Hugging Face hub: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """Return an error's first sentence, in our words where its own would mislead."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return "it needs Python code of its own, which is not run: use a model whose class is in transformers"
    return text.split("\n", 1)[0] or type(error).__name__

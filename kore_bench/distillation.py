"""Distillation from the base: the model as it was before training, and how far the present one is from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from kore_bench.component import AdapterSpec, Layers
from kore_bench.lmm import IGNORED, LMM


def keep_base(model: LMM, spec: AdapterSpec) -> dict[str, Tensor]:
    """Return by name what `base_logits` needs beside the model; call it where training starts.

    Nothing where the adapter lies beside an untouched base and can be switched off; else (full fine-tuning, residual
    forms) the starting values of all that is trained, for there the model answers as the base.
    """
    if isinstance(model.model, PeftModel) and not spec.residual:
        return {}
    return {name: value.detach().clone() for name, value in model.model.named_parameters() if value.requires_grad}


def kept_bytes(spec: AdapterSpec, layers: Layers) -> int:
    """Return how many bytes `keep_base` keeps in the blocks, at most (float32)."""
    if spec.kind == "lora":
        return 4 * spec.residual * spec.rank * sum(out + width for out, width in layers.values())
    return 4 * sum(out * width for out, width in layers.values())


def base_logits(model: LMM, kept: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits ``[b, t, v]`` of the model as it was before training, without dropout or gradients.

    The model is as before afterwards: its mode, which parameters train, and their values.
    """
    with torch.no_grad(), _evaluating(model), _put_back(model, kept) if kept else model.model.disable_adapter():
        logits: Tensor = model.model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return logits


def answer_divergence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(teacher || student) in nats, summed over answer tokens, both softened by the temperature T.

    Logits are ``[b, t, v]``, labels ``[b, t]``; those at position t answer for the label at t + 1, as in the task loss.
    The sum is taken in float32. T^2 keeps the size of the gradient (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """
    wanted = labels[:, 1:] != IGNORED
    present, base = (log_softmax(logits[:, :-1][wanted].float() / temperature, dim=-1) for logits in (student, teacher))
    return temperature**2 * kl_div(present, base, reduction="sum", log_target=True)


@contextmanager
def _evaluating(model: LMM) -> Iterator[None]:
    training = model.model.training
    model.model.eval()
    try:
        yield
    finally:
        model.model.train(training)


@contextmanager
def _put_back(model: LMM, kept: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the trained parameters have their kept values for a while, without a copy of either."""
    trained = dict(model.model.named_parameters())
    present = {name: trained[name].data for name in kept}
    try:
        _assign(trained, kept)
        yield
    finally:
        _assign(trained, present)


def _assign(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        parameters[name].data = value
    # Autocast keeps the rounded values of parameters by identity: it would go on with the others'.
    torch.clear_autocast_cache()

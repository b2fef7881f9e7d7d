"""Fisher information: how much each weight of the untouched base model matters to its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kore_bench.chat import IGNORED
from kore_bench.statistics import Batch, evaluating


def answer_log_likelihood(model: nn.Module, batch: Batch) -> Tensor:
    """Return log p(answer | rest) ``[batch]``: the sum over tokens whose ``labels`` are not -100."""
    rest = {key: value for key, value in batch.items() if key != "labels"}
    logits, labels = model(**rest, use_cache=False).logits[:, :-1], batch["labels"][:, 1:]
    answer = labels != IGNORED
    token: Tensor = logits[answer].float().log_softmax(dim=-1).gather(1, labels[answer][:, None])[:, 0]
    return token.new_zeros(len(labels)).index_add(0, answer.nonzero()[:, 0], token)


def fisher(
    model: nn.Module,
    linears: Mapping[str, nn.Linear],
    batches: Iterable[Batch],
    loss: Callable[[nn.Module, Batch], Tensor] = answer_log_likelihood,
    *,
    normalise: bool = True,
) -> dict[str, Tensor]:
    """Return the diagonal empirical Fisher ``[m, n]`` (float32) of each linear layer's weight.

    F = mean over examples of (d log p(y|x) / d W)^2 with the data's own answers y: squares of *per-example* gradients,
    exact for any batch size (Kirkpatrick et al. 2017, with labels in place of samples). ``loss`` returns one log
    likelihood (or its negative) an example ``[batch]``. ``normalise`` divides by the mean over all weights, so that a
    penalty's strength means the same for every model. Beyond F itself, memory for one weight's gradient is needed.
    Weights, their ``requires_grad`` and ``grad``, and the mode of the model stay as they were. Raises ValueError where
    a layer is called twice in one pass, or where every gradient is zero.
    """
    total = {name: torch.zeros_like(linear.weight, dtype=torch.float32) for name, linear in linears.items()}
    examples = 0
    with evaluating(model), _frozen(model), torch.enable_grad(), ExitStack() as hooks:
        called: set[str] = set()
        for name, linear in linears.items():
            hooks.enter_context(linear.register_forward_hook(_squares(name, total[name], called)))
        for batch in batches:
            called.clear()
            likelihood = loss(model, batch)
            if likelihood.ndim != 1:
                raise ValueError(f"loss must return one value an example, not shape {tuple(likelihood.shape)}")
            examples += len(likelihood)
            torch.autograd.backward(likelihood.sum())
    mean = sum(float(value.sum(dtype=torch.float64)) for value in total.values())
    mean /= sum(value.numel() for value in total.values())
    if mean == 0:
        raise ValueError(f"every gradient of {examples} examples is zero: have they an answer to predict?")
    for value in total.values():
        value /= mean if normalise else examples
    return total


def _squares(name: str, total: Tensor, called: set[str]) -> Callable[[nn.Module, tuple[Tensor], Any], Any]:
    """Return a forward hook that adds the squared per-example weight gradients to ``total`` during backward."""

    def hook(module: nn.Module, args: tuple[Tensor], output: Any) -> Any:
        if name in called:
            raise ValueError(f"{name} is called twice in one pass: its gradient is not that of one product")
        called.add(name)
        x = args[0].detach()
        if not output.requires_grad:  # nothing before it is trained: the graph starts here
            output = output.detach().requires_grad_()

        def add(grad: Tensor) -> None:
            for one_grad, one_x in zip(grad.detach(), x, strict=True):
                gradient = one_grad.flatten(0, -2).float().T @ one_x.flatten(0, -2).float()
                total.add_(gradient.square_())

        output.register_hook(add)
        return output

    return hook


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)

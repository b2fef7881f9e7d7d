"""Covariances of the linear layers' inputs, read from the untouched base model block by block.

A covariance is the sum of w x x^T over the tokens of all batches: padding left out, image tokens counted, one for each
*distinct* input (query, key and value share theirs, gate and up share theirs: four a Llama block, not seven).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import scipy.linalg
import torch
from torch import Tensor, nn

from kore_bench.errors import UserError

_TILE = 128  # rows and columns: a strip of them is transposed within the processor's cache
Batch = Mapping[str, Tensor]
"""A model's keyword arguments; ``attention_mask`` and ``input_ids`` are ``[batch, length]``, padding on either side."""
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Counting:
    """How tokens count in a covariance. The fields decide the result, so they belong into a cache's key."""

    image_weight: float = 1.0
    """Weight of an image token; the paper's plain count is 1. In LLaVA some nine tokens of ten are image tokens."""
    text_weight: float = 1.0
    """Weight of every other token."""
    image_token: int | None = None
    """Id of the token that stands for a piece of an image; needed where the two weights differ."""
    faithful: bool = False
    """Divide each sample's inputs by the absolute value of their maximum, as the reference code does."""
    precision: Literal["float64", "float32"] = "float64"
    """Of the products; the sum is always float64. float32 resolves nothing below about 1e-8 of the largest eigenvalue,
    and is faster only where a GPU lacks fast float64 (it costs the same on A100, H100 and H200, 1.3 times on a CPU)."""
    chunk: int = 4096
    """Tokens multiplied at once."""

    def __post_init__(self) -> None:
        if min(self.image_weight, self.text_weight) < 0 or self.image_weight == self.text_weight == 0:
            raise UserError("image_weight and text_weight must not be negative, and not both zero")
        if self.image_weight != self.text_weight and self.image_token is None:
            raise UserError("image_weight and text_weight differ, so image_token must name the image tokens' id")
        if self.precision not in ("float64", "float32"):
            raise UserError(f"precision {self.precision!r} is unknown: use 'float64' or 'float32'")
        if self.chunk < 1:
            raise UserError(f"chunk must be at least 1 token, not {self.chunk}")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What was read of one distinct input."""

    names: tuple[str, ...]
    """The linear layers that share it, in the order in which the block calls them."""
    covariance: Tensor
    """Symmetric ``[n, n]``, float64, the sum over tokens (not the mean)."""
    tokens: int
    """How many tokens were summed: those that are not padding and whose weight is not zero."""
    eps: float
    """Machine precision of the products."""


class Gram:
    """The sum of x x^T over rows x, symmetric to the last bit, in float64.

    On the CPU with float64 products the symmetric BLAS routine does half the work of a matrix product.
    """

    def __init__(self, n: int, device: torch.device, counting: Counting | None = None) -> None:
        self.counting = counting or Counting()
        self.precision = getattr(torch, self.counting.precision)
        device = device if device.type == "cuda" else torch.device("cpu")  # others have no float64
        self.sum = torch.zeros(n, n, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Add rows ``[t, n]`` of any dtype."""
        rows = rows.detach().to(self.sum.device)
        for start in range(0, len(rows), self.counting.chunk):
            x = rows[start : start + self.counting.chunk].to(self.precision).contiguous()
            if self.precision is torch.float32:
                with _full_float32(x.device.type):
                    self.sum += x.T @ x
            elif x.is_cuda:
                self.sum.addmm_(x.T, x)
            else:  # writes the lower triangle of the Fortran view, which is the upper one of self.sum
                total = self.sum.numpy().T
                total = scipy.linalg.blas.dsyrk(1.0, x.numpy().T, 1.0, total, lower=1, overwrite_c=1)
                self.sum = torch.from_numpy(total.T)

    def matrix(self) -> Tensor:
        """Return the sum ``[n, n]``: the very tensor that rows are added to, its upper triangle mirrored in place."""
        for start in range(0, len(self.sum), _TILE):
            tile, after = slice(start, start + _TILE), slice(start + _TILE, None)
            self.sum[after, tile] = self.sum[tile, after].T
            corner = self.sum[tile, tile]
            corner.copy_(corner.triu() + corner.triu(1).T)
        return self.sum


def collect(
    model: nn.Module,
    blocks: nn.ModuleList,
    linears: Mapping[str, nn.Linear],
    batches: Iterable[Batch],
    reduce: Callable[[Inputs], R],
    *,
    counting: Counting | None = None,
    run: Callable[[Batch], object] | None = None,
) -> dict[str, R]:
    """Return linear layer -> ``reduce(inputs)`` for every layer of ``linears``; layers that share their input share it.

    One forward pass in all, see `Walk`. Raises ValueError where something other than the blocks changes the hidden
    states between them, or where a layer is not called.
    """
    walk = Walk(model, blocks, linears, batches, counting=counting, run=run)
    results: dict[str, R] = {}
    for index in range(len(blocks)):
        results |= walk.read(index, reduce)
    return results


class Walk:
    """One forward pass that stops at every block, and reads the inputs of those that are asked for, in ascending order.

    At the first `read` every batch runs up to the blocks (``run``, by default ``model(**batch)``), where its hidden
    states and each block's other arguments (masks and positions may differ by layer) are kept. Then they flow through
    one block after another, so that only one block's covariances exist at a time, each of them until ``reduce``
    returns. Blocks that are passed over cost a forward pass and nothing else. The model runs in eval mode without
    gradients and is left as it was found after every `read`.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: nn.ModuleList,
        linears: Mapping[str, nn.Linear],
        batches: Iterable[Batch],
        *,
        counting: Counting | None = None,
        run: Callable[[Batch], object] | None = None,
    ) -> None:
        self.model, self.blocks, self.batches = model, blocks, batches
        self.counting = counting or Counting()
        self.run = run or (lambda batch: model(**batch, use_cache=False))
        self.inside = layers_by_block(blocks, linears)
        self.flows: list[_Flow] | None = None
        self.reached = 0  # the next block that the hidden states have not been through

    def read(self, index: int, reduce: Callable[[Inputs], R]) -> dict[str, R]:
        """Return linear layer -> ``reduce(inputs)`` for the layers of block ``index``.

        Raises ValueError where the flow is past that block, or one of its layers is not called.
        """
        if index < self.reached:
            raise ValueError(f"block {index} has been passed: blocks are read in ascending order")
        with evaluating(self.model), torch.no_grad():
            if self.flows is None:
                self.flows = _capture(self.blocks, self.batches, self.run, self.counting)
            for passed in range(self.reached, index):
                self._through(passed, self.flows)
            reader = _Reader(self.inside[index], self.counting)
            with reader:
                self._through(index, self.flows, reader)
            self.reached = index + 1
            results: dict[str, R] = {}
            for inputs in reader.finish():
                results |= dict.fromkeys(inputs.names, reduce(inputs))
                del inputs  # or it would live on beside the next
        if missing := [name for name in self.inside[index] if name not in results]:
            raise ValueError(f"{missing[0]} was not called by block {index} of {len(self.blocks)}")
        return results

    def _through(self, index: int, flows: list[_Flow], reader: _Reader | None = None) -> None:
        for flow in flows:
            if reader is not None:
                reader.begin(flow)
            flow.hidden = flow.through(index, self.blocks[index])


def layers_by_block(blocks: nn.ModuleList, linears: Mapping[str, nn.Linear]) -> list[dict[str, nn.Linear]]:
    """Return the layers of ``linears`` inside each block; raises ValueError where one is in none of them."""
    parts = [set(block.modules()) for block in blocks]
    for name, linear in linears.items():
        if not any(linear in part for part in parts):
            raise ValueError(f"{name} was not called by any of the {len(blocks)} blocks")
    return [{name: linear for name, linear in linears.items() if linear in part} for part in parts]


@dataclass
class _Flow:
    """One batch on its way through the blocks."""

    hidden: Tensor
    """Hidden states ``[batch, length, d]`` where the flow has come to."""
    weights: Tensor
    """``[batch, length]``, zero for padding."""
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    """The other arguments of each block."""

    def through(self, index: int, block: nn.Module) -> Tensor:
        args, kwargs = self.arguments[index]
        output: Tensor | tuple[Tensor, ...] = block(self.hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output


class _LastBlock(Exception):  # noqa: N818  (no error: it ends a forward pass that has given all that is wanted)
    pass


def _capture(
    blocks: nn.ModuleList, batches: Iterable[Batch], run: Callable[[Batch], object], counting: Counting
) -> list[_Flow]:
    """Run each batch with blocks that do nothing but write down what they are called with."""
    flows: list[_Flow] = []

    def stand_in(index: int) -> Callable[..., Tensor]:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            flow = flows[-1]
            if index == 0:
                flow.hidden = hidden_states
            elif hidden_states is not flow.hidden:
                raise ValueError(f"the model changes the hidden states between blocks {index - 1} and {index}")
            flow.arguments.append((args, kwargs))
            if index == len(blocks) - 1:
                raise _LastBlock
            return hidden_states

        return forward

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            stack.enter_context(_forward(block, stand_in(index)))
        for batch in batches:
            weights = _weights(batch, counting)
            flows.append(_Flow(hidden=weights, weights=weights))
            try:
                run(batch)
            except _LastBlock:
                continue
            raise ValueError(f"only {len(flows[-1].arguments)} of {len(blocks)} blocks were called, in order")
    return flows


class _Reader:
    """Hooks on one block's linear layers that sum a covariance for each distinct input."""

    def __init__(self, linears: Mapping[str, nn.Linear], counting: Counting) -> None:
        self.linears, self.counting = linears, counting
        self.leader: dict[str, str] = {}  # layer -> the first layer with the same input
        self.grams: dict[str, Gram] = {}  # by leader
        self.seen: dict[tuple[Any, ...], tuple[str, Tensor]] = {}
        self.tokens = 0

    def __enter__(self) -> None:
        self.hooks = [linear.register_forward_pre_hook(self._hook(name)) for name, linear in self.linears.items()]

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def begin(self, flow: _Flow) -> None:
        self.seen = {}
        self.weights, self.keep = flow.weights, flow.weights > 0
        self.plain = not self.counting.faithful and bool((flow.weights == 1).all())
        self.tokens += int(self.keep.sum())

    def finish(self) -> Iterator[Inputs]:
        """Yield each distinct input, holding its sum no longer."""
        self.seen = {}
        eps = torch.finfo(getattr(torch, self.counting.precision)).eps
        for leader in list(self.grams):
            names = tuple(name for name in self.leader if self.leader[name] == leader)
            yield Inputs(names=names, covariance=self.grams.pop(leader).matrix(), tokens=self.tokens, eps=eps)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def read(module: nn.Module, args: tuple[Tensor]) -> None:
            (x,) = args
            # Equal memory and version mean equal values, as long as `seen` keeps the tensor alive.
            key = (x.data_ptr(), x._version, x.shape, x.stride(), x.dtype)
            leader, _ = self.seen.setdefault(key, (name, x))
            if self.leader.setdefault(name, leader) != leader:
                raise ValueError(f"{name} shares its input with {self.leader[name]} in some batches only")
            if leader == name:
                self._add(name, x)

        return read

    def _add(self, name: str, x: Tensor) -> None:
        if x.shape[:2] != self.keep.shape:
            raise ValueError(
                f"{name} reads tokens {tuple(x.shape[:2])}, the attention mask has {tuple(self.keep.shape)}"
            )
        if name not in self.grams:
            self.grams[name] = Gram(x.shape[-1], x.device, self.counting)
        if self.plain:  # nothing to leave out or to weigh: no copy
            self.grams[name].add(x.flatten(0, 1))
            return
        keep = self.keep.to(x.device)
        scale = self.weights.to(x.device, torch.float64).sqrt()
        if self.counting.faithful:
            peak = x.masked_fill(~keep[..., None], -torch.inf).amax(dim=(1, 2)).abs().double()
            scale = scale / torch.where((peak > 0) & peak.isfinite(), peak, 1.0)[:, None]
        rows, scale = x[keep], scale[keep][:, None]
        self.grams[name].add(rows if bool((scale == 1).all()) else rows.to(self.grams[name].precision) * scale)


def _weights(batch: Batch, counting: Counting) -> Tensor:
    """Return the weight of each token ``[batch, length]``; padding has none."""
    mask = batch["attention_mask"] if "attention_mask" in batch else torch.ones_like(batch["input_ids"])
    weights = torch.full(mask.shape, counting.text_weight, device=mask.device)
    if counting.image_weight != counting.text_weight:
        weights[batch["input_ids"] == counting.image_token] = counting.image_weight
    return weights * (mask > 0)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation inside, and every module's own mode back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _forward(module: nn.Module, stand_in: Callable[..., Tensor]) -> Iterator[None]:
    own = module.__dict__.get("forward")  # set where another library has wrapped this very module
    module.__dict__["forward"] = stand_in
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


@contextmanager
def _full_float32(device: str) -> Iterator[None]:
    """No TF32 and no autocast: products keep all 24 bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)

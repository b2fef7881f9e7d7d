"""Covariances and Fisher against plain references, on a tiny random LLaVA and on text models with mixed attention."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from kore_bench.errors import UserError
from kore_bench.fisher import answer_log_likelihood, fisher
from kore_bench.spectrum import pack, spectrum, unpack
from kore_bench.statistics import Counting, Gram, Inputs, collect

IMAGE, PAD = 3, 0
PATCHES = 4
LENGTHS = (9, 6, 12, 7, 11)


def make_llava() -> Any:
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
        attention_dropout=0.3,
    )
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    return LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE))


def make_qwen() -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
        use_sliding_window=True,
        sliding_window=3,
        max_window_layers=1,
    )
    assert config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    return Qwen2ForCausalLM(config)


def decoder(model: Any) -> tuple[nn.ModuleList, dict[str, nn.Linear]]:
    blocks = model.get_decoder().layers
    root = next(name for name, module in model.named_modules() if module is blocks)
    linears = {f"{root}.{name}": part for name, part in blocks.named_modules() if isinstance(part, nn.Linear)}
    return blocks, linears


def samples(images: bool) -> list[dict[str, Any]]:
    """Return five unpadded samples; where there are images, every other one has some."""
    rng = torch.Generator().manual_seed(1)
    rows = []
    for index, length in enumerate(LENGTHS):
        ids = torch.randint(4, 40, (length,), generator=rng)
        pixels = None
        if images and index % 2 == 0:
            ids[1 : 1 + PATCHES] = IMAGE
            pixels = torch.randn(1, 3, 8, 8, generator=rng)
        labels = ids.clone()
        labels[: length - 3] = -100
        rows.append({"input_ids": ids, "labels": labels, "pixel_values": pixels})
    return rows


def batches(rows: list[dict[str, Any]], size: int, left: bool) -> list[dict[str, Tensor]]:
    result = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        width = max(len(row["input_ids"]) for row in part)

        def pad(row: Tensor, value: int, width: int = width) -> Tensor:
            gap = row.new_full((width - len(row),), value)
            return torch.cat([gap, row] if left else [row, gap])

        batch = {
            "input_ids": torch.stack([pad(row["input_ids"], PAD) for row in part]),
            "labels": torch.stack([pad(row["labels"], -100) for row in part]),
            "attention_mask": torch.stack([pad(torch.ones_like(row["input_ids"]), 0) for row in part]),
        }
        if pixels := [row["pixel_values"] for row in part if row["pixel_values"] is not None]:
            batch["pixel_values"] = torch.cat(pixels)
        result.append(batch)
    return result


def plain(
    model: nn.Module,
    linears: Mapping[str, nn.Linear],
    rows: list[dict[str, Any]],
    weigh: Callable[[Tensor, Tensor], Tensor] = lambda x, ids: x,
) -> dict[str, Tensor]:
    """Return every layer's covariance by hooks on the whole model, one unpadded sample at a time, in float64."""
    total: dict[str, Tensor] = {}
    for batch in batches(rows, 1, left=False):

        def read(name: str, args: tuple[Tensor], ids: Tensor) -> None:
            x = weigh(args[0][0].double(), ids)
            total[name] = total.get(name, 0) + x.T @ x

        hooks = [
            linear.register_forward_pre_hook(
                lambda module, args, name=name, batch=batch: read(name, args, batch["input_ids"][0])
            )
            for name, linear in linears.items()
        ]
        with torch.no_grad():
            model(**batch)
        for hook in hooks:
            hook.remove()
    return total


def covariances(model: Any, given: list[dict[str, Tensor]], **options: Any) -> dict[str, Tensor]:
    blocks, linears = decoder(model)
    return collect(model, blocks, linears, given, lambda inputs: inputs.covariance, **options)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("make", [make_llava, make_qwen])
def test_block_by_block_equals_hooks_on_the_whole_model(make: Callable[[], Any], size: int, left: bool) -> None:
    model = make().eval()
    rows = samples(images=make is make_llava)
    expected = plain(model, decoder(model)[1], rows)
    found = covariances(model, batches(rows, size, left))
    assert found.keys() == expected.keys()
    for name, matrix in found.items():
        torch.testing.assert_close(matrix, expected[name], rtol=2e-4, atol=1e-5 * float(expected[name].abs().max()))
        assert torch.equal(matrix, matrix.T)


def test_layers_that_share_an_input_share_one_covariance() -> None:
    model = make_llava()
    blocks, linears = decoder(model)
    seen: list[Inputs] = []

    def reduce(inputs: Inputs) -> Inputs:
        seen.append(inputs)
        return inputs

    found = collect(model, blocks, linears, batches(samples(images=True), 3, left=True), reduce)
    leaves = [tuple(name.rsplit(".", 1)[1] for name in inputs.names) for inputs in seen]
    assert leaves == [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)] * 3
    assert all(found[name] is inputs for inputs in seen for name in inputs.names)
    assert {inputs.tokens for inputs in seen} == {sum(LENGTHS)}  # image tokens counted, padding not


def test_only_one_blocks_covariances_are_alive_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Gram] = weakref.WeakSet()
    handed: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = [0, 0]
    begin, end = Gram.__init__, Gram.matrix

    def counted(self: Gram, *args: Any) -> None:
        begin(self, *args)
        alive.add(self)
        most[0] = max(most[0], len(alive))

    def matrix(self: Gram) -> Tensor:
        most[1] = max(most[1], len(handed))
        return end(self)

    def reduce(inputs: Inputs) -> None:
        handed.add(inputs.covariance)

    monkeypatch.setattr(Gram, "__init__", counted)
    monkeypatch.setattr(Gram, "matrix", matrix)
    model = make_llava()
    collect(model, *decoder(model), batches(samples(images=True), 2, left=False), reduce)
    assert most == [4, 0]  # four sums, and none that has been handed on while the next is made


def test_the_model_is_left_as_it_was() -> None:
    model = make_llava().train()
    model.model.vision_tower.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    found = covariances(model, batches(samples(images=True), 3, left=False))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for block in decoder(model)[0]:
        assert "forward" not in block.__dict__
        assert not any(module._forward_pre_hooks for module in block.modules())
    for name, matrix in covariances(model.eval(), batches(samples(images=True), 3, left=False)).items():
        assert torch.equal(matrix, found[name])  # no dropout, whatever the mode


def test_a_block_whose_forward_is_wrapped_keeps_its_wrapper() -> None:
    model = make_qwen()
    block = decoder(model)[0][1]
    wrapper = block.forward
    object.__setattr__(block, "forward", wrapper)
    covariances(model, batches(samples(images=False), 3, left=False))
    assert block.__dict__["forward"] is wrapper


def test_tokens_are_weighted_by_kind() -> None:
    model = make_llava().eval()
    rows = samples(images=True)

    def weigh(x: Tensor, ids: Tensor) -> Tensor:
        return x * torch.where(ids == IMAGE, 0.25, 2.0).double().sqrt()[:, None]

    expected = plain(model, decoder(model)[1], rows, weigh)
    counting = Counting(image_weight=0.25, text_weight=2.0, image_token=IMAGE)
    found = covariances(model, batches(rows, 3, left=True), counting=counting)
    for name, matrix in found.items():
        torch.testing.assert_close(matrix, expected[name], rtol=2e-4, atol=1e-5 * float(expected[name].abs().max()))


def test_image_tokens_of_no_weight_are_not_counted() -> None:
    model = make_llava()
    blocks, linears = decoder(model)
    counting = Counting(image_weight=0.0, image_token=IMAGE)
    found = collect(model, blocks, linears, batches(samples(True), 3, False), lambda i: i.tokens, counting=counting)
    assert set(found.values()) == {sum(LENGTHS) - 3 * PATCHES}


@pytest.mark.parametrize("size", [1, 3])
def test_the_faithful_form_divides_each_sample_by_its_maximum(size: int) -> None:
    model = make_llava().eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[PAD] = 7  # a padding token must not be the maximum
    rows = samples(images=True)
    expected = plain(model, decoder(model)[1], rows, lambda x, ids: x / x.max().abs())
    found = covariances(model, batches(rows, size, left=True), counting=Counting(faithful=True))
    for name, matrix in found.items():
        torch.testing.assert_close(matrix, expected[name], rtol=2e-4, atol=1e-5 * float(expected[name].abs().max()))


def test_a_run_of_ones_own_replaces_the_models_call() -> None:
    model = make_qwen()
    given = batches(samples(images=False), 3, left=False)
    wrapped = [{"text": batch["input_ids"], **batch} for batch in given]
    found = covariances(
        model, wrapped, run=lambda batch: model(input_ids=batch["text"], attention_mask=batch["attention_mask"])
    )
    for name, matrix in covariances(model, given).items():
        torch.testing.assert_close(found[name], matrix)


class Between(nn.Module):
    """A model that does something of its own between its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        return self.layers[1](self.layers[0](torch.ones(*input_ids.shape, 4)) + 1)


def test_what_happens_between_blocks_is_not_lost_silently() -> None:
    model = Between()
    with pytest.raises(ValueError, match="between blocks 0 and 1"):
        collect(model, model.layers, {}, [{"input_ids": torch.ones(1, 3)}], lambda inputs: inputs)


class InPlace(nn.Module):
    """A block that doubles its input in place between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, hidden_states: Tensor) -> tuple[Any]:
        x = hidden_states.clone()
        y = self.first(x)
        return (y + self.second(x.mul_(2)),)


def test_an_input_changed_in_place_is_another_input_and_blocks_may_return_tuples() -> None:
    model = nn.Module()
    blocks = nn.ModuleList([InPlace(), InPlace()])
    model.add_module("blocks", blocks)
    linears = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    found = collect(
        model,
        blocks,
        linears,
        [{"input_ids": torch.ones(2, 3)}],
        lambda inputs: inputs,
        run=lambda batch: blocks[1](blocks[0](torch.ones(*batch["input_ids"].shape, 4))),
    )
    one, two = found["blocks.0.first"], found["blocks.0.second"]
    assert (one.names, two.names) == (("blocks.0.first",), ("blocks.0.second",))
    assert torch.equal(two.covariance, 4 * one.covariance)
    assert one.covariance[0, 0] == 6
    assert found["blocks.1.first"].covariance[0, 0] != 6


def test_a_layer_outside_the_blocks_is_refused() -> None:
    model = make_qwen()
    blocks, _ = decoder(model)
    with pytest.raises(ValueError, match="lm_head was not called"):
        collect(model, blocks, {"lm_head": model.lm_head}, batches(samples(False), 3, False), lambda inputs: inputs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_weight": 0.5}, "image_token"),
        ({"image_weight": -1.0}, "negative"),
        ({"image_weight": 0.0, "text_weight": 0.0}, "both zero"),
        ({"precision": "float16"}, "precision 'float16'"),
        ({"chunk": 0}, "at least 1 token"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Counting(**fields)


@pytest.mark.parametrize(("precision", "error"), [("float64", 1e-14), ("float32", 1e-5)])
def test_a_gram_sums_in_chunks_of_any_dtype(precision: Any, error: float) -> None:
    x = torch.randn(1000, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    gram = Gram(12, x.device, Counting(precision=precision, chunk=64))
    gram.add(x[:300])
    gram.add(x[300:].mT.contiguous().mT)
    exact = x.double().T @ x.double()
    assert float((gram.matrix() - exact).norm() / exact.norm()) < error
    assert torch.equal(gram.matrix(), gram.matrix().T)
    if precision == "float32":  # else the test would not tell the two apart
        assert float((gram.matrix() - exact).norm() / exact.norm()) > 1e-10


def test_float32_products_ignore_a_lower_matmul_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    add = torch.Tensor.__matmul__

    def spy(self: Tensor, other: Tensor) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return add(self, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", spy)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        Gram(4, torch.device("cpu"), Counting(precision="float32")).add(torch.ones(3, 4))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest"]


# ---- spectra


def test_spectra_survive_packing_and_keep_what_is_shared() -> None:
    model = make_llava()
    reduce = functools.partial(spectrum, keep=20)
    found = collect(model, *decoder(model), batches(samples(True), 3, False), reduce)
    tensors = pack(found)
    assert len(tensors) == 4 * 4 * 3
    again = unpack(tensors)
    assert again.keys() == found.keys()
    for name, item in found.items():
        back = again[name]
        assert (back.names, back.tokens, back.eps) == (item.names, item.tokens, item.eps)
        assert item.vectors.shape == (len(item.values), min(20, len(item.values)))
        assert torch.equal(back.values, item.values)
        assert torch.equal(back.vectors, item.vectors)
        assert again[item.names[0]] is back


# ---- Fisher


def reference_fisher(model: Any, linears: Mapping[str, nn.Linear], rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Return the mean of squared gradients by autograd, one unpadded example at a time."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    modules = dict(model.named_modules())
    total = {name: torch.zeros_like(linear.weight) for name, linear in linears.items()}
    for batch in batches(rows, 1, left=False):
        model.zero_grad()
        loss = model(**batch).loss  # the mean over the three answer tokens
        (3 * loss).backward()
        for name in linears:
            total[name] += modules[name].weight.grad.detach() ** 2 / len(rows)
    return total


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_fisher_is_the_mean_of_per_example_squares(size: int, left: bool) -> None:
    model = make_llava()
    _, linears = decoder(model)
    rows = samples(images=True)
    expected = reference_fisher(model, linears, rows)
    found = fisher(model, linears, batches(rows, size, left), normalise=False)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5 * float(expected[name].max()))


def test_fisher_is_normalised_over_all_weights() -> None:
    model = make_llava()
    _, linears = decoder(model)
    given = batches(samples(images=True), 3, left=False)
    raw, scaled = fisher(model, linears, given, normalise=False), fisher(model, linears, given)
    assert float(torch.cat([value.flatten() for value in scaled.values()]).mean()) == pytest.approx(1, rel=1e-5)
    ratios = torch.cat([(scaled[name] / raw[name])[raw[name] > 0] for name in raw])
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_fisher_leaves_the_model_as_it_was() -> None:
    model = make_llava().train()
    _, linears = decoder(model)
    chosen = next(iter(linears.values())).weight
    model.lm_head.weight.requires_grad_(False)
    chosen.grad = torch.ones_like(chosen)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():  # a caller's own mode must not matter
        fisher(model, linears, batches(samples(images=True), 3, left=False))
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(chosen.grad, torch.ones_like(chosen))
    assert sum(parameter.grad is not None for parameter in model.parameters()) == 1
    assert model.training
    assert not any(linear._forward_hooks for linear in linears.values())


def test_fisher_without_an_answer_or_with_a_mean_loss_is_refused() -> None:
    model = make_qwen()
    _, linears = decoder(model)
    (batch,) = batches(samples(images=False), 8, left=False)
    with pytest.raises(ValueError, match="every gradient"):
        fisher(model, linears, [{**batch, "labels": torch.full_like(batch["labels"], -100)}])
    with pytest.raises(ValueError, match="one value an example"):
        fisher(model, linears, [batch], loss=lambda model, batch: model(**batch).loss)


def test_fisher_refuses_a_layer_that_is_called_twice() -> None:
    linear = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="called twice"):
        fisher(linear, {"twice": linear}, [{"x": torch.ones(2, 3, 4)}], lambda m, b: m(m(b["x"])).sum((1, 2)))


def test_log_likelihood_is_of_the_next_token_and_of_the_answer_alone() -> None:
    model = make_llava().eval()
    rows = samples(images=True)
    together = answer_log_likelihood(model, batches(rows, 8, left=True)[0])
    for value, batch in zip(together, batches(rows, 1, left=False), strict=True):
        torch.testing.assert_close(value, -3 * model(**batch).loss, rtol=1e-4, atol=1e-5)

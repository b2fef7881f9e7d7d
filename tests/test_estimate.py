"""Estimates: the paper's parameter counts, memory and FLOPs against what small models really take, and refusals."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from kore_bench.architecture import Architecture, read_architecture
from kore_bench.card import ModelCard
from kore_bench.cli import main
from kore_bench.component import AdapterSpec, Defaults, fold
from kore_bench.errors import UserError
from kore_bench.estimate import (
    GIB,
    Texts,
    _block_activations,
    _reading,
    estimate_plan,
    evaluation_memory,
    measuring_memory,
    trainable_parameters,
)
from kore_bench.examples import Knowledge
from kore_bench.fitting import check_fits, estimate_table
from kore_bench.formats import read_knowledge
from kore_bench.gpus import GPUS, find_gpu
from kore_bench.launch import Launch
from kore_bench.lmm import LMM
from kore_bench.models.llava import LLAVA_7B, LLAVA_13B
from kore_bench.models.mini_llava import CARD as MINI_LLAVA
from kore_bench.models.mini_qwen import CARD as MINI_QWEN
from kore_bench.models.qwen import QWEN2_5_VL_7B
from kore_bench.plan import Plan, Request, make_plan
from kore_bench.registry import Registry

real: Any = importlib.import_module("real_configs")


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("configs")
    return {
        "llava-7b": str(real.write_llava(folder / "llava-7b")),
        "llava-13b": str(real.write_llava(folder / "llava-13b", "13b")),
        "qwen2.5-vl-7b": str(real.write_qwen(folder / "qwen")),
        "original": str(real.write_llava(folder / "original", vocabulary=32000)),
    }


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


def trained(sizes: Architecture, card: ModelCard, method: str, *settings: str) -> float:
    """Return the trained parameters in millions, as the paper's tables give them."""
    pairs = dict(setting.split("=") for setting in settings)
    spec = fold(Registry().compose(method, pairs).components, sizes.layers, Defaults(rank=card.rank))
    return trainable_parameters(sizes, spec, projector=card.train.projector == "train") / 1e6


def plan(model: str, configs: dict[str, str], methods: tuple[str, ...], *settings: str) -> Plan:
    settings = (f"model.path={configs[model]}", *settings)
    return make_plan(Request(model=model, methods=methods, settings=settings))


# ---- parameters


def test_parameters_are_the_papers(configs: dict[str, str]) -> None:
    """Table 1 (arXiv 2510.19316): LoRA r=128 and KORE r=235 340 M, KORE r=256 369 M, full 6,759 M."""
    sizes = read_architecture(replace(LLAVA_7B, path=configs["original"]))
    assert round(trained(sizes, LLAVA_7B, "lora"), 1) == 340.8
    assert round(trained(sizes, LLAVA_7B, "kore-null", "kore-null.rank=235"), 1) == 340.5
    assert trained(sizes, LLAVA_7B, "kore-null") == trained(sizes, LLAVA_7B, "kore-null", "kore-null.rank=235")
    assert round(trained(sizes, LLAVA_7B, "kore-null", "kore-null.rank=256"), 1) == 369.1
    assert int(trained(sizes, LLAVA_7B, "full")) == 6759
    padded = read_architecture(replace(LLAVA_7B, path=configs["llava-7b"]))
    assert padded.language - sizes.language == 64 * 2 * 4096


@pytest.mark.parametrize(("card", "rank"), [(LLAVA_7B, 235), (LLAVA_13B, 235), (QWEN2_5_VL_7B, 232)])
def test_the_matched_rank_of_every_card(configs: dict[str, str], card: ModelCard, rank: int) -> None:
    sizes = read_architecture(replace(card, path=configs[card.name]))
    assert fold(Registry().compose("kore").components, sizes.layers, Defaults(rank=card.rank)).rank == rank


def test_sizes_of_the_real_models(configs: dict[str, str]) -> None:
    llava = read_architecture(replace(LLAVA_7B, path=configs["llava-7b"]))
    assert (llava.blocks, llava.hidden, llava.key_value, llava.image_tokens) == (32, 4096, 4096, 576)
    assert sorted(llava.inputs) == [4096, 4096, 4096, 11008]
    assert llava.total == 7_063_427_072
    assert (llava.projector, llava.vision) == (20_979_712, 303_507_456)
    qwen = read_architecture(replace(QWEN2_5_VL_7B, path=configs["qwen2.5-vl-7b"]))
    assert sorted(qwen.inputs) == [3584, 3584, 3584, 18944]
    assert (qwen.key_value, qwen.patches, qwen.image_tokens) == (512, 1337, 334)
    assert qwen.total == qwen.language + qwen.projector + qwen.vision == 8_292_166_656


@pytest.mark.parametrize("card", [MINI_LLAVA, MINI_QWEN])
@pytest.mark.parametrize("method", ["full", "lora", "kore-null"])
@pytest.mark.parametrize("projector", [False, True])
def test_parameters_are_those_of_the_model_that_is_built(card: ModelCard, method: str, projector: bool) -> None:
    sizes = read_architecture(card)
    spec = fold(Registry().compose(method).components, sizes.layers, Defaults(rank=card.rank))
    model = LMM.load(card)
    assert sizes.total == sum(value.numel() for value in model.model.parameters())
    if method == "full":
        model.unfreeze(projector)
    else:
        model.insert_lora(spec, projector)
    if spec.freeze_a:
        for layer, linear in model.linears().items():
            model.set_factors(layer, torch.ones(spec.rank, linear.in_features), None, freeze_a=True)
    built = sum(value.numel() for value in model.model.parameters() if value.requires_grad)
    assert trainable_parameters(sizes, spec, projector=projector) == built


# ---- memory


def test_covariances_of_a_7b_model_fit_24_gigabytes(configs: dict[str, str], knowledge: Knowledge) -> None:
    (estimate,) = estimate_plan(plan("llava-7b", configs, ("kore-null",)), knowledge)
    assert estimate.covariances == 8 * (3 * 4096**2 + 11008**2)
    assert 18e9 < estimate.memory["measure"] < 24e9
    real = Texts(count=256, tokens=700, pictures=1)  # a real calibration sample: one picture and some 75 words
    sizes = read_architecture(replace(LLAVA_7B, path=configs["llava-7b"]))
    needs = Registry().compose("kore-null").components[1].needs(AdapterSpec(kind="lora"), sizes.layers)
    assert measuring_memory(LLAVA_7B, sizes, real, [needs]) < 24e9


@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_activations_are_what_a_block_keeps_for_its_backward_pass(dropout: float) -> None:
    """Counted as autograd saves them, for a Llama of 4 blocks under autocast, per token and block."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4, vocab_size=100
    )
    plain: Any = LlamaForCausalLM(config)
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=dropout, target_modules="all-linear")
    model: Any = get_peft_model(plain.to(torch.bfloat16), lora).train()
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(0, 100, (2, 200))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.base_model.model.model(input_ids=ids, use_cache=False)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / (ids.numel() * 4)
    linears = {
        name: (layer.out_features, layer.in_features)
        for name, layer in LlamaForCausalLM(config).model.layers.named_modules()
        if isinstance(layer, nn.Linear)
    }
    sizes = replace(read_architecture(MINI_LLAVA), layers=linears, blocks=4, hidden=256)
    spec = AdapterSpec(kind="lora", rank=8, dropout=dropout)
    assert _block_activations(sizes, spec) == pytest.approx(measured, rel=0.2)


def test_what_stays_in_memory_depends_on_the_method(configs: dict[str, str], knowledge: Knowledge) -> None:
    methods = ("full", "lora", "ewc", "kore-null")
    found = {item.method: item for item in estimate_plan(plan("llava-7b", configs, methods), knowledge)}
    fisher = 4 * read_architecture(replace(LLAVA_7B, path=configs["llava-7b"])).block_weights
    assert found["ewc"].memory["train"] - found["lora"].memory["train"] == fisher
    assert found["full"].memory["train"] > 16 * 6.7e9
    assert found["kore-null"].memory["train"] < found["lora"].memory["train"]  # no dropout
    assert "measure" not in found["lora"].memory
    sizes = read_architecture(replace(LLAVA_7B, path=configs["llava-7b"]))
    questions = [evaluation_memory(LLAVA_7B, sizes, AdapterSpec(kind="full"), Texts(9, n, 1), 0) for n in (300, 600)]
    assert questions[0] < questions[1]


def test_checkpoints_and_batches_change_the_memory(configs: dict[str, str], knowledge: Knowledge) -> None:
    def peak(*settings: str) -> float:
        (estimate,) = estimate_plan(plan("llava-7b", configs, ("lora",), *settings), knowledge)
        return estimate.memory["train"]

    assert peak("train.gradient-checkpointing=false") > 2 * peak()
    assert peak("train.batch-size=6", "train.accumulation=9") < peak()


# ---- work


@pytest.mark.parametrize("card", [MINI_LLAVA, MINI_QWEN])
def test_flops_are_those_that_torch_counts(card: ModelCard, knowledge: Knowledge) -> None:
    torch.set_num_threads(1)
    model = LMM.load(card)
    batch = next(model.batches([knowledge.items[0].example()]))
    batch.pop("labels")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.model(**batch)
    sizes = read_architecture(card)
    pictures = int((batch["input_ids"] == model.image_token).sum())
    sizes = replace(sizes, image_tokens=pictures, patches=pictures * (4 if card is MINI_QWEN else 1))
    texts = Texts(1, batch["input_ids"].shape[1], 1)
    assert _reading(sizes, texts) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_work_follows_the_budget_and_the_data(configs: dict[str, str], knowledge: Knowledge) -> None:
    plain, trees = estimate_plan(plan("llava-7b", configs, ("lora", "kore-augmentation")), knowledge)
    assert plain.load.data.count == len(knowledge.items)
    assert trees.load.data.count == 8 * len(knowledge.items)
    assert plain.samples == 378  # 6 epochs of 60 items, in 7 whole steps of 54
    assert trees.samples > 7 * plain.samples
    (steps,) = estimate_plan(plan("llava-7b", configs, ("lora",), "train.steps=100"), knowledge)
    assert steps.samples == 5400
    (kore,) = estimate_plan(plan("llava-7b", configs, ("kore-null",)), knowledge)
    assert kore.flops["eigenvectors"] == 9 * 32 * (3 * 4096**3 + 11008**3)
    h100, a100 = find_gpu("h100-80gb"), find_gpu("a100-80gb")
    assert 0 < kore.hours(h100) < kore.hours(a100)
    assert plain.hours(h100) < trees.hours(h100)
    assert plain.hours(h100, "float32") > plain.hours(h100)


# ---- what does not fit


@pytest.mark.parametrize(
    ("model", "methods", "gpu", "message"),
    [
        (
            "llava-7b",
            ("full",),
            "h100-80gb",
            r"full needs \S+ GiB to train \(.* one GPU: use --gpus-per-cell 2 --strategy fsdp2 or --gpu h200-141gb\)",
        ),
        ("llava-13b", ("full",), "h200-141gb", r"one GPU: use --gpus-per-cell 2 --strategy fsdp2\)"),
        ("llava-13b", ("full",), "a100-40gb", r"neither a setting nor a GPU known here .*: use a low-rank method"),
        ("llava-7b", ("full+lwf",), "h100-80gb", r"neither a setting nor a GPU known here .*: use a low-rank method"),
        ("llava-7b", ("lora",), "rtx-4090-24gb", r"lora needs \S+ GiB to train \(use --set train\.batch-size=\d"),
        ("llava-13b", ("lora",), "rtx-4090-24gb", r"no setting makes it fit one GPU: use --gpu \S+-80gb"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(
    configs: dict[str, str], knowledge: Knowledge, model: str, methods: tuple[str, ...], gpu: str, message: str
) -> None:
    asked = plan(model, configs, methods)
    with pytest.raises(UserError, match=message):
        check_fits(asked, estimate_plan(asked, knowledge), find_gpu(gpu))


def test_the_option_that_is_named_makes_it_fit(configs: dict[str, str], knowledge: Knowledge) -> None:
    gpu = find_gpu("rtx-4090-24gb")
    asked = plan("llava-7b", configs, ("lora",), "train.gradient-checkpointing=false")
    with pytest.raises(UserError) as refused:
        check_fits(asked, estimate_plan(asked, knowledge), gpu)
    options = tuple(word.strip("(),") for word in str(refused.value).split() if "=" in word)
    assert "train.gradient-checkpointing=true" in options
    mended = plan("llava-7b", configs, ("lora",), *options)
    assert mended.train.batch_size * mended.train.accumulation == 54
    check_fits(mended, estimate_plan(mended, knowledge), gpu)


def test_the_shards_that_are_named_make_it_fit_and_fewer_do_not(configs: dict[str, str], knowledge: Knowledge) -> None:
    """48 GiB hold the whole of LLaVA-1.5-7B in bfloat16 and in float32 (39 GiB), and a third of 16 bytes a weight."""
    gpu, asked = find_gpu("l40s-48gb"), plan("llava-7b", configs, ("full",))
    with pytest.raises(UserError, match="one GPU: use --gpus-per-cell 3 --strategy fsdp2") as refused:
        check_fits(asked, estimate_plan(asked, knowledge), gpu)
    options = tuple(word for word in str(refused.value).split() if "=" in word)
    mended = plan("llava-7b", configs, ("full",), *options)
    assert mended.train.batch_size * mended.train.accumulation == 54
    assert mended.train.batch_size % 3 == 0
    shards = Launch(gpus_per_cell=3, strategy="fsdp2")
    (estimate,) = estimate_plan(mended, knowledge, shards)
    check_fits(mended, [estimate], gpu, shards)
    assert 16 * estimate.trainable / 3 < estimate.memory["train"] < 0.97 * 48 * GIB
    two = Launch(gpus_per_cell=2, strategy="fsdp2")
    smallest = plan("llava-7b", configs, ("full",), "train.batch-size=2", "train.accumulation=27")
    assert not estimate_plan(smallest, knowledge, two)[0].fits(gpu)
    with pytest.raises(UserError, match=r"no setting makes it fit: use --gpus-per-cell 3 --strategy fsdp2"):
        check_fits(asked, estimate_plan(asked, knowledge, two), gpu, two)


def test_gpus_stand_in_ascending_order_and_unknown_ones_are_refused() -> None:
    assert [gpu.memory for gpu in GPUS] == sorted(gpu.memory for gpu in GPUS)
    with pytest.raises(UserError, match=r"--gpu h100 is unknown: did you mean 'h100-80gb'\?"):
        find_gpu("h100")


def test_the_table_fits_a_terminal(configs: dict[str, str], knowledge: Knowledge) -> None:
    asked = plan("llava-7b", configs, ("full", "kore-augmentation", "kore"))
    out = Console(width=80, record=True)
    out.print(estimate_table(asked, estimate_plan(asked, knowledge), find_gpu("h100-80gb")))
    lines = out.export_text().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["full", "kore-augmentation", "kore"]
    assert "6,759.9" in lines[1]
    assert "too big" in lines[1]
    assert "…" not in "".join(lines)


def test_a_dry_run_shows_the_costs_and_refuses(
    configs: dict[str, str], small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "run", "--model", "llava-7b", "--set", f"model.path={configs['llava-7b']}", "--data", str(small_world), "--methods",
        "lora,full", "--dry-run", "--runs", str(tmp_path), "--gpu",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "h100-80gb"])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "340.8" in shown.out
    assert "h100-80gb has 80 GiB, and full needs" in shown.err
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "h200-141gb"])
    assert ended.value.code == 0
    assert not list(tmp_path.iterdir())
    assert GIB == 2**30


def test_shards_make_full_fine_tuning_fit_one_node(configs: dict[str, str], knowledge: Knowledge) -> None:
    """A GPU of eight has an eighth of weights, gradients and moments (16 bytes each trained), and of the batch."""
    asked, gpu = plan("llava-7b", configs, ("full",)), find_gpu("h100-80gb")
    alone, copies, shards = (
        estimate_plan(asked, knowledge, Launch(gpus_per_cell=gpus, strategy=strategy))[0]
        for gpus, strategy in ((1, "ddp"), (8, "ddp"), (8, "fsdp2"))
    )
    assert not copies.fits(gpu)
    assert shards.fits(gpu)
    assert alone.memory["train"] > copies.memory["train"] > 16 * alone.trainable
    assert shards.memory["train"] > 18 * alone.trainable / 8
    assert shards.memory["train"] > 6 * alone.trainable  # all weights, in float32 too, when training begins
    assert shards.memory["answer"] == alone.memory["answer"]

"""Spectra block by block: resumed, shared and cached; their memory; and the command that measures them alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from kore_bench import spectra as module
from kore_bench import spectrum as solver
from kore_bench.calibration import draw_old, plan_knowledge
from kore_bench.cli import main
from kore_bench.component import Budget, Defaults, fold
from kore_bench.examples import Example, Turn
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.models.mini_llava import CARD
from kore_bench.plan import Request, make_plan
from kore_bench.registry import Registry
from kore_bench.runner import CellRun
from kore_bench.spectra import by_block, samples_digest, spectra, without_labels
from kore_bench.spectrum import eigenpairs, solver_memory, spectrum
from kore_bench.statistics import Counting, Inputs, Walk, collect

SAMPLES = 6


@pytest.fixture(scope="module")
def model() -> LMM:
    return LMM.load(CARD)


@pytest.fixture(scope="module")
def samples(small_world: Path) -> list[Example]:
    plan = make_plan(Request(methods=("kore-null",), data=str(small_world), settings=(f"old.samples={SAMPLES}",)))
    return draw_old(plan_knowledge(plan), plan.old, 0)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensors"


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that the first layer of every input is added to when its eigenvectors are computed."""
    names: list[str] = []
    compute = spectrum

    def counted(inputs: Inputs, keep: int) -> Any:
        names.append(inputs.names[0])
        return compute(inputs, keep)

    monkeypatch.setattr(module, "spectrum", counted)
    return names


# ---- one pass that stops at every block


def test_a_walk_may_pass_over_blocks_but_not_go_back(model: LMM, samples: list[Example]) -> None:
    def matrix(inputs: Inputs) -> Tensor:
        return inputs.covariance.clone()

    parts = model.model, model.blocks(), model.linears()
    expected = collect(*parts, without_labels(model, samples), matrix)
    walk = Walk(*parts, without_labels(model, samples))
    for index in (1, 3):
        for name, found in walk.read(index, matrix).items():
            assert f".layers.{index}." in name
            assert torch.equal(found, expected[name])
    with pytest.raises(ValueError, match="block 2 has been passed"):
        walk.read(2, matrix)


def test_every_token_of_every_picture_counts_once_and_padding_never(model: LMM, tmp_path: Path) -> None:
    pictures = []
    for number in range(3):
        Image.new("RGB", (32, 32), (90 * number, 5, 5)).save(tmp_path / f"{number}.png")
        pictures.append(tmp_path / f"{number}.png")
    samples = [
        Example(id=str(count), images=tuple(pictures[:count]), turns=(Turn(question="what is it ?", answer="a cat"),),
                source="test")
        for count in (0, 1, 3)
    ]  # fmt: skip
    lengths = [len(row["input_ids"]) for row in model.rows(samples)]
    per_picture = lengths[1] - lengths[0]
    assert per_picture > 1
    assert lengths[2] == lengths[0] + 3 * per_picture
    found = collect(
        model.model, model.blocks(), model.linears(), without_labels(model, samples), lambda inputs: inputs.tokens
    )
    assert set(found.values()) == {sum(lengths)}


# ---- the cache


def test_a_stopped_measurement_goes_on_at_the_next_block(
    model: LMM, samples: list[Example], own_cache: Path, solved: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = vars(module)["spectrum"]  # with the fixture's count

    def interrupted(inputs: Inputs, keep: int) -> Any:
        if ".layers.2.self_attn.o_proj" in inputs.names[0]:
            raise KeyboardInterrupt
        return counted(inputs, keep)

    with monkeypatch.context() as patch:
        patch.setattr(module, "spectrum", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spectra(model, samples, Counting())
    assert len(list(own_cache.glob("*.safetensors"))) == 2
    solved.clear()
    found = spectra(model, samples, Counting())
    assert [name.split(".layers.")[1][0] for name in solved] == ["2"] * 4 + ["3"] * 4
    assert list(found) == list(model.linears())
    assert len(list(own_cache.glob("*.safetensors"))) == len(model.blocks())
    monkeypatch.setenv("KORE_BENCH_CACHE", str(own_cache.parent / "other"))
    for name, item in spectra(model, samples, Counting()).items():
        assert torch.equal(item.values, found[name].values)
        assert torch.equal(item.vectors, found[name].vectors)
        assert item.tokens == found[name].tokens


def test_the_key_is_what_decides_the_result(
    model: LMM, samples: list[Example], own_cache: Path, solved: list[str]
) -> None:
    spectra(model, samples, Counting())
    every = len(solved)
    spectra(model, list(samples), Counting(), largest_rank=64)
    assert len(solved) == every  # fewer than are kept anyway
    for changed, counting in ((samples[1:], Counting()), (samples, Counting(faithful=True))):
        solved.clear()
        spectra(model, changed, counting)
        assert len(solved) == every


def test_the_digest_of_samples_is_that_of_texts_and_pictures(tmp_path: Path) -> None:
    def sample(name: str, answer: str) -> Example:
        Image.new("RGB", (8, 8), (1, 1, 1)).save(tmp_path / name)
        return Example(id="x", images=(tmp_path / name,), turns=(Turn(question="q", answer=answer),), source="s")

    before = samples_digest([sample("a.png", "b")])
    assert samples_digest([sample("elsewhere.png", "b")]) == before
    assert samples_digest([sample("a.png", "c")]) != before
    turns = (Turn(question="q", answer="b"),)
    Image.new("RGB", (8, 8), (2, 1, 1)).save(tmp_path / "a.png")
    assert samples_digest([Example(id="x", images=(tmp_path / "a.png",), turns=turns, source="s")]) != before


def measured_by(method: str, model: LMM, samples: list[Example], seed: int, new: list[Example] | None = None) -> None:
    composition = Registry().compose(method, {f"{method}.rank": "16"})
    layers = {name: (layer.out_features, layer.in_features) for name, layer in model.linears().items()}
    run = CellRun(
        seed=seed, items=(), calibration=samples, held_out=(), base={"test": method}, train_projector=False,
        budget=Budget(steps=1, epochs=0, batch_size=1), embed=model.embed, examples=new or samples,
        spec=fold(composition.components, layers, Defaults(rank=16)),
    )  # fmt: skip
    for component in composition.components:
        component.measure(model, run)


def test_methods_ranks_and_seeds_share_one_measurement(
    model: LMM, samples: list[Example], small_world: Path, own_cache: Path, solved: list[str]
) -> None:
    measured_by("kore-null", model, samples, seed=0)
    assert len(solved) == 4 * len(model.blocks())
    measured_by("kore-null", model, samples, seed=1)
    new = [item.example() for item in read_knowledge(small_world).items]
    measured_by("frozen-random", model, samples, seed=2, new=new)
    assert len(solved) == 4 * len(model.blocks())


def test_the_processes_of_a_cell_share_the_blocks(
    model: LMM, samples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[int, dict[str, Tensor]] = {}
    by_process: dict[int, list[int]] = {0: [], 1: []}
    process = [0]

    def cache(key: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if key["block"] not in kept:
            by_process[process[0]].append(key["block"])
            kept[key["block"]] = compute()
        return kept[key["block"]]

    def measure() -> dict[str, Tensor]:
        return by_block(
            model, samples, lambda inputs: {inputs.names[0]: inputs.covariance.clone()}, Counting(), {}, cache
        )

    def the_other_comes() -> None:
        if process[0] == 0:
            process[0] = 1
            measure()

    expected = by_block(model, samples, lambda inputs: {inputs.names[0]: inputs.covariance.clone()}, Counting())
    monkeypatch.setattr(module, "rank", lambda: process[0])
    monkeypatch.setattr(module, "world", lambda: 2)
    monkeypatch.setattr(module, "wait_for_all", the_other_comes)
    found = measure()
    assert by_process == {0: [0, 2], 1: [1, 3]}
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# ---- memory


def test_at_most_one_blocks_covariances_and_the_solvers_workspace_are_in_memory() -> None:
    """Counts what torch allocates, and numpy for LAPACK, beside the model: the sum of both peaks."""
    torch.manual_seed(0)
    n, wide, count, tokens, rows = 256, 640, 32, 24, 6
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=n, intermediate_size=wide, num_hidden_layers=3, num_attention_heads=4)
    )
    layers = {name: part for name, part in llama.named_modules() if isinstance(part, nn.Linear) and "layers" in name}
    ids = torch.randint(0, 64, (rows, 1, tokens))
    batches = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]

    def measure() -> None:
        collect(
            llama, llama.model.layers, layers, batches, lambda inputs: eigenpairs(inputs.covariance, count) and None
        )

    measure()  # what is made once stays
    tracemalloc.start()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        measure()
    numpy_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    alive = torch_peak = 0
    assert seen.profiler is not None
    events = (event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        torch_peak = max(torch_peak, alive)
    covariances = 8 * (3 * n * n + wide * wide)
    hidden = 4 * rows * tokens * n
    one_batch = 16 * 8 * tokens * (n + wide)
    block = 4 * sum(value.numel() for value in llama.model.layers[0].parameters())
    assert covariances < torch_peak
    assert torch_peak + numpy_peak < covariances + hidden + one_batch + solver_memory(wide, count, gpu=False)
    assert one_batch < block  # the bound is tighter than one that allows for a copy of a block's weights


def test_a_gpu_without_room_leaves_the_solving_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(100, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c = x.T @ x
    expected = eigenpairs(c, 5)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(solver, "_full", full)
    values, vectors = solver._on_gpu(c, 0, 5)
    torch.testing.assert_close(values, expected[0])
    torch.testing.assert_close(c @ vectors, vectors * expected[0][:5])


# ---- the command


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


def test_the_command_measures_what_a_run_then_finds(
    model: LMM, samples: list[Example], small_world: Path, own_cache: Path, solved: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ("covariance", "--data", str(small_world), "--samples", str(SAMPLES), "--set", "kore-null.rank=16")
    assert call(*command) == 0
    shown = capsys.readouterr().out
    assert f"{SAMPLES} samples with {SAMPLES} pictures, {len(model.blocks())} blocks" in shown
    for word in ("down_proj", "nullity", "null 16", "fewer tokens than channels in the input of down_proj"):
        assert word in shown
    assert len(solved) == 4 * len(model.blocks())
    assert call(*command) == 0
    measured_by("kore-null", model, samples, seed=0)
    assert len(solved) == 4 * len(model.blocks())


def test_the_command_needs_no_knowledge_where_files_calibrate(
    small_world: Path, own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small_world / "evoke_injection_data.json"
    assert call("covariance", "--data", str(tmp_path), "--calibration", f"{file}:4", "--set", "kore-null.rank=16") == 0
    assert "4 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", "1"), "1 sample to calibrate on says next to nothing"),
        (("--calibration", "nowhere.json"), "--calibration nowhere.json is neither a file, a folder nor a task"),
        (("--method", "lora"), "no part of lora reads covariances"),
        (("--set", "kore-null.rank=300"), "ranks 1 to 128 (24 of 28 layers are narrower, such as"),
        (("--calibration", "old:x:4", "--samples", "9"), "takes 4 samples, and old.samples is 9"),
    ],
)
def test_the_command_says_what_is_amiss(
    small_world: Path, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("covariance", "--data", str(small_world), *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())

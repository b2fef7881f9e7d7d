"""What a run would cost, before anything loads: parameters, memory by phase, FLOPs and hours, from the configuration.

Memory is what one GPU holds; formulas stand at each function. Nothing here is measured: hours assume the shares of the
makers' peak figures that are written below, and lengths assume four characters a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kore_bench.architecture import Architecture, read_architecture
from kore_bench.calibration import draw_old
from kore_bench.card import ModelCard, TrainSettings
from kore_bench.component import AdapterSpec, Budget, Component, Defaults, Needs, fold
from kore_bench.examples import Example, Knowledge, Question
from kore_bench.gpus import Gpu
from kore_bench.grid import decide_rate
from kore_bench.launch import ALONE, Launch
from kore_bench.plan import Plan
from kore_bench.registry import Composition
from kore_bench.spectra import KEPT_EIGENVECTORS
from kore_bench.spectrum import solver_memory

GIB = 2**30
CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS = 48
NEW_TOKENS = 32
"""Decoding steps a batch of questions: answers are words or short phrases, of 128 tokens at most."""
UTILISATION = {"products": 0.4, "float64": 0.5, "eigenvectors": 0.1, "bandwidth": 0.6}
"""Assumed shares of a GPU's peak: training and prefill, covariances, eigenvectors, and reading weights to decode."""
EIGEN_FLOPS = 9
"""FLOPs of a full symmetric eigensolver, over n^3 (Golub and Van Loan, section 8.3)."""
_CONTEXT = 1.5 * GIB  # CUDA's own, its libraries' workspaces, and fragmentation
USABLE = 0.97
_CHUNK = 4096  # tokens that a covariance multiplies at once


@dataclass(frozen=True)
class Texts:
    """Examples or questions in numbers: how many, and their mean tokens (pictures included) and pictures."""

    count: int
    tokens: float
    pictures: float


@dataclass(frozen=True)
class Load:
    """What a cell of a method reads: its training data, the old samples, and the questions of all tasks."""

    data: Texts
    old: Texts
    questions: Texts


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one cell of a method would take; memory in bytes by phase, FLOPs by kind of work (see `hours`)."""

    method: str
    rank: int
    trainable: int
    covariances: int
    samples: int
    memory: Mapping[str, float]
    flops: Mapping[str, float]
    decoded_bytes: float
    load: Load

    @property
    def peak(self) -> float:
        """Return the largest memory of any phase in bytes."""
        return max(self.memory.values())

    def hours(self, gpu: Gpu, dtype: str = "bfloat16") -> float:
        """Return the hours that a cell would take on ``gpu`` at the assumed utilisation."""
        peak = gpu.bfloat16 if dtype == "bfloat16" else gpu.bfloat16 / 16
        seconds = self.flops["products"] / (peak * 1e12 * UTILISATION["products"])
        for kind in ("float64", "eigenvectors"):
            seconds += self.flops[kind] / (gpu.float64 * 1e12 * UTILISATION[kind])
        seconds += self.decoded_bytes / (gpu.bandwidth * 1e12 * UTILISATION["bandwidth"])
        return seconds / 3600

    def fits(self, gpu: Gpu) -> bool:
        """Return whether every phase fits the GPU's memory."""
        return self.peak <= USABLE * gpu.memory * GIB


def estimate_plan(plan: Plan, knowledge: Knowledge, launch: Launch = ALONE) -> list[Estimate]:
    """Return the estimate of one cell of every method of a plan; raises UserError as the model's configuration does."""
    sizes = read_architecture(plan.card)
    return [
        estimate_method(plan, method, find_load(plan, method, knowledge, sizes), sizes, launch)
        for method in plan.methods
    ]


def estimate_method(
    plan: Plan, method: Composition, load: Load, sizes: Architecture, launch: Launch = ALONE
) -> Estimate:
    """Return the estimate of one cell of ``method``, its memory on each of the GPUs that ``launch`` gives it."""
    card, train = plan.card, plan.train
    components, spec = _folded(plan, method, sizes)
    needs = [part.needs(spec, sizes.layers) for part in components]
    trainable = trainable_parameters(sizes, spec, projector=train.projector == "train")
    batch = train.batch_size * train.accumulation
    samples = batch * (train.steps or math.ceil(train.epochs * load.data.count / batch))
    memory = {
        "train": training_memory(card, train, sizes, spec, load.data, trainable, needs, launch),
        "answer": evaluation_memory(card, sizes, spec, load.questions, trainable),
    }
    if any(need.covariance or need.fisher for need in needs):
        memory["measure"] = measuring_memory(card, sizes, load.old, needs)
    return Estimate(
        method=method.name, rank=spec.rank, trainable=trainable, samples=samples, memory=memory, load=load,
        covariances=8 * sum(width**2 for width in sizes.inputs) if any(need.covariance for need in needs) else 0,
        flops=flops(train, sizes, spec, load, samples, needs), decoded_bytes=decoded_bytes(card, sizes, load.questions),
    )  # fmt: skip


def _folded(plan: Plan, method: Composition, sizes: Architecture) -> tuple[tuple[Component, ...], AdapterSpec]:
    """Return a method's components with its tuned settings, and the adapter that they agree on."""
    components = plan.method(method.name, decide_rate(plan, method)[1]).components
    return components, fold(components, sizes.layers, Defaults(rank=plan.card.rank, dropout=plan.card.dropout))


def find_load(plan: Plan, method: Composition, knowledge: Knowledge, sizes: Architecture) -> Load:
    """Return what a method reads; its `data` hooks are run, so that augmented data are counted as they are."""
    from kore_bench.runner import CellRun

    components, spec = _folded(plan, method, sizes)
    old = draw_old(knowledge, plan.old, 0) if knowledge.old else []
    run = CellRun(
        seed=0, items=knowledge.items, calibration=old, held_out=(), spec=spec, base={}, train_projector=False,
        budget=Budget(steps=plan.train.steps, epochs=plan.train.epochs, batch_size=plan.train.batch_size),
        embed=_no_two_alike, registry=plan.registry,
    )  # fmt: skip
    examples = [item.example() for item in knowledge.items]
    for component in components:
        examples = component.data(examples, run)
    questions = [question for task in plan.tasks for question in task.asked(knowledge)]
    return Load(_of_examples(examples, sizes), _of_examples(old, sizes), _of_questions(questions, sizes))


def _no_two_alike(pictures: Sequence[Path]) -> np.ndarray:
    """Stand in for the vision tower, which is not there: every picture differs from every other one."""
    return np.eye(len(pictures))


def trainable_parameters(sizes: Architecture, spec: AdapterSpec, *, projector: bool) -> int:
    """Return how many parameters are trained.

    LoRA: r (in + out) a layer, with A frozen r out, and ``extra``; full: decoder, embeddings and head. The projector
    is added.
    """
    outs, ins = (sum(side) for side in zip(*spec.adapted(sizes.layers).values(), strict=True))
    lora = spec.rank * (outs if spec.freeze_a else outs + ins) + spec.extra
    return (lora if spec.kind == "lora" else sizes.language) + projector * sizes.projector


# ---- memory


def weights_memory(card: ModelCard, sizes: Architecture) -> float:
    """Return the bytes of the model's weights, and of what CUDA takes for itself."""
    return sizes.total * _width(card) + _CONTEXT


def training_memory(
    card: ModelCard, train: TrainSettings, sizes: Architecture, spec: AdapterSpec, data: Texts, trainable: int,
    needs: Sequence[Needs], launch: Launch = ALONE,
) -> float:  # fmt: skip
    """Return the bytes on one GPU at the peak of a training step.

    Trained parameters are float32, with a gradient and AdamW's two moments: 16 bytes each; where they are the weights
    themselves (full), those stand among the weights already, and autocast holds a bfloat16 copy. Activations: the hidden state before every block where they are checkpointed,
    and of one block (else of all) what its backward pass reads, with as much again for gradients. Logits are held in
    the model's dtype and in float32, with gradients of both: 12 bytes each, and half as much for another pass's.

    The batch is shared among a cell's GPUs. In shards, so are the weights and all that belongs to them; whole are two
    blocks (one is gathered ahead) and everything outside of the blocks, and when training begins all weights.
    """
    tokens = train.batch_size * min(data.tokens, train.max_length) / launch.gpus_per_cell
    own = trainable * (12 if spec.kind == "full" and card.dtype == "float32" else 16)
    stream = 4 if spec.kind == "full" else _width(card)
    between = sizes.blocks * tokens * sizes.hidden * stream
    inside = 1.5 * tokens * _block_activations(sizes, spec) * (1 if train.gradient_checkpointing else sizes.blocks)
    logits = (12 + 6 * min(1.0, sum(need.forwards for need in needs))) * tokens * sizes.vocabulary
    kept = sum(need.kept for need in needs)
    held = weights_memory(card, sizes) + own
    if launch.sharded:
        gathered = sizes.total - sizes.block_weights * (1 - min(2, sizes.blocks) / sizes.blocks)
        shards = _CONTEXT + (held - _CONTEXT) / launch.gpus_per_cell + gathered * stream
        begin = weights_memory(card, sizes) + kept + 4 * trainable
        return max(begin, shards + between + inside + logits + kept)
    return held + between + inside + logits + kept


def measuring_memory(card: ModelCard, sizes: Architecture, old: Texts, needs: Sequence[Needs]) -> float:
    """Return the bytes at the peak of reading the base.

    Covariances: those of one block in float64, the largest one's eigensolver (see `spectrum.solver_memory`), the
    hidden states and masks of all old samples, and one chunk of inputs. Fisher: a float32 value a weight, and of
    ``gradient_batch_size`` examples all that a backward pass reads, without checkpoints.
    """
    peak = 0.0
    if any(need.covariance for need in needs):
        largest = max(sizes.inputs)
        solver = solver_memory(largest, KEPT_EIGENVECTORS, gpu=True)
        flowing = old.count * old.tokens * (sizes.hidden * _width(card) + old.tokens)
        peak = 8 * (sum(width**2 for width in sizes.inputs) + _CHUNK * largest) + solver + flowing
    if any(need.fisher for need in needs):
        tokens = card.gradient_batch_size * old.tokens
        reads = 1.5 * sizes.blocks * tokens * _block_activations(sizes, AdapterSpec(kind="full"))
        peak = max(peak, 4 * sizes.block_weights + reads + 12 * tokens * sizes.vocabulary)
    return weights_memory(card, sizes) + peak


def evaluation_memory(
    card: ModelCard, sizes: Architecture, spec: AdapterSpec, questions: Texts, trainable: int
) -> float:
    """Return the bytes at the peak of answering: weights, the adapter, keys and values, and one block's work."""
    adapter = 4 * trainable if spec.kind == "lora" else 0
    tokens = card.evaluation_batch_size * questions.tokens
    answered = card.evaluation_batch_size * 128
    cache = 2 * sizes.blocks * (tokens + answered) * sizes.key_value * _width(card)
    return weights_memory(card, sizes) + adapter + cache + tokens * _block_activations(sizes, None)


def _block_activations(sizes: Architecture, spec: AdapterSpec | None) -> float:
    """Return the bytes a token that one block's backward pass reads, in bfloat16.

    The input and the output of every linear layer, the norms in float32, and where there is dropout a copy of each
    layer's input with its mask. Within a fifth of what a Llama block was seen to keep (tests/test_estimate.py).
    """
    outs, ins = sizes.block_widths
    copies = 4 * ins if spec is not None and spec.dropout else 0
    return 2 * (ins + outs) + 12 * sizes.hidden + copies


def _width(card: ModelCard) -> int:
    return 2 if card.dtype == "bfloat16" else 4


# ---- work


def flops(
    train: TrainSettings, sizes: Architecture, spec: AdapterSpec, load: Load, samples: int, needs: Sequence[Needs]
) -> dict[str, float]:
    """Return the FLOPs by kind: of products in the model's dtype, of covariances in float64, and of eigenvectors.

    A pass is 2 FLOPs a weight and token, with causal attention. A step makes one forward pass, one for the gradients
    of activations, one again where they are checkpointed, and one for the gradients of what is trained.
    """
    old, tokens = load.old, min(load.data.tokens, train.max_length)
    sides = sum(out + width for out, width in spec.adapted(sizes.layers).values())
    adapter = 2 * spec.rank * sides if spec.kind == "lora" else 0
    passes = 2 + train.gradient_checkpointing + sum(need.forwards for need in needs)
    trained = adapter if spec.kind == "lora" else _forward(sizes, tokens)
    learning = tokens * (passes * (_forward(sizes, tokens) + adapter) + trained)
    products = samples * (learning + _vision(sizes, load.data)) + _reading(sizes, load.questions)
    float64 = eigenvectors = 0.0
    if any(need.covariance for need in needs):
        products += 2 * _reading(sizes, old)  # one pass for the null space, one for its quality
        float64 = 4 * sizes.blocks * sum(width**2 for width in sizes.inputs) * old.count * old.tokens
        eigenvectors = EIGEN_FLOPS * sizes.blocks * sum(width**3 for width in sizes.inputs)
    if any(need.fisher for need in needs):
        products += 3 * _reading(sizes, old)
    return {"products": products, "float64": float64, "eigenvectors": eigenvectors}


def decoded_bytes(card: ModelCard, sizes: Architecture, questions: Texts) -> float:
    """Return the bytes of weights that are read to decode the answers: all of them, for each token of a batch."""
    batches = math.ceil(questions.count / card.evaluation_batch_size)
    return batches * NEW_TOKENS * sizes.total * _width(card)


def _reading(sizes: Architecture, texts: Texts) -> float:
    """Return the FLOPs of one forward pass over texts."""
    return texts.count * (texts.tokens * _forward(sizes, texts.tokens) + _vision(sizes, texts))


def _forward(sizes: Architecture, tokens: float) -> float:
    """Return the FLOPs of one token on its way through the language model, in a text of ``tokens``."""
    return 2 * (sizes.block_weights + sizes.head) + 2 * sizes.blocks * tokens * sizes.hidden


def _vision(sizes: Architecture, texts: Texts) -> float:
    return 2 * texts.pictures * (sizes.patches * sizes.vision + sizes.image_tokens * sizes.projector)


def _of_examples(examples: Sequence[Example], sizes: Architecture) -> Texts:
    letters = [sum(len(turn.question) + len(turn.answer) for turn in example.turns) for example in examples]
    return _texts(letters, [len(example.images) for example in examples], sizes)


def _of_questions(questions: Sequence[Question], sizes: Architecture) -> Texts:
    return _texts([len(question.text) for question in questions], [len(q.images) for q in questions], sizes)


def _texts(letters: Sequence[int], pictures: Sequence[int], sizes: Architecture) -> Texts:
    count = max(1, len(letters))
    shown = sum(pictures) / count
    tokens = sum(letters) / count / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS + shown * sizes.image_tokens
    return Texts(len(letters), tokens, shown)

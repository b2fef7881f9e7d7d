"""The contract of an injection method: components with small hooks, the adapter's spec, and what a run offers them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from packaging.version import Version

from kore_bench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from kore_bench.examples import Example, Item, Knowledge
    from kore_bench.lmm import LMM
    from kore_bench.statistics import Counting

T = TypeVar("T")
Layers = Mapping[str, tuple[int, int]]
"""Linear layers of the language model's blocks: name -> (out_features, in_features)."""
Find = Callable[[str, str], Any]
"""Returns another plug-in by its kind and name, such as ``("generators", "template")``."""


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """What the adapter will build, agreed by all components before anything loads.

    ``kind`` is ``full`` (the weights themselves) or ``lora``; ``rank``, ``alpha`` and ``dropout`` are LoRA's.
    ``initialiser`` is the one component that writes the starting factors (empty: LoRA's own, A random and B zero).
    ``freeze_a`` keeps A out of training. ``residual`` says that the base weight becomes W0 - s B0 A0, so that the
    model starts where it was although B0 is not zero. ``options`` are more of PEFT's ``LoraConfig`` by name, such as
    ``use_dora``. ``extra`` counts the parameters that are trained beside the factors, such as DoRA's magnitudes.
    ``leaves`` are the last parts of the names of the layers that are adapted (empty: every linear layer of the blocks).
    ``form`` names what a layer computes where that is not W0 x + s B A x (empty), such as ``routed experts``:
    components that read a layer's change as s B A refuse it.
    """

    kind: Literal["full", "lora"]
    rank: int = 0
    alpha: float = 0.0
    dropout: float = 0.0
    initialiser: str = ""
    freeze_a: bool = False
    residual: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: int = 0
    leaves: tuple[str, ...] = ()
    form: str = ""

    def adapted(self, layers: Mapping[str, T]) -> dict[str, T]:
        """Return those of ``layers``, by their names, that the adapter changes."""
        return {name: sides for name, sides in layers.items() if not self.leaves or name.split(".")[-1] in self.leaves}

    def check_plain(self, component: Component) -> None:
        """Raise UserError where a layer's change is not s B A (or that of the weight itself), as ``component`` reads it."""
        if self.form:
            raise UserError(
                f"{component.name} reads a layer's change as B A, which that of {self.form} is not: use "
                f"lora+{component.name}"
            )

    def claim(self, component: Component, **changes: Any) -> AdapterSpec:
        """Return the spec with ``component`` as its initialiser and ``changes`` applied.

        Raises UserError where the adapter is not a plain low-rank one or another component initialises it already.
        """
        if self.kind != "lora":
            raise UserError(
                f"{component.name} needs a low-rank adapter, {self.kind} has none: use lora+{component.name}"
            )
        if self.form:
            raise UserError(
                f"{component.name} starts a plain low-rank adapter, not one of {self.form}: use lora+{component.name}"
            )
        if self.initialiser:
            raise UserError(f"{self.initialiser} and {component.name} both initialise the adapter: keep one of them")
        return replace(self, initialiser=component.name, **changes)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a component takes beside a plain training of its adapter; estimates are made of it before anything loads.

    ``covariance`` and ``fisher``: `measure` reads the covariances of the old samples' inputs, or a Fisher matrix.
    ``kept`` is how many bytes stay on the device while training; ``forwards`` how many forward passes a step has more.
    """

    covariance: bool = False
    fisher: bool = False
    kept: int = 0
    forwards: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Component:
    """One ingredient of an injection method; a hook does nothing unless overridden, and most override one to three.

    Fields are hyper-parameters: frozen, set by ``--set NAME.FIELD=VALUE``, part of the cell's key. What a component
    remembers (an anchor, a Fisher matrix) lives in ``run.state(self)``. Hooks are called in the order below; `adapt`
    writes and `start` reads, so that an anchor is taken where training really begins.
    """

    name: ClassVar[str] = ""
    sharded: ClassVar[bool] = False
    """Whether its `penalty` and `step`, and its adapter, also work on shards (DTensors): see docs/running.md.

    FSDP2 refuses a component that has one of them and does not say so.
    """
    by_token: ClassVar[bool] = False
    """Whether `penalty` is a sum over the batch's answer tokens: it is then divided by the step's, as the task loss is."""

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Plan: agree on rank, scale, dropout, initialiser and what trains, from layer shapes alone."""
        return spec

    def check_spec(self, spec: AdapterSpec, layers: Layers) -> None:
        """Raise UserError where the adapter that all have agreed on is none that the component works with."""

    def data(self, examples: list[Example], run: Run) -> list[Example]:
        """Augment or mix the training data; the only hook whose order (left to right) matters."""
        return examples

    def measure(self, model: LMM, run: Run) -> None:
        """Read the untouched base (covariance, teacher); must leave every weight as it is."""

    def adapt(self, model: LMM, run: Run) -> None:
        """Write the model: what is trained and where it starts; its outputs must stay the base's."""

    def start(self, model: LMM, run: Run) -> None:
        """Read the finished starting point (anchor, Fisher)."""

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor | None:
        """Return a scalar that is added to the task loss of each optimizer step, logged as ``penalty/<name>``.

        It is averaged over a step's batches and over processes, or divided by the step's answer tokens (`by_token`).
        """
        return None

    def step(self, model: LMM, run: Run) -> None:
        """Act after the gradients of a step are there, before the optimizer uses them (EMA, gradient projection)."""

    def finish(self, model: LMM, run: Run) -> None:
        """Act after training, before the model is evaluated and saved (merge, swap in averaged weights)."""

    def uses_old_samples(self) -> bool:
        """Return whether the component reads the old-knowledge samples, as the cost table must show."""
        return False

    def old_samples(self, run: Run) -> Collection[str]:
        """Return the ids of the old samples that it has read: all of the run's, for one that reads any."""
        return [example.id for example in run.calibration] if self.uses_old_samples() else []

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """Return what it takes beside a plain training, from the folded spec and the layer shapes alone."""
        return Needs()

    def counting(self, model: LMM) -> Counting | None:
        """Return how tokens count in the covariances of old inputs that `measure` reads; None where it reads none."""
        return None

    def check(self) -> None:
        """Raise UserError where a hyper-parameter is out of range; called before anything loads."""

    def check_data(self, knowledge: Knowledge, find: Find) -> None:
        """Raise UserError where the data lack what the component reads; called before a model loads."""

    def uses(self) -> Sequence[tuple[str, str]]:
        """Return the kind and name of other plug-ins that are worked with (see `Run.find`), such as a generator.

        They must be there before anything loads, and their sources belong to the cell's key.
        """
        return ()

    def files(self) -> tuple[Path, ...]:
        """Return the files that are read beside the data: their content belongs to the cell's key."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Adapter(Component):
    """The component that decides what is trained; a method has exactly one, and its hooks run before the others'.

    ``kind`` is that of its spec; the card's learning rates go by it. ``portable`` says whether PEFT alone can load what
    it saves, and merge it into the base. ``leaves``: see `AdapterSpec`.
    """

    kind: ClassVar[Literal["full", "lora"]] = "lora"
    portable: ClassVar[bool] = True
    leaves: ClassVar[tuple[str, ...]] = ()

    def spec(self, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Return what this adapter would build on its own."""
        raise NotImplementedError

    def trainable(self, name: str, spec: AdapterSpec) -> bool:
        """Return whether the parameter called ``name`` is declared as trained."""
        raise NotImplementedError

    def load(self, model: LMM, folder: Path) -> None:
        """Put what was trained and saved in ``folder`` onto the clean base."""
        model.load_trained(folder)


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What the model's card decides for every method: LoRA's rank (its trainable budget) and dropout."""

    rank: int
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a cell trains: ``steps`` optimizer steps, or ``epochs`` over its own data (one of them is zero)."""

    steps: int
    epochs: float
    batch_size: int


class Run(Protocol):
    """What a run offers to its components."""

    seed: int
    items: Sequence[Item]
    """The items to inject, in file order."""
    calibration: Sequence[Example]
    """The old-knowledge samples: the same for every method that uses any."""
    held_out: Sequence[Example]
    """Old-knowledge samples of other skills, that nothing is fitted to: for honest measurements only."""
    examples: Sequence[Example]
    """The training data after every `data` hook."""
    spec: AdapterSpec
    """The folded spec, also what the adapter builds."""
    budget: Budget
    train_projector: bool
    """Whether the multimodal projector is trained too, by the run's one switch for all methods."""

    def rng(self, component: Component) -> random.Random:
        """Return the component's own random stream, the same for equal (seed, name); call it once per use."""
        ...

    def state(self, component: Component) -> dict[str, Any]:
        """Return what the component remembers within this cell."""
        ...

    def cache(self, key: Mapping[str, Any], compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return ``compute()``, shared across cells and runs by the content of ``key`` (the base model is added)."""
        ...

    def embed(self, images: Sequence[Path]) -> NDArray[np.floating[Any]]:
        """Return one vector an image ``[len(images), d]``, from the base's vision tower."""
        ...

    def find(self, kind: str, name: str) -> Any:
        """Return another plug-in, one that the component's `uses` names."""
        ...

    def log(self, name: str, value: Any) -> None:
        """Keep a JSON value in the record's diagnostics."""
        ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """A named tuple of components, defined at module level in methods/.

    ``components`` may hold the method's own adapter; a method without one brings the adapter *named* by ``adapter`` as
    a default, which an explicitly named adapter replaces. ``parts`` makes a method out of others by name.
    """

    name: str
    summary: str
    source: str
    components: tuple[Component, ...] = ()
    adapter: str = "lora"
    parts: tuple[str, ...] = ()
    tunes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Second hyper-parameter that tuning may choose, ``component.field`` -> values to try (empty: only the rate)."""


def settings_of(component: Component) -> dict[str, Any]:
    """Return a component's hyper-parameters by name."""
    return {item.name: getattr(component, item.name) for item in fields(component)}


def fold(components: Sequence[Component], layers: Layers, defaults: Defaults) -> AdapterSpec:
    """Fold `shape` over the components, the adapter first; raises UserError where two claim the same thing.

    An adapter of some of the layers has LoRA's trainable budget all the same: the default rank grows in proportion.
    """
    adapter = next(component for component in components if isinstance(component, Adapter))
    adapted, defaults = _narrow(adapter, layers, defaults)
    spec = replace(adapter.spec(adapted, defaults), leaves=adapter.leaves)
    for component in components:
        spec = component.shape(spec, adapted, defaults)
    for component in components:
        component.check_spec(spec, adapted)
    return spec


def _narrow(adapter: Adapter, layers: Layers, defaults: Defaults) -> tuple[Layers, Defaults]:
    adapted = AdapterSpec(kind=adapter.kind, leaves=adapter.leaves).adapted(layers)
    if not adapted:
        leaves = sorted({name.split(".")[-1] for name in layers})
        raise UserError(
            f"{adapter.name} adapts {', '.join(adapter.leaves)}, and this model's layers are called {', '.join(leaves)}"
        )
    whole, part = (sum(out + width for out, width in some.values()) for some in (layers, adapted))
    return adapted, replace(defaults, rank=defaults.rank * whole // part)


def check_peft(owner: str, oldest: str) -> None:
    """Raise UserError where the installed PEFT is older than ``oldest``, the first that has what ``owner`` needs."""
    found = version("peft")
    if Version(found) < Version(oldest):
        raise UserError(f"{owner} needs PEFT {oldest} or newer, {found} is installed: pip install -U 'peft>={oldest}'")


def resolve_rank(rank: int | str, option: str, layers: Layers, defaults: Defaults, *, freeze_a: bool) -> int:
    """Return a rank from ``auto``, ``match:lora@R`` or a number, checked against the layers.

    ``match:lora@R`` gives the rank with (at most) as many trainable parameters as LoRA of rank R: with A frozen
    R x sum(in + out) / sum(out), rounded down (paper appendix; 235 for R = 128 on LLaVA-1.5-7B). ``auto`` matches the
    card's LoRA rank. Raises UserError where the rank is not a positive number within the smallest layer's input
    (with A frozen, its rows are directions of the input) or the smallest side (A trained).
    """
    if isinstance(rank, str):
        text = f"match:lora@{defaults.rank}" if rank == "auto" else rank
        head, _, number = text.partition("match:lora@")
        if head or not number.isdigit():
            raise UserError(f"{option}={rank} is no rank: use a whole number, auto, or match:lora@{defaults.rank}")
        outs, ins = sum(out for out, _ in layers.values()), sum(width for _, width in layers.values())
        rank = int(number) * (outs + ins) // outs if freeze_a else int(number)
    limits = {name: width if freeze_a else min(out, width) for name, (out, width) in layers.items()}
    limit = min(limits.values())
    if not 1 <= rank <= limit:
        side, narrow = "input" if freeze_a else "side", [name for name in limits if limits[name] < rank]
        which = f" ({len(narrow)} of {len(limits)} layers are narrower, such as {narrow[0]})" if narrow else ""
        raise UserError(
            f"{option}={rank} is out of range: the smallest {side} of a layer allows ranks 1 to {limit}{which}"
        )
    return rank

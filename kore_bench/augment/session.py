"""What `kore-bench augment` does: read the items, grow their trees, keep each as it is done, and write the data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from kore_bench import __version__
from kore_bench.cache import cache_folder
from kore_bench.component import settings_of
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Item, Knowledge
from kore_bench.formats import check_images, knowledge_reader
from kore_bench.generators import Generator, GeneratorSettings, LimitReachedError, recorded_calls
from kore_bench.offline import go_offline
from kore_bench.plan import MINI, parse_pairs
from kore_bench.registry import Registry

from .board import Board
from .data_set import picture, write_data_set
from .grown import About, KnowledgeTree
from .journal import Entry, Journal
from .output import FORMATS
from .pool import each
from .providers import ImageProvider, image_provider
from .view import view

METHOD = "kore-augmentation"
FIRST = 8
"""Where nothing is usable of this many items at the start, nothing will be of the others."""
Grow = Callable[[Item], KnowledgeTree]


class Planter(Protocol):
    """The component that grows trees, in a run and here."""

    def check_items(self, items: Sequence[Item], writer: Generator) -> None:
        """Raise UserError for items that it cannot grow."""

    def grower(self, items: Sequence[Item], seed: int, writer: Generator, *, about: About | None = None) -> Grow:
        """Return what grows the tree of one item, from any thread, the same for equal seeds."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for; the fields are the command's options.

    ``settings`` are ``--set`` texts of kore-augmentation; ``limit`` takes the first items only (0: all).
    """

    data: str
    out: Path
    generator: str = "template"
    llm: GeneratorSettings = field(default_factory=GeneratorSettings)
    images: str = "none"
    clip: str = ""
    recognition: str = ""
    decontaminate: bool = False
    in_flight: int = 16
    formats: tuple[str, ...] = ("llava",)
    seed: int = 0
    limit: int = 0
    settings: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


def augment_session(request: Request, out: Console) -> int:
    """Make a data set, or go on with it; return 0, or 130 where it was interrupted.

    Raises UserError for what the user can mend, LimitReachedError at the cost limit; what was made until then is
    written all the same.
    """
    if request.llm.offline:
        go_offline()
    for name in request.formats:
        if name not in FORMATS:
            raise UserError(f"--format {name}: {nearest(name, FORMATS)}")
    with out.status(f"reading {request.data}"):
        knowledge = _read(request.data)
        planter, plan = _planter(request, knowledge)
        provider = image_provider(request.images, clip=request.clip, seed=request.seed)
        plan |= provider.key()
        check_images(knowledge)
    items = knowledge.items[: request.limit or None]
    with Journal(request.out, plan) as journal:
        stopped: BaseException | None = None
        todo = [item for item in items if item.id not in journal]
        try:
            if todo:
                _make(
                    request, knowledge, todo, planter, provider, journal, Board(out, len(items), len(items) - len(todo))
                )
        except (UserError, KeyboardInterrupt) as error:
            if not len(journal):
                raise
            stopped = error
        with out.status("writing the data set"):
            report = write_data_set(
                knowledge, items, journal, plan, formats=request.formats, decontaminate=request.decontaminate
            )
    out.print(view(report))
    out.print(f"{request.out}: {report['items']:,} of {report['of']:,} items", soft_wrap=True, markup=False)
    return _ended(stopped, request, report, out)


def _ended(stopped: BaseException | None, request: Request, report: Mapping[str, Any], out: Console) -> int:
    if stopped is None:
        return 0
    kept = f"{report['items']:,} of {report['of']:,} items are in {request.out} and can be used"
    if isinstance(stopped, LimitReachedError):
        cost = report["usage"].get("cost", 0.0)
        raise LimitReachedError(
            f"--max-cost {request.llm.max_cost:g} is reached, ${cost:.4f} are spent: {kept}; the same command with a higher "
            "--max-cost goes on from here"
        ) from None
    if isinstance(stopped, UserError):
        raise UserError(f"{stopped}; {kept}, the same command goes on from here") from None
    out.print(f"interrupted: {kept}, the same command goes on from here", soft_wrap=True, markup=False)
    return 130


def _read(data: str) -> Knowledge:
    folder = Path(data)
    if data == MINI:
        from kore_bench.mini import world_folder

        folder = world_folder(cache_folder())
    return knowledge_reader(folder, questions=False).knowledge()


def _planter(request: Request, knowledge: Knowledge) -> tuple[Planter, dict[str, Any]]:
    """Return what grows the trees, and the plan by which a data set is known when it is gone on with."""
    pairs = {f"{METHOD}.generator": request.generator}
    given = parse_pairs(request.settings)
    for option in given:
        if not option.startswith(f"{METHOD}.") or option in (*pairs, f"{METHOD}.source"):
            raise UserError(f"--set {option}: here {METHOD}.turns, .questions, .parts and .recognition can be set")
    if request.recognition:
        pairs[f"{METHOD}.recognition"] = request.recognition
    components = _registry(request).compose(METHOD, given | pairs).components
    component: Any = next(component for component in components if component.name == METHOD)
    writer = _writer(request)
    if (request.llm.llm or request.llm.base_url) and not writer.language_model:
        raise UserError(
            f"--generator {request.generator} asks no language model: --llm and --base-url need another one"
        )
    component.check_items(knowledge.items, writer)
    plan = {
        "kore-bench": __version__, "data": knowledge.digest, "seed": request.seed, **writer.key(),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in settings_of(component).items()},
    }  # fmt: skip
    del plan["source"]
    return component, plan


def _registry(request: Request) -> Registry:
    return Registry(tuple(Path(path) for path in request.plugins))


def _writer(request: Request, spent: float = 0.0) -> Generator:
    """Return the generator, which may spend what is left of ``--max-cost``."""
    llm = request.llm
    if llm.max_cost:
        llm = replace(llm, max_cost=max(llm.max_cost - spent, 1e-9))
    found: Generator = _registry(request).find("generators", request.generator)
    return found.configured(llm)


def _make(
    request: Request, knowledge: Knowledge, todo: Sequence[Item], planter: Planter, provider: ImageProvider,
    journal: Journal, board: Board,
) -> None:  # fmt: skip
    """Grow the trees of the items ``todo``, and append each to the journal as it is done."""
    before = Counter(journal.usage)
    writer = _writer(request, before["cost"])
    writer.preflight()
    with board.out.status("looking for images") as status:
        provider.prepare(todo, lambda what, done, of: status.update(f"{what}: {done:,} of {of:,}"))
    grow = planter.grower(knowledge.items, request.seed, writer, about=provider.about)
    with board:
        first: list[KnowledgeTree] = []
        for entry in each(todo, partial(_grown, grow=grow, provider=provider), request.in_flight):
            usage = before + Counter(writer.usage())
            journal.append(replace(entry, usage=usage))
            board.advance(len(entry.tree.rejects), usage)
            if len(journal) <= FIRST:
                first.append(entry.tree)
                _check_fruitful(first, min(FIRST, len(todo)))


def _check_fruitful(trees: Sequence[KnowledgeTree], of: int) -> None:
    """Raise UserError where the generator has found nothing usable for any of the first ``of`` items."""
    if len(trees) == of and all(tree.barren for tree in trees):
        why = trees[-1].rejects[0].detail
        raise UserError(f"the generator wrote nothing usable about the first {of} items, of the last one because {why}")


def _grown(item: Item, *, grow: Grow, provider: ImageProvider) -> Entry:
    retrieved = provider.pictures(item)
    with recorded_calls() as calls:
        tree = grow(replace(item, retrieved=retrieved))
    shown = {image: picture(image) for example in tree.examples() for image in example.images}
    likeness = dict(zip(retrieved, provider.likeness(item), strict=False))  # it may be unknown
    return Entry(tree=tree, calls=tuple(calls), pictures=shown, likeness=likeness)

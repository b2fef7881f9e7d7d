"""What the user asked for: options made into checked settings, and the preflight before any model loads."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kore_bench.cache import cache_folder
from kore_bench.calibration import calibrated, check_old, check_pictures, check_training, draw_old, settle, sources_of
from kore_bench.card import SETTABLE, ModelCard, TrainSettings, card_of, parse_setting
from kore_bench.component import Defaults, fold
from kore_bench.contrasts import DEFAULT_CONTRASTS, check_contrasts
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Knowledge
from kore_bench.generators import SETTABLE as SETTABLE_OF_GENERATORS
from kore_bench.generators import GeneratorSettings
from kore_bench.generators.chosen import check_chosen
from kore_bench.judge import JudgeSettings
from kore_bench.mini import world_folder
from kore_bench.mini.settings import WorldSettings
from kore_bench.registry import Composition, Registry
from kore_bench.task import Task, ToolkitTask
from kore_bench.variants import method_of

DEFAULT_METHODS = (
    "full", "lora", "replay", "ewc", "kore-augmentation", "kore-null", "kore", "frozen-random", "frozen-top",
)  # fmt: skip
DEFAULT_TASKS = (
    "adaptation", "retention", "old-facts", "paraphrase", "portability", "image-necessity", "spill-over", "likelihood",
)  # fmt: skip
REFERENCES = ("base", "in-context")
MINI = "mini"
_MINIMUM_DISK = 200 * 2**20


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of one run as the user gave them: plain values, so that a worker process can plan it again.

    ``model`` is a card's name, or a folder or hub id of an image-text model; ``data`` is ``mini`` or a knowledge folder; ``settings`` are ``name.field=value`` texts; ``tuning`` is a file of
    tuned rates (empty: the one shipped for the model); ``split`` is ``validation`` when tuning. ``limit``, ``offline``,
    ``judge`` and ``judge_url`` go to the tasks that have fields of these names, see `kore_bench.task.Task`. ``llm`` and
    ``base_url`` are the language model of generators that write with one.
    ``contrasts`` (``kore/lora``) are what the run is made to tell, written down before it: `kore_bench.contrasts`. ``frontier``
    are the parts of its change at which each trained cell is evaluated too.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS
    model: str = "mini-llava"
    data: str = MINI
    tasks: tuple[str, ...] = DEFAULT_TASKS
    seeds: tuple[int, ...] = (0,)
    settings: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    tuning: str = ""
    split: str = ""
    limit: int = 0
    offline: bool = False
    judge: str = ""
    judge_url: str = ""
    llm: str = ""
    base_url: str = ""
    contrasts: tuple[str, ...] = DEFAULT_CONTRASTS
    frontier: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OldSettings:
    """Which old knowledge methods may read (``--set old.FIELD=VALUE``): the same for every method that reads any.

    ``samples`` are drawn from ``skills`` of the seven skills, which rotate with the seed, so that retention can be
    told apart on skills that were seen and skills that were not. ``calibration`` names other sources in their place
    (``--calibration``): data sets by path or tasks by name, each with its number of samples or in equal parts; then
    ``skills`` is their number.
    """

    samples: int = 256
    skills: int = 4
    calibration: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with every name found and every setting parsed."""

    request: Request
    registry: Registry
    card: ModelCard
    methods: tuple[Composition, ...]
    tasks: tuple[Task, ...]
    train: TrainSettings
    old: OldSettings
    world: WorldSettings = field(default=WorldSettings())
    tuning: tuple[Mapping[str, Any], ...] = field(default=())

    def method(self, name: str, settings: Mapping[str, str]) -> Composition:
        """Return a method of the plan with further ``component.field`` settings (the tuned ones) applied."""
        return self.registry.compose(name, {**settings, **parse_pairs(self.request.settings)})

    def task(self, name: str) -> Task:
        """Return a task that samples are taken from, with the request's settings; UserError where there is none."""
        pairs = parse_pairs(self.request.settings)
        return _task(self.registry, name, pairs, {"offline": self.request.offline})

    def knowledge_folder(self, seed: int | None = None) -> Path:
        """Return the folder of the knowledge of ``seed`` (None: the first), writing the mini world's on first use."""
        if self.request.data == MINI:
            seed = self.request.seeds[0] if seed is None else seed
            folder = world_folder(cache_folder(), self.world, self.world.draw(seed))
        else:
            folder = Path(self.request.data)
        return folder / self.request.split if self.request.split else folder

    def tuned(self, method: str) -> Mapping[str, Any] | None:
        """Return the tuning entry for ``method`` under this plan's budget, if there is one; a variant has its method's.

        Where the model has none, it is that of the model that its card names for this.
        """
        for model in filter(None, (self.card.name, self.card.tuned_on)):
            wanted = {"budget": self.train.budget, "model": model}
            found: dict[str, Mapping[str, Any]] = {
                entry["method"]: entry for entry in reversed(self.tuning) if wanted.items() <= entry.items()
            }
            if entry := found.get(method) or found.get(method_of(method)):
                return entry
        return None


def make_plan(request: Request) -> Plan:
    """Find every name and parse every setting of a request; raises UserError naming the option and the nearest choice.

    Reads no data and imports no torch.
    """
    pairs = parse_pairs(request.settings)
    registry = Registry(tuple(Path(plugin) for plugin in request.plugins), _writing(request, pairs))
    card = find_card(registry, request.model, pairs)
    train, old = _apply(card.train, "train", pairs), _apply(OldSettings(), "old", pairs)
    if any(key.startswith("train.epochs") for key in pairs) and "train.steps" not in pairs:
        train = replace(train, steps=0)
    train.check()
    for name in ("samples", "skills"):
        if getattr(old, name) < 1:
            raise UserError(f"--set old.{name}={getattr(old, name)} must be at least 1")
    old = settle(old, samples_given="old.samples" in pairs)
    world = _world(request, card, pairs)
    if not request.methods:
        raise UserError("--methods is empty: name at least one, such as kore,lora")
    if not request.seeds:
        raise UserError("--seeds must be at least 1")
    methods = tuple(registry.compose(name, pairs) for name in request.methods)
    check_chosen(registry, methods)
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--methods names {name} twice")
    check_contrasts(request.contrasts, (*REFERENCES, *names))
    check_scales("--frontier", request.frontier)
    asked = _expanded(registry, request, pairs)
    named = (*asked, *(source.name for source in sources_of(old)))
    families = {name.partition(":")[0] for name in named if ":" in name}
    families |= {family for name in asked if (family := getattr(registry.find("tasks", name), "family", ""))}
    owners = (
        {"model", "train", "old", "world", "judge", "generator"}
        | families
        | {component.name for method in methods for component in method.components}
    )
    for option in pairs:
        owner = option.split(".")[0]
        if owner not in owners:
            raise UserError(f"--set {option}: no chosen method or task has a part {owner!r}: {nearest(owner, owners)}")
    if request.limit < 0:
        raise UserError(f"--limit {request.limit} must be at least 0 (0: all questions)")
    given = {name: getattr(request, name) for name in ("limit", "offline", "judge", "judge_url")}
    given["judge_settings"] = judge = _judge(request, pairs)
    tasks = tuple(_task(registry, name, pairs, given) for name in asked)
    if not tasks:
        raise UserError("--tasks is empty: name at least one, such as adaptation,retention")
    if judge.name and not any(task.card.judge for task in tasks):
        raise UserError(f"--judge {judge.name}: none of the tasks {', '.join(request.tasks)} is graded by a judge")
    return Plan(
        request=request, registry=registry, card=card, methods=methods, tasks=tasks, train=train, old=old,
        world=world, tuning=tuple(_tuning(request.tuning, card)),
    )  # fmt: skip


def _world(request: Request, card: ModelCard, pairs: Mapping[str, str]) -> WorldSettings:
    """Return which entities of the mini world are injected, checked; raises UserError where it is not the data."""
    world: WorldSettings = _apply(WorldSettings(), "world", pairs)
    option = next((option for option in pairs if option.startswith("world.")), "")
    if option and request.data != MINI:
        raise UserError(f"--set {option} is about the mini world, and --data is {request.data}: leave one of them out")
    if option and not Path(card.path).is_dir():
        raise UserError(f"--set {option}: {card.name} knows nothing of the mini world: use --model mini-llava")
    world.check()
    return world


def _writing(request: Request, pairs: Mapping[str, str]) -> GeneratorSettings:
    """Return how generators are set up, checked; without ``--llm`` those that need a language model write nothing."""
    given = GeneratorSettings(llm=request.llm, base_url=request.base_url, offline=request.offline)
    writing: GeneratorSettings = _apply(given, "generator", pairs, SETTABLE_OF_GENERATORS)
    if writing.llm or writing.base_url:
        writing.check()
    elif option := next((option for option in pairs if option.startswith("generator.")), None):
        raise UserError(f"--set {option} needs --llm NAME")
    return writing


def _judge(request: Request, pairs: Mapping[str, str]) -> JudgeSettings:
    """Return the judge of a request, checked; without ``--judge`` it has no name and is not asked."""
    judge: JudgeSettings = _apply(
        JudgeSettings(name=request.judge, url=request.judge_url), "judge", pairs, ("per_minute", "timeout", "retries")
    )
    if not (judge.name or judge.url):
        if option := next((option for option in pairs if option.startswith("judge.")), None):
            raise UserError(f"--set {option} needs --judge NAME")
        return judge
    judge.check()
    if request.offline and not judge.local:
        raise UserError(f"--offline forbids the judge at {judge.base}: only one on this machine can be asked")
    return judge


def _task(registry: Registry, name: str, pairs: Mapping[str, str], given: Mapping[str, Any]) -> Task:
    """Return a task with the request's options and the ``--set`` options that it has fields for."""
    task: Task = registry.find("tasks", name)
    own = {item.name for item in dataclasses.fields(task)}
    task = replace(task, **{option: value for option, value in given.items() if option in own})
    if not isinstance(task, ToolkitTask):
        return task
    task = _apply(task, task.family or name.partition(":")[0], pairs, task.settable)
    return task


def _expanded(registry: Registry, request: Request, pairs: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of a request's tasks, sets as their members, each once.

    Where a set shares its name with a task, the task is meant if the data has the file that it asks about.
    """
    names: list[str] = []
    sets = registry.task_sets()
    for name in request.tasks:
        found = sets.get(name)
        own = request.data == MINI or bool(found and (Path(request.data) / found.unless).exists())
        if found and found.unless and (own or not _usable(found.module, pairs)):
            found = None
        names += found.members if found else (name,)
    return tuple(dict.fromkeys(names))


def _usable(module: str, pairs: Mapping[str, str]) -> bool:
    return importlib.util.find_spec(module) is not None or f"{module}.python" in pairs


def model_name(request: Request) -> str:
    """Return the name that a request's model goes by in folders and records: its card's, or its path's last part."""
    card = card_of(request.model)
    return card.name if card else request.model


def find_card(registry: Registry, model: str, pairs: Mapping[str, str]) -> ModelCard:
    """Return the card of a model by name, by folder or by hub id (``owner/name``), with ``model.FIELD`` settings.

    Raises UserError with the nearest card where there is none.
    """
    if not model:
        raise UserError("--model is empty: name a card, such as mini-llava, a folder, or a hub id")
    known = registry.all("models")
    card = card_of(model) if model not in known else None
    card = _apply(card or registry.find("models", model), "model", pairs, SETTABLE)
    card.check()
    return card  # type: ignore[no-any-return]


def preflight(plan: Plan, folder: Path) -> Knowledge:
    """Check all that can be checked before a model loads, and return the knowledge.

    Names and settings are checked by `make_plan`; here: every data line, every image, old samples where a method
    reads them, ranks against layer shapes, and disk space under ``folder``. Raises UserError.
    """
    from kore_bench.formats import check_images, read_knowledge

    knowledge = read_knowledge(plan.knowledge_folder())
    check_images(knowledge)
    knowledge = calibrated(plan, knowledge)
    for method in plan.methods:
        reader = next((part.name for part in method.components if part.uses_old_samples()), None)
        if reader and not knowledge.old:
            raise UserError(
                f"{reader} reads samples of old knowledge, and {knowledge.root} has no old.json: put one there "
                "(docs/data.md shows its rows), name other samples by --calibration PATH, or choose methods that read none"
            )
        if reader:
            check_old(plan.old, knowledge.old, str(knowledge.root))
    check_training(plan, knowledge)
    skipped = [reason for task in plan.tasks if (reason := task.skip(knowledge))]
    if len(skipped) == len(plan.tasks):
        raise UserError(f"nothing to evaluate: {skipped[0]}")
    for component in {part.name: part for method in plan.methods for part in method.components}.values():
        component.check_data(knowledge, plan.registry.find)
    if plan.old.calibration:
        check_pictures([sample for seed in plan.request.seeds for sample in draw_old(knowledge, plan.old, seed)])
    check_ranks(plan)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if shutil.disk_usage(existing).free < _MINIMUM_DISK:
        raise UserError(f"less than {_MINIMUM_DISK // 2**20} MiB are free under {existing}")
    return knowledge


def check_ranks(plan: Plan) -> None:
    """Fold every method's adapter spec over the model's layer shapes (from its config, without weights)."""
    from kore_bench.lmm import layer_shapes

    layers = layer_shapes(plan.card)
    for method in plan.methods:
        fold(method.components, layers, Defaults(rank=plan.card.rank, dropout=plan.card.dropout))


def check_chat(plan: Plan) -> None:
    """Check that the model's weights, processor and chat template can be used, before a process loads any weight.

    Raises UserError.
    """
    from kore_bench.chat import Chat
    from kore_bench.source import check_weights, load_processor

    check_weights(plan.card)
    Chat(load_processor(plan.card), plan.card, plan.train.max_length).check()


def check_scales(option: str, scales: Sequence[float]) -> None:
    """Raise UserError for a scale that is not between 0 and 1."""
    for scale in scales:
        if not 0 < scale < 1:
            raise UserError(f"{option} {scale:g} is out of range: between 0 (the base) and 1 (the cell as it is)")


def parse_pairs(settings: Sequence[str]) -> dict[str, str]:
    """Return ``name.field`` -> value text of ``--set`` options, hyphens in ``field`` as underscores.

    Raises UserError on another form, or where two options set the same field.
    """
    pairs: dict[str, str] = {}
    for text in settings:
        option, equals, value = text.partition("=")
        option = option.strip()
        if not equals or not re.fullmatch(r"[\w-]+\.[\w-]+", option):
            raise UserError(f"--set {text} must have the form name.field=value, such as kore-null.rank=64")
        owner, _, field_name = option.partition(".")
        option = f"{owner}.{field_name.replace('-', '_')}"
        if option in pairs:
            raise UserError(f"--set {option} is given twice: {pairs[option]} and {value.strip()}")
        pairs[option] = value.strip()
    return pairs


def _tuning(file: str, card: ModelCard) -> list[dict[str, Any]]:
    """Return the tuning entries of a file, or those shipped for a card's model and for the one that it is ``tuned_on``."""
    if file:
        return read_tuning(Path(file))
    shipped = [Path(__file__).parent / "models" / "tuned" / f"{name}.json" for name in (card.name, card.tuned_on)]
    return [entry for path in shipped if path.exists() for entry in read_tuning(path)]


def read_tuning(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a tuning file; raises UserError where it is none."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"--tuning {path}: there is no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"--tuning {path} is not JSON: {error}") from None
    needed = {"method", "model", "budget", "chosen", "trials"}
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and needed <= entry.keys()
        and isinstance(entry["chosen"], dict)
        and {"learning_rate", "settings"} <= entry["chosen"].keys()
        for entry in entries
    ):
        raise UserError(f"--tuning {path} is no tuning file: every entry needs {', '.join(sorted(needed))}")
    for entry in entries:
        rate = entry["chosen"]["learning_rate"]
        if not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise UserError(
                f"--tuning {path}: the chosen learning_rate of {entry['method']} is {rate!r}, no rate above 0"
            )
    return entries


def _apply(settings: Any, owner: str, pairs: Mapping[str, str], known: Collection[str] = ()) -> Any:
    known = known or {item.name for item in dataclasses.fields(settings)}
    for option, text in pairs.items():
        head, _, name = option.partition(".")
        if head == owner:
            name = name.replace("-", "_")
            if name not in known:
                raise UserError(f"--set {option}: {owner} has no setting {name!r}: {nearest(name, known)}")
            settings = replace(settings, **{name: parse_setting(settings, name, text, f"--set {option}")})
    return settings

"""What the user asked for: options made into checked settings, and the preflight before any model loads."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kore_bench.cache import cache_folder
from kore_bench.card import ModelCard, TrainSettings, parse_setting
from kore_bench.component import Defaults, fold
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Knowledge
from kore_bench.registry import Composition, Registry
from kore_bench.task import Task

DEFAULT_METHODS = (
    "full", "lora", "replay", "ewc", "kore-augmentation", "kore-null", "kore", "frozen-random", "frozen-top",
)  # fmt: skip
DEFAULT_TASKS = ("adaptation", "retention", "old-facts")
REFERENCES = ("base", "in-context")
MINI = "mini"
_MINIMUM_DISK = 200 * 2**20


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of one run as the user gave them: plain values, so that a worker process can plan it again.

    ``data`` is ``mini`` or a knowledge folder; ``settings`` are ``name.field=value`` texts; ``tuning`` is a file of
    tuned rates (empty: the one shipped for the model); ``split`` is ``validation`` when tuning.
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


@dataclass(frozen=True, kw_only=True)
class OldSettings:
    """Which old knowledge methods may read (``--set old.FIELD=VALUE``): the same for every method that reads any.

    ``samples`` are drawn from ``skills`` of the seven skills, which rotate with the seed, so that retention can be
    told apart on skills that were seen and skills that were not.
    """

    samples: int = 256
    skills: int = 4


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
    tuning: tuple[Mapping[str, Any], ...] = field(default=())

    def method(self, name: str, settings: Mapping[str, str]) -> Composition:
        """Return a method of the plan with further ``component.field`` settings (the tuned ones) applied."""
        return self.registry.compose(name, {**settings, **parse_pairs(self.request.settings)})

    def knowledge_folder(self) -> Path:
        """Return the folder of the knowledge, writing the mini world's on first use."""
        if self.request.data == MINI:
            from kore_bench.mini import world_folder

            folder = world_folder(cache_folder())
        else:
            folder = Path(self.request.data)
        return folder / self.request.split if self.request.split else folder

    def tuned(self, method: str) -> Mapping[str, Any] | None:
        """Return the tuning entry for ``method`` under this plan's budget, if there is one."""
        wanted = {"method": method, "budget": self.train.budget, "model": self.card.name}
        return next((entry for entry in self.tuning if wanted.items() <= entry.items()), None)


def make_plan(request: Request) -> Plan:
    """Find every name and parse every setting of a request; raises UserError naming the option and the nearest choice.

    Reads no data and imports no torch.
    """
    registry = Registry(tuple(Path(plugin) for plugin in request.plugins))
    card = registry.find("models", request.model)
    pairs = parse_pairs(request.settings)
    train, old = _apply(card.train, "train", pairs), _apply(OldSettings(), "old", pairs)
    if any(key.startswith("train.epochs") for key in pairs) and "train.steps" not in pairs:
        train = replace(train, steps=0)
    train.check()
    for name, count in asdict(old).items():
        if count < 1:
            raise UserError(f"--set old.{name}={count} must be at least 1")
    if not request.methods:
        raise UserError("--methods is empty: name at least one, such as kore,lora")
    if not request.seeds:
        raise UserError("--seeds must be at least 1")
    for name in request.methods:
        if request.methods.count(name) > 1:
            raise UserError(f"--methods names {name} twice")
    methods = tuple(registry.compose(name, pairs) for name in request.methods)
    owners = {"train", "old"} | {component.name for method in methods for component in method.components}
    for option in pairs:
        owner = option.split(".")[0]
        if owner not in owners:
            raise UserError(f"--set {option}: no chosen method has a part {owner!r}: {nearest(owner, owners)}")
    tasks = tuple(registry.find("tasks", name) for name in request.tasks)
    if not tasks:
        raise UserError("--tasks is empty: name at least one, such as adaptation,retention")
    return Plan(
        request=request, registry=registry, card=card, methods=methods, tasks=tasks, train=train, old=old,
        tuning=tuple(read_tuning(request.tuning, card.name)),
    )  # fmt: skip


def preflight(plan: Plan, folder: Path) -> Knowledge:
    """Check all that can be checked before a model loads, and return the knowledge.

    Names and settings are checked by `make_plan`; here: every data line, every image, old samples where a method
    reads them, ranks against layer shapes, and disk space under ``folder``. Raises UserError.
    """
    from kore_bench.formats import check_images, read_knowledge

    knowledge = read_knowledge(plan.knowledge_folder())
    for method in plan.methods:
        reader = next((part.name for part in method.components if part.uses_old_samples()), None)
        if reader and not knowledge.old:
            raise UserError(f"{reader} reads old-knowledge samples, and {knowledge.root} has no old.json")
        if reader:
            _check_old(knowledge, plan.old)
    skipped = [reason for task in plan.tasks if (reason := task.skip(knowledge))]
    if len(skipped) == len(plan.tasks):
        raise UserError(f"nothing to evaluate: {skipped[0]}")
    if "kore-augmentation" in {part.name for method in plan.methods for part in method.components}:
        bare = next((item.id for item in knowledge.items if not item.facts), None)
        if bare is not None:
            raise UserError(f"kore-augmentation's template generator needs facts.json with facts of item {bare}")
    check_images(knowledge)
    check_ranks(plan)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if shutil.disk_usage(existing).free < _MINIMUM_DISK:
        raise UserError(f"less than {_MINIMUM_DISK // 2**20} MiB are free under {existing}")
    return knowledge


def _check_old(knowledge: Knowledge, old: OldSettings) -> None:
    pools = knowledge.old
    if old.skills > len(pools):
        raise UserError(f"--set old.skills={old.skills}: {knowledge.root} has old samples of {len(pools)} skills")
    smallest = min(len(pool) for pool in pools.values())
    if old.samples > smallest * old.skills:
        raise UserError(
            f"--set old.samples={old.samples}: {old.skills} skills of {knowledge.root} have {smallest * old.skills} "
            "samples in equal parts"
        )


def check_ranks(plan: Plan) -> None:
    """Fold every method's adapter spec over the model's layer shapes (from its config, without weights)."""
    from kore_bench.lmm import layer_shapes

    layers = layer_shapes(plan.card)
    for method in plan.methods:
        fold(method.components, layers, Defaults(rank=plan.card.rank, dropout=plan.card.dropout))


def parse_pairs(settings: Sequence[str]) -> dict[str, str]:
    """Return ``name.field`` -> value text of ``--set`` options; raises UserError on another form or a repetition."""
    pairs: dict[str, str] = {}
    for text in settings:
        option, equals, value = text.partition("=")
        option = option.strip()
        if not equals or not re.fullmatch(r"[\w-]+\.[\w-]+", option):
            raise UserError(f"--set {text} must have the form name.field=value, such as kore-null.rank=64")
        if option in pairs:
            raise UserError(f"--set {option} is given twice: {pairs[option]} and {value.strip()}")
        pairs[option] = value.strip()
    return pairs


def read_tuning(file: str, model: str) -> list[dict[str, Any]]:
    """Return the tuning entries of a file, or of the file shipped for ``model`` (none: an empty list)."""
    path = Path(file) if file else Path(__file__).parent / "models" / "tuned" / f"{model}.json"
    if not file and not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"--tuning {path}: there is no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
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
    return entries


def _apply(settings: Any, owner: str, pairs: Mapping[str, str]) -> Any:
    known = {item.name for item in dataclasses.fields(settings)}
    for option, text in pairs.items():
        head, _, name = option.partition(".")
        if head == owner:
            name = name.replace("-", "_")
            if name not in known:
                raise UserError(f"--set {option}: {owner} has no setting {name!r}: {nearest(name, known)}")
            settings = replace(settings, **{name: parse_setting(settings, name, text, f"--set {option}")})
    return settings

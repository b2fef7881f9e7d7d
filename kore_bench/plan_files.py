"""Plans in files (``--plan``): whole comparisons by name, such as the paper's tables, adapted to the model that is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import typer

from kore_bench.card import card_of
from kore_bench.config import Given, compose, file_options, option_name, place_defaults, read_options
from kore_bench.errors import UserError, nearest

FOLDER = Path(__file__).parent / "plans"
_EXTENDS, _MODELS, _SUMMARY = "extends", "models", "summary"
_CHOSEN = "plan"


@dataclass(frozen=True)
class PlanFile:
    """A plan as its file has it: what `--config` takes, and what differs for some models.

    ``sections`` are options for models whose name fits a pattern (``mini-*``); they replace the plan's own, as these
    replace those of ``base``, the plan that it extends.
    """

    name: str
    summary: str
    options: tuple[Given, ...]
    sections: tuple[tuple[str, tuple[Given, ...]], ...]
    base: PlanFile | None = None

    def for_model(self, model: str) -> dict[str, Given]:
        """Return the options for a model, by their names."""
        found = self.base.for_model(model) if self.base else {}
        found |= {given.name: given for given in self.options}
        for pattern, options in self.sections:
            if fnmatchcase(model, pattern):
                found |= {given.name: given for given in options}
        return found

    @property
    def run(self) -> str:
        """The part of a run's name that says what is run: a plan that changes nothing of its base is the same run."""
        return self.base.run if self.base and not (self.options or self.sections) else Path(self.name).stem


def list_plans() -> dict[str, PlanFile]:
    """Return the plans that come with kore-bench, by name (``paper/table1``)."""
    names = [file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml")]
    return {name: read_plan(name) for name in sorted(names, key=_in_order)}


def plan_path(name: str) -> Path:
    """Return the file of a plan: one of ours by name, or any YAML file; raises UserError with the nearest name."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = {file.relative_to(FOLDER).with_suffix("").as_posix(): file for file in FOLDER.rglob("*.yaml")}
    if name not in known:
        raise UserError(f"unknown plan {name!r}: {nearest(name, known)}; or give a file that ends in .yaml")
    return known[name]


def read_plan(name: str) -> PlanFile:
    """Return the plan of this name or file; raises UserError naming file and line for what is not right in it."""
    return _read(name, ())


def choose_plan(context: typer.Context, name: str) -> str:
    """Make a plan's options the defaults of the command, under those of ``--config`` (callback of an eager option).

    Which of the two callbacks comes last, and so knows both plan and model, depends on the order on the command line.
    """
    plan = read_plan(name) if name else None
    if plan and "model" in context.params:
        _place(context, plan, context.params["model"])
    elif plan:
        own = plan.for_model("").get("model")
        place_defaults(context, read_options(context, [own] if own else []), over=False)
        context.meta[_CHOSEN] = plan
    return name


def choose_model(context: typer.Context, model: str) -> str:
    """Place what the chosen plan says for the model (callback of an eager option)."""
    plan = context.meta.pop(_CHOSEN, None)
    if plan:
        _place(context, plan, model)
    return model


def short_name(model: str) -> str:
    """Return the name that a model goes by: its card's, or its path's last part."""
    card = card_of(model)
    return card.name if card else model


def run_name(plan: PlanFile, model: str) -> str:
    """Return what a run of ``plan`` on ``model`` is called unless the user says otherwise."""
    return f"{short_name(model)}-{plan.run}"


def _place(context: typer.Context, plan: PlanFile, model: str) -> None:
    options = [given for given in plan.for_model(short_name(model)).values() if given.name != "model"]
    options = [given for given in options if not _only_of_runs(context, given.name)]
    place_defaults(context, {"name": run_name(plan, model)} | read_options(context, options), over=False)


def _only_of_runs(context: typer.Context, option: str) -> bool:
    """Return whether an option is one of `run` that this command does without, such as a run's seeds when tuning."""
    assert context.parent is not None
    runs = context.parent.command.commands["run"]  # type: ignore[attr-defined]
    own, others = ({option_name(one) for one in command.params} for command in (context.command, runs))
    return option in others - own


def _read(name: str, extending: tuple[str, ...]) -> PlanFile:
    if name in extending:
        raise UserError(f"plan {name} extends itself, by way of {', '.join(extending)}")
    import yaml

    file = plan_path(name)
    root = compose(file, "--plan")
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{file}, line 1: a plan has an option on each line, such as 'methods: lora,kore'")
    own: dict[str, Any] = {}
    rest = []
    for key, value in root.value:
        if key.value not in (_EXTENDS, _MODELS, _SUMMARY):
            rest.append((key, value))
        elif key.value in own:
            raise UserError(f"{file}, line {key.start_mark.line + 1}: {key.value!r} is given twice: keep one")
        else:
            own[key.value] = value
    base = _text(own[_EXTENDS], file, _EXTENDS) if _EXTENDS in own else ""
    return PlanFile(
        name=name,
        summary=_text(own[_SUMMARY], file, _SUMMARY) if _SUMMARY in own else "",
        options=tuple(file_options(yaml.MappingNode(root.tag, rest), file)),
        sections=tuple(_sections(own[_MODELS], file)) if _MODELS in own else (),
        base=_read(base, (*extending, name)) if base else None,
    )


def _sections(node: Any, file: Path) -> Iterator[tuple[str, tuple[Given, ...]]]:
    place = f"{file}, line {node.start_mark.line + 1}"
    if node.id != "mapping":
        raise UserError(f"{place}: models has a name of models, such as mini-*, and below it their options")
    for key, value in node.value:
        if value.id != "mapping":
            raise UserError(f"{file}, line {key.start_mark.line + 1}: {_MODELS}: {key.value} has options below it")
        yield str(key.value), tuple(file_options(value, file))


def _text(node: Any, file: Path, name: str) -> str:
    if node.id != "scalar" or not node.value:
        raise UserError(f"{file}, line {node.start_mark.line + 1}: {name} takes one text")
    return str(node.value)


def _in_order(name: str) -> tuple[str, int, str]:
    """Return a key that sorts table2 before table12."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return name.rstrip("0123456789").partition("-")[0].rstrip("0123456789"), int(digits or 0), name

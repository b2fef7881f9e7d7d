"""What `kore-bench list` shows: names in a table, or one object with its settings."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kore_bench.component import settings_of
from kore_bench.generators import SETTABLE, Generator, GeneratorSettings
from kore_bench.plan_files import list_plans, plan_path
from kore_bench.registry import Found, Registry


def listing(registry: Registry, kind: str, name: str = "") -> RenderableType:
    """Return a table of all objects of ``kind``, or all about the one called ``name``.

    Raises UserError with the nearest name where there is none; a method's name may be a mixture.
    """
    if kind == "plans":
        return _plans(name)
    found = registry.all(kind)
    if not name:
        table = Table("name", "what it is", "from", box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
        for key, entry in found.items():
            table.add_row(key, Text(_summary(entry.value)), Text(entry.origin))
        return table
    if kind == "methods":
        return _method(registry, name)
    entry = registry.entry(kind, name)
    value = entry.value
    if kind == "generators":
        return _generator(entry)
    fields = vars(value.card) if kind == "tasks" else vars(value) or {"name": name, "summary": _summary(value)}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for key, content in fields.items():
        table.add_row(key, Text(str(getattr(content, "__name__", content))))
    table.add_row("from", Text(f"{entry.origin}: {entry.file}"))
    return table


def _generator(entry: Found) -> RenderableType:
    about = inspect.getdoc(type(entry.value)) or ""
    parts: list[RenderableType] = [
        Text(entry.value.name, style="bold"),
        Text(about),
        Text(f"from: {entry.origin}: {entry.file}"),
    ]
    if entry.value.language_model:
        table = Table(
            "setting of a run", "default", box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0)
        )
        for field in SETTABLE:
            table.add_row(f"generator.{field.replace('_', '-')}", str(getattr(GeneratorSettings(), field)))
        parts.append(table)
    return Group(*parts)


def _plans(name: str) -> RenderableType:
    if name:
        return Text(plan_path(name).read_text(encoding="utf-8").rstrip())
    table = Table("name", "what it is", box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for plan in list_plans().values():
        table.add_row(plan.name, Text(plan.summary))
    return table


def _summary(value: Any) -> str:
    if isinstance(value, Generator):
        return (inspect.getdoc(value) or "").partition("\n")[0]
    return str(getattr(value, "summary", "") or getattr(value, "title", "") or value.card.title)


def _method(registry: Registry, name: str) -> RenderableType:
    composition = registry.compose(name)
    known = registry.all("methods")
    parts: list[RenderableType] = [Text(name, style="bold")]
    if name in known:
        method = known[name].value
        parts += [Text(method.summary), Text(f"source: {method.source}")]
        parts.append(Text(f"from: {known[name].origin}: {known[name].file}"))
    for component in composition.components:
        parts += [Text(), Text(component.name, style="bold"), Text(inspect.getdoc(type(component)) or "")]
        settings = settings_of(component)
        if settings:
            table = Table("setting", "default", box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
            for key, value in settings.items():
                shown = ",".join(value) if isinstance(value, tuple) else str(value)
                table.add_row(f"{component.name}.{key.replace('_', '-')}", Text(shown))
            parts.append(table)
    return Group(*parts)

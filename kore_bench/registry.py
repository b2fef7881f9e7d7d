"""Finds methods, tasks, reports, model cards and generators by name, and puts methods together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kore_bench.cache import digest
from kore_bench.card import ModelCard, parse_setting
from kore_bench.component import Adapter, Component, Method, settings_of
from kore_bench.errors import UserError, nearest
from kore_bench.generators import Generator, GeneratorSettings
from kore_bench.plugins import BUILT_IN, Source, embedded, from_file, installed
from kore_bench.report import AnalysisReport, Report
from kore_bench.task import Task, TaskFamily, TaskSet
from kore_bench.variants import label, own_settings, split_variant

KINDS: Mapping[str, tuple[type, str]] = {
    "methods": (Method, "kore_bench.methods"),
    "tasks": (Task, "kore_bench.tasks"),
    "reports": (Report, "kore_bench.reports"),
    "analyses": (AnalysisReport, "kore_bench.reports"),
    "models": (ModelCard, "kore_bench.models"),
    "generators": (Generator, "kore_bench.generators"),
}
"""What there is to find: the class of its objects and the folder of ours. Entry points are ``kore_bench.<kind>``."""


@dataclass(frozen=True)
class Found:
    """A registered object, the file that defines it, and what it is part of; see `kore_bench.plugins.Source`."""

    value: Any
    file: Path
    root: Path
    origin: str

    @property
    def built_in(self) -> bool:
        """Return whether it comes with kore-bench."""
        return self.origin == BUILT_IN


@dataclass(frozen=True)
class Registry:
    """What is known under each kind; ``plugins`` are files that add to the embedded folders and installed packages.

    ``writing`` is how generators that are found are set up.
    """

    plugins: tuple[Path, ...] = ()
    writing: GeneratorSettings = field(default_factory=GeneratorSettings)

    def all(self, kind: str) -> dict[str, Found]:
        """Return every registered object of ``kind`` by name, in name order.

        Raises UserError where a name is defined twice, or a plug-in file cannot be imported (naming the files). An
        installed package that cannot be imported is left out with a warning.
        """
        found: dict[str, Found] = {}
        for source in self._sources(kind):
            for value in source.values:
                if not isinstance(value, KINDS[kind][0]):
                    continue
                name = value.card.name if isinstance(value, Task) else value.name  # type: ignore[attr-defined]
                if name in found and found[name].value is not value:
                    raise UserError(f"{source.file} defines {name!r} again: {found[name].file} has it already")
                found.setdefault(name, Found(value, source.file, source.root, source.origin))
        return dict(sorted(found.items()))

    def find(self, kind: str, name: str) -> Any:
        """Return the object called ``name``; raises UserError with the nearest names where there is none."""
        value = self.entry(kind, name).value
        return value.configured(self.writing) if kind == "generators" else value

    def entry(self, kind: str, name: str) -> Found:
        """Return what is known about the object called ``name``; raises UserError as `find` does."""
        known = self.all(kind)
        if name in known:
            return known[name]
        if kind == "tasks" and (made := self._made(name)):
            return made
        lost = installed(kind, _accepted(kind))[1]
        for broken in lost:
            if broken.name == name:
                raise UserError(f"{kind[:-1]} {name!r} is missing: {broken.sentence}")
        left_out = "".join(f"; {broken.sentence}, and may define it" for broken in lost)
        choices = {*known, *(self.task_sets() if kind == "tasks" else ())}
        raise UserError(f"unknown {kind[:-1]} {name!r}: {nearest(name, choices)}{left_out}")

    def task_sets(self) -> dict[str, TaskSet]:
        """Return the sets of tasks by name."""
        sets = (value for source in self._sources("tasks") for value in source.values if isinstance(value, TaskSet))
        return {one.name: one for one in sets}

    def _made(self, name: str) -> Found | None:
        """Return the task ``PREFIX:NAME`` from the family of that prefix, None where there is no such family."""
        prefix, colon, rest = name.partition(":")
        for source in self._sources("tasks"):
            for family in source.values:
                if isinstance(family, TaskFamily) and family.prefix == prefix and colon and rest:
                    return Found(family.make(rest), source.file, source.root, source.origin)
        return None

    def families(self) -> list[TaskFamily]:
        """Return what makes tasks without number (``PREFIX:NAME``)."""
        values = (value for source in self._sources("tasks") for value in source.values)
        return [value for value in values if isinstance(value, TaskFamily)]

    def _sources(self, kind: str) -> tuple[Source, ...]:
        every = tuple(dict.fromkeys(accepted for each in KINDS for accepted in _accepted(each)))
        files = (from_file(path, every) for path in self.plugins)
        return (*embedded(KINDS[kind][1]), *installed(kind, _accepted(kind))[0], *files)

    def compose(self, name: str, settings: Mapping[str, str] | None = None) -> Composition:
        """Return the components of a method, a mixture such as ``ewc+kore-null``, or a variant such as ``kore:rank=64``.

        ``settings`` maps ``component.field`` to text; a variant's own have the last word. A named method's default
        adapter gives way to an explicitly named one; two explicit adapters, or a component named twice, are refused with a UserError.
        """
        method, given = split_variant(name)
        if not all(method.split("+")):
            raise UserError(f"--methods {name}: something is missing beside a +: write mixtures as ewc+kore-null")
        parts = [part for one in method.split("+") for part in self._expand(one)]
        methods: list[Method] = [part.value for part in parts]
        components = [component for method in methods for component in method.components]
        adapters = [component for component in components if isinstance(component, Adapter)]
        sources = {part.root for part in parts}
        if not adapters:
            defaults = sorted({method.adapter for method in methods})
            if len(defaults) > 1:
                raise UserError(f"{name}: the parts bring different adapters ({', '.join(defaults)}): name one of them")
            adapter = self.entry("methods", defaults[0])
            adapters = [part for part in adapter.value.components if isinstance(part, Adapter)]
            components = [*adapters, *components]
            sources.add(adapter.root)
        if len(adapters) > 1:
            raise UserError(f"{name} has two adapters ({' and '.join(part.name for part in adapters)}): keep one")
        components.sort(key=lambda component: not isinstance(component, Adapter))  # stable: the adapter goes first
        names = [component.name for component in components]
        for twice in names:
            if names.count(twice) > 1:
                raise UserError(f"{name} names {twice} twice: leave one out")
        own = own_settings(name, given, components)
        plain = [_configure(component, settings or {}) for component in components]
        components = [_configure(component, own) for component in plain]
        for component in components:
            component.check()
            for kind, other in component.uses():
                try:
                    sources.add(self.entry(kind, other).root)
                except UserError as error:
                    raise UserError(f"{component.name}: {error}") from None
        tunes = {key: values for method in methods for key, values in method.tunes.items()}
        name = label(method, own, components, plain, tunes) if own else method
        return Composition(name=name, components=tuple(components), sources=tuple(sorted(sources)), tunes=tunes)

    def _expand(self, name: str) -> Iterator[Found]:
        found = self.entry("methods", name)
        if not found.value.parts:
            yield found
        for part in found.value.parts:
            yield from self._expand(part)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A method ready to run: its components, the adapter first, and the files and folders that define them."""

    name: str
    components: tuple[Component, ...]
    sources: tuple[Path, ...]
    tunes: Mapping[str, tuple[float, ...]]

    @property
    def adapter(self) -> Adapter:
        """Return the one component that decides what is trained."""
        return next(component for component in self.components if isinstance(component, Adapter))

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return every hyper-parameter by component."""
        return {component.name: settings_of(component) for component in self.components}

    def digest(self) -> str:
        """Return the SHA-256 of the sources (whole packages) and of what the components read beside the data.

        So an edited method, or another file under the same name, runs again.
        """
        beside = [file for component in self.components for file in component.files()]
        return digest([digest_sources(self.sources), digest_files(beside)])


def _accepted(kind: str) -> tuple[type, ...]:
    """Return what a plug-in of ``kind`` may define."""
    return (Task, TaskFamily, TaskSet) if kind == "tasks" else (KINDS[kind][0],)


def digest_sources(sources: Iterable[Path]) -> str:
    """Return the SHA-256 over Python files and the Python files of whole folders, wherever they lie."""
    folders = (sorted(source.rglob("*.py")) if source.is_dir() else [source] for source in sources)
    return digest(sorted(digest_files(files) for files in folders))


def digest_files(files: Sequence[Path]) -> str:
    """Return the SHA-256 over the names and bytes of files."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while piece := stream.read(2**20):
                total.update(piece)
        total.update(b"\0")
    return total.hexdigest()


def _configure(component: Component, settings: Mapping[str, str]) -> Component:
    known = settings_of(component)
    changes = {}
    for option, text in settings.items():
        owner, _, field_name = option.partition(".")
        if owner != component.name:
            continue
        field_name = field_name.replace("-", "_")
        if field_name not in known:
            hint = nearest(field_name, known) if known else "it has no settings"
            raise UserError(f"--set {option}: {owner} has no setting {field_name!r}: {hint}")
        changes[field_name] = parse_setting(component, field_name, text, f"--set {option}")
    return replace(component, **changes) if changes else component

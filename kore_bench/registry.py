"""Find methods, tasks, reports and model cards by name: folder listings and plug-in files, imported when asked for."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from kore_bench.card import ModelCard, parse_setting
from kore_bench.component import Adapter, Component, Method, settings_of
from kore_bench.errors import UserError, nearest
from kore_bench.report import Report
from kore_bench.task import Task

KINDS: Mapping[str, tuple[type, str]] = {
    "methods": (Method, "kore_bench.methods"),
    "tasks": (Task, "kore_bench.tasks"),
    "reports": (Report, "kore_bench.reports"),
    "models": (ModelCard, "kore_bench.models"),
}


@dataclass(frozen=True)
class Found:
    """A registered object and the file that defines it."""

    value: Any
    file: Path


@dataclass(frozen=True)
class Registry:
    """What is known under each kind; ``plugins`` are files that add to the embedded folders."""

    plugins: tuple[Path, ...] = ()

    def all(self, kind: str) -> dict[str, Found]:
        """Return every registered object of ``kind`` by name, in name order.

        Raises UserError where a name is defined twice, or a plug-in file cannot be imported (naming the file).
        """
        wanted, package = KINDS[kind]
        found: dict[str, Found] = {}
        for module in (*_package_modules(package), *(_plugin(path) for path in self.plugins)):
            for value in vars(module).values():
                if not isinstance(value, wanted):
                    continue
                name = value.card.name if isinstance(value, Task) else value.name  # type: ignore[attr-defined]
                file = Path(str(module.__file__))
                if name in found and found[name].value is not value:
                    raise UserError(f"{file} defines {name!r} again: {found[name].file} has it already")
                found.setdefault(name, Found(value, file))
        return dict(sorted(found.items()))

    def find(self, kind: str, name: str) -> Any:
        """Return the object called ``name``; raises UserError with the nearest names where there is none."""
        known = self.all(kind)
        if name not in known:
            raise UserError(f"unknown {kind[:-1]} {name!r}: {nearest(name, known)}")
        return known[name].value

    def compose(self, name: str, settings: Mapping[str, str] | None = None) -> Composition:
        """Return the components of a method or of a mixture such as ``ewc+kore-null``.

        ``settings`` maps ``component.field`` to text. A named method's default adapter gives way to an explicitly
        named one; two explicit adapters, or a component named twice, are refused with a UserError.
        """
        known = self.all("methods")
        methods = [method for part in name.split("+") for method in self._expand(part, known)]
        components = [component for method in methods for component in method.components]
        adapters = [component for component in components if isinstance(component, Adapter)]
        files = [known[method.name].file for method in methods]
        if not adapters:
            defaults = sorted({method.adapter for method in methods})
            if len(defaults) > 1:
                raise UserError(f"{name}: the parts bring different adapters ({', '.join(defaults)}): name one of them")
            if defaults[0] not in known:
                raise UserError(f"{name} brings an unknown adapter {defaults[0]!r}: {nearest(defaults[0], known)}")
            adapter = known[defaults[0]]
            adapters = [part for part in adapter.value.components if isinstance(part, Adapter)]
            components = [*adapters, *components]
            files.append(adapter.file)
        if len(adapters) > 1:
            raise UserError(f"{name} has two adapters ({' and '.join(part.name for part in adapters)}): keep one")
        components.sort(key=lambda component: not isinstance(component, Adapter))  # stable: the adapter goes first
        names = [component.name for component in components]
        for part in names:
            if names.count(part) > 1:
                raise UserError(f"{name} names {part} twice: leave one out")
        components = [_configure(component, settings or {}) for component in components]
        for component in components:
            component.check()
        tunes = {key: values for method in methods for key, values in method.tunes.items()}
        return Composition(name=name, components=tuple(components), sources=tuple(sorted(set(files))), tunes=tunes)

    def _expand(self, name: str, known: Mapping[str, Found]) -> Iterator[Method]:
        if name not in known:
            raise UserError(f"unknown method {name!r}: {nearest(name, known)}")
        method: Method = known[name].value
        if not method.parts:
            yield method
        for part in method.parts:
            yield from self._expand(part, known)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A method ready to run: its components, the adapter first, and the files that define them."""

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
        """Return the SHA-256 of the source files (whole packages), so that an edited method runs again."""
        return digest_sources(self.sources)


def digest_sources(files: Sequence[Path]) -> str:
    """Return the SHA-256 over Python sources; a package's ``__init__.py`` stands for the whole package."""
    return digest_files(
        [
            source
            for file in files
            for source in (sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file])
        ]
    )


def digest_files(files: Sequence[Path]) -> str:
    """Return the SHA-256 over the names and bytes of files."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
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


@cache
def _package_modules(package: str) -> tuple[ModuleType, ...]:
    """Import every module of a plug-in folder; no module of ours imports torch at its top."""
    folder = importlib.import_module(package)
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return tuple(importlib.import_module(f"{package}.{name}") for name in names)


@cache
def _plugin(path: Path) -> ModuleType:
    """Import a plug-in file under a private name; raises UserError with the reason where that fails."""
    if not path.is_file():
        raise UserError(f"--plugin {path}: there is no such file")
    name = f"kore_bench_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin {path}: this is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"--plugin {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module

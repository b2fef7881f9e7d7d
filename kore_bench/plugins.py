"""Where plug-ins come from: embedded folders, entry points of installed packages, and files; imported when asked for."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import multiprocessing
import pkgutil
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from kore_bench.errors import UserError

BUILT_IN = "kore-bench"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Something that may define plug-ins: ``values`` are the objects in its ``file``, ``origin`` says who brings it.

    ``root`` is what an edit must touch to change it: the file, or the folder of the whole package that it is part of.
    """

    origin: str
    file: Path
    root: Path
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Broken:
    """An entry point that cannot be used: its name, and what says which package's it is and why."""

    name: str
    sentence: str


@cache
def embedded(package: str) -> tuple[Source, ...]:
    """Import every module of a folder of ours; none of them imports torch at its top."""
    folder = importlib.import_module(package)
    modules = [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder.__path__)]
    return tuple(_source(BUILT_IN, module) for module in modules)


@cache
def installed(kind: str, wanted: tuple[type, ...]) -> tuple[tuple[Source, ...], tuple[Broken, ...]]:
    """Import what installed packages declare under ``kore_bench.<kind>``: modules, or objects within them.

    What cannot be imported, or holds none of ``wanted``, is left out with a warning (one for all processes of a run).
    """
    sources, broken = [], []
    for entry in sorted(importlib.metadata.entry_points(group=f"kore_bench.{kind}"), key=lambda entry: entry.name):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        try:
            module, value = importlib.import_module(entry.module), entry.load()
            values = (value,) if entry.attr else tuple(vars(module).values())
            if not any(isinstance(value, wanted) for value in values):
                raise TypeError(f"there is no {_any(wanted)} in it")
            sources.append(_source(origin, module, package=_package(module), values=values))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a stranger's module does)
            broken.append(Broken(entry.name, f"the plug-in {origin} cannot be used: {entry.value}: {_why(error)}"))
    for lost in broken:
        if multiprocessing.parent_process() is None:
            _LOG.warning("%s; its %s are left out", lost.sentence, kind)
    return tuple(sources), tuple(broken)


def from_file(path: Path, wanted: tuple[type, ...]) -> Source:
    """Import a file under a private name; raises UserError where that fails, or where it holds none of ``wanted``."""
    return _from_file(path, path.resolve(), wanted)


@cache
def _from_file(path: Path, place: Path, wanted: tuple[type, ...]) -> Source:
    """Import a file once, wherever the process is when it asks for it again; ``place`` is its absolute path."""
    if not path.is_file():
        raise UserError(f"--plugin {path}: there is no such file")
    name = f"kore_bench_plugin_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin {path}: this is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"--plugin {path} cannot be imported: {_why(error)}") from error
    source = _source(str(path), module)
    if not any(isinstance(value, wanted) for value in source.values):
        raise UserError(f"--plugin {path} defines nothing: there is no {_any(wanted)} in it")
    return source


def _source(
    origin: str, module: ModuleType, *, package: Path | None = None, values: tuple[Any, ...] | None = None
) -> Source:
    file = Path(str(module.__file__))
    own = file.parent if file.name == "__init__.py" else file
    return Source(origin, file, package or own, tuple(vars(module).values()) if values is None else values)


def _package(module: ModuleType) -> Path | None:
    """Return the folder of the whole package that an installed module is part of, or None for a single module.

    A namespace that several packages share (a package without a file) is not the package: the next level is.
    """
    parts = module.__name__.split(".")
    for depth in range(1, len(parts)):
        file = sys.modules[".".join(parts[:depth])].__file__
        if file:
            return Path(file).parent
    return Path(str(module.__file__)).parent if len(parts) > 1 else None


def _any(wanted: tuple[type, ...]) -> str:
    return " or ".join(kind.__name__ for kind in wanted)


def _why(error: BaseException) -> str:
    """Return an error in one line, with the place in the stranger's code that raised it."""
    text = " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    theirs = [frame for frame in frames if frame.filename != __file__]
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {text}{place}"

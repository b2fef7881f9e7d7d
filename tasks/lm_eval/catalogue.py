"""What lm-eval has under a name, what of it cannot be asked here, and its data: from the cache, or announced first."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from kore_bench.errors import UserError
from kore_bench.mini import LM_EVAL_TASKS

_LOG = logging.getLogger(__name__)
_BY_LIKELIHOOD = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")


class MissingDataError(UserError):
    """Data are not on this machine, and may not be downloaded."""


@cache
def manager(name: str, path: str) -> Any:
    """Return lm-eval's task manager that knows ``name``; its own thousands are read only where ours lack it (10 s).

    Raises UserError with the nearest names where none of them has it, and for a tag, which has no figure.
    """
    from lm_eval.tasks import TaskManager

    folders = [str(LM_EVAL_TASKS), *([path] if path else [])]
    with quiet():
        found = TaskManager(include_path=folders, include_defaults=False)
        if name not in found.all_tasks:
            found = TaskManager(include_path=folders)
    if name not in found.all_tasks:
        close = ", ".join(difflib.get_close_matches(name, found.all_tasks)) or "none"
        raise UserError(f"lm-eval has no task {name!r} (names like it: {close}; all: lm-eval ls tasks)")
    if name in found.all_tags:
        raise UserError(f"lm-eval's {name} is a tag of several tasks without a figure of its own: name one of them")
    return found


def check(name: str, path: str) -> None:
    """Raise UserError where there is no such task, or where the loaded model cannot be asked it; reads no data."""
    for config in configs(manager(name, path), name):
        called = f"lm-eval:{config.get('task', name)}"
        if config.get("doc_to_audio"):
            raise UserError(f"{called} plays sounds, and the model hears none")
        if config.get("unsafe_code"):
            raise UserError(f"{called} runs Python code that the model writes, which is not done here: leave it out")
        if config.get("doc_to_image") and config.get("output_type") in _BY_LIKELIHOOD:
            raise UserError(
                f"{called} scores answers about pictures by their likelihood (output_type {config['output_type']}), "
                "which lm-eval's hf-multimodal cannot: let the model write its choice (output_type generate_until)"
            )


def shows_pictures(name: str, path: str) -> bool:
    """Return whether any task under the name has pictures (``doc_to_image``)."""
    return any(config.get("doc_to_image") for config in configs(manager(name, path), name))


def configs(found: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the configuration, functions as text, of every task under a task's, tag's or group's name."""
    entry = found.task_index.get(name)
    if entry is None:
        return
    if entry.kind.name == "TAG":
        children: list[Any] = sorted(entry.tags)
    elif entry.kind.name == "GROUP":
        children = _children(entry.cfg)
    else:
        yield entry.cfg or {}
        return
    while children:
        child = children.pop(0)
        if isinstance(child, str):
            yield from configs(found, child)
        elif child.get("group", "") in found.task_index:
            yield from configs(found, child["group"])
        elif "group" in child:  # a group within the group's own file
            children += _children(child)
        else:
            own = list(configs(found, child["task"])) or [{}]
            yield from ({**config, **child} for config in own)


def load(name: str, path: str, offline: bool) -> dict[str, Any]:
    """Return lm-eval's tasks and groups under ``name`` with their data, from the cache where it has them.

    Else the download is announced as a warning. Raises `MissingDataError` where it is not allowed (``offline``), and UserError
    where the data cannot be downloaded or not be read.
    """
    found = manager(name, path)
    try:
        with quiet(), without_network():
            return dict(found.load([name]))
    except Exception as error:
        if not _is_missing(error):
            raise UserError(f"lm-eval:{name} cannot be read: {_why(error)}") from error
    wanted = ", ".join(dict.fromkeys(str(config.get("dataset_path", name)) for config in configs(found, name)))
    absent = f"lm-eval:{name} needs {wanted}, which is not in the Hugging Face cache"
    if offline:
        raise MissingDataError(f"{absent}, and --offline forbids to download it")
    _LOG.warning("lm-eval:%s: downloading its data, %s, into the Hugging Face cache", name, wanted)
    try:
        with quiet():
            return dict(found.load([name]))
    except Exception as error:
        raise UserError(f"{absent} and cannot be downloaded: {_why(error)}") from error


@cache
def fetch(name: str, path: str, offline: bool) -> str:
    """Have the data of a task in the cache, and return why they are not there where they may not be downloaded."""
    try:
        load(name, path, offline)
    except MissingDataError as missing:
        return str(missing)
    return ""


@contextmanager
def without_network() -> Iterator[None]:
    """Read data sets and metrics from the Hugging Face cache alone: what is not there raises ConnectionError."""
    import datasets
    import huggingface_hub

    places: list[tuple[Any, str]] = [(huggingface_hub.constants, _OFFLINE[0]), (datasets.config, _OFFLINE[0])]
    before = [getattr(place, name) for place, name in places]
    environment = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ |= dict.fromkeys(_OFFLINE, "1")  # of what a task's code may import or start
    for place, name in places:  # both were read from the environment when they were imported
        setattr(place, name, True)
    try:
        yield
    finally:
        for (place, name), value in zip(places, before, strict=True):
            setattr(place, name, value)
        for name, text in environment.items():
            os.environ.pop(name, None) if text is None else os.environ.update({name: text})


@contextmanager
def quiet() -> Iterator[None]:
    """Leave the terminal to the board: lm-eval logs its choices, draws bars, and starts git, which complains itself."""
    log = logging.getLogger("lm_eval")
    before, terminal = log.level, os.dup(2)
    log.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(io.StringIO()):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        log.setLevel(before)


def _children(config: Mapping[str, Any]) -> list[Any]:
    listed = config.get("task") or []
    return [listed] if isinstance(listed, str) else list(listed)


def _is_missing(error: BaseException) -> bool:
    """Return whether data are not in the cache: what `datasets` raises where it may not ask the hub."""
    return isinstance(error, ConnectionError) or "find cache for" in str(error)


def _why(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]

"""A plan file (``plan=``) as arguments of the Python side: what `--plan` does on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from kore_bench.config import Given, setting_name
from kore_bench.errors import UserError, nearest
from kore_bench.plan_files import read_plan, run_name, short_name

P = ParamSpec("P")
T = TypeVar("T")

_CALLED = {"set": "settings", "sweep": "sweeps", "plugin": "plugins"}
SHORT = {"calibration": "old.calibration", "lm-eval-path": "lm-eval.path"}
"""Options that are short for a setting."""
_LISTS = ("methods", "tasks", "contrasts", "report_to")


def with_plan(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function's argument ``plan`` name a plan file whose options stand in for arguments that are not given.

    ``settings`` of both are taken, those that are given over the plan's. Raises UserError naming file and line for an
    option that the function has no argument for.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def planned(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs).arguments
        if not given.get("plan"):
            return function(*args, **kwargs)
        defaults = _arguments(given["plan"], given.get("model", ""), signature)
        model = given.get("model", defaults.get("model", signature.parameters["model"].default))
        settings = _merged(defaults.get("settings", {}), given.get("settings") or {})
        named = {"name": run_name(read_plan(given["plan"]), model)}
        chosen: dict[str, Any] = {**named, **defaults, **given, "model": model, "settings": settings}
        return function(**chosen)  # type: ignore[call-arg]

    return planned


def _arguments(name: str, model: str, signature: inspect.Signature) -> dict[str, Any]:
    """Return the options of the plan called ``name`` for ``model`` (empty: the plan's own), as arguments."""
    plan = read_plan(name)
    if not model:
        own = plan.for_model("").get("model")
        model = own.texts[0] if own else str(signature.parameters["model"].default)
    arguments: dict[str, Any] = {}
    settings: dict[str, str] = {}
    for given in plan.for_model(short_name(model)).values():
        if given.name in SHORT:
            settings |= {SHORT[given.name]: given.texts[0]} if given.texts[0] else {}
            continue
        parameter = _CALLED.get(given.name, given.name.replace("-", "_"))
        if parameter not in signature.parameters or parameter == "plan":
            known = {option.replace("_", "-") for option in signature.parameters} | {*_CALLED, *SHORT}
            raise UserError(f"{given.place}: there is no option {given.name!r}: {nearest(given.name, known)}")
        arguments[parameter] = _value(given, parameter, str(signature.parameters[parameter].annotation))
    return arguments | {"settings": {**settings, **arguments.get("settings", {})}}


def _value(given: Given, parameter: str, kind: str) -> Any:
    """Return an option as the argument of this name and annotation takes it; raises UserError where it is none."""
    if parameter in ("settings", "sweeps"):
        pairs = dict(text.partition("=")[::2] for text in given.texts)
        return {key: value.split(",") for key, value in pairs.items()} if parameter == "sweeps" else pairs
    if parameter in _LISTS:
        return [name.strip() for text in given.texts for name in text.split(",")]
    if parameter == "plugins":
        return list(given.texts)
    text = ",".join(given.texts)
    try:
        if kind.startswith("int"):
            return int(text)
        return {"true": True, "false": False}[text.lower()] if kind == "bool" else text
    except ValueError:
        raise UserError(f"{given.place}: {given.name}: {text!r} is no number") from None
    except KeyError:
        raise UserError(f"{given.place}: {given.name}: {text!r} is neither true nor false") from None


def _merged(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    again = {setting_name(name) for name in over}
    return {name: value for name, value in settings.items() if setting_name(name) not in again} | dict(over)

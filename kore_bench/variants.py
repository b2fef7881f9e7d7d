"""Variants of a method: a name with settings of its own (``kore:rank=64``), and the sweeps that list them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from kore_bench.component import Adapter, Component, settings_of
from kore_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from kore_bench.registry import Registry

_SETTING = re.compile(r":(?=[\w.-]+=)")


def split_variant(name: str) -> tuple[str, dict[str, str]]:
    """Return the method and its own settings (field, or ``part.field``, -> text) of ``METHOD:FIELD=VALUE:FIELD=VALUE``.

    Values may hold colons (``rank=match:lora@64``). Raises UserError for another form, or a field that is given twice.
    """
    method, *parts = _SETTING.split(name)
    if ":" in method:
        rest = method.partition(":")[2]
        raise UserError(f"{name}: {rest!r} must have the form FIELD=VALUE, such as kore:rank=64")
    settings: dict[str, str] = {}
    for part in parts:
        field, _, value = part.partition("=")
        field = field.replace("-", "_") if "." not in field else field
        if not value.strip() or field in settings:
            raise UserError(f"{name}: {field} {'is given twice' if field in settings else 'has no value'}")
        settings[field] = value.strip()
    return method, settings


def method_of(name: str) -> str:
    """Return the method, or mixture, that ``name`` is a variant of (itself without settings of its own)."""
    return name.partition(":")[0]


def own_settings(name: str, given: Mapping[str, str], components: Sequence[Component]) -> dict[str, str]:
    """Return a variant's settings as ``part.field`` -> text, as `--set` spells them.

    A field without its part is that of the one part that has it; the adapter gives way to the others (``kore:rank`` is
    kore-null's). Several values of one setting are joined by ``+`` (``parts=dialogue+vqa``), as commas part methods.
    Raises UserError, with the nearest one, for a field that no part has, or that several have.
    """
    found: dict[str, str] = {}
    for field, value in given.items():
        option = _option(name, field, components)
        if option in found:
            raise UserError(f"{name}: {option} is given twice")
        if "/" in value:
            raise UserError(f"{name}: {value!r} cannot stand in a method's name: use --set {option}={value}")
        found[option] = value.replace("+", ",") if isinstance(_value(option, components), tuple) else value
    return found


def label(
    method: str,
    settings: Mapping[str, str],
    components: Sequence[Component],
    plain: Sequence[Component],
    tunes: Collection[str],
) -> str:
    """Return the one name of a variant: the shortest that says which field of which part has which value.

    ``components`` have the settings already, so that 1 and 01, or true and True, are one variant. A value that the
    ``plain`` method has anyway is left out, unless tuning may choose another (``tunes``): ``kore:rank=auto`` is kore.
    """
    names = [method]
    for option in settings:
        value = _value(option, components)
        if value == _value(option, plain) and option not in tunes:
            continue
        field = option.partition(".")[2]
        owners = _owners(field, components)
        short = field if len(owners) == 1 and owners[0].name == option.partition(".")[0] else option
        names.append(f"{short}={_text(value)}")
    return ":".join(names)


def expand(methods: Sequence[str], sweeps: Sequence[str], registry: Registry) -> tuple[str, ...]:
    """Return ``methods`` with a variant of each for every value, or combination, of the ``part.field=V,V`` sweeps.

    A sweep goes over the methods that have the part; the others, and those whose name sets the field, stay as they
    are. Raises UserError, with the nearest one, for a part or a field that no method has.
    """
    grid = _grid(sweeps)
    if not grid:
        return tuple(methods)
    composed = {name: registry.compose(name).components for name in methods}
    for option in grid:
        _check_swept(option, [part for components in composed.values() for part in components])
    names: list[str] = []
    for name, components in composed.items():
        given = own_settings(name, split_variant(name)[1], components)
        swept = [option for option in grid if option not in given and _part(option, components)]
        for values in product(*(grid[option] for option in swept)):
            names.append(":".join([name, *(f"{option}={value}" for option, value in zip(swept, values, strict=True))]))
    return tuple(names)


def _grid(sweeps: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return ``part.field`` -> values of the sweeps."""
    grid: dict[str, tuple[str, ...]] = {}
    for text in sweeps:
        option, _, listed = text.partition("=")
        owner, dot, field = option.strip().partition(".")
        option = f"{owner}.{field.replace('-', '_')}"
        values = tuple(value.strip() for value in listed.split(","))
        if not (owner and dot and field and all(values)):
            raise UserError(f"--sweep {text} must have the form part.field=V,V, such as kore-null.rank=64,128")
        if option in grid:
            raise UserError(f"--sweep {option} is given twice: give all its values at once")
        if twice := next((value for value in values if values.count(value) > 1), ""):
            raise UserError(f"--sweep {text} names {twice} twice")
        grid[option] = values
    return grid


def _check_swept(option: str, parts: Sequence[Component]) -> None:
    owner, _, field = option.partition(".")
    names = {part.name for part in parts}
    if owner not in names:
        run_wide = " (a sweep goes over settings of methods; give each value a run of its own)"
        hint = run_wide if owner in ("train", "old", "model") else ""
        raise UserError(f"--sweep {option}: no chosen method has a part {owner!r}: {nearest(owner, names)}{hint}")
    known = settings_of(next(part for part in parts if part.name == owner))
    if field not in known:
        raise UserError(f"--sweep {option}: {owner} has no setting {field!r}: {nearest(field, known)}")


def _option(name: str, field: str, components: Sequence[Component]) -> str:
    owner, dot, rest = field.rpartition(".")
    if dot:
        option = f"{owner}.{rest.replace('-', '_')}"
        if _part(option, components) is None:
            parts = [part.name for part in components]
            raise UserError(f"{name}: it has no part {owner!r}: {nearest(owner, parts)}")
        return option  # whether the part has the field is checked where all settings are
    owners = _owners(field, components)
    if len(owners) > 1:
        raise UserError(f"{name}: several parts have {field}: write {' or '.join(f'{o.name}.{field}' for o in owners)}")
    if not owners:
        known = {key for part in components for key in settings_of(part)}
        raise UserError(f"{name}: no part has a setting {field!r}: {nearest(field, known)}")
    return f"{owners[0].name}.{field}"


def _owners(field: str, components: Sequence[Component]) -> list[Component]:
    """Return the parts that a field without a part may belong to: the adapter only where no other part has it."""
    owners = [part for part in components if field in settings_of(part)]
    return [part for part in owners if not isinstance(part, Adapter)] or owners


def _part(option: str, components: Sequence[Component]) -> Component | None:
    return next((part for part in components if part.name == option.partition(".")[0]), None)


def _value(option: str, components: Sequence[Component]) -> Any:
    return getattr(_part(option, components), option.partition(".")[2], None)


def _text(value: Any) -> str:
    """Return a value as a variant's name spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)

"""Options in a YAML file (``--config``) under their own names, and the file that says again what was run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from kore_bench import __version__
from kore_bench.errors import UserError, nearest

_NOT_IN_FILES = ("config", "plan", "save-config", "debug", "help")
_LISTS = ("methods", "tasks", "contrasts")  # one text with commas on the command line, a list too in a file
_REPEATED = ("plugin", "sweep")
_PAIRS = ("sweep",)  # a mapping too in a file
_SETTINGS = "set"


@dataclass(frozen=True)
class Given:
    """One option of a config: its name with hyphens, where it stands (file and line), and its value as written.

    ``texts`` has one text for a scalar, else those of a list, or ``name=value`` for the pairs of a mapping.
    """

    name: str
    place: str
    kind: str
    texts: tuple[str, ...]


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the options in ``file`` the defaults of the command (callback of an eager option).

    Raises UserError naming the file and the line for what is no YAML mapping, an unknown option, one given twice (also
    in two spellings), or a value of another type.
    """
    if file is None:
        return None
    place_defaults(context, read_options(context, file_options(compose(file, "--config"), file)), over=True)
    return file


def read_options(context: typer.Context, options: Iterable[Given]) -> dict[str, Any]:
    """Return the values of options by the command's parameters; raises UserError where one is none, or of another type."""
    parameters = {option_name(parameter): parameter for parameter in context.command.params}
    allowed = [name for name in parameters if name not in _NOT_IN_FILES]
    values: dict[str, Any] = {}
    for given in options:
        if given.name not in allowed:
            if given.name in _NOT_IN_FILES:
                raise UserError(f"{given.place}: --{given.name} is for the command line alone")
            hint = nearest(given.name, allowed)
            raise UserError(f"{given.place}: {context.command.name} has no option {given.name!r}: {hint}")
        parameter = parameters[given.name]
        values[str(parameter.name)] = _checked(context, parameter, given)
    return values


def place_defaults(context: typer.Context, values: Mapping[str, Any], *, over: bool) -> None:
    """Make ``values`` the defaults of the command, over those that other files gave before, or under them."""
    own = dict(values)
    settings, before = own.pop("set_", []), context.meta.get(_SETTINGS, [])
    context.meta[_SETTINGS] = _merged(before, settings) if over else _merged(settings, before)
    known = context.default_map or {}
    context.default_map = {**known, **own} if over else {**own, **known}


def merge_settings(context: typer.Context, settings: list[str] | None) -> list[str]:
    """Return ``--set`` of the config, but those that the command line gives again, and then the command line's."""
    return _merged(context.meta.get(_SETTINGS, ()), settings or ())


def _merged(settings: Iterable[str], over: Iterable[str]) -> list[str]:
    """Return ``settings`` but those that ``over`` gives again, and then ``over``."""
    over = list(over)
    again = {setting_name(text) for text in over}
    return [text for text in settings if setting_name(text) not in again] + over


def write_config(context: typer.Context, file: Path) -> None:
    """Write every option that the command runs with, but ``--dry-run``, in a form that ``--config`` reads.

    Raises UserError where ``file`` is there with another content: it may be somebody's own.
    """
    import yaml

    from kore_bench.plan import parse_pairs
    from kore_bench.results import write_text

    options: dict[str, Any] = {}
    for parameter in context.command.params:
        name, value = option_name(parameter), context.params.get(str(parameter.name))
        if name in (*_NOT_IN_FILES, "dry-run") or value is None or value in ("", (), []):
            continue
        if name == _SETTINGS:
            options[name] = {setting: _native(text) for setting, text in parse_pairs(value).items()}
        elif name in _LISTS:
            options[name] = [part.strip() for part in value.split(",")]
        elif name in _REPEATED:
            options[name] = list(value)
        else:
            options[name] = value if isinstance(value, int) else str(value)
    head = f"# kore-bench {context.command.name} --config {file.name}   (written by kore-bench {__version__})\n"
    text = head + yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise UserError(f"--save-config {file} is there already, with other content: name another file")
    write_text(file, text)


def _native(text: str) -> int | float | str:
    """Return a text as the number that is written like it, so that it stands without quotes in a file."""
    for kind in (int, float):
        try:
            if str(kind(text)) == text:
                return kind(text)
        except ValueError:
            continue
    return text


def option_name(parameter: Any) -> str:
    """Return an option's own name: its first long one without the hyphens in front."""
    return next((name.removeprefix("--") for name in parameter.opts if name.startswith("--")), str(parameter.name))


def setting_name(text: str) -> str:
    """Return which setting ``name.field=value`` is about, in one spelling."""
    owner, _, field = text.partition("=")[0].strip().partition(".")
    return f"{owner}.{field.replace('-', '_')}"


def _checked(context: typer.Context, parameter: Any, given: Given) -> Any:
    """Return the value that the command line would have given; raises UserError where it is of another type."""
    if given.name == _SETTINGS:
        return _settings(given)
    if (given.kind == "mapping" and given.name not in _PAIRS) or (
        given.kind == "sequence" and given.name not in (*_LISTS, *_REPEATED)
    ):
        raise UserError(f"{given.place}: {given.name} takes {'a list' if given.name in _LISTS else 'one value'}")
    value = list(given.texts) if given.name in _REPEATED else ",".join(given.texts)
    try:
        parameter.process_value(context, value)
    except typer.BadParameter as error:
        reason = error.message.rstrip(".")
        raise UserError(f"{given.place}: {given.name}: {', '.join(given.texts)}: {reason}") from None
    return value


def _settings(given: Given) -> list[str]:
    seen: dict[str, str] = {}
    for text in given.texts:
        if "=" not in text:
            raise UserError(f"{given.place}: set: {text!r} must have the form name.field=value, or name.field: value")
        written = text.partition("=")[0]
        if (other := seen.setdefault(setting_name(text), written)) is not written:
            spelling = "" if other == written else f", once as {other!r}"
            raise UserError(f"{given.place}: set: {written!r} is given twice{spelling}: keep one")
    return list(given.texts)


def file_options(root: Any, file: Path) -> Iterator[Given]:
    """Yield the options of a file's root node; raises UserError for no mapping, and for one option in two places."""
    import yaml

    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{file}, line 1: a config has an option on each line, such as 'seeds: 3'")
    seen: dict[str, tuple[str, int]] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        written = _scalar(key, f"{file}, line {line}")
        name = written.replace("_", "-")
        if name in seen:
            other, where = seen[name]
            spelling = "" if other == written else f", as {other!r}"
            raise UserError(f"{file}, line {line}: {written!r} is given on line {where} already{spelling}: keep one")
        seen[name] = written, line
        place = f"{file}, line {line}"
        yield Given(name, place, value.id, tuple(_texts(value, f"{place}: {written}")))


def compose(file: Path, option: str) -> Any:
    """Return the root node of a YAML file (None where it is empty): safe, for nothing is built from it."""
    import yaml

    try:
        return yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"{option} {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {file} is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{file}, line {line}: this is no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{file} is nested too deeply: give texts and numbers") from None


def _texts(node: Any, place: str) -> Iterator[str]:
    """Yield the scalars of a node as they are written, and the pairs of a mapping as ``name=value``."""
    if node.id == "scalar":
        yield _scalar(node, place)
    elif node.id == "sequence":
        for part in node.value:
            yield _scalar(part, place)
    else:
        for key, value in node.value:
            yield f"{_scalar(key, place)}={_scalar(value, place)}"


def _scalar(node: Any, place: str) -> str:
    line = node.start_mark.line + 1
    if node.id != "scalar":
        raise UserError(f"{place}: what stands on line {line} is nested too deeply: give texts and numbers")
    if node.tag == "tag:yaml.org,2002:null":
        raise UserError(f"{place}: there is nothing on line {line}: give a value, or leave the option out")
    return str(node.value)

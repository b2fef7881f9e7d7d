"""What the fields of a row may hold, and the rows themselves: every complaint about one is said by `Row.error`."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kore_bench.errors import UserError, nearest

IMAGE_MARK = "<image>"
DIMENSIONS = ("COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL")
"""KORE's dimensions of retention, in the paper's order; also the skills of old knowledge."""

_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # a file's name cannot hold NUL, UTF-8 cannot hold half a surrogate pair


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a field may hold: in words, and as a test; ``choices`` where only some names are valid."""

    expected: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    optional: bool = False


Fields = Mapping[str, Kind]


def optional(kind: Kind) -> Kind:
    """Return a kind that a row may leave out."""
    return replace(kind, optional=True)


def one_of(*choices: str) -> Kind:
    """Return the kind of a field with a few valid names."""
    return Kind(expected=f"one of {', '.join(choices)}", accepts=lambda value: value in choices, choices=choices)


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or not value or value.isspace():
        return False
    return "\0" not in value if value.isascii() else not _UNUSABLE.search(value)


def _is_plain(value: Any) -> bool:
    return _is_text(value) and IMAGE_MARK not in value


def _is_id(value: Any) -> bool:
    return _is_plain(value) or (isinstance(value, int) and not isinstance(value, bool))


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(accepts, value))


PLAIN = Kind(expected=f"text without {IMAGE_MARK}", accepts=_is_plain)
TEXT = Kind(expected="text", accepts=_is_text)
TEXTS = Kind(expected="a list of texts", accepts=_list_of(_is_plain))
ID = Kind(expected="text or a whole number", accepts=_is_id)
PATH = Kind(expected="one relative path", accepts=_is_text)
PATHS = Kind(
    expected="a relative path or a list of them", accepts=lambda value: _is_text(value) or _list_of(_is_text)(value)
)
FLAG = Kind(expected="true or false", accepts=lambda value: isinstance(value, bool))
ROWS = Kind(expected="a list of objects", accepts=_list_of(lambda value: isinstance(value, dict)))


class RowError(UserError):
    """A complaint about one row: the others may still be read."""


@dataclass(slots=True)
class Row:
    """One object of a file; ``place`` is its line or index, ``inside`` leads to a part of it (``conversations[1].``)."""

    file: str
    place: str
    data: dict[str, Any]
    inside: str = ""

    def error(self, field: str, problem: str) -> RowError:
        """Return the complaint about a field, with file, line (or index) and the field's name before it."""
        return RowError(f"{self.file}, {self.place}, field '{self.inside}{field}': {problem}")

    def check(self, fields: Fields) -> None:
        """Raise UserError for the first field that is missing or holds what it may not."""
        for name, kind in fields.items():
            value = self.data.get(name)
            if kind.accepts(value) or (kind.optional and value in (None, "", [])):
                continue
            if name not in self.data:
                raise self.error(name, f"missing, the row has {', '.join(map(repr, self.data)) or 'no fields'}")
            hint = f"; {nearest(value, kind.choices)}" if kind.choices and isinstance(value, str) else ""
            raise self.error(name, f"expected {kind.expected}, found {shown(value)}{hint}")

    def parts(self, field: str, fields: Fields) -> list[Row]:
        """Return the checked objects of a list field; none where an optional field is absent."""
        parts = [self.part(field, i) for i in range(len(self.data.get(field) or []))]
        for part in parts:
            part.check(fields)
        return parts

    def part(self, field: str, index: int) -> Row:
        """Return one object of a list field."""
        return Row(self.file, self.place, self.data[field][index], f"{self.inside}{field}[{index}].")

    def names(self, field: str) -> list[str]:
        """Return the paths that a field names: none, one or many."""
        value = self.data.get(field) or []
        return [value] if isinstance(value, str) else value

    def text(self, field: str) -> str:
        """Return an optional field's text, empty where it is absent."""
        value = self.data.get(field)
        return "" if value is None else str(value)


def shown(value: Any) -> str:
    """Return a value as a complaint shows it."""
    return "empty text" if isinstance(value, str) and not value.strip() else reprlib.repr(value)


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint without the list of all choices: there may be thousands."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

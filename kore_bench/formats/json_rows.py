"""Reads the rows of JSON and JSONL files in pieces, so that each row's line is known and no file need fit in memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from kore_bench.errors import UserError

from .fields import Row, shown

PIECE = 2**20
"""Bytes that are read at a time."""

_DECODER = json.JSONDecoder()
_POINTER = b"version https://git-lfs"


def rows(file: Path) -> Iterator[Row]:
    """Yield the objects of a JSON array or of a JSONL file, whichever the file is."""
    with _opened(file) as stream:
        start = stream.read(PIECE).removeprefix(codecs.BOM_UTF8).lstrip()
    return elements(file) if start.startswith(b"[") else lines(file)


def lines(file: Path) -> Iterator[Row]:
    """Yield the objects of a JSONL file; blank lines are passed over."""
    with _opened(file) as stream:
        for number, raw in enumerate(stream, start=1):
            data = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_text(file, number, data[error.start]) from error
            if text.strip():
                scanner = _Scanner(file, text=text.rstrip("\r\n"), line=number)
                value = scanner.value()
                scanner.expect("")
                yield _row(file, number, value)


def elements(file: Path) -> Iterator[Row]:
    """Yield the objects of a JSON array."""
    with _opened(file) as stream:
        scanner, before = _Scanner(file, stream), 0
        for index, line in enumerate(scanner.between("[", "]")):
            row = _row(file, line, scanner.value())
            yield replace(row, place=f"line {line}, row {index}") if line == before else row
            before = line


def members(file: Path) -> Iterator[Row]:
    """Yield the objects that a JSON object holds, each with its key as ``id``."""
    with _opened(file) as stream:
        scanner = _Scanner(file, stream)
        for line in scanner.between("{", "}"):
            if scanner.peek() != '"':
                scanner.expect('"')
            key = scanner.value()
            scanner.expect(":")
            row = _row(file, line, scanner.value())
            yield replace(row, data={**row.data, "id": key})


class _Scanner:
    """Walks over JSON text value by value; ``text`` is a window on the file that begins at the last value read."""

    def __init__(self, file: Path, stream: IO[bytes] | None = None, *, text: str = "", line: int = 1) -> None:
        self.file, self.stream, self.text, self.line = file, stream, text, line
        self.ending = "each row must end on its line" if text else "the file may be cut off"
        self.at = self.dropped = 0  # dropped: characters of the window's first line that stood before it
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def more(self) -> bool:
        """Read on, at least doubling what is left of the window; return whether there was more."""
        if self.stream is None:
            return False
        piece = self.stream.read(max(PIECE, len(self.text) - self.at))
        try:
            new = self.decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            # The decoder's own object holds what it kept of the piece before, in front of this one.
            line = self.line + self.text.count("\n", self.at) + error.object.count(b"\n", 0, error.start)
            raise _not_text(self.file, line, error.object[error.start]) from error
        if not piece:
            self.stream = None
            return False
        behind = self.text[: self.at]
        self.dropped = len(behind) - behind.rfind("\n") - 1 if "\n" in behind else self.dropped + len(behind)
        self.text, self.at = self.text[self.at :] + new, 0
        return True

    def peek(self) -> str:
        """Pass over white space and return the next character, nothing at the end."""
        while self.at < len(self.text) or self.more():
            if not self.text.startswith((" ", "\t", "\n", "\r"), self.at):
                return self.text[self.at : self.at + 1]
            self.line += self.text[self.at] == "\n"
            self.at += 1
        return ""

    def expect(self, *marks: str) -> str:
        """Pass over one of ``marks`` ("" is the end) and return it."""
        found = self.peek()
        if found not in marks:
            wanted = " or ".join(repr(mark) if mark else "the end" for mark in marks)
            raise self.error(f"expected {wanted}, found {repr(found) if found else 'the end'}", self.at)
        self.at += len(found)
        return found

    def value(self) -> Any:
        """Pass over one JSON value and return it."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not self.more():
                    open_ = error.msg.startswith("Unterminated string")  # said at its start, it goes on to the end
                    raise self.error(f"not valid JSON ({error.msg})", error.pos, cut_off=open_) from error
            except (ValueError, RecursionError) as error:
                raise self.error("JSON with a number too long or nested too deeply", self.at) from error
            else:
                if end < len(self.text) or not self.more():  # at the window's end a number may go on
                    break
        self.line += self.text.count("\n", self.at, end)
        self.at = end
        return value

    def between(self, opening: str, closing: str) -> Iterator[int]:
        """Yield the line of each element between two brackets; the caller passes over the element itself."""
        self.expect(opening)
        mark = self.expect(closing) if self.peek() == closing else ","
        while mark == ",":
            self.peek()
            yield self.line
            mark = self.expect(",", closing)
        self.expect("")

    def error(self, problem: str, at: int, *, cut_off: bool = False) -> UserError:
        line, behind = self.line + self.text.count("\n", self.at, at), self.text.rfind("\n", 0, at)
        column = at - behind if behind >= 0 else self.dropped + at + 1
        hint = f"; {self.ending}" if self.text and (cut_off or at >= len(self.text.rstrip())) else ""
        return UserError(f"{self.file}, line {line}, column {column}: {problem}{hint}")


def _row(file: Path, line: int, value: Any) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{file}, line {line}: expected an object, found {shown(value)}")
    return Row(str(file), f"line {line}", value)


def _opened(file: Path) -> IO[bytes]:
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if stream.peek(len(_POINTER)).startswith(_POINTER):
        stream.close()
        raise UserError(f"{file} is a pointer of Git LFS in place of the data: run 'git lfs pull' where it was cloned")
    return stream


def _not_text(file: Path, line: int, byte: int) -> UserError:
    return UserError(f"{file}, line {line}: not UTF-8 text (byte 0x{byte:02x}); save the file as UTF-8")

"""Unpacks zip archives of pictures into the cache, once for each content, and nothing that is not a plain picture."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from filelock import FileLock

from kore_bench.cache import cache_folder
from kore_bench.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""The names' endings of the members that are unpacked; the others are passed over."""

MOST_TIMES = 100
"""Refused: an archive that says it unpacks to more than so many times its size. Pictures hardly compress."""
FREE_BYTES = 2**28
"""What must stay free on the cache's disk."""

_PART = re.compile(r"(?P<whole>.+?)[._-]?(?:part)?[._-]?(?P<number>\d+)")


def written_once(name: str, write: Callable[[Path], None]) -> Path:
    """Return the cache's folder ``pictures/NAME``, which ``write`` fills where it is not there yet.

    It appears whole or not at all, and two processes that want it at once write it once.
    """
    folder = cache_folder() / "pictures" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=f".{name[:12]}.", dir=folder.parent))
            try:
                write(scratch)
                scratch.chmod(0o755)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


def archives(folder: Path, *, depth: int = 0) -> list[tuple[Path, ...]]:
    """Return the archives in a folder and ``depth`` levels below: each one file, or the parts of a split one in order.

    ``split_zip_part_00``, ``split_zip_part_01``, ... and ``images.zip.001``, ... are parts.
    """
    files = [file for level in range(depth + 1) for file in sorted(folder.glob("*/" * level + "*")) if file.is_file()]
    whole: list[tuple[Path, ...]] = [(file,) for file in files if file.suffix.lower() == ".zip"]
    split: dict[str, list[Path]] = {}
    for file in files:
        found = _PART.fullmatch(file.name)
        if found and "zip" in found["whole"].lower():
            split.setdefault(str(file.with_name(found["whole"])), []).append(file)
    for parts in split.values():
        if all(map(zipfile.is_zipfile, parts)):
            whole += [(part,) for part in parts]
        elif len(parts) > 1 and _begins_one(parts[0]):
            whole.append(tuple(parts))
    return whole


def _begins_one(part: Path) -> bool:
    with part.open("rb") as stream:
        return stream.read(2) == b"PK"


def unpacked(parts: Sequence[Path]) -> Path:
    """Return the folder with the pictures of an archive (its parts in order), unpacked into the cache on first use.

    Raises UserError, naming archive and member, for one that cannot be read, that leads out of the folder, that is a
    link or encrypted, whose check sum is wrong, or that would unpack to far more than its size or than there is room.
    """
    archive = parts[0]
    try:
        with io.BufferedReader(_Joined(parts)) as joined, zipfile.ZipFile(joined) as opened:
            members = [_checked(archive, member) for member in opened.infolist() if _wanted(member)]
            _check_size(archive, members, sum(part.stat().st_size for part in parts))
            return written_once(_digest(members), lambda folder: _extract(archive, opened, members, folder))
    except zipfile.BadZipFile as error:
        hint = "; are all its parts there?" if len(parts) > 1 else ""
        raise UserError(f"{archive} cannot be unpacked: {str(error).lower()}{hint}") from error
    except OSError as error:
        raise UserError(f"{archive} cannot be unpacked: {error.strerror or error}") from error


def _wanted(member: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(member.filename)
    return name.suffix.lower() in SUFFIXES and "__MACOSX" not in name.parts and not member.is_dir()


def _checked(archive: Path, member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a member that may be unpacked; raise UserError for any other."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    windows = PureWindowsPath(name)
    problem = ""
    if name.startswith("/") or windows.anchor or ".." in windows.parts:
        problem = "leads out of the folder"
    elif kind not in (0, stat.S_IFREG):
        problem = "is a link or a device, no picture"
    elif member.flag_bits & 1:
        problem = "is encrypted"
    if problem:
        raise UserError(f"{archive}: its member {name!r} {problem}; nothing was unpacked")
    return member


def _check_size(archive: Path, members: Sequence[zipfile.ZipInfo], packed: int) -> None:
    total = sum(member.file_size for member in members)
    cache_folder().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_folder()).free - FREE_BYTES
    if total > MOST_TIMES * packed:
        raise UserError(
            f"{archive} would unpack to {total:,} bytes, over {MOST_TIMES} times its size, as no archive of pictures "
            "does; nothing was unpacked"
        )
    if total > free:
        raise UserError(
            f"{archive} unpacks to {total:,} bytes and {cache_folder()} has room for {max(free, 0):,}: make room, or "
            "set KORE_BENCH_CACHE to a larger disk"
        )


def _digest(members: Sequence[zipfile.ZipInfo]) -> str:
    """Return what names an archive's content: its members' names, sizes and check sums."""
    total = hashlib.sha256()
    for member in sorted(members, key=lambda member: member.filename):
        total.update(f"{member.filename}\0{member.file_size}\0{member.CRC}\0".encode())
    return total.hexdigest()


def _extract(archive: Path, opened: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    for member in members:
        target = folder / member.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # zipfile reads no more than the size that was checked above, and checks the sum at its end.
            with opened.open(member) as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
            raise UserError(f"{archive}: its member {member.filename!r} cannot be unpacked ({error})") from error
        except FileExistsError:
            raise UserError(f"{archive}: its member {member.filename!r} is there twice") from None


class _Joined(io.RawIOBase):
    """Files read as if they stood behind each other in one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.streams = [part.open("rb") for part in parts]
        self.starts = [0]
        for part in parts:
            self.starts.append(self.starts[-1] + part.stat().st_size)
        self.at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.starts[-1])[whence]
        return self.at

    def readinto(self, buffer: Buffer) -> int:
        for stream, start, end in zip(self.streams, self.starts, self.starts[1:], strict=False):
            if start <= self.at < end:
                stream.seek(self.at - start)
                count = stream.readinto(memoryview(buffer)[: end - self.at])
                self.at += count
                return count
        return 0

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        super().close()

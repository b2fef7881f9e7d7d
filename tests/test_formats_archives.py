"""Archives of pictures: what is unpacked, where to, and the archives that are refused with nothing written."""

from __future__ import annotations

import importlib
import multiprocessing
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.formats import archives
from kore_bench.formats.archives import unpacked, written_once

made: Any = importlib.import_module("evoke_folder")
pack, picture = made.pack, made.picture


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*") if path.suffix != ".lock")


def test_pictures_are_unpacked_once_for_each_content(tmp_path: Path, cache: Path) -> None:
    files = {"a/1.jpg": picture(1), "a/2.PNG": picture(2, "PNG"), "notes.txt": b"x", "__MACOSX/a/1.jpg": b"x"}
    folder = unpacked([pack(tmp_path / "one.zip", files)])
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == ["a/1.jpg", "a/2.PNG"]
    assert (folder / "a/1.jpg").read_bytes() == picture(1)
    assert unpacked([pack(tmp_path / "again.zip", files)]) == folder
    assert unpacked([pack(tmp_path / "other.zip", {**files, "a/1.jpg": picture(3)})]) != folder
    assert len(left(cache)) == 2


def link(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        member = zipfile.ZipInfo("a/link.jpg")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(member, "/etc/passwd")


def bomb(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/1.bmp", bytes(10_000_000))


def lying_size(archive: Path) -> None:
    """Say in the directory and in the member's head that ten bytes are stored where there are many more."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/1.bmp", bytes(1_000_000))
    data = archive.read_bytes()
    size, said = (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert data.count(size) == 2
    archive.write_bytes(data.replace(size, said))


def wrong_sum(archive: Path) -> None:
    pack(archive, {"a/1.jpg": picture(1)})
    data = bytearray(archive.read_bytes())
    data[data.index(picture(1)) + 200] ^= 0xFF
    archive.write_bytes(data)


def encrypted(archive: Path) -> None:
    pack(archive, {"a/1.jpg": picture(1)})
    data = bytearray(archive.read_bytes())
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(head) + flags] |= 1
    archive.write_bytes(data)


def twice(archive: Path) -> None:
    pack(archive, {"a/1.jpg": picture(1), "b/1.jpg": picture(2)})
    archive.write_bytes(archive.read_bytes().replace(b"b/1.jpg", b"a/1.jpg"))


def named(name: str) -> Callable[[Path], object]:
    return lambda archive: pack(archive, {"good.jpg": picture(1), name: picture(2)})


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "parent": (named("a/../../out.jpg"), ": its member 'a/../../out.jpg' leads out of the folder; nothing was"),
    "root": (
        named("/outside/out.jpg"),
        ": its member '/outside/out.jpg' leads out of the folder; nothing was unpacked",
    ),
    "backslash": (named("a\\..\\..\\out.jpg"), ": its member 'a\\\\..\\\\..\\\\out.jpg' leads out of the folder"),
    "drive": (named("C:/out.jpg"), ": its member 'C:/out.jpg' leads out of the folder"),
    "link": (link, ": its member 'a/link.jpg' is a link or a device, no picture; nothing was unpacked"),
    "bomb": (bomb, " would unpack to 10,000,000 bytes, over 100 times its size, as no archive of pictures does"),
    "lying size": (lying_size, ": its member 'a/1.bmp' cannot be unpacked (Bad CRC-32"),
    "wrong sum": (wrong_sum, ": its member 'a/1.jpg' cannot be unpacked (Bad CRC-32"),
    "encrypted": (encrypted, ": its member 'a/1.jpg' is encrypted; nothing was unpacked"),
    "twice": (twice, ": its member 'a/1.jpg' is there twice"),
    "no archive": (lambda archive: archive.write_bytes(b"PK not"), " cannot be unpacked: file is not a zip file"),
    "cut off": (
        lambda archive: archive.write_bytes(pack(archive, {"1.jpg": picture(1)}).read_bytes()[:-30]),
        " cannot be unpacked: file is not a zip file",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_leaves_nothing(tmp_path: Path, cache: Path, name: str) -> None:
    make, problem = BAD[name]
    make(tmp_path / "bad.zip")
    before = sorted(tmp_path.rglob("*.jpg"))
    with pytest.raises(UserError) as caught:
        unpacked([tmp_path / "bad.zip"])
    assert str(caught.value).startswith(f"{tmp_path / 'bad.zip'}{problem}")
    assert left(cache) == []
    assert sorted(tmp_path.rglob("*.jpg")) == before
    assert not Path("/outside/out.jpg").exists()


def test_an_archive_without_room_is_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 2**62)
    with pytest.raises(UserError, match=r"has room for 0: make room, or set KORE_BENCH_CACHE to a larger disk"):
        unpacked([pack(tmp_path / "one.zip", {"1.jpg": picture(1)})])
    assert left(cache) == []


def test_parts_of_a_split_archive_are_joined(tmp_path: Path, cache: Path) -> None:
    files = {f"a/{number}.jpg": picture(number) for number in range(5)}
    data = pack(tmp_path / "whole" / "one.zip", files).read_bytes()
    folder = tmp_path / "data"
    folder.mkdir()
    for part in range(7):
        step = len(data) // 7 + 1
        (folder / f"split_zip_part_{part:02}").write_bytes(data[part * step : (part + 1) * step])
    (folder / "notes_1").write_bytes(b"")
    found = archives.archives(folder)
    assert [[part.name[-2:] for part in parts] for parts in found] == [["00", "01", "02", "03", "04", "05", "06"]]
    assert {name: (unpacked(found[0]) / name).read_bytes() for name in files} == files
    shutil.rmtree(cache)
    (folder / "split_zip_part_03").unlink()
    with pytest.raises(UserError, match=r"split_zip_part_00.* cannot be unpacked"):
        unpacked(archives.archives(folder)[0])


def test_parts_that_are_archives_themselves_stay_apart(tmp_path: Path, cache: Path) -> None:
    for part in range(2):
        pack(tmp_path / f"images.zip.{part:03}", {f"{part}.jpg": picture(part)})
    assert [len(parts) for parts in archives.archives(tmp_path)] == [1, 1]


def _write(folder: Path) -> None:
    (folder / "1").write_text("x", encoding="utf-8")
    assert len(list(folder.parent.glob(".name.*"))) == 1


def _wanted() -> None:
    assert (written_once("name", _write) / "1").read_text(encoding="utf-8") == "x"


def test_processes_that_want_one_folder_at_once_write_it_once(cache: Path) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=_wanted) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert left(cache) == ["name"]


def test_a_write_that_fails_leaves_nothing(cache: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "1").write_text("x", encoding="utf-8")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        written_once("name", fails)
    assert left(cache) == []

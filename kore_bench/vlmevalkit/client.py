"""Our side of the scoring process: where VLMEvalKit is, which version, and how the process is started and asked."""

from __future__ import annotations

import atexit
import csv
import difflib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any

from kore_bench.cache import cache_folder, digest
from kore_bench.errors import UserError
from kore_bench.judge import JudgeError
from kore_bench.results import write_text

INSTALL = (
    "git clone https://github.com/open-compass/VLMEvalKit && pip install -e VLMEvalKit, into this environment or into "
    "one of its own that --set vlmeval.python=PATH/bin/python names (docs/toolkits.md)"
)
DATA = "LMUData"
"""The variable that names the folder of data sets, spelt as VLMEvalKit has it."""
OLDEST = (0, 2)
_PYTHON = (3, 11)
_PROBE = (
    "import importlib.util, json, sys; found = importlib.util.find_spec('vlmeval'); "
    "print(json.dumps([list(sys.version_info[:2]), found.origin if found else None]))"
)
_LOG_TAIL = 300  # characters
# What starts a distributed job, or makes VLMEvalKit answer otherwise than by default.
_NOT_THEIRS = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "LOCAL_LLM",
    "SPLIT_THINK",
)


class ToolkitError(Exception):
    """VLMEvalKit failed at something that is not the user's mistake; its own words, and where its log is."""


@dataclass(frozen=True)
class Install:
    """A VLMEvalKit that was found: the interpreter that has it, and the folder of its package."""

    python: str
    folder: Path

    @property
    def version(self) -> str:
        """Return the version that its package states."""
        found = re.search(r"""^__version__ = ['"](.+)['"]""", self._text(), re.MULTILINE)
        return found[1] if found else "0"

    @property
    def commit(self) -> str:
        """Return the commit of its checkout, empty where it is none."""
        command = ["git", "-C", str(self.folder), "rev-parse", "HEAD"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    @property
    def sources(self) -> str:
        """Return the start of a SHA-256 over its data sets' sources: what its figures depend on."""
        return _sources(self.folder)

    def _text(self) -> str:
        return (self.folder / "__init__.py").read_text(encoding="utf-8")


def locate(python: str) -> Install | None:
    """Return the VLMEvalKit of an interpreter (empty: this one), None where there is none; it is not imported.

    Raises UserError where ``python`` is no interpreter that can be used.
    """
    version, origin = _probe(python)
    if version < _PYTHON:
        raise UserError(
            f"--set vlmeval.python={python} is Python {_dotted(version)}: give one from {_dotted(_PYTHON)} on"
        )
    return Install(python or sys.executable, Path(origin).parent) if origin else None


def find(python: str, what: str) -> Install:
    """Return the VLMEvalKit of an interpreter, which ``what`` needs, as `locate` does.

    Raises UserError with the install lines where there is none, or one that is too old.
    """
    found = locate(python)
    if found is None:
        raise UserError(f"{what} needs VLMEvalKit: {INSTALL}")
    numbers = tuple(int(part) for part in re.findall(r"\d+", found.version)[:2])
    if numbers < OLDEST or not (found.folder / "dataset").is_dir():
        raise UserError(
            f"{what} needs VLMEvalKit {_dotted(OLDEST)} or newer, and {found.folder} is {found.version}: {INSTALL}"
        )
    return found


def data_root() -> Path:
    """Return the folder of VLMEvalKit's data: ``LMUData``, else ``LMUData`` in the user's home.

    Raises UserError where the variable names no folder, which VLMEvalKit would pass over in silence.
    """
    given = os.environ.get(DATA)
    if given and not Path(given).is_dir():
        raise UserError(f"{DATA}={given}: there is no such folder: make it, or unset the variable")
    return Path(given) if given else Path.home() / DATA


def file_of(name: str) -> Path | None:
    """Return a data set's file where it lies under the data's folder already, whatever the case of its name."""
    wanted = f"{name}.tsv".lower()
    folder = data_root()
    return next((file for file in sorted(folder.glob("*.tsv")) if file.name.lower() == wanted), None)


def size_of(url: str) -> str:
    """Return how large what lies behind an address is, in words; empty where nobody says."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5) as answer:
            return f"{int(answer.headers['Content-Length']) / 2**20:.0f} MiB"
    except (OSError, TypeError, ValueError):
        return ""


def check_columns(file: Path, columns: Sequence[str]) -> None:
    """Raise UserError where a data set's file is there and lacks one of ``columns``, index or question."""
    if not file.exists():
        return
    with file.open(encoding="utf-8", newline="") as lines:
        found = next(csv.reader(lines, delimiter="\t"), [])
    stand_in = {"image": "image_path"}
    for column in ("index", "question", *columns):
        if column not in found and stand_in.get(column) not in found:
            raise UserError(f"{file} has no column {column!r}: its first line has {', '.join(found)}")


def content(file: Path) -> str:
    """Return the MD5 of a data set's file, kept in the cache as long as its size and date stay."""
    about = file.stat()
    kept = cache_folder() / "md5" / digest([str(file.resolve()), about.st_size, about.st_mtime_ns])
    if not kept.exists():
        with file.open("rb") as stream:
            write_text(kept, hashlib.file_digest(stream, "md5").hexdigest())
    return kept.read_text()


class Toolkit:
    """The scoring process of one interpreter; it starts when it is first asked, and again where it died."""

    def __init__(self, install: Install) -> None:
        self.install = install
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    @cached_property
    def known(self) -> dict[str, dict[str, Any]]:
        """Return its data sets: whether answers are matched ``exact``, and the ``md5`` of the published file.

        Raises UserError where VLMEvalKit cannot be imported.
        """
        try:
            return dict(self.ask("hello"))
        except ToolkitError as error:
            raise UserError(f"the VLMEvalKit in {self.install.folder} cannot be imported: {error}: {INSTALL}") from None

    def ask(self, do: str, **arguments: Any) -> Any:
        """Return the value of a request; raises UserError, JudgeError or ToolkitError with the process's own sentence."""
        process = self._started()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            told = self._tail()
            self.close()
            raise ToolkitError(f"the process of {self.install.python} died: {told}")
        reply = json.loads(line)
        if "mistake" in reply:
            raise UserError(reply["mistake"])
        if "judge" in reply:
            raise JudgeError(reply["judge"])
        if "failure" in reply:
            raise ToolkitError(reply["failure"])
        return reply["value"]

    def check(self, name: str) -> None:
        """Raise UserError with the nearest names where there is no data set, nor a file, of this name."""
        if name not in self.known and file_of(name) is None:
            close = difflib.get_close_matches(name, self.known, n=5, cutoff=0.4)
            near = f"names like it are {', '.join(close)}" if close else "no name is like it"
            raise UserError(f"VLMEvalKit has no data set {name!r}, and {data_root()} has no {name}.tsv: {near}")

    def close(self) -> None:
        """End the process."""
        if self._process and self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.kill()
            self._process.wait()
        if self._log:
            self._log.close()
        self._process = self._log = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            data_root().mkdir(exist_ok=True)
            self._log = tempfile.TemporaryFile("w+", prefix="vlmevalkit-")  # noqa: SIM115 (as long as the process)
            command = [self.install.python, str(Path(__file__).with_name("__main__.py"))]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8",
                env=_environment(),
            )  # fmt: skip
            atexit.register(self.close)
        return self._process

    def _tail(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        return " ".join(self._log.read().split())[-_LOG_TAIL:]


@cache
def toolkit(python: str, what: str) -> Toolkit:
    """Return this process's `Toolkit` of an interpreter; raises UserError as `find` does."""
    return _of(find(python, what))


@cache
def _of(install: Install) -> Toolkit:
    return Toolkit(install)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_THEIRS}
    return kept | {DATA: str(data_root()), "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8"}


@cache
def _probe(python: str) -> tuple[tuple[int, ...], str | None]:
    if not python or Path(python) == Path(sys.executable):
        found = importlib.util.find_spec("vlmeval")
        return sys.version_info[:2], found.origin if found else None
    try:
        done = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, check=True, timeout=60)
        version, origin = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        raise UserError(f"--set vlmeval.python={python} is no Python interpreter that can be run") from None
    return tuple(version), origin


@cache
def _sources(folder: Path) -> str:
    total = hashlib.sha256()
    for part in ("dataset", "smp", "utils"):
        for file in sorted((folder / part).rglob("*.py")):
            total.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:12]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

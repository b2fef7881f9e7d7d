"""The embedded mini world and mini-llava: where the weights lie and where the world's folder is written."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .settings import WorldSettings

_HERE = Path(__file__).resolve().parent

MINI_LLAVA: Path = _HERE / "mini-llava"
"""Folder of the pre-trained mini-llava: weights, tokenizer, image processor, chat template."""

LM_EVAL_TASKS: Path = _HERE / "lm_eval"
"""Folder of lm-eval tasks about the texts that mini-llava was pre-trained on."""

MINI_QWEN: Path = _HERE / "mini-qwen"
"""Folder of mini-qwen, whose weights are random: configuration, tokenizer, image processor, chat template."""


MAIN = WorldSettings()
"""The main world's settings."""

_MAIN_SOURCES = ("drawing.py", "language.py", "probes.py", "reserved.py", "skills.py", "world.py")


def world_folder(cache: Path, settings: WorldSettings = MAIN, draw: int = 0) -> Path:
    """Return the knowledge folder of the mini world, or of a draw of other entities, below ``cache``.

    It is written on the first call. Its name holds a digest of the code that draws it, and of settings and draw, so
    that another version writes another one. It appears whole or not at all: it is written under a temporary name and
    renamed. Raises UserError where there are fewer looks than entities.
    """
    if settings.main:
        return _kept(cache, _digest(_MAIN_SOURCES), _write_main)
    main = world_folder(cache)
    digest = _digest((*_MAIN_SOURCES, "draws.py"), f"{settings} {draw}")
    return _kept(cache, digest, lambda folder: _write_draw(folder, main, settings, draw))


def _write_main(folder: Path) -> None:
    from .world import write_world  # NumPy and Pillow only when there is something to draw

    write_world(folder)


def _write_draw(folder: Path, main: Path, settings: WorldSettings, draw: int) -> None:
    from .draws import write_draw

    write_draw(folder, main, settings, draw)


def _digest(sources: Sequence[str], more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for name in sources:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:12]


def _kept(cache: Path, digest: str, write: Callable[[Path], None]) -> Path:
    """Return the folder of this digest, which ``write`` fills where it is not there."""
    folder = cache / f"mini-world-{digest}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
    try:
        write(scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same bytes
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder

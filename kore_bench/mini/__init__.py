"""The embedded mini world and mini-llava: where the weights lie and where the world's folder is written."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent

MINI_LLAVA: Path = _HERE / "mini-llava"
"""Folder of the pre-trained mini-llava: weights, tokenizer, image processor, chat template."""

LM_EVAL_TASKS: Path = _HERE / "lm_eval"
"""Folder of lm-eval tasks about the texts that mini-llava was pre-trained on."""

MINI_QWEN: Path = _HERE / "mini-qwen"
"""Folder of mini-qwen, whose weights are random: configuration, tokenizer, image processor, chat template."""


def world_folder(cache: Path) -> Path:
    """Return the mini world's knowledge folder below ``cache``, written on the first call.

    The folder's name holds a digest of the code that draws the world, so that another version writes another one.
    It appears whole or not at all: it is written under a temporary name and renamed.
    """
    digest = hashlib.sha256()
    for name in ("drawing.py", "language.py", "probes.py", "skills.py", "world.py"):
        digest.update((_HERE / name).read_bytes())
    folder = cache / f"mini-world-{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    from .world import write_world  # NumPy and Pillow only when there is something to draw

    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
    try:
        write_world(scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same bytes
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder

"""What is computed once and shared across cells and runs: tensors and base evaluations, by the content of their key."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    import torch


def cache_folder() -> Path:
    """Return the cache's folder: ``KORE_BENCH_CACHE``, else ``kore-bench`` in the user's cache folder."""
    given = os.environ.get("KORE_BENCH_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kore-bench"


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_tensors(key: Mapping[str, Any], compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return ``compute()`` or what an earlier call with an equal key kept (safetensors on the CPU).

    Two processes that want the same key at once compute it once; a file that cannot be read, or whose tensors are not
    those that were kept (their SHA-256 stands in its header), is computed again.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    file = cache_folder() / "tensors" / f"{digest(key)}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if file.exists():
            try:
                return _load_whole(file)
            except (SafetensorError, OSError, ValueError):
                file.unlink()
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in compute().items()}
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        os.close(handle)
        save_file(tensors, temporary, metadata={"key": json.dumps(key, sort_keys=True), "sha256": _content(tensors)})
        os.replace(temporary, file)
    return tensors


def _load_whole(file: Path) -> dict[str, torch.Tensor]:
    """Read a kept file; raises ValueError where its tensors are not those that were written."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
        if (stored.metadata() or {}).get("sha256") != _content(tensors):
            raise ValueError(f"{file} is damaged")
    return tensors


def _content(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of tensors on the CPU."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def keep_folder(source: Path, name: str) -> None:
    """Keep a copy of a finished folder under ``name``, replacing none that stands."""
    target = cache_folder() / "cells" / name
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}."))
    shutil.copytree(source, temporary, dirs_exist_ok=True)
    try:
        temporary.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(temporary)


def fetch_folder(name: str, target: Path) -> bool:
    """Copy the kept folder called ``name`` to ``target``; return whether there was one."""
    source = cache_folder() / "cells" / name
    if not source.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}."))
    shutil.copytree(source, temporary, dirs_exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    return True


def forget_folder(name: str) -> None:
    """Drop the kept folder called ``name`` (one whose record cannot be read)."""
    shutil.rmtree(cache_folder() / "cells" / name, ignore_errors=True)


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 that identifies a checkpoint's folder: every byte of small files, size and ends of large ones."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in {".json", ".safetensors", ".jinja", ".model", ".txt"}:
            size = file.stat().st_size
            total.update(f"{file.relative_to(folder)}\0{size}\0".encode())
            with file.open("rb") as stream:
                total.update(stream.read(2**26))
                if size > 2**26:
                    stream.seek(max(2**26, size - 2**20))
                    total.update(stream.read())
    return total.hexdigest()

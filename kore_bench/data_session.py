"""What `kore-bench data` does, with the terminal in hand: check a data set, and write it in another format."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kore_bench.cache import cache_folder
from kore_bench.data_check import check
from kore_bench.data_view import view
from kore_bench.formats import convert
from kore_bench.plan import MINI


def check_session(data: str, out: Console) -> int:
    """Print what is in a data set and what is wrong with it; return 1 where not all of it can be used, else 0."""
    path = _folder(data)
    with out.status(f"reading {data}"):
        checked = check(path)
    out.print(view(path, checked))
    return 0 if checked.sound else 1


def convert_session(data: str, target: Path, to: str, out: Console) -> None:
    """Write a data set into a new folder in the format ``to``."""
    with out.status(f"writing {target}"):
        written = convert(_folder(data), target, to)
    out.print(str(written), soft_wrap=True, markup=False)


def _folder(data: str) -> Path:
    if data != MINI:
        return Path(data)
    from kore_bench.mini import world_folder

    return world_folder(cache_folder())

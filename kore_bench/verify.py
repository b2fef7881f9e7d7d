"""`kore-bench verify`: reads a whole run folder and says which files are not what was written, and what helps."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import track

from kore_bench.errors import UserError
from kore_bench.integrity import Damage, search
from kore_bench.results import RunFolder


def verify_session(folder: Path, out: Console) -> int:
    """Check every file that the run's records answer for; return 1 where one is damaged, else 0.

    Raises UserError where the folder is not a run, or was written in another format.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}")
    run = RunFolder(folder)
    cells = len(run.plan()["cells"])
    damages: list[Damage] = []
    files = unsealed = missing = 0
    for _, record, found in track(search(run), "reading", total=cells, console=out, transient=True):
        damages += found
        files += len(record.files) + 1 if record else 0
        unsealed += bool(record and record.status == "done" and not record.files)
        missing += record is None and not found
    for damage in damages:
        out.print(f"damaged: {damage.file} {damage.what}", soft_wrap=True, markup=False)
    if damages:
        out.print(_advice(damages), soft_wrap=True, markup=False)
    out.print(f"{folder}: {cells} cells, {files} files read, {len(damages)} damaged", soft_wrap=True, markup=False)
    if missing:
        out.print(f"{missing} cells have no record yet: the command that made the run does them", markup=False)
    if unsealed:
        out.print(f"{unsealed} cells are of an earlier version, which kept no sums: only their records were read")
    return 1 if damages else 0


def _advice(damages: list[Damage]) -> str:
    """Return what to do: a run asks damaged cells again by itself, except where only weights are damaged."""
    if all("adapter" in damage.file.parts for damage in damages):
        return "no score rests on these weights: to have them again, delete the record.json beside them and run again"
    return "the command that made the run does these cells again, and only these"

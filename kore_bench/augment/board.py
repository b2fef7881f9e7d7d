"""What a person sees while items are augmented: a live line on a terminal, one line at the start and end elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class Board:
    """Follows how many of ``total`` items are done, ``done`` of them from before, and what they took."""

    def __init__(self, out: Console, total: int, done: int) -> None:
        self.out, self.total, self.done, self.rejects = out, total, done, 0
        self._began, self._before = time.monotonic(), done
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True), TextColumn("{task.fields[used]}"),
            console=out, transient=True, disable=not out.is_terminal or out.is_dumb_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("items", total=total, completed=done, used="")

    def __enter__(self) -> Self:
        self.out.print(f"{self.total:,} items, {self.done:,} done before", soft_wrap=True, markup=False)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        seconds = time.monotonic() - self._began
        self.out.print(
            f"{self.done:,} of {self.total:,} items done, {self.done - self._before:,} of them now, in {seconds:.1f} s",
            soft_wrap=True, markup=False,
        )  # fmt: skip

    def advance(self, rejects: int, usage: Mapping[str, float]) -> None:
        """Show that one more item is done, with how many rejects, and what all of them have used."""
        self.done, self.rejects = self.done + 1, self.rejects + rejects
        self._bar.update(self._task, advance=1, used=f"{self.rejects:,} rejects{used_in_words(usage)}")


def used_in_words(usage: Mapping[str, float]) -> str:
    """Return tokens, cost and the like behind a comma; nothing for a generator that accounts for nothing."""
    if not usage:
        return ""
    tokens = f"{_short(usage.get('tokens_in', 0))} + {_short(usage.get('tokens_out', 0))} tokens"
    return f", {tokens}, ${usage.get('cost', 0):.4f}"


def _short(number: float) -> str:
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {sign}"
    return f"{number:.0f}"

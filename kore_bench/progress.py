"""What a person sees while cells run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from kore_bench.engines import Event
from kore_bench.grid import Cell
from kore_bench.results import Record


class Listener:
    """Follows the events of ``total`` cells on ``console``; use as a context manager and call with each event."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.finished = console, total, 0
        self.began: dict[str, float] = {}
        self.bars: dict[str, TaskID] = {}
        self.live = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.overall = self.live.add_task("all cells", total=total, note=f"0 of {total}")

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        name = event.cell.name
        if event.kind == "start":
            self.began[name] = time.monotonic()
            self.bars[name] = self.live.add_task(escape(title(event.cell)), total=None, note="load")
            if not self.console.is_terminal:
                self.console.print(f"start  {title(event.cell)}", soft_wrap=True, markup=False)
        elif event.kind == "phase" and name in self.bars:
            self.live.update(
                self.bars[name], note=event.phase, completed=event.done, total=event.total or None, refresh=False
            )
        elif event.kind == "end":
            self.finished += 1
            if name in self.bars:
                self.live.remove_task(self.bars.pop(name))
            self.live.update(self.overall, completed=self.finished, note=f"{self.finished} of {self.total}")
            seconds = time.monotonic() - self.began.get(name, time.monotonic())
            line = f"[{self.finished}/{self.total}] {title(event.cell)}: {outcome(event.record)} ({seconds:.0f} s)"
            self.console.print(line, soft_wrap=True, markup=False)


def title(cell: Cell) -> str:
    """Return a cell in words."""
    rate = f", rate {cell.learning_rate:g}" if cell.learning_rate else ""
    return f"{cell.method}, seed {cell.seed}{rate}"


def outcome(record: Record | None) -> str:
    """Return how a cell ended, in words."""
    if record is None or record.status != "done":
        return f"{record.status}: {record.reason}" if record else "failed"
    shown = (f"{name} {score.value:.1f}" for name in ("K.A", "K.R") if (score := record.score(name)) is not None)
    return ", ".join(shown) or "done"

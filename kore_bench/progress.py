"""What a person sees while cells run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from kore_bench.board import Board
from kore_bench.engines import Event
from kore_bench.grid import Cell
from kore_bench.results import Record, RunFolder


class Listener:
    """Follows the events of the cells ``todo`` on ``console``; use as a context manager and call with each event.

    A terminal shows all ``cells`` of ``run`` in a table that goes when they are done and stays when they are
    interrupted; elsewhere each start and end is a line. ``best``: see `Board`.
    """

    def __init__(
        self, console: Console, run: RunFolder, cells: Sequence[Cell], todo: Sequence[Cell], *, best: bool = False
    ) -> None:
        self.console, self.total, self.finished = console, len(todo), 0
        self.began: dict[str, float] = {}
        kept = {cell.name: record for cell in cells if cell not in todo and (record := run.read(cell.name))}
        self.board = Board(cells, kept, best=best)
        self.live: Live | None = None
        if todo and console.is_terminal and not console.is_dumb_terminal:
            self.live = Live(self.board, console=console, transient=True, vertical_overflow="crop")

    def __enter__(self) -> Self:
        if self.live:
            self.live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.transient = error is None
            self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self.live:
            self.board.update(event)
            return
        name = event.cell.name
        if event.kind == "start":
            self.began[name] = time.monotonic()
            self.console.print(f"start  {title(event.cell)}", soft_wrap=True, markup=False)
        elif event.kind == "end":
            self.finished += 1
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
    shown = [f"{name} {score.value:.1f}" for name in ("K.A", "K.R") if (score := record.score(name)) is not None]
    return ", ".join([*shown, *([record.shortfall] if record.shortfall else [])]) or "done"

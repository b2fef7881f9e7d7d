"""The live table of a run: methods as rows that fill in, a bar for each running cell, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from threading import RLock

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from kore_bench.engines import Event
from kore_bench.grid import Cell
from kore_bench.measures import avg
from kore_bench.pace import clock, left_in_words, time_left
from kore_bench.results import Record

_STYLES = {"done": "green", "running": "cyan", "waiting": "dim", "failed": "bold red", "skipped": "yellow"}
_FIGURE = len("100.0")
_ROOM_FOR_AVG, _ROOM_FOR_SCORES, _ROOM_FOR_BARS, _ROOM_FOR_NOTES = 58, 42, 54, 34  # columns of the terminal


@dataclass
class Slot:
    """One cell as the board knows it; times are of a monotonic clock, in seconds, and ``None`` where not run here."""

    cell: Cell
    record: Record | None = None
    began: float | None = None
    ended: float | None = None
    phase: str = ""
    done: int = 0
    total: int = 0

    @property
    def status(self) -> str:
        """Return done, failed or skipped once there is a record, else running or waiting."""
        if self.record is not None:
            return self.record.status
        return "waiting" if self.began is None else "running"

    @property
    def taken(self) -> float:
        """Return the seconds that a finished cell took: here, or when it was run."""
        if self.began is not None and self.ended is not None:
            return self.ended - self.began
        return sum(self.record.cost.seconds.values()) if self.record else 0.0

    def spent(self, now: float) -> float:
        """Return the seconds that the cell has had until ``now``."""
        return now - self.began if self.began is not None else 0.0


class Board:
    """What is known of the cells of a run, as a Rich renderable that fits whatever terminal it is shown on.

    ``kept`` holds the records, by cell name, of cells that are not run again. ``best`` shows the cell with the highest
    Avg of a method (a tuning's trials) in place of the mean over its cells (seeds). Events may come from another
    thread than the one that draws.
    """

    def __init__(
        self, cells: Sequence[Cell], kept: Mapping[str, Record], *, best: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.now, self.best, self.began = now, best, now()
        self.slots = {cell.name: Slot(cell, kept.get(cell.name)) for cell in cells}
        self.seeds = len({cell.seed for cell in cells})
        self.jobs = 0
        self.lock = RLock()

    def update(self, event: Event) -> None:
        """Take in one event of a cell."""
        with self.lock:
            slot = self.slots[event.cell.name]
            if event.kind == "start":
                slot.began, slot.phase = self.now(), "load"
                self.jobs = max(self.jobs, len(self._with("running")))
            elif event.kind == "phase":
                slot.phase, slot.done, slot.total = event.phase, event.done, event.total
            else:
                slot.record, slot.ended = event.record, self.now()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw in one line less than the terminal is high, and two columns less than it is wide.

        A line that scrolled away could not be drawn again, nor could those below it where the ``^C`` that a terminal
        writes behind the last line had wrapped.
        """
        with self.lock:
            rows = self._rows()
            width, height = max(1, options.max_width - 2), max(1, options.max_height - 1)
            running = self._with("running")[: max(0, height - 1)]
            room = height - 1 - len(running)
            parts: list[RenderableType] = [self._bars(running, width)]
            if room >= 3:  # a header, a method, and the line between
                parts = [self._table(rows, width, room - 2), Text(), *parts]
            for line in console.render_lines(Group(*parts), options.update_width(width), pad=False):
                yield from (*line, Segment.line())

    def _with(self, status: str) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.status == status]

    def _rows(self) -> dict[str, list[Slot]]:
        rows: dict[str, list[Slot]] = {}
        for slot in self.slots.values():
            rows.setdefault(slot.cell.method, []).append(slot)
        return rows

    def _table(self, rows: Mapping[str, list[Slot]], width: int, room: int) -> Table:
        """Return the methods, or as many around the first running one as there is ``room`` for."""
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        named = min(max(map(len, (*rows, "method"))), width // 2)
        table.add_column("method", no_wrap=True, width=named)
        measures = ("K.A", "K.R", "Avg")[: 3 if width >= _ROOM_FOR_AVG else 2 if width >= _ROOM_FOR_SCORES else 0]
        for measure in measures:
            table.add_column(measure, justify="right", no_wrap=True, width=_FIGURE)
        rest = max(1, width - named - 2 - len(measures) * (_FIGURE + 2))
        title = "best of" if self.best else "cells" if self.seeds > 1 else "status"
        table.add_column(title, no_wrap=True, max_width=rest)
        shown, hidden = _window(rows, room)
        for method in shown:
            figures = _figures(rows[method], best=self.best)
            status = _status(rows[method])
            table.add_row(Text(method), *(f"{figures[m]:.1f}" if m in figures else "" for m in measures), status)
        if hidden:
            table.add_row(Text(f"and {hidden} more", "dim"))
        return table

    def _bars(self, running: Sequence[Slot], width: int) -> Table:
        """Return a line for each running cell, and one for all."""
        bars, notes = width >= _ROOM_FOR_BARS, width >= _ROOM_FOR_NOTES
        grid = Table.grid(padding=(0, 2, 0, 0), expand=bars)
        grid.add_column(no_wrap=True, max_width=max(8, width // 3))
        grid.add_column(no_wrap=True, min_width=8)  # measure, evaluate
        if bars:
            grid.add_column(ratio=1, no_wrap=True)
        if notes:
            grid.add_column(no_wrap=True, justify="right", min_width=11 if bars else 0)
        grid.add_column(no_wrap=True, justify="right", min_width=4)
        for slot in running:
            bar = ProgressBar(slot.total or None, slot.done, pulse=not slot.total, animation_time=self.now())
            note = f"{slot.done}/{slot.total}" if slot.total else ""
            elapsed = clock(slot.spent(self.now()))
            grid.add_row(*_line(Text(self._label(slot.cell), "cyan"), slot.phase, bar, note, elapsed, bars, notes))
        ended = sum(slot.record is not None for slot in self.slots.values())
        bar = ProgressBar(len(self.slots), ended)
        starting = all(slot.began is None for slot in self.slots.values())  # processes load their libraries
        left = "starting" if starting else left_in_words(self._left())
        elapsed = clock(self.now() - self.began)
        title = Text(f"{ended} of {len(self.slots)}{' cells' * bars}", "bold")
        grid.add_row(*_line(title, "" if notes else left, bar, left, elapsed, bars, notes))
        return grid

    def _label(self, cell: Cell) -> str:
        """Return a cell's name as `kore-bench show` takes it; a trial's with its rate."""
        rate = f", rate {cell.learning_rate:g}" if self.best else ""
        return cell.method + (f"@{cell.seed}" if self.seeds > 1 else "") + rate

    def _left(self) -> float | None:
        """Return the seconds that are left by the time that finished cells took; None where none tells."""
        cells = {name: slot.cell for name, slot in self.slots.items()}
        taken = {name: slot.taken for name, slot in self.slots.items() if slot.status == "done"}
        spent = {name: slot.spent(self.now()) for name, slot in self.slots.items() if slot.record is None}
        return time_left(cells, taken, spent, self.jobs)


def _line(
    title: Text, phase: str, bar: ProgressBar, note: str, elapsed: str, bars: bool, notes: bool
) -> Iterator[RenderableType]:
    yield title
    yield Text(phase)
    if bars:
        yield bar
    if notes:
        yield Text(note)
    yield Text(elapsed, "dim")


def _window(rows: Mapping[str, list[Slot]], room: int) -> tuple[list[str], int]:
    """Return the methods to show in ``room`` lines and how many are left out; the first running one is among them."""
    names = list(rows)
    if len(names) <= room:
        return names, 0
    room = max(1, room - 1)  # a line says how many are left out
    busy = [place for place, name in enumerate(names) if any(slot.status == "running" for slot in rows[name])]
    ended = [place for place, name in enumerate(names) if all(slot.record is not None for slot in rows[name])]
    place = busy[0] if busy else ended[-1] if ended else 0
    first = min(max(0, place - room // 2), len(names) - room)
    return names[first : first + room], len(names) - room


def _figures(slots: Sequence[Slot], *, best: bool) -> dict[str, float]:
    """Return K.A, K.R and Avg of a method: the mean over its finished cells, or those of the best one."""
    found = []
    for slot in slots:
        record = slot.record
        scores = {name: score.value for name in ("K.A", "K.R") if record and (score := record.score(name))}
        if len(scores) == 2:
            scores["Avg"] = avg(scores["K.A"], scores["K.R"])
        found.append(scores)
    if best:
        return max(found, key=lambda scores: scores.get("Avg", -1.0))
    names = {name for scores in found for name in scores}
    return {name: fmean(scores[name] for scores in found if name in scores) for name in names}


def _status(slots: Sequence[Slot]) -> Text:
    """Return where a method's cells are: one in words of its own, several as counts."""
    if len(slots) == 1:
        return _status_of_one(slots[0])
    counts = {status: sum(slot.status == status for slot in slots) for status in _STYLES}
    text = Text(f"{counts['done']} of {len(slots)}", "green" if counts["done"] == len(slots) else "")
    for status in ("running", "failed", "skipped"):
        if counts[status]:
            text.append(f", {counts[status]} {status}", _STYLES[status])
    return text


def _status_of_one(slot: Slot) -> Text:
    record, style = slot.record, _STYLES[slot.status]
    if record is None:
        return Text(slot.phase if slot.status == "running" else slot.status, style)
    if record.status == "done":
        lacks = Text(f"; {record.shortfall}", _STYLES["failed"]) if record.shortfall else ""
        return Text.assemble((f"done, {clock(slot.taken)}", style), lacks)
    return Text(f"{record.status}: {record.reason}", style)

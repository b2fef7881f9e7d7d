"""On which questions two methods part: counts by type, and the questions with both answers, for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kore_bench.results import Record, RunFolder
from kore_bench.sheet import RIGHT, Asked, Pair, asked

_LONGEST = 200  # characters of a text that is shown

Answers = Mapping[tuple[Asked, int], Mapping[str, Any]]
"""(Question, seed) -> row of predictions."""


class Gap(NamedTuple):
    """One question that both answered, with the mean credits over the seeds (0 to 1)."""

    asked: Asked
    ours: float
    theirs: float

    @property
    def sides(self) -> tuple[bool, bool]:
        """Whether each side counts as right."""
        return self.ours >= RIGHT, self.theirs >= RIGHT


def gaps(pair: Pair) -> list[Gap]:
    """Return every question that both methods answered, in the order asked."""
    rows = zip(pair.sheet.questions, *pair.credit.tolist(), strict=True)
    return [Gap(*row) for row in rows if row[1] == row[1]]  # NaN where not shared


def kinds(pair: Pair) -> Table:
    """Return how often only one side is right, by task and type of question, most disagreements of a task first."""
    counts: dict[tuple[str, str], Counter[tuple[bool, bool]]] = {}
    for gap in gaps(pair):
        counts.setdefault((gap.asked.task, gap.asked.type), Counter())[gap.sides] += 1
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("questions of", "type"):
        table.add_column(name, no_wrap=True)
    for name in (f"only {pair.one} right", f"only {pair.other} right", "both", "neither"):
        table.add_column(name, justify="right")
    tasks = list(dict.fromkeys(task for task, _ in counts))
    for kind in sorted(counts, key=lambda kind: (tasks.index(kind[0]), -_apart(counts[kind]))):
        sides = ((True, False), (False, True), (True, True), (False, False))
        table.add_row(*(Text(plain(name)) for name in kind), *(str(counts[kind][side]) for side in sides))
    return table


def examples(run: RunFolder, records: Sequence[Record], pair: Pair, count: int) -> Iterator[RenderableType]:
    """Yield ``count`` questions on which each side is furthest ahead, with both answers."""
    ours, theirs = (_answers(run, records, name, pair.seeds) for name in (pair.one, pair.other))
    found = gaps(pair)
    for name, ahead in ((pair.one, 1), (pair.other, -1)):
        led = [gap for gap in found if ahead * (gap.ours - gap.theirs) > 0]
        if not led:
            yield Padding(Text(f"There is no question on which {name} is ahead."), (0, 0, 1, 0))
            continue
        yield Text(f"Where {name} is ahead: {min(count, len(led))} of {len(led)} questions", "bold")
        for gap in varied(led, count):
            yield Padding(_example(pair, gap, ours, theirs), (0, 0, 1, 2))


def varied(led: Sequence[Gap], count: int) -> Iterator[Gap]:
    """Yield the ``count`` widest gaps, tasks taking turns, and within a task its types."""
    left = sorted(led, key=lambda gap: -abs(gap.ours - gap.theirs))  # stable: else in the order asked
    taken: Counter[tuple[str, ...]] = Counter()
    for _ in range(min(count, len(left))):
        keys = [((gap.asked.task,), (gap.asked.task, gap.asked.type)) for gap in left]
        place = min(range(len(left)), key=lambda place: tuple(taken[key] for key in keys[place]))
        taken.update(keys[place])
        yield left.pop(place)


def plain(text: str) -> str:
    """Return what a model or a data file wrote as one line, not too long, without control characters."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _apart(count: Counter[tuple[bool, bool]]) -> int:
    return count[True, False] + count[False, True]


def _answers(run: RunFolder, records: Sequence[Record], method: str, seeds: Sequence[int]) -> Answers:
    return {
        (asked(task, row), record.seed): row
        for record in records
        if record.method == method and record.seed in seeds
        for task in record.scores
        for row in run.predictions(record, task)
    }


def _example(pair: Pair, gap: Gap, ours: Answers, theirs: Answers) -> RenderableType:
    """Return one question with both answers on the seed on which they differ most."""
    seeds = [seed for seed in pair.seeds if (gap.asked, seed) in ours and (gap.asked, seed) in theirs]
    leads = {seed: ours[gap.asked, seed]["correct"] - theirs[gap.asked, seed]["correct"] for seed in seeds}
    seed = (max if gap.ours > gap.theirs else min)(seeds, key=lambda seed: leads[seed])
    place = (gap.asked.task, gap.asked.type, *ours[gap.asked, seed].get("images", ()))
    lines = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column()
    lines.add_row(
        "question", Text.assemble(plain(gap.asked.text), (f"  {plain(', '.join(filter(None, place)))}", "dim"))
    )
    lines.add_row("gold", Text(plain(gap.asked.answer)))
    for name, side in ((pair.one, ours), (pair.other, theirs)):
        rights = [side[gap.asked, seed]["correct"] >= RIGHT for seed in seeds]
        mark = ("✓ ", "green") if side[gap.asked, seed]["correct"] >= RIGHT else ("✗ ", "red")
        count = f"  right on {sum(rights)} of {len(seeds)} seeds" if len(seeds) > 1 else ""
        lines.add_row(name, Text.assemble(mark, plain(side[gap.asked, seed].get("prediction", "")), (count, "dim")))
    return lines

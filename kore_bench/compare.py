"""What `kore-bench compare` does and shows: who is better, by how much, how sure; the choice of pairs; its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from kore_bench.benchmarks import differences, leave_one_out
from kore_bench.comparison import LEVEL, MARKS, POWER, PRIMARY, Comparison, compare, p_words
from kore_bench.contrasts import Contrast, named_beforehand
from kore_bench.disagreements import examples, kinds, plain
from kore_bench.errors import UserError, nearest
from kore_bench.results import Record, RunFolder
from kore_bench.sheet import Sheet, read_sheet

PLANNED = "†"
"""Marks what was named before the run."""


def compare_session(
    folder: Path, methods: tuple[str, ...], against: str, tasks: tuple[str, ...], questions: int, out: Console
) -> None:
    """Compare methods of a run and print the comparisons, model by model.

    ``methods`` are compared with ``against``; without it one method with the base, and several with each other. Without
    either it is what the run's plan names beforehand, and where it names nothing, all that were trained with the base.
    ``questions`` are shown on which each side was better. Raises UserError for a method that the run lacks or that did
    not finish, an unknown task, and where nothing can be compared.
    """
    run = RunFolder(folder)
    records = run.records()
    if not records:
        raise UserError(f"{folder} has no records yet: no cell of its plan has run")
    for model in dict.fromkeys(record.model for record in records):
        own = [record for record in records if record.model == model]
        planned = named_beforehand(run, [record.method for record in own if record.status == "done"])
        contrasts = _contrasts(run, own, methods, against, planned)
        names = {name for contrast in contrasts for name in contrast}
        chosen = [record for record in own if record.method in names]
        needed = names | {name for contrast in planned for name in contrast}
        read = [record for record in own if record.method in needed and record.status == "done"]
        out.print(*_blocks(run, chosen, _sheet(run, read, tasks), contrasts, planned, questions, out.width), sep="\n")


def _contrasts(
    run: RunFolder, records: Sequence[Record], methods: Sequence[str], against: str, planned: Sequence[Contrast]
) -> list[Contrast]:
    """Return the pairs to compare, each of them finished on some seed."""
    names = list(dict.fromkeys(methods))
    done = dict.fromkeys(record.method for record in records if record.status == "done")
    references = {record.method for record in records if record.reference}
    for option, name in [("--methods", name) for name in names] + [("--against", against)] * bool(against):
        _check(run, records, option, name)
    if not (against or names) and planned:
        return list(planned)
    if not against and len(names) > 1:
        return list(combinations(names, 2))
    against = against or "base"
    _check(run, records, "--against", against)
    pairs = [(name, against) for name in names or [name for name in done if name not in references] if name != against]
    if not pairs:
        raise UserError(f"{run.path}: a comparison needs two methods that finished, such as --methods kore,lora")
    return pairs


def _check(run: RunFolder, records: Sequence[Record], option: str, name: str) -> None:
    own = [record for record in records if record.method == name]
    if any(record.status == "done" for record in own):
        return
    finished = {record.method for record in records if record.status == "done"}
    if own:
        raise UserError(f"{option} {name}: no cell of it finished in {run.path} ({own[0].status}: {own[0].reason})")
    if name in (run.plan().get("request") or {}).get("methods", ()):
        raise UserError(f"{option} {name}: no cell of it has run yet in {run.path}")
    raise UserError(f"{option} {name}: {run.path} has no such method: {nearest(name, finished)}")


def _sheet(run: RunFolder, records: Sequence[Record], tasks: Sequence[str]) -> Sheet:
    known = {task for record in records for task in record.scores}
    for task in tasks:
        if task not in known:
            raise UserError(f"--tasks {task}: {run.path} has no such task: {nearest(task, known)}")
    sheet = read_sheet(run, records, tasks)
    if not sheet.questions:
        raise UserError(f"{run.path / 'cells'} holds no predictions of {', '.join(sheet.methods)}")
    return sheet


def _blocks(
    run: RunFolder, records: Sequence[Record], sheet: Sheet, contrasts: Sequence[Contrast], planned: Sequence[Contrast],
    questions: int, width: int,
) -> Iterator[RenderableType]:  # fmt: skip
    found = compare(sheet, contrasts, planned)
    if not found:
        pairs = " and of ".join(f"{one} and {other}" for one, other in contrasts)
        raise UserError(f"{run.path}: no seed has predictions of {pairs} on the same questions")
    for one, other in contrasts:
        own = [row for row in found if (row.one, row.other) == (one, other)]
        pair = sheet.pair(one, other)
        seeds = f" on {records[0].model}, {_seeds(own[0].seeds)}" if own else ""
        yield Rule(Text.assemble((one, "bold"), " against ", (other, "bold"), seeds), align="left", style="dim")
        if not pair:
            yield Text("no seed has predictions of both on the same questions", "yellow")
            continue
        yield Padding(_figures(own, width), (1, 0))
        if text := _over_benchmarks(
            *([record for record in records if record.method == name] for name in (one, other))
        ):
            yield Padding(text, (0, 0, 1, 0))
        yield Padding(kinds(pair), (0, 0, 1, 0))
        if questions:
            yield from examples(run, records, pair, questions)
    yield from _notes(records, found)


def _over_benchmarks(ours: Sequence[Record], theirs: Sequence[Record]) -> str:
    """Return how a difference in K.R over benchmarks hangs on single ones; empty where there are not two that all scored."""
    sides = [[record for record in side if record.status == "done"] for side in (ours, theirs)]
    found = leave_one_out(differences(*sides))
    if found is None:
        return ""
    return (
        f"K.R over benchmarks: {found.mean:+z.2f}; leaving one out, from {found.low:+z.2f} (without {found.low_without}) "
        f"to {found.high:+z.2f} (without {found.high_without})."
    )


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _figures(rows: Sequence[Comparison], width: int) -> Table:
    names = rows[0].one, rows[0].other
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2 if width >= 100 else 1, 0, 0))
    table.add_column("", no_wrap=True)
    several = len(rows[0].seeds) > 1
    heads = ("difference", "95 % interval", "p", "p quest.", "detectable", "")
    for name in (*(name.replace("-", "-\n") for name in names), *heads):
        table.add_column(name, justify="right", no_wrap=True)
    if several:
        table.add_column("better", style="bold", overflow="fold")
    for before, row in zip((None, *rows), rows, strict=False):
        if before and row.dimension and not before.dimension:
            table.add_row()
        spread = "" if row.deviation is None else f" ± {row.deviation:.1f}"
        table.add_row(
            f"{row.measure} {PLANNED}" if row.planned else row.measure,
            *(f"{value:.1f}" for value in row.values),
            f"{row.difference:+z.1f}{spread}",
            "unknown" if row.interval is None else f"{row.interval[0]:+z.1f} to {row.interval[1]:+z.1f}",
            "" if row.holm_overall is None else p_words(row.holm_overall),
            p_words(row.holm_questions),
            "unknown" if row.detectable is None else f"{row.detectable:.1f}",
            MARKS[row.evidence],
            *([row.winner] if several else []),
            style="" if row.evidence else "dim",
        )
    return table


def _notes(records: Sequence[Record], found: Sequence[Comparison]) -> Iterator[RenderableType]:
    lines = [
        f"left out: {record.method}, seed {record.seed}: {record.status}: {plain(record.reason)}"
        for record in records
        if record.status != "done"
    ]
    upper = sum(not (row.dimension or row.planned) for row in found)
    lines.append(
        f"* holds for other questions to these trainings (p quest. at most {LEVEL:g}; clusters, such as entities, count "
        f"whole); ** also with other seeds (p). p values are corrected by Holm (comparisons of the upper lines: "
        f"{upper}, of single dimensions: {sum(row.dimension for row in found)}): exploratory, as nobody named them before the run."
    )
    if any(row.planned for row in found):
        lines.append(
            f"{PLANNED} named before the run: corrected over {' and '.join(PRIMARY)} of all the plan's contrasts, whichever are shown."
        )
    lines += _levels(found)
    if any(len(row.seeds) == 1 for row in found):
        lines.append(
            "One seed: the spread over seeds is unknown, and another training of either method may turn a result round. "
            "The interval is over questions alone."
        )
    lines.append(
        f"Detectable: the smallest difference that would be found {POWER:.0%} of the time at level {LEVEL:g}, by this run's own "
        "spread and without Holm's correction."
    )
    lines.append("What each figure assumes: docs/statistics.md.")
    yield Group(*(Text(line, "dim") for line in lines))


def _levels(found: Sequence[Comparison]) -> Iterator[str]:
    """Yield what several seeds allow: the interval's meaning, and the hierarchical bootstrap beside it."""
    rows = [row for row in found if row.bootstrap is not None]
    if not rows:
        return
    yield "The interval is that of p; ± is the standard deviation of the difference over seeds."
    draws = rows[0].draws
    levels = f"{draws} entity draws" if draws > 1 else "one draw of entities, which all seeds share"
    shown = "; ".join(
        f"{row.one} \N{MINUS SIGN} {row.other} {row.measure} {row.bootstrap[0]:+z.1f} to {row.bootstrap[1]:+z.1f}"
        for row in rows
        if row.measure in PRIMARY and row.bootstrap
    )
    yield f"Hierarchical bootstrap over {levels}, {len(rows[0].seeds)} seeds and questions (95 %): {shown}."

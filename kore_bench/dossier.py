"""One cell in full, or all seeds of a method side by side: settings, scores, losses, costs, and telling questions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kore_bench.disagreements import Gap, examples, plain, varied
from kore_bench.lookup import Place
from kore_bench.measures import Score, over_seeds
from kore_bench.pace import clock
from kore_bench.results import Record, RunFolder, whole_lines
from kore_bench.sheet import RIGHT, Asked, asked, read_sheet
from kore_bench.words import facts, number, one_line, size, sparkline

_CURVE = 40  # characters of a loss curve
_PHASES = ("load", "data", "measure", "adapt", "start", "train", "save", "evaluate")
_SEEDS = 5  # more than that many have no column each


def print_cells(run: RunFolder, places: Sequence[Place], questions: int, out: Console) -> None:
    """Print cells of one method, one a seed: what became of them, and of those that are done everything."""
    _title(run, places, out)
    done = [place.record for place in places if place.record and place.status == "done"]
    if done:
        _section("Scores", scores_table(done), out)
        _section("Tasks", facts(_outcomes(done)), out)
    _section("Training", facts(_curves(run, places)), out)
    if not done:
        return
    _section("Cost", facts(_costs(done)), out)
    _section("Settings", facts(_settings(done[0])), out)
    _section("Measured on the way", facts(_diagnostics(done)), out)
    if questions:
        for block in _questions(run, done, questions):
            out.print(block)


def _title(run: RunFolder, places: Sequence[Place], out: Console) -> None:
    out.print(Text(f"{places[0].method} in {run.path}", "bold"), soft_wrap=True)
    for place in places:
        folder = run.cell(place.name)
        trace = folder / "traceback.txt"
        style = "bold red" if place.reason or place.status != "done" else ""
        reason = f": {one_line(place.reason)}" if place.reason else ""
        out.print(Text.assemble(f"seed {place.seed} ", (f"{place.status}{reason}", style)), soft_wrap=True)
        out.print(Text(f"  {trace if place.status == 'failed' and trace.exists() else folder}", "dim"), soft_wrap=True)


def _outcomes(records: Sequence[Record]) -> dict[str, str]:
    """Return what there is to say of tasks beside their scores: skipped or failed and why, limited, graded by whom."""
    found: dict[str, list[str]] = {}
    for record in records:
        for name, outcome in record.tasks.items():
            words = [] if outcome.status == "done" else [f"{outcome.status}: {outcome.reason}"]
            words += [f"graded by {outcome.judge}"] if outcome.judge else []
            words += [f"a sample: --limit {outcome.limit}"] if outcome.limit else []
            words += [outcome.note] if outcome.note else []
            found.setdefault(name, []).extend(words)
    return {name: one_line("; ".join(dict.fromkeys(words))) for name, words in found.items() if words}


def _section(title: str, body: Table, out: Console) -> None:
    if body.row_count:
        out.print(Text(f"\n{title}", "bold"))
        out.print(Padding(body, (0, 0, 0, 2)))


def scores_table(records: Sequence[Record]) -> Table:
    """Return every score with its number of questions: one seed's with the 95 % interval, several with mean and SD."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("task", style="dim", no_wrap=True)
    table.add_column("measure", no_wrap=True)
    seeds = [f"seed {record.seed}" for record in records] if len(records) <= _SEEDS else []
    for name in ["score", "95 % interval"] if len(records) == 1 else ["mean ± SD", *seeds]:
        table.add_column(name, justify="right")
    table.add_column("n", justify="right")
    for task in dict.fromkeys(task for record in records for task in record.scores):
        names = dict.fromkeys(name for record in records for name in record.scores.get(task, {}))
        for place, name in enumerate(sorted(names, key=lambda name: _rank(task, name))):
            scores = [record.scores.get(task, {}).get(name) for record in records]
            table.add_row("" if place else task, _indented(name), *_figures(scores, len(seeds)))
    return table


def _rank(task: str, name: str) -> tuple[bool, str, str]:
    """Order a task's measures: the one that counts, its parts (such as ``K.A type=plant``), then the others."""
    whole = name.partition(" ")[0] if "=" in name else name
    return whole not in ("K.A", "K.R", task), whole, name


def _indented(name: str) -> Text:
    return Text(f"  {name.partition(' ')[2]}" if "=" in name else name)


def _figures(scores: Sequence[Score | None], columns: int) -> list[str]:
    found = [score for score in scores if score is not None]
    counts = sorted({score.n for score in found})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    if len(scores) == 1:
        return [f"{found[0].value:.1f}", f"{found[0].low:.1f} to {found[0].high:.1f}", n]
    mean, spread = over_seeds([score.value for score in found])
    shown = f"{mean:.1f} ± {spread:.1f}" if spread is not None else f"{mean:.1f}"
    each = [f"{score.value:.1f}" if score else "" for score in scores] if columns else []
    return [shown, *each, n]


def _curves(run: RunFolder, places: Sequence[Place]) -> dict[str, str]:
    """Return the losses of every cell as a curve with its ends; also of cells that run still."""
    found = {}
    for place in places:
        rows = whole_lines(run.cell(place.name) / "train.jsonl")
        names = [name for name in (rows[0] if rows else ()) if name == "loss" or name.startswith("penalty/")]
        for name in names:
            values = [float(row[name]) for row in rows if name in row]
            label = f"{name}, seed {place.seed}" if len(places) > 1 else name
            found[label] = f"{values[0]:.3g} {sparkline(values, _CURVE)} {values[-1]:.3g}, {len(values)} steps"
    return found


def _costs(records: Sequence[Record]) -> dict[str, str]:
    """Return what the cells took, as means where there are several."""
    costs = [record.cost for record in records]
    phases = sorted({phase for cost in costs for phase in cost.seconds}, key=_order)
    seconds = {phase: fmean(cost.seconds.get(phase, 0.0) for cost in costs) for phase in phases}
    each = ", ".join(f"{phase} {value:.1f} s" for phase, value in seconds.items() if value >= 0.05)
    first = costs[0]
    share = 100 * first.trainable_parameters / max(1, first.total_parameters)
    trained = f"{first.trainable_parameters:,} of {first.total_parameters:,} parameters ({share:.2g} %)"
    seen = (
        f"{fmean(cost.samples for cost in costs):,.0f} samples of {first.examples:,} examples in {first.steps:,} steps"
    )
    return {
        "time": f"{clock(sum(seconds.values()))}{' on average' * (len(costs) > 1)}: {each}",
        "trained": trained if first.trainable_parameters else "",
        "seen": f"{seen}, {fmean(cost.tokens for cost in costs):,.0f} tokens" if first.steps else "",
        "old samples": f"{first.old_samples:,}" if first.old_samples else "",
        "peak memory": size(max(cost.peak_memory for cost in costs)),
    }


def _order(phase: str) -> int:
    return _PHASES.index(phase) if phase in _PHASES else len(_PHASES)


def _settings(record: Record) -> dict[str, str]:
    """Return the settings by what they belong to, in the form that ``--set`` takes, and what the cell was run on."""
    owners: dict[str, Any] = {name: value for name, value in record.settings.items() if name != "components"}
    found = {owner: _pairs(values) for owner, values in (owners | record.settings.get("components", {})).items()}
    skills = ", ".join(record.data.get("old skills", ()))
    return {
        **found,
        "rate": f"{record.tuned}" if record.tuned else "",
        "data": f"{record.data['root']}, {record.data.get('items', '?')} items" if "root" in record.data else "",
        "old skills": f"{skills} (of seed {record.seed})" if skills else "",
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }


def _pairs(values: Any) -> str:
    if not isinstance(values, dict):
        return one_line(str(values))
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items() if value not in ("", None))


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, list) else one_line(str(value))


def _diagnostics(records: Sequence[Record]) -> dict[str, str]:
    """Return what the components logged: figures as means over the cells, texts and lists of the first one."""
    found = {}
    for name, value in records[0].diagnostics.items():
        values = [record.diagnostics.get(name) for record in records]
        figures = [each for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
        if len(figures) == len(values):
            found[name] = number(figures[0] if len(set(figures)) == 1 else fmean(figures))
        elif isinstance(value, list) and len(value) > 3:
            found[name] = f"{len(value)} entries"
        else:
            found[name] = number(value) if isinstance(value, str) else one_line(json.dumps(value, ensure_ascii=False))
    return found


def _questions(run: RunFolder, records: Sequence[Record], count: int) -> Iterator[RenderableType]:
    """Yield the best and the worst questions: against the base, where the run has it on the same questions."""
    method = records[0].method
    base = [record for record in run.records() if record.method == "base" and record.status == "done"]
    sheet = read_sheet(run, [*records, *base]) if method != "base" and base else None
    pair = sheet.pair(method, "base") if sheet else None
    yield Text("\nBest and worst questions, beside the base" if pair is not None else "\nWorst questions", "bold")
    if pair is not None:
        yield from examples(run, [*records, *base], pair, count)
    else:
        yield from _wrong(run, records[0], count)


def _wrong(run: RunFolder, record: Record, count: int) -> Iterator[RenderableType]:
    """Yield questions that one cell answers worst, tasks and types taking turns."""
    rows = {asked(task, row): row for task in record.scores for row in run.predictions(record, task)}
    wrong = [Gap(question, row["correct"], 1.0) for question, row in rows.items() if row["correct"] < RIGHT]
    if wrong:
        yield Text(f"Wrong on seed {record.seed}: {min(count, len(wrong))} of {len(wrong)} questions", "bold")
    for gap in varied(wrong, count):
        yield Padding(_question(gap.asked, rows[gap.asked]), (0, 0, 1, 2))


def _question(question: Asked, row: dict[str, Any]) -> Table:
    place = plain(", ".join(filter(None, (question.task, question.type, *row.get("images", ())))))
    return facts({
        "question": Text.assemble(plain(question.text), (f"  {place}", "dim")),
        "gold": plain(question.answer),
        "answer": plain(row.get("prediction", "")),
    })  # fmt: skip

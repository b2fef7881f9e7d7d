"""What stands behind the scores: the benchmarks that make K.R, and what was left out, sampled or graded by a judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kore_bench.results import Outcome, Record

from .summary import BENCHMARKS, TASKS, Summary
from .tabular import shorten

SAMPLE, GRADED = "†", "‡"
"""Stand behind the name of a measure that rests on a sample of the questions, or on a judge's grades."""

PAPER = tuple(name for names in BENCHMARKS.values() for name in names)
"""The paper's twelve benchmarks."""

_LONGEST = 200  # characters of a reason
_MANY = 4  # cells, that are counted instead of named


def outcomes(summary: Summary) -> dict[str, Outcome]:
    """Return task -> what came of it, of the first finished cell that scored it, or else of the first one."""
    found: dict[str, Outcome] = {}
    for record in _records(summary):
        for name, outcome in record.tasks.items():
            if name not in found or (outcome.status == "done" != found[name].status):
                found[name] = outcome
    return found


def behind(summary: Summary, measure: str) -> list[str]:
    """Return the tasks that a measure rests on."""
    known = outcomes(summary)
    if measure in ("Avg", "HARS"):
        return [*behind(summary, "K.A"), *behind(summary, "K.R")]
    if measure in ("K.R", "K.R without judge", *BENCHMARKS) and summary.benchmarks:
        parts = [name for name in summary.benchmarks if measure not in BENCHMARKS or known[name].dimension == measure]
        return [name for name in parts if measure != "K.R without judge" or not known[name].judge]
    own = TASKS.get(measure) or next((name for name, outcome in known.items() if outcome.metric == measure), "")
    return [own] if own in known else []


def marked(summary: Summary, measure: str) -> str:
    """Return a measure's name with the signs of what it rests on."""
    parts = [outcomes(summary)[name] for name in behind(summary, measure)]
    limited, judged = any(part.limit for part in parts), any(part.judge for part in parts)
    return measure + SAMPLE * limited + GRADED * judged


def notes(summary: Summary, measures: Sequence[str]) -> Iterator[str]:
    """Yield what a reader of ``measures`` must know: what K.R is the mean of, what was left out, sampled or graded."""
    known = outcomes(summary)
    if {"K.R", "Avg", *BENCHMARKS} & {*measures}:
        yield from [_mean_of(summary)] if summary.benchmarks else []
        yield from left_out(summary)
    tasks = list(dict.fromkeys(name for measure in measures for name in behind(summary, measure)))
    limits = {name: known[name].limit for name in tasks if known[name].limit}
    if limits:
        same = len({*limits.values()}) == 1
        each = _join(f"{limit} of {known[name].metric}" for name, limit in limits.items())
        text = f"{next(iter(limits.values()))} questions of each task" if same else each
        yield f"{SAMPLE} From a sample of about {text}, the same for every method: the intervals are wider."
    judges: dict[str, list[str]] = {}
    for name in tasks:
        if known[name].judge:
            judges.setdefault(known[name].judge, []).append(known[name].metric + _ungraded(summary, name))
    for judge, graded in judges.items():
        yield f"{GRADED} Graded by {judge}: {_join(graded)}."
    for name in tasks:
        for note, methods in remarks(summary, name).items():
            yield f"{known[name].metric}: {shorten(note, _LONGEST)}{methods}."


def left_out(summary: Summary) -> Iterator[str]:
    """Yield which benchmarks are no part of K.R, and why: skipped, or failed in some cell."""
    skipped: dict[str, list[str]] = {}
    for outcome in outcomes(summary).values():
        if outcome.dimension and outcome.status == "skipped":
            skipped.setdefault(outcome.reason, []).append(outcome.metric)
    for reason, names in skipped.items():
        yield f"Skipped: {_join(names)} ({shorten(reason, _LONGEST)})."
    for metric, reason, cells in failures(summary):
        where = _join(cells) if len(cells) < _MANY else f"{len(cells)} cells"
        text = f"{metric} failed in {where} ({shorten(reason, _LONGEST)})"
        task = next(name for name, outcome in outcomes(summary).items() if outcome.metric == metric)
        missing = summary.benchmarks and outcomes(summary)[task].dimension and task not in summary.benchmarks
        yield f"{text}; K.R leaves it out for every method." if missing else f"{text}."


def failures(summary: Summary) -> list[tuple[str, str, list[str]]]:
    """Return what failed: the headline figure, the reason, and the cells as ``METHOD, seed N``."""
    found: dict[tuple[str, str], list[str]] = {}
    for record in _records(summary):
        for outcome in record.tasks.values():
            if outcome.status == "failed":
                cells = found.setdefault((outcome.metric, outcome.reason), [])
                cells.append(f"{record.method}, seed {record.seed}")
    return [(metric, reason, cells) for (metric, reason), cells in found.items()]


def remarks(summary: Summary, task: str) -> dict[str, str]:
    """Return what records say of a task, and of which methods in parentheses; of no one where it is of all."""
    records = [record for record in _records(summary) if task in record.tasks]
    found: dict[str, list[str]] = {}
    for record in records:
        if note := record.tasks[task].note:
            found.setdefault(note, []).append(record.method)
    return {
        note: "" if len(methods) == len(records) else f" ({_join(dict.fromkeys(methods))})"
        for note, methods in found.items()
    }


def _ungraded(summary: Summary, task: str) -> str:
    """Return how many answers of all cells the judge graded in no readable way, in parentheses; empty for none."""
    counts = {
        words: sum(int(record.diagnostics.get(f"{task}/judge {event}", 0)) for record in _records(summary))
        for event, words in (("unparsable", "unreadable"), ("failed", "refused"))
    }
    found = [f"{count} {words}" for words, count in counts.items() if count]
    return f" (replies: {', '.join(found)})" if found else ""


def _mean_of(summary: Summary) -> str:
    """Return what K.R is the mean of, in a sentence."""
    names = [outcomes(summary)[task].metric for task in summary.benchmarks]
    if {*names} == {*PAPER}:
        return "K.R is the mean of the paper's twelve benchmarks."
    if {*names} < {*PAPER}:
        return f"K.R is the mean of {len(names)} of the paper's twelve benchmarks: {_join(names)}."
    return f"K.R is the mean of {_join(names)}."


def _records(summary: Summary) -> list[Record]:
    return [record for row in summary.rows for record in row.done]


def _join(names: Iterable[str]) -> str:
    parts = list(names)
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)

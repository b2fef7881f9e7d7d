"""The reading in words: who learned, who forgot, at what cost; it claims no more than the figures carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kore_bench.measures import Score
from kore_bench.results import RunFolder

from .cost_table import amount
from .summary import DIMENSIONS, Row, Summary, apart, paired, pareto
from .tabular import interval, shorten, signed

_CONTROLS = (("kore-null", "frozen-random"), ("kore-null", "frozen-top"))

DEFINITIONS = (
    ("CEM", "cover exact match: 1 where the normalised gold answer stands in the normalised prediction between word "
     "boundaries, else 0. CEM repaired strips outer quotation marks and edge punctuation first; K.A uses the official one."),
    ("F1", "harmonic mean of precision and recall over the words of prediction and gold answer (SQuAD)."),
    ("K.A", "adaptation: (CEM + F1) / 2 over all questions about the injected items, asked on images and in words that "
     "were not trained on."),
    ("K.R", "retention: the plain mean of the seven dimensions COM, OCR, M-DIS, INS, M-IDU, MAT, HAL (the KORE paper "
     "averages 12 benchmarks instead). K.R calibrated and K.R held-out are the means over the skills whose old samples "
     "methods could read under that seed, and over the others."),
    ("old-facts", "(CEM + F1) / 2 on facts that the base knew before; no part of K.R."),
    ("Avg", "(K.A + K.R) / 2. Its interval with one seed adds the half-widths of K.A and K.R in quadrature."),
    ("HARS", "2 fA fR / (fA + fR) with fA = 100 GA / (GA + 100) and fR = GR + 100, where GA and GR are the relative gains "
     "of K.A and K.R over the base in percent; not given where K.A did not gain."),
    ("Intervals", "95 %. With one seed a bootstrap over entities (K.A) or questions (retention); with several, Student's "
     "t over the seeds' figures, which says nothing about other questions. Changes against the base are also paired on "
     "the same questions."),
    ("in-context", "the base with the item's paragraph in the prompt: what reading gives, a ceiling and not a method."),
)  # fmt: skip
"""What each measure means, for the end of a report."""


def reading(run: RunFolder, summary: Summary) -> list[str]:
    """Return the reading of one model's rows as paragraphs."""
    rows = [row for row in summary.trained if {"K.A", "K.R"} <= row.scores.keys()]
    if not rows:
        return ["No trained method finished with both adaptation and retention: there is nothing to compare."]
    base = summary.base
    against = {row.method: paired(run, row, base) for row in rows} if base else {}
    parts = [
        _learned(summary, rows, against),
        _forgot(summary, rows, against),
        _both(summary, rows),
        *_controls(run, rows),
        _cost(rows),
    ]
    return [part for part in parts if part]


def caution(summary: Summary) -> str:
    """Return what the number of seeds allows to be said."""
    if len(summary.seeds) > 1:
        return (
            f"Figures are means over {len(summary.seeds)} seeds with intervals over seeds. Where intervals overlap, this "
            "run does not tell the methods apart."
        )
    return (
        "One seed: every difference between methods includes the luck of a single training, which the intervals (a "
        "bootstrap over questions) do not show. The figures are in no order of merit: no ranking is claimed."
    )


def troubles(summary: Summary) -> list[str]:
    """Return one line for each method of which a cell failed or was skipped."""
    return [f"{row.method}: {row.status} – {shorten(row.reason, 300)}" for row in summary.failed]


def _learned(summary: Summary, rows: Sequence[Row], against: Mapping[str, Mapping[str, Score]]) -> str:
    text = "Who learned. "
    if summary.base and "K.A" in summary.base.scores:
        text += f"The base scores K.A {_value(summary.base, 'K.A')} on the new facts"
        ceiling = summary.ceiling
        known = ceiling is not None and "K.A" in ceiling.scores
        text += f"; with the paragraph in the prompt {_value(ceiling, 'K.A')}. " if ceiling and known else ". "
    text += ". ".join(f"{kind}: {_list(group, 'K.A')}" for kind, group in _kinds(rows)) + "."
    without = [row.method for row in rows if "K.A" in against.get(row.method, {}) and against[row.method]["K.A"].low <= 0]
    return text + (f" No clear gain over the base on the same questions: {_join(without)}." if without else "")


def _forgot(summary: Summary, rows: Sequence[Row], against: Mapping[str, Mapping[str, Score]]) -> str:
    base = summary.base
    if base is None or "K.R" not in base.scores:
        return f"Who forgot. K.R, without a base to compare with: {_list(rows, 'K.R')}."
    text = f"Who forgot. From the base's K.R of {_value(base, 'K.R')}: "
    text += ". ".join(
        f"{kind}: " + _join([f"{row.method} {signed(row.change['K.R'])}" for row in group]) for kind, group in _kinds(rows)
    )
    kept = [row.method for row in rows if "K.R" in against.get(row.method, {}) and against[row.method]["K.R"].high >= 0]
    text += f". No clear loss on the same questions: {_join(kept)}." if kept else "."
    means = {
        name: sum(changes) / len(changes)
        for name in DIMENSIONS
        if (changes := [row.change[name] for row in rows if name in row.change])
    }
    if means:
        worst = min(means, key=lambda name: means[name])
        text += f" The dimension that lost most, mean over these methods, is {worst} ({signed(means[worst])})."
    readers = [row for row in rows if row.cost.old_samples and {"K.R calibrated", "K.R held-out"} <= row.change.keys()]
    if readers:
        text += " Methods that read old samples, on skills that they could read and on the others: " + _join(
            [f"{row.method} {signed(row.change['K.R calibrated'])} and {signed(row.change['K.R held-out'])}" for row in readers]
        )
        text += "."
    return text


def _both(summary: Summary, rows: Sequence[Row]) -> str:
    text = "Both at once. On the Pareto front of K.A and K.R (point estimates) "
    front = pareto(rows)
    text += f"stand{'s' if len(front) == 1 else ''} {_join([row.method for row in front])}."
    for kind, group in _kinds(rows):
        if len(group) < 2:
            continue
        best = max(group, key=lambda row: row.scores["Avg"].value)
        level = [row.method for row in group if row is not best and not apart(row.scores["Avg"], best.scores["Avg"])]
        text += f" {kind}, the highest Avg is {best.method}'s, {_value(best, 'Avg')}"
        text += f"; its interval overlaps those of {_join(level)}." if level else "; its interval overlaps no other's."
    return text + ("" if len(summary.seeds) > 1 else " With one seed this is a description, not a ranking.")


def _controls(run: RunFolder, rows: Sequence[Row]) -> list[str]:
    known = {row.method: row for row in rows}
    lines = []
    for method, control in _CONTROLS:
        if method in known and control in known and (found := paired(run, known[method], known[control])):
            lines.append(
                f"{method} minus its control {control}: "
                + _join([f"{name} {signed(found[name].value)} ({_signed_interval(found[name])})" for name in ("K.A", "K.R") if name in found])
            )
    if not lines:
        return []
    return [
        "What the null space adds. On the same questions, in points with paired 95 % intervals: " + "; ".join(lines) + "."
    ]


def _cost(rows: Sequence[Row]) -> str:
    def span(values: Mapping[str, float], show: str) -> str:
        low, high = min(values, key=lambda name: values[name]), max(values, key=lambda name: values[name])
        if values[low] == values[high]:
            return f"{_show(values[low], show)} for every method"
        return f"from {_show(values[low], show)} ({low}) to {_show(values[high], show)} ({high})"

    parameters = {row.method: float(row.cost.trainable_parameters) for row in rows}
    seconds = {row.method: sum(row.cost.seconds.values()) for row in rows}
    text = f"At what cost. Trainable parameters go {span(parameters, 'amount')}, seconds a cell {span(seconds, 'seconds')}."
    readers = {row.method: row.cost.old_samples for row in rows if row.cost.old_samples}
    without = [row.method for row in rows if not row.cost.old_samples]
    if readers:
        text += " Old samples read: " + _join([f"{name} {count}" for name, count in readers.items()])
        text += f"; none by {_join(without)}." if without else "."
    return text


def _show(value: float, kind: str) -> str:
    return amount(round(value)) if kind == "amount" else f"{value:.1f} s"


def _kinds(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows by kind of training data, as ``On plain data``: unlike rows are not compared."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"On {row.training_data} data", []).append(row)
    return list(groups.items())


def _list(rows: Sequence[Row], measure: str) -> str:
    return _join([f"{row.method} {_value(row, measure)}" for row in rows])


def _value(row: Row, measure: str) -> str:
    score = row.scores[measure]
    return f"{score.value:.1f} ({interval(score)})"


def _signed_interval(score: Score) -> str:
    return f"{signed(score.low)} to {signed(score.high)}"


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

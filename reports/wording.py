"""The reading in words: who learned, who forgot, at what cost; it claims no more than the figures carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kore_bench.measures import Score

from .cost_table import amount
from .summary import DIMENSIONS, Row, Summary, apart, paired, pareto
from .tabular import interval, shorten, signed

_CONTROLS = (("kore-null", "frozen-random"), ("kore-null", "frozen-top"))

DEFINITIONS = {
    "CEM": (
        "cover exact match: 1 where the normalised gold answer stands in the normalised prediction between "
        "word boundaries, else 0. CEM repaired strips outer quotation marks and edge punctuation first; K.A "
        "uses the official one."
    ),
    "F1": ("harmonic mean of precision and recall over the words of prediction and gold answer (SQuAD)."),
    "K.A": (
        "adaptation: (CEM + F1) / 2 over all questions about the injected items, asked on images and in words "
        "that were not trained on."
    ),
    "K.R": (
        "retention: the plain mean of the benchmarks that were scored (the KORE paper: of 12), or where the data bring a "
        "retention task of their own, of its dimensions among COM, OCR, M-DIS, INS, M-IDU, MAT, HAL. K.R without judge leaves "
        "out the benchmarks that a language model graded. K.R calibrated and K.R held-out are the means over the skills "
        "whose old samples methods could read under that seed, and over the others."
    ),
    "old-facts": "(CEM + F1) / 2 on facts that the base knew before; no part of K.R.",
    "Avg": ("(K.A + K.R) / 2. Its interval with one seed adds the half-widths of K.A and K.R in quadrature."),
    "HARS": (
        "2 fA fR / (fA + fR) with fA = 100 GA / (GA + 100) and fR = GR + 100, where GA and GR are the "
        "relative gains of K.A and K.R over the base in percent; not given where K.A did not gain; over several seeds it is that of the mean K.A and K.R."
    ),
    "Intervals": (
        "95 %. With one seed a bootstrap over entities (K.A) or questions (retention); with several, "
        "Student's t over the seeds' figures, which says nothing about other questions. Changes against the "
        "base are also paired on the same questions."
    ),
    "in-context": ("the base with the item's paragraph in the prompt: what reading gives, a ceiling and not a method."),
}
"""What each measure means, for the end of a report."""


def reading(summary: Summary) -> list[str]:
    """Return the reading of one model's rows as paragraphs."""
    rows = [row for row in summary.trained if {"K.A", "K.R"} <= row.scores.keys()]
    if not rows:
        return ["No trained method finished with both adaptation and retention: there is nothing to compare."]
    parts = [
        _learned(summary, rows),
        _forgot(summary, rows),
        *_old_facts(summary, rows),
        *_seen(rows),
        _both(rows),
    ]
    return [*parts, *_controls(rows), _cost(rows)]


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
    return [f"{row.method}: {row.status}: {shorten(row.reason, 300)}" for row in summary.failed]


def _learned(summary: Summary, rows: Sequence[Row]) -> str:
    text = "Who learned. "
    if summary.base and "K.A" in summary.base.scores:
        text += f"On the new facts the base scores K.A {_value(summary.base, 'K.A')}"
        if summary.ceiling and "K.A" in summary.ceiling.scores:
            text += f", and {_value(summary.ceiling, 'K.A')} with the item's paragraph in the prompt"
        text += ". "
    text += _by_kind(rows, lambda row: f"{row.scores['K.A'].value:.1f}")
    without = [row.method for row in rows if "K.A" in row.against_base and row.against_base["K.A"].low <= 0]
    return text + (f" No clear gain over the base on the same questions: {_join(without)}." if without else "")


def _forgot(summary: Summary, rows: Sequence[Row]) -> str:
    base = summary.base
    if base is None or "K.R" not in base.scores:
        return "Who forgot. There is no base to compare K.R with. " + _by_kind(
            rows, lambda row: f"{row.scores['K.R'].value:.1f}"
        )
    text = f"Who forgot. K.R of the base is {_value(base, 'K.R')}; the changes, in points: "
    text += _by_kind(rows, lambda row: signed(row.change["K.R"]))
    kept = [row.method for row in rows if "K.R" in row.against_base and row.against_base["K.R"].high >= 0]
    text += f" No clear loss on the same questions: {_join(kept)}." if kept else ""
    means = {
        name: sum(changes) / len(changes)
        for name in DIMENSIONS
        if (changes := [row.change[name] for row in rows if name in row.change])
    }
    if means:
        worst = min(means, key=lambda name: means[name])
        text += f" The largest loss, mean over these methods, is in {worst} ({signed(means[worst])})."
    return text


def _old_facts(summary: Summary, rows: Sequence[Row]) -> list[str]:
    rows = [row for row in rows if "old-facts" in row.change]
    if not rows or summary.base is None:
        return []
    text = f"Old facts. On facts that it knew before (no part of K.R) the base scores {_value(summary.base, 'old-facts')}; "
    return [f"{text}the changes, in points: {_by_kind(rows, lambda row: signed(row.change['old-facts']))}"]


def _seen(rows: Sequence[Row]) -> list[str]:
    """Say whether protection reaches beyond the skills that were seen; methods that saw none show what is usual."""
    rows = [row for row in rows if {"K.R calibrated", "K.R held-out"} <= row.change.keys()]
    readers, others = [row for row in rows if row.cost.old_samples], [row for row in rows if not row.cost.old_samples]
    if not readers:
        return []

    def both(group: Sequence[Row]) -> str:
        return _join(
            [
                f"{row.method} {signed(row.change['K.R calibrated'])} / {signed(row.change['K.R held-out'])}"
                for row in group
            ]
        )

    text = f"Seen and unseen skills. Change of K.R on the skills of the old samples / on the others: {both(readers)}."
    return [text + (f" Methods that read no old samples, for comparison: {both(others)}." if others else "")]


def _both(rows: Sequence[Row]) -> str:
    if any(len(row.seeds) < 2 for row in rows):
        return "Both at once. No method is put before another: it takes several seeds of each."
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
    return text


def _controls(rows: Sequence[Row]) -> list[str]:
    known = {row.method: row for row in rows}
    lines = []
    for method, control in _CONTROLS:
        if method in known and control in known and (found := paired(known[method], known[control])):
            lines.append(
                f"{method} minus its control {control}: "
                + _join(
                    [
                        f"{name} {signed(found[name].value)} ({_signed_interval(found[name])})"
                        for name in ("K.A", "K.R")
                        if name in found
                    ]
                )
            )
    if not lines:
        return []
    return [
        "What the null space adds. In points, on the same questions, with paired 95 % intervals over questions: "
        + "; ".join(lines)
        + "."
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
    readers: dict[int, list[str]] = {}
    for row in rows:
        if row.cost.old_samples:
            readers.setdefault(row.cost.old_samples, []).append(row.method)
    words = _join([f"{count} by {_join(names)}" for count, names in sorted(readers.items())])
    if not readers:
        return f"{text} No method read old samples."
    all_read = all(row.cost.old_samples for row in rows)
    return f"{text} Old samples were read: {words}" + ("." if all_read else "; the others read none.")


def _show(value: float, kind: str) -> str:
    return amount(round(value)) if kind == "amount" else f"{value:.1f} s"


def _kinds(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows by kind of training data, as ``On plain data``: unlike rows are not compared."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"On {row.training_data} data", []).append(row)
    return list(groups.items())


def _by_kind(rows: Sequence[Row], show: Callable[[Row], str]) -> str:
    return " ".join(f"{kind}: {_join([f'{row.method} {show(row)}' for row in group])}." for kind, group in _kinds(rows))


def _value(row: Row, measure: str) -> str:
    score = row.scores[measure]
    return f"{score.value:.1f} ({interval(score)})"


def _signed_interval(score: Score) -> str:
    return f"{signed(score.low)} to {signed(score.high)}"


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

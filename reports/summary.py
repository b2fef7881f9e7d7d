"""What the records say, one row a method over its seeds: means, spreads, intervals, changes, costs; no drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from kore_bench.benchmarks import comparable, scored, shared
from kore_bench.measures import Score, avg, bootstrap_mean_of_means, hars, kr, over_seeds, paired_difference
from kore_bench.results import Cost, Record, RunFolder

from .answers import State, answers_of, state_of

DIMENSIONS = ("COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL")
"""The seven retention dimensions, in the paper's order."""

BENCHMARKS = {
    "COM": ("MME", "MMBench"),
    "OCR": ("SEEDBench2-Plus", "OCRVQA"),
    "M-DIS": ("ScienceQA", "MMMU"),
    "INS": ("MIA-Bench",),
    "M-IDU": ("MMDU",),
    "MAT": ("MathVista", "MathVision"),
    "HAL": ("POPE", "HallusionBench"),
}
"""Dimension -> the paper's benchmarks of it; a task may give scores of these names."""

TASKS = {
    **dict.fromkeys(("K.A", "CEM", "F1", "CEM repaired", "unreachable", "K.A asked", "K.A text only"), "adaptation"),
    **dict.fromkeys(("K.R calibrated", "K.R held-out", "K.R tolerant"), "retention"),
    "old-facts": "old-facts",
    **dict.fromkeys(("paraphrase", "in every wording"), "paraphrase"),
    **dict.fromkeys(("portability", "portability by-name", "portability naming", "portability hop"), "portability"),
    **dict.fromkeys(("image-necessity", "right image", "swapped image", "blank image"), "image-necessity"),
    **dict.fromkeys(("spill-over", "spill-over of any value"), "spill-over"),
    **{f"{name} {kind}": "retention" for name in DIMENSIONS for kind in ("chance", "tolerant")},
    **{
        f"{name} by likelihood{chance}": "likelihood"
        for name in ("K.R", *DIMENSIONS, "old-facts")
        for chance in ("", " chance")
    },
}
"""Which task gives which measure of a summary, where several have one of the name; K.R is the benchmarks', if any."""

MEASURES = (
    "K.A",
    "CEM",
    "F1",
    "CEM repaired",
    "K.A asked",
    "K.A text only",
    "K.R",
    "K.R without judge",
    "K.R calibrated",
    "K.R held-out",
    "K.R tolerant",
    "Avg",
    "K.R by likelihood",
    "old-facts",
    "old-facts by likelihood",
    *DIMENSIONS,
    "paraphrase",
    "in every wording",
    "portability",
    "portability by-name",
    "portability naming",
    "portability hop",
    "image-necessity",
    "right image",
    "swapped image",
    "blank image",
    "spill-over",
    "spill-over of any value",
)
"""Every measure that a summary holds where the records give it; Avg is computed here."""

_PHASES = ("load", "data", "measure", "adapt", "train", "save", "evaluate", "recover")


@dataclass(frozen=True)
class Row:
    """One method on one model: its records, those that are ``done`` and those that are not (both by seed)."""

    run: RunFolder
    model: str
    method: str
    done: tuple[Record, ...]
    missing: tuple[Record, ...]
    base: Row | None

    @property
    def any_record(self) -> Record:
        """The first record, a finished one where there is one."""
        return (self.done + self.missing)[0]

    @property
    def reference(self) -> bool:
        """Whether nothing was trained (the base, the in-context ceiling)."""
        return self.any_record.reference

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that finished."""
        return tuple(record.seed for record in self.done)

    @property
    def status(self) -> str:
        """``done``, ``failed``, ``skipped``, or how many of the seeds are done; never empty."""
        if not self.missing:
            return "done"
        if self.done:
            return f"{len(self.done)} of {len(self.done) + len(self.missing)} seeds done"
        return self.missing[0].status

    @property
    def reason(self) -> str:
        """Why cells are missing, or tasks in finished ones, each reason once."""
        reasons = [record.reason or record.status for record in self.missing]
        return "; ".join(dict.fromkeys([*reasons, *(record.shortfall for record in self.done if record.shortfall)]))

    @property
    def training_data(self) -> str:
        """``plain`` or ``augmented`` (empty where nothing was trained): losses and scores compare within one kind."""
        components = self.any_record.settings.get("components", {})
        kind = "augmented" if any("augment" in name for name in components) else "plain"
        return kind if components else ""

    @property
    def tuned(self) -> str:
        """Where the learning rate came from (empty for references)."""
        return "" if self.reference else self.any_record.tuned

    @property
    def learning_rate(self) -> float | None:
        """The learning rate, None for references."""
        rate = self.any_record.settings.get("train", {}).get("learning_rate")
        return None if rate is None else float(rate)

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Measure -> mean over seeds with a 95 % interval.

        The interval is Student's t over seeds. Where there is one seed, or every seed gave the same figure (nothing
        was repeated, as for the base), it is the cell's own bootstrap interval.
        """
        headlines = (outcome.metric for record in self.done for outcome in record.tasks.values())
        names = dict.fromkeys([*MEASURES, *(name for names in BENCHMARKS.values() for name in names), *headlines])
        return {name: _mean(found) for name in names if (found := self.over(name))}

    @cached_property
    def spread(self) -> dict[str, float]:
        """Measure -> sample standard deviation over seeds; holds no measure that was not repeated."""
        found = {name: _repeated(self.over(name)) for name in self.scores}
        return {name: spread for name, spread in found.items() if spread is not None}

    def over(self, measure: str) -> list[Score]:
        """Return the scores of ``measure``, one a finished seed that has it."""
        found = (score_of(record, measure) for record in self.done)
        return [score for score in found if score is not None]

    @cached_property
    def change(self) -> dict[str, float]:
        """Measure -> mean over seeds of the difference to the base, in points.

        For ``K.R calibrated`` and ``K.R held-out`` the base is taken on the same seed's skills, which rotate.
        """
        if self.base is None or self.method == self.base.method:
            return {}
        changes = {
            name: [
                score.value - start
                for record in self.done
                if (score := score_of(record, name)) is not None
                and (start := self.base.start(record, name)) is not None
            ]
            for name in self.scores
        }
        return {name: over_seeds(values).mean for name, values in changes.items() if values}

    @cached_property
    def against_base(self) -> dict[str, Score]:
        """Measure -> difference to the base on the same questions (see `paired`); empty for references."""
        return {} if self.base is None or self.reference else paired(self, self.base)

    @property
    def clear(self) -> set[str]:
        """The measures in which the row differs from its base beyond the sampling of questions."""
        return {name for name, score in self.against_base.items() if score.low > 0 or score.high < 0}

    @cached_property
    def correct(self) -> dict[str, NDArray[np.float64]]:
        """Task -> how right the answers to each question are (0 to 1, NaN where there is none), mean over the seeds.

        The questions stand in the order of `answers_of` for the row's run and model.
        """
        cells = [self.run.name_of(record) for record in self.done]
        return {task: answers.mean(cells) for task, answers in answers_of(self.run, self.model).items()}

    def start(self, record: Record, measure: str) -> float | None:
        """Return what this row, the base, scores on ``measure`` for comparison with ``record``."""
        if measure in ("K.R calibrated", "K.R held-out"):
            seen = set(old_skills(record))
            skills = [name for name in DIMENSIONS if (name in seen) == (measure == "K.R calibrated")]
            known = [self.scores[name].value for name in skills if name in self.scores]
            return kr(known) if seen and known and len(known) == len(skills) else None
        return self.scores[measure].value if measure in self.scores else None

    @cached_property
    def hars(self) -> float | None:
        """HARS of the mean K.A and K.R against the base's, None where it has no meaning (then see `hars_note`)."""
        if self.hars_note not in ("", "n/a: no gain"):
            return None
        assert self.base is not None
        ours, theirs = self.scores, self.base.scores
        return hars(ours["K.A"].value, ours["K.R"].value, theirs["K.A"].value, theirs["K.R"].value)

    @property
    def hars_note(self) -> str:
        """Why HARS is not given, in words; empty where it is."""
        if self.reference:
            return "reference"
        if not {"K.A", "K.R"} <= self.scores.keys():
            return "n/a: not measured"
        if self.base is None or not {"K.A", "K.R"} <= self.base.scores.keys():
            return "n/a: no base"
        if self.base.scores["K.A"].value == 0:
            return "n/a: base K.A is 0"
        return "n/a: no gain" if self.scores["K.A"].value <= self.base.scores["K.A"].value else ""

    @cached_property
    def cost(self) -> Cost:
        """The cost, mean over the finished seeds (peak memory: the largest)."""
        costs = [record.cost for record in self.done]
        phases = in_order(phase for cost in costs for phase in cost.seconds)
        counts = ("trainable_parameters", "total_parameters", "examples", "samples", "steps", "tokens", "old_samples")
        return Cost(
            **{name: round(over_seeds([getattr(cost, name) for cost in costs]).mean) for name in counts},
            seconds={phase: over_seeds([cost.seconds.get(phase, 0.0) for cost in costs]).mean for phase in phases},
            peak_memory=max(cost.peak_memory for cost in costs),
        )


@dataclass(frozen=True)
class Summary:
    """All rows of one model, in the plan's order, and its base where the run has one."""

    model: str
    rows: tuple[Row, ...]

    @property
    def benchmarks(self) -> list[str]:
        """The tasks whose headline figures make K.R, in the paper's order; none where the data's own task gives it."""
        records = [record for row in self.rows for record in row.done]
        metrics = {name: outcome.metric for record in records for name, outcome in record.tasks.items()}
        order = [name for names in BENCHMARKS.values() for name in names]
        places = {name: order.index(metric) if metric in order else len(order) for name, metric in metrics.items()}
        return sorted(shared(records), key=lambda name: (places[name], name))

    @property
    def base(self) -> Row | None:
        """The untouched model's row, where it finished."""
        return next((row for row in self.rows if row.method == "base" and row.done), None)

    @property
    def ceiling(self) -> Row | None:
        """The in-context row, where it finished."""
        return next((row for row in self.rows if row.method == "in-context" and row.done), None)

    @property
    def trained(self) -> tuple[Row, ...]:
        """The rows that trained something and finished on some seed."""
        return tuple(row for row in self.rows if not row.reference and row.done)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of which some cell failed or was skipped."""
        return tuple(row for row in self.rows if row.missing)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that some row finished."""
        return tuple(sorted({seed for row in self.rows for seed in row.seeds}))


def summarise(run: RunFolder) -> list[Summary]:
    """Return one summary a model, models and methods in the plan's order; reports of one state of a run share them."""
    return list(_summaries(run, state_of(run)))


@lru_cache(maxsize=1)
def _summaries(run: RunFolder, state: State) -> tuple[Summary, ...]:
    records = run.records()
    models = dict.fromkeys(record.model for record in records)
    groups = {model: [record for record in records if record.model == model] for model in models}
    return tuple(_summary(run, model, comparable(group)) for model, group in groups.items())


def unfinished(run: RunFolder) -> list[str]:
    """Return the cells of the plan that have left no record: not run yet, or interrupted."""
    return [str(name) for name in run.plan()["cells"] if run.read(name) is None]


def apart(one: Score, other: Score) -> bool:
    """Return whether the two intervals do not overlap: a cautious sign of a difference, not a test."""
    return one.low > other.high or one.high < other.low


def paired(one: Row, other: Row) -> dict[str, Score]:
    """Return ``one`` minus ``other`` in K.A, K.R and each dimension, on the same questions, with 95 % intervals.

    The intervals are bootstraps over entities (K.A) and questions (retention) of the answers' means over seeds: they
    say what other questions would give, not what other seeds would. Holds no measure whose predictions are not there.
    """
    found: dict[str, Score] = {}
    facts, groups, _ = _differences(one, other, "adaptation")
    if len(facts):
        found["K.A"] = paired_difference(facts.tolist(), [0.0] * len(facts), groups.tolist())
    if any(scored(record.tasks) for record in one.done):
        return found  # K.R is the benchmarks', whose headline figures are no means over questions
    retained, _, types = _differences(one, other, "retention")
    parts = {name: part for name in DIMENSIONS if len(part := retained[types == name])}
    if parts:
        found["K.R"] = bootstrap_mean_of_means(parts)
    return found | {name: bootstrap_mean_of_means({name: part}) for name, part in parts.items()}


def _differences(one: Row, other: Row, task: str) -> tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.str_]]:
    """Return ``one`` minus ``other`` on the questions that both answered, with the questions' groups and types."""
    nothing = np.array([], dtype=np.str_)
    if task not in one.correct or task not in other.correct:
        return np.array([]), nothing, nothing
    difference = one.correct[task] - other.correct[task]
    kept = ~np.isnan(difference)
    answers = answers_of(one.run, one.model)[task]
    return difference[kept], answers.groups[kept], answers.types[kept]


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other row beats on both K.A and K.R, by rising K.A (point estimates)."""
    points = [(row.scores["K.A"].value, row.scores["K.R"].value, row) for row in rows if _measured(row)]
    front = [
        (ka, kr, row)
        for ka, kr, row in points
        if not any(a >= ka and r >= kr and (a, r) != (ka, kr) for a, r, _ in points)
    ]
    return [row for _, _, row in sorted(front, key=lambda point: (point[0], point[1], point[2].method))]


def in_order(phases: Iterable[str]) -> list[str]:
    """Return the phases of cells, each once, in the order in which they happen; unknown ones stand last, by name."""
    return sorted(set(phases), key=lambda phase: (_PHASES.index(phase) if phase in _PHASES else len(_PHASES), phase))


def score_of(record: Record, measure: str) -> Score | None:
    """Return a record's score of ``measure``, from the task that gives it; None where it was not measured."""
    if measure == "Avg":
        return _avg(record)
    return record.scores.get(TASKS[measure], {}).get(measure) if measure in TASKS else record.score(measure)


def old_skills(record: Record) -> list[str]:
    """Return the skills whose old samples methods could read under the record's seed, in the paper's order."""
    found = record.data.get("old skills", ())
    return [name for name in DIMENSIONS if name in found] + sorted(set(found) - set(DIMENSIONS))


def _summary(run: RunFolder, model: str, records: Sequence[Record]) -> Summary:
    methods = dict.fromkeys(record.method for record in records)
    untouched = _row(run, model, "base", records, None)
    base = untouched if untouched.done else None
    return Summary(model, tuple(_row(run, model, method, records, base) for method in methods))


def _row(run: RunFolder, model: str, method: str, records: Sequence[Record], base: Row | None) -> Row:
    own = sorted((record for record in records if record.method == method), key=lambda record: record.seed)
    done = tuple(record for record in own if record.status == "done")
    return Row(run, model, method, done, tuple(record for record in own if record.status != "done"), base)


def _measured(row: Row) -> bool:
    return {"K.A", "K.R"} <= row.scores.keys()


def _avg(record: Record) -> Score | None:
    """Return Avg; its half-widths are those of K.A and K.R, which share no question, added in quadrature."""
    ka, kr = score_of(record, "K.A"), score_of(record, "K.R")
    if ka is None or kr is None:
        return None
    value = avg(ka.value, kr.value)
    down = math.hypot(ka.value - ka.low, kr.value - kr.low) / 2
    up = math.hypot(ka.high - ka.value, kr.high - kr.value) / 2
    return Score(value=value, low=value - down, high=value + up, n=ka.n + kr.n)


def _repeated(scores: Sequence[Score]) -> float | None:
    """Return the standard deviation over seeds, None where one seed or equal figures (the base's) repeat nothing."""
    values = [score.value for score in scores]
    return over_seeds(values).deviation if max(values) - min(values) > 1e-9 else None


def _mean(scores: Sequence[Score]) -> Score:
    mean, deviation = over_seeds([score.value for score in scores]).mean, _repeated(scores)
    if deviation is None:
        return scores[0]
    half = float(stdtrit(len(scores) - 1, 0.975)) * deviation / math.sqrt(len(scores))
    rising = scores[0].higher_is_better
    ceiling = 100.0 if rising else math.inf  # a perplexity has none
    low, high = max(0.0, mean - half), min(ceiling, mean + half)
    return Score(value=mean, low=low, high=high, n=scores[0].n, higher_is_better=rising)

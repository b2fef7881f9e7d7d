"""What lm-eval found made into scores, the headline figure first, and into rows of the predictions file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kore_bench.measures import Score

_SHARES = ("acc_norm", "acc", "exact_match", "f1", "mc2", "mc1")
"""lm-eval's metrics from 0 to 1, given in percent; the first that a task has is its headline figure."""
_SHARES_BY_END = ("_acc", "accuracy", "_em", "exact_match")
"""How metrics of a task's own that are from 0 to 1 are called, such as ChartQA's relaxed_accuracy."""
_DEVIATIONS = 1.96  # of a normal distribution, on either side of its mean: 95 %


def to_scores(results: Mapping[str, Any], samples: int, higher: Mapping[str, Any]) -> tuple[dict[str, Score], str]:
    """Return lm-eval's figures of one task by ``metric`` or ``metric filter``, and the headline figure's name.

    ``higher`` says of each metric whether higher is better. Shares become percentages; the interval is 1.96 of lm-eval's
    standard errors to either side, or the figure alone where it has none. Raises ValueError where there is no figure.
    """
    scores: dict[str, Score] = {}
    for name, value in results.items():
        metric, comma, kept = name.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        error = results.get(f"{metric}_stderr,{kept}", 0.0)
        scale = 100.0 if is_share(metric) else 1.0
        spread = 0.0 if isinstance(error, str) else scale * _DEVIATIONS * float(error)
        centre = scale * float(value)
        label = metric if kept == "none" else f"{metric} {kept}"
        scores[label] = Score(
            value=centre, low=centre - spread, high=centre + spread, n=samples,
            higher_is_better=higher.get(metric) is not False,
        )  # fmt: skip
    if not scores:
        raise ValueError("lm-eval gives no figure for this task")
    headline = next((name for share in _SHARES for name in scores if name.split()[0] == share), next(iter(scores)))
    return {headline: scores.pop(headline), **scores}, headline


def is_share(metric: str) -> bool:
    """Return whether a metric of this name is from 0 to 1, so that it is given in percent."""
    return metric in _SHARES or metric.endswith(_SHARES_BY_END)


def to_rows(samples: Mapping[str, Sequence[Mapping[str, Any]]], headline: str) -> Iterator[dict[str, Any]]:
    """Yield a row of the predictions file for each sample that has a right answer, by the headline figure.

    ``samples`` are lm-eval's, by the task within the group. Pictures are lm-eval's own: rows name none.
    """
    metric, _, kept = headline.partition(" ")
    for task, sample in ((task, sample) for task, part in samples.items() for sample in part):
        if is_share(metric) and metric in sample and sample["filter"] == (kept or "none"):
            prediction, answer = _answered(sample, metric)
            yield {
                "id": f"{task}-{sample['doc_id']}", "images": [], "text": str(sample["arguments"][0][0]),
                "answer": answer, "prediction": prediction, "correct": float(sample[metric]),
                "type": "", "kind": "", "group": "",
            }  # fmt: skip


def _answered(sample: Mapping[str, Any], metric: str) -> tuple[str, str]:
    """Return what was answered and the right answer; of a multiple choice the continuations, not their numbers."""
    found, target = sample["filtered_resps"], sample["target"]
    if isinstance(found[0], str):
        return found[0], str(target)
    choices = [arguments[1] for arguments in sample["arguments"]]
    lengths = [len(choice.strip()) if metric == "acc_norm" else 1 for choice in choices]
    likely = max(range(len(found)), key=lambda index: found[index][0] / lengths[index])
    right = choices[target] if isinstance(target, int) else str(target)
    return choices[likely].strip(), right.strip()

"""lm-eval: any task of EleutherAI's lm-evaluation-harness on the text side, as ``lm-eval:NAME``: forgotten language."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import importlib.util
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from kore_bench.cache import digest
from kore_bench.errors import UserError
from kore_bench.examples import Knowledge
from kore_bench.measures import Score
from kore_bench.mini import LM_EVAL_TASKS
from kore_bench.task import Card, Evaluation, TaskFamily, ToolkitTask

_SHARES = ("acc_norm", "acc", "exact_match", "f1", "mc2", "mc1")
"""lm-eval's metrics from 0 to 1, given in percent; the first that a task has is its headline figure."""
_DEVIATIONS = 1.96  # of a normal distribution, on either side of its mean: 95 %


@dataclass(frozen=True, kw_only=True)
class LmEval(ToolkitTask):
    """One task of lm-eval, asked of the loaded model in words alone.

    ``path`` is a folder of task files (YAML) of one's own, ``limit`` the number of samples (0: all), ``fewshot`` the
    number of worked examples before each (-1: as the task says).
    """

    settable: ClassVar[tuple[str, ...]] = ("path", "limit", "fewshot")
    path: str = ""
    limit: int = 0
    fewshot: int = -1

    @property
    def name(self) -> str:
        """Return the task's name in lm-eval."""
        return self.card.name.partition(":")[2]

    def key(self) -> dict[str, Any]:
        """Return the settings, lm-eval's version and a digest of the task files of one's own."""
        files = [file for file in sorted(Path(self.path).rglob("*")) if file.is_file()] if self.path else []
        return super().key() | {
            "lm-eval": importlib.metadata.version("lm-eval"),
            "files": digest([[file.name, file.read_bytes().hex()] for file in files]),
        }

    def skip(self, knowledge: Knowledge) -> None:
        """Check the name and the settings; raises UserError with the nearest names where lm-eval has no such task."""
        if self.path and not Path(self.path).is_dir():
            raise UserError(f"--set lm-eval.path={self.path}: there is no such folder")
        if self.limit < 0:
            raise UserError(f"--set lm-eval.limit={self.limit} must be at least 0")
        manager(self.name, self.path)

    def evaluate(self, model: Any, answers: Path, progress: Callable[[int, int], None]) -> Evaluation:
        """Run the task; answers are kept in ``answers`` as they come, so that a stopped evaluation goes on."""
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with _quiet():
            lm = HFLM(
                pretrained=model.model, tokenizer=model.tokenizer, backend="causal",
                batch_size=model.card.evaluation_batch_size, max_length=model.chat.max_length,
            )  # fmt: skip
            found = simple_evaluate(
                model=lm, tasks=[self.name], task_manager=manager(self.name, self.path), use_cache=str(answers),
                limit=self.limit or None, num_fewshot=None if self.fewshot < 0 else self.fewshot, bootstrap_iters=1000,
            )  # fmt: skip
        samples = [sample for part in found["samples"].values() for sample in part]
        asked = len({(sample["doc_hash"], sample["doc_id"]) for sample in samples})
        progress(asked, asked)
        scores, headline = to_scores(found["results"][self.name], asked)
        facts = {"metric": headline, "lm-eval": _version(), "version": found["versions"].get(self.name)}
        return Evaluation(
            scores={self.card.metric: scores[headline], **scores}, rows=tuple(to_rows(samples, headline)), facts=facts
        )


class LmEvalFamily(TaskFamily):
    """Makes a task of any name that lm-eval knows."""

    prefix = "lm-eval"

    def make(self, name: str) -> LmEval:
        """Return the task ``lm-eval:NAME``; raises UserError where lm-eval is not installed."""
        if importlib.util.find_spec("lm_eval") is None:
            raise UserError(f"lm-eval:{name} needs lm-eval: pip install 'kore-bench[lm-eval]'")

        class Named(LmEval):
            card: ClassVar[Card] = Card(
                name=f"lm-eval:{name}",
                title=f"lm-eval's {name}",
                source=f"lm-evaluation-harness {_version()}",
                metric=f"lm-eval:{name}",
                licence="that of the task's data set; lm-evaluation-harness is MIT",
                citation="Gao et al., The Language Model Evaluation Harness, doi:10.5281/zenodo.12608602",
            )

        return Named()


def to_scores(results: Mapping[str, Any], samples: int) -> tuple[dict[str, Score], str]:
    """Return lm-eval's figures of one task by ``metric`` or ``metric filter``, and the headline figure's name.

    Shares become percentages; the interval is 1.96 of lm-eval's standard errors to either side, or the figure alone
    where it has none. Raises ValueError where there is no figure.
    """
    scores: dict[str, Score] = {}
    for name, value in results.items():
        metric, comma, kept = name.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        error = results.get(f"{metric}_stderr,{kept}", 0.0)
        scale = 100.0 if metric in _SHARES else 1.0
        spread = 0.0 if isinstance(error, str) else scale * _DEVIATIONS * float(error)
        centre = scale * float(value)
        label = metric if kept == "none" else f"{metric} {kept}"
        scores[label] = Score(value=centre, low=centre - spread, high=centre + spread, n=samples)
    if not scores:
        raise ValueError("lm-eval gives no figure for this task")
    headline = next((name for share in _SHARES for name in scores if name.split()[0] == share), next(iter(scores)))
    return {headline: scores.pop(headline), **scores}, headline


@cache
def manager(name: str, path: str) -> Any:
    """Return lm-eval's task manager that knows ``name``; its own thousands are read only where ours lack it (10 s).

    Raises UserError with the nearest names where none of them has it.
    """
    from lm_eval.tasks import TaskManager

    folders = [str(LM_EVAL_TASKS), *([path] if path else [])]
    with _quiet():
        found = TaskManager(include_path=folders, include_defaults=False)
        if name not in found.all_tasks:
            found = TaskManager(include_path=folders)
    if name not in found.all_tasks:
        close = ", ".join(difflib.get_close_matches(name, found.all_tasks)) or "none"
        raise UserError(f"lm-eval has no task {name!r} (names like it: {close}; all: lm-eval ls tasks)")
    if name in found.all_tags:
        raise UserError(f"lm-eval's {name} is a tag of several tasks without a figure of its own: name one of them")
    return found


def to_rows(samples: Iterable[Mapping[str, Any]], headline: str) -> Iterator[dict[str, Any]]:
    """Yield a row of the predictions file for each sample that has a right answer, by the headline figure."""
    metric, _, kept = headline.partition(" ")
    for sample in samples:
        if metric in _SHARES and metric in sample and sample["filter"] == (kept or "none"):
            prediction, answer = _answered(sample, metric)
            yield {
                "id": f"{sample['doc_id']}-{sample['doc_hash'][:8]}", "images": [],
                "text": str(sample["arguments"][0][0]), "answer": answer, "prediction": prediction,
                "correct": float(sample[metric]), "type": "", "kind": "", "group": "",
            }  # fmt: skip


def _answered(sample: Mapping[str, Any], metric: str) -> tuple[str, str]:
    """Return what was answered and the right answer; of a multiple choice the continuations, not their numbers."""
    found, target = sample["filtered_resps"], sample["target"]
    if isinstance(found[0], str):
        return found[0], str(target)
    choices = [continuation for _, continuation in sample["arguments"]]
    lengths = [len(choice.strip()) if metric == "acc_norm" else 1 for choice in choices]
    likely = max(range(len(found)), key=lambda index: found[index][0] / lengths[index])
    right = choices[target] if isinstance(target, int) else str(target)
    return choices[likely].strip(), right.strip()


def _version() -> str:
    return importlib.metadata.version("lm-eval")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the terminal to the board: lm-eval logs its choices and draws bars of its own."""
    log = logging.getLogger("lm_eval")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


FAMILY: TaskFamily = LmEvalFamily()

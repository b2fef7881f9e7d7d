"""VLMEvalKit: KORE's twelve retention benchmarks by name, dimension or ``retention``, and any data set of it as ``vlmeval:NAME``."""

from __future__ import annotations

import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kore_bench.errors import UserError
from kore_bench.examples import Example, Knowledge
from kore_bench.formats import DIMENSIONS
from kore_bench.judge import JudgeSettings
from kore_bench.task import Evaluation, TaskFamily, TaskSet, ToolkitTask
from kore_bench.vlmevalkit import (
    Questions,
    check_columns,
    content,
    data_root,
    file_of,
    locate,
    read_questions,
    samples,
    size_of,
    toolkit,
)  # fmt: skip

from .cards import BENCHMARKS, CLOSED, OPEN, Benchmark, Headline
from .scores import plain_headline, to_rows, to_scores

if TYPE_CHECKING:
    from kore_bench.lmm import LMM

EXACT = "exact_matching"
_PLAIN: dict[str, Any] = {"exact": True, "md5": ""}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VlmEval(ToolkitTask):
    """One data set of VLMEvalKit: its prompts and its scores are VLMEvalKit's, the answers the loaded model's.

    ``python`` is an interpreter that has VLMEvalKit (empty: this one).
    """

    card: ClassVar[Benchmark]
    family: ClassVar[str] = "vlmeval"
    settable: ClassVar[tuple[str, ...]] = ("python", "max_new_tokens")
    python: str = ""
    offline: bool = False
    judge: str = ""
    judge_url: str = ""
    judge_settings: JudgeSettings = field(default_factory=JudgeSettings)

    def key(self) -> dict[str, Any]:
        """Return the settings, VLMEvalKit's sources, and the data set's file where it is not the published one."""
        install, file = locate(self.python), file_of(self.card.dataset)
        md5 = content(file) if file else self.card.md5
        return {name: value for name, value in super().key().items() if name != "python"} | {
            "VLMEvalKit": [install.version, install.sources] if install else [],
            "file": "" if md5 == self.card.md5 else md5,
        }  # fmt: skip

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why it cannot be asked: no judge, or no file where none may be fetched.

        Raises UserError where VLMEvalKit or the data set is missing, or its file lacks a column.
        """
        if self.card.judge and not self.judge:
            return "it is graded by a judge: give one by --judge NAME (docs/toolkits.md)"
        return self._absent()

    @property
    def own_source(self) -> str:
        """Return the data set's name: its benchmark and ``vlmeval:NAME`` ask the same questions."""
        return self.card.dataset

    def samples(self, count: int) -> tuple[Example, ...]:
        """Return at most ``count`` rows that have a right answer, drawn with a fixed seed."""
        if reason := self._absent():
            raise UserError(f"--calibration {self.card.name}: {reason}")
        return tuple(samples(self.card.dataset, count, python=self.python, offline=self.offline))

    def _absent(self) -> str | None:
        """Return why the data set's file is not there and may not be fetched; a fetch that is to come is announced."""
        before = multiprocessing.parent_process() is None  # a cell's own processes need not look again
        if before:
            toolkit(self.python, self.card.name).check(self.card.dataset)
        file = file_of(self.card.dataset)
        if file:
            check_columns(file, self.card.columns)
        elif self.offline:
            return f"{data_root() / self.card.dataset}.tsv is not there, and --offline forbids to fetch it"
        elif before:
            size = size_of(self.card.source) if self.card.source.startswith("https:") else ""
            _LOG.warning(
                "%s (%s) will be fetched into %s from %s",
                self.card.dataset, size or "size unknown", data_root(), self.card.source,
            )  # fmt: skip
        return None

    def evaluate(self, model: LMM, answers: Path, progress: Callable[[int, int], None]) -> Evaluation:
        """Ask in batches, every answer kept in ``answers``, and let VLMEvalKit score them in a fresh folder."""
        from kore_bench.vlmevalkit.asking import ask, from_first

        card, kit = self.card, toolkit(self.python, self.card.name)
        asked = from_first(self._questions)
        said = ask(model, asked.rows, answers, self.max_new_tokens, progress)
        found = from_first(lambda: self._scored(asked, said))
        headline = card.headline if card.headline.columns else plain_headline(card.dataset, asked.kind, found["result"])
        scores = to_scores(card, headline, asked.rows, said, found)
        facts = {
            "judge": self.judge if card.judge else EXACT, "data set": card.dataset, "samples": len(asked.rows),
            "rows": asked.total, "published file": content(Path(asked.file)) == self.card.md5, "VLMEvalKit": kit.install.version,
            "VLMEvalKit commit": kit.install.commit, "VLMEvalKit sources": kit.install.sources,
            "figures": found["result"],
        }  # fmt: skip
        facts |= {f"judge {event}": number for event, number in found["judge"].items()}
        return Evaluation(scores=scores, rows=tuple(to_rows(asked.rows, said, found["right"])), facts=facts)

    def _questions(self) -> Questions:
        card = self.card
        return read_questions(
            toolkit(self.python, card.name), card.dataset, columns=card.columns, groups=card.groups,
            stratum="" if card.stratum == "none" else card.stratum, counted=card.counted, limit=self.limit,
            offline=self.offline,
        )  # fmt: skip

    def _scored(self, asked: Questions, said: Sequence[Sequence[str]]) -> dict[str, Any]:
        judge = asdict(self.judge_settings) if self.card.judge else None
        predictions = [list(texts) if asked.kind == "MT" else texts[0] for texts in said]
        with tempfile.TemporaryDirectory(prefix="vlmevalkit-") as folder:
            found: dict[str, Any] = toolkit(self.python, self.card.name).ask(
                "score", name=self.card.dataset, places=[row.place for row in asked.rows], predictions=predictions,
                folder=folder, judge=judge,
            )  # fmt: skip
        return found


def _task(benchmark: Benchmark) -> VlmEval:
    """Return the task of a card; its class carries the card."""
    named: type[VlmEval] = type("Named", (VlmEval,), {"card": benchmark, "__module__": __name__})
    return named(max_new_tokens=benchmark.max_new_tokens)


class VlmEvalFamily(TaskFamily):
    """Makes a task of any data set that VLMEvalKit knows, or that lies under LMUData in one of its forms."""

    prefix = "vlmeval"

    def make(self, name: str) -> VlmEval:
        """Return the task ``vlmeval:NAME``; its answers are matched exactly where VLMEvalKit can, else by a judge."""
        known = next((benchmark for benchmark in BENCHMARKS if benchmark.dataset == name), None)
        if known:
            return _task(replace(known, name=f"vlmeval:{name}"))
        here = locate("")  # where another interpreter has VLMEvalKit, `skip` looks the name up
        about = toolkit("", name).known.get(name, _PLAIN) if here else _PLAIN
        return _task(
            Benchmark(
                name=f"vlmeval:{name}", title=f"VLMEvalKit's {name}", source=f"VLMEvalKit, {name}.tsv",
                metric=f"vlmeval:{name}", licence="that of the data set", dataset=name, columns=(),
                md5=about["md5"] or "unknown", citation="Duan et al., VLMEvalKit, arXiv 2407.11691",
                judge=not about["exact"], headline=Headline(columns=()),
                max_new_tokens=CLOSED if about["exact"] else OPEN,
            )
        )  # fmt: skip


MME, MMBENCH, SEED, OCRVQA, SCIENCEQA, MMMU, MIA, MMDU, MATHVISTA, MATHVISION, POPE, HALLUSION = map(_task, BENCHMARKS)
COM, OCR, M_DIS, INS, M_IDU, MAT, HAL = (
    TaskSet(name=dimension, members=tuple(one.name for one in BENCHMARKS if one.dimension == dimension))
    for dimension in DIMENSIONS
)
RETENTION = TaskSet(
    name="retention", members=tuple(one.name for one in BENCHMARKS), unless="retention.jsonl", module="vlmeval"
)
FAMILY: TaskFamily = VlmEvalFamily()

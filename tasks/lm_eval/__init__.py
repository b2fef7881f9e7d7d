"""lm-eval: any task of EleutherAI's lm-evaluation-harness as ``lm-eval:NAME``, in words alone or with pictures."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kore_bench.cache import cache_folder, digest
from kore_bench.errors import UserError
from kore_bench.examples import Example, Knowledge
from kore_bench.task import Card, Evaluation, TaskFamily, TaskSet, ToolkitTask, draw

from .catalogue import check, fetch, load, manager, quiet, shows_pictures, without_network
from .figures import to_rows, to_scores
from .samples import draw_samples


@dataclass(frozen=True, kw_only=True)
class LmEval(ToolkitTask):
    """One task of lm-eval, asked of the loaded model: in words alone, or through its processor where it has pictures.

    ``path`` is a folder of task files (YAML) of one's own, ``fewshot`` the number of worked examples before each
    question (-1: as the task says). ``chat_template`` puts questions about pictures into the model's chat template, as
    every other question here (lm-eval's ``--apply_chat_template``); texts stand as the task writes them.
    """

    settable: ClassVar[tuple[str, ...]] = ("path", "limit", "fewshot", "chat_template")
    path: str = ""
    fewshot: int = -1
    chat_template: bool = True
    offline: bool = False

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

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why it cannot run with ``--offline``; raises UserError with the nearest names for an unknown task.

        Also for one that cannot be asked, and for data that can be neither found nor downloaded: a download is made
        here, and announced.
        """
        self._check()
        return fetch(self.name, self.path, self.offline) or None

    def evaluate(self, model: Any, answers: Path, progress: Callable[[int, int], None]) -> Evaluation:
        """Run the task; answers are kept in ``answers`` as they come, so that a stopped evaluation goes on."""
        from lm_eval import simple_evaluate

        from .models import Kept, PictureModel, TextModel

        pictures = shows_pictures(self.name, self.path)
        loaded = load(self.name, self.path, offline=True)
        with quiet(), without_network(), Kept(answers) as kept:
            found = simple_evaluate(
                model=PictureModel(model, kept, progress) if pictures else TextModel(model, kept),
                tasks=[loaded["groups"].get(self.name) or loaded["tasks"][self.name]],
                task_manager=manager(self.name, self.path), samples=self._drawn(loaded["tasks"]),
                num_fewshot=None if self.fewshot < 0 else self.fewshot, bootstrap_iters=1000,
                apply_chat_template=pictures and self.chat_template,
            )  # fmt: skip
        asked = sum(len({sample["doc_id"] for sample in part}) for part in found["samples"].values())
        progress(asked, asked)
        higher = found["higher_is_better"].get(self.name) or {}
        scores, headline = to_scores(found["results"][self.name], asked, higher)
        facts = {"metric": headline, "lm-eval": _version(), "version": found["versions"].get(self.name)}
        return Evaluation(
            scores={self.card.metric: scores[headline], **scores},
            rows=tuple(to_rows(found["samples"], headline)),
            facts=facts,
        )

    def samples(self, count: int) -> tuple[Example, ...]:
        """Return at most ``count`` questions with their right answers: of the training split where the task has one."""
        self._check()
        loaded = load(self.name, self.path, offline=self.offline)
        return draw_samples(loaded["tasks"], self.card.name, count, cache_folder() / "pictures")

    def _check(self) -> None:
        if self.path and not Path(self.path).is_dir():
            raise UserError(f"--lm-eval-path {self.path}: there is no such folder")
        if self.limit < 0:
            raise UserError(f"--set lm-eval.limit={self.limit} must be at least 0")
        check(self.name, self.path)

    def _drawn(self, tasks: Mapping[str, Any]) -> dict[str, list[int]] | None:
        """Return which rows of each task within a group are asked where there is a limit, one at least of each."""
        if not self.limit:
            return None
        rows = [(name, index) for name, task in tasks.items() for index in range(len(task.eval_docs))]
        names = [f"{name}-{index}" for name, index in rows]
        taken = draw(rows, names, max(self.limit, len(tasks)), strata=[name for name, _ in rows])
        return {name: [index for task, index in taken if task == name] for name in tasks}


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
                higher_is_better=None,
                licence="that of the task's data set; lm-evaluation-harness is MIT",
                citation="Gao et al., The Language Model Evaluation Harness, doi:10.5281/zenodo.12608602",
            )

        return Named()


def _version() -> str:
    return importlib.metadata.version("lm-eval")


FAMILY: TaskFamily = LmEvalFamily()
LANGUAGE = TaskSet(
    name="language",
    members=tuple(f"lm-eval:{name}" for name in ("wikitext", "arc_easy", "hellaswag", "piqa", "winogrande")),
)
"""What is left of language: how well it foretells running text, and multiple choice; lm-eval downloads the data."""
MINI_LANGUAGE = TaskSet(name="mini-language", members=("lm-eval:mini_facts", "lm-eval:mini_paragraphs"))
"""The same of the mini world's language, which ships with kore-bench."""

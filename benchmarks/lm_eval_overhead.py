"""What the wrapping of lm-eval costs: CPU time of a task here over that of lm-eval's own `simple_evaluate`, same figures.

Goal: at most 1.03. Both sides have the same loaded model and batch size, and take turns; ours also keeps every answer
on disk as it comes, makes rows and intervals, and reads the task's file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.models.hf_vlms import HFMultimodalLM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from kore_bench.cache import cache_folder
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.mini import LM_EVAL_TASKS, world_folder
from kore_bench.models.mini_llava import CARD
from kore_bench.plan import Request, make_plan
from kore_bench.task import ToolkitTask

PICTURES = """\
task: pictures
dataset_path: imagefolder
dataset_kwargs: {{data_dir: {folder}/pictures}}
test_split: train
output_type: generate_until
doc_to_image: [image]
doc_to_text: "<image>{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["</s>"], max_gen_toks: 16}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


class Given(HFMultimodalLM):  # type: ignore[misc]
    """lm-eval's model for pictures around a processor that is loaded already, which it cannot take by itself."""

    def _create_tokenizer(self, pretrained: Any, tokenizer: Any, **options: Any) -> None:
        self.processor, self.tokenizer = tokenizer, tokenizer.tokenizer


def write_pictures(folder: Path, count: int) -> None:
    """Write retention questions of the mini world as a task with pictures."""
    (folder / "pictures").mkdir()
    questions = read_knowledge(world_folder(cache_folder())).retention
    rows = []
    for number, question in enumerate(questions[:: max(1, len(questions) // count)][:count]):
        (folder / "pictures" / f"{number}.png").write_bytes(question.images[0].read_bytes())
        rows.append({"file_name": f"{number}.png", "question": question.text, "answer": question.answer})
    (folder / "pictures" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "pictures.yaml").write_text(PICTURES.format(folder=folder))


@cache
def task_of(name: str, folder: Path) -> ToolkitTask:
    """Return the task as a plan makes it, once a run."""
    request = Request(methods=("lora",), tasks=(f"lm-eval:{name}",), settings=(f"lm-eval.path={folder}",))
    (task,) = make_plan(request).tasks
    assert isinstance(task, ToolkitTask)
    return task


def ours(model: LMM, name: str, folder: Path) -> float:
    """Return the headline figure as a cell gets it, in percent where it is a share."""
    task = task_of(name, folder)
    with tempfile.TemporaryDirectory() as answers:
        found = task.evaluate(model, Path(answers) / "answers", lambda done, total: None)
    return found.scores[task.card.metric].value


def theirs(model: LMM, name: str, folder: Path) -> float:
    """Return lm-eval's own headline figure."""
    options = {"pretrained": model.model, "backend": "causal", "batch_size": CARD.evaluation_batch_size}
    lm = (
        Given(tokenizer=model.processor, **options)
        if name == "pictures"
        else HFLM(tokenizer=model.tokenizer, max_length=model.chat.max_length, **options)
    )
    manager = TaskManager(include_path=[str(LM_EVAL_TASKS), str(folder)], include_defaults=False)
    found = simple_evaluate(
        model=lm, tasks=[name], task_manager=manager, apply_chat_template=name == "pictures", bootstrap_iters=1000
    )
    assert found is not None
    results = found["results"][name]
    metric = next(metric for metric in ("acc,none", "exact_match,none", "word_perplexity,none") if metric in results)
    return float(results[metric]) * (1 if "perplexity" in metric else 100)


def measured(run: Callable[[LMM, str, Path], float], model: LMM, name: str, folder: Path) -> tuple[float, float]:
    """Return the CPU seconds of one call and what it gave."""
    begin = time.process_time()
    figure = run(model, name, folder)
    return time.process_time() - begin, figure


def main() -> None:
    """Print, for a multiple choice, a perplexity and a task with pictures, both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=600, help="questions of the task with pictures")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = LMM.load(CARD)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pictures(folder, arguments.pictures)
        for name in ("mini_facts", "mini_paragraphs", "pictures"):
            ours(model, name, folder), theirs(model, name, folder)  # data sets are in the cache then, for both
            seconds: dict[str, list[float]] = {"ours": [], "lm-eval": []}
            for _ in range(arguments.repetitions):
                here, figure = measured(ours, model, name, folder)
                alone, own = measured(theirs, model, name, folder)
                assert abs(figure - own) < 1e-3 * max(1.0, own), f"{name}: {figure} is not lm-eval's {own}"
                seconds["ours"].append(here)
                seconds["lm-eval"].append(alone)
            best = {side: min(values) for side, values in seconds.items()}
            pairs = zip(seconds["ours"], seconds["lm-eval"], strict=True)
            median = statistics.median(here / alone for here, alone in pairs)
            print(
                f"{name}: {best['ours']:.3f} s of CPU here, {best['lm-eval']:.3f} s in lm-eval alone, ratio "
                f"{best['ours'] / best['lm-eval']:.3f} (best of {arguments.repetitions} each; median of the pairs' ratios "
                f"{median:.3f}), figure {figure:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

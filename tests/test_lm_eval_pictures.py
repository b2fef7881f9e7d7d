"""lm-eval's tasks with pictures: its figures on its own, hand-computed scores, LLaVA's padding, what cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore_bench.errors import UserError
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.plan import Request, find_card, make_plan
from kore_bench.registry import Registry
from kore_bench.task import Evaluation, ToolkitTask

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'kore-bench[lm-eval]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of lm-eval and of what it imports
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # its cache of answers is closed by the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TASK = """\
task: {name}
dataset_path: imagefolder
dataset_kwargs: {{data_dir: {data}}}
test_split: train
output_type: {output}
doc_to_image: [image]
doc_to_text: "<image>{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
metric_list: [{{metric: {metric}}}]
metadata: {{version: 2.0}}
"""
WRITTEN = 'generation_kwargs: {until: ["</s>"], max_gen_toks: 8}'
ASKED = 7
"""Questions of the task; of an odd number the last batch of two is smaller."""
Questions = list[tuple[str, Image.Image, str]]
"""Question, picture and right answer."""


def write_task(folder: Path, questions: Questions, **changes: str) -> Path:
    """Write pictures, and beside them a task that asks about them; return the task's folder."""
    data, tasks = folder / "pictures", folder / "tasks"
    data.mkdir(parents=True)
    tasks.mkdir()
    rows = []
    for number, (question, picture, answer) in enumerate(questions):
        picture.save(data / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "question": question, "answer": answer})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = {"output": "generate_until", "more": WRITTEN, "metric": "exact_match"} | changes
    (tasks / "colours.yaml").write_text(TASK.format(name="colours", data=data, **text))
    return tasks


@pytest.fixture(scope="module")
def questions(world: Path) -> Questions:
    """Return questions of the mini world about colours, which mini-llava answers well."""
    asked = [row for row in read_knowledge(world).retention if row.text.startswith("What color")][:ASKED]
    return [(row.text, Image.open(row.images[0]).convert("RGB"), row.answer) for row in asked]


@pytest.fixture
def tasks(tmp_path: Path, questions: Questions) -> Path:
    return write_task(tmp_path, questions)


@pytest.fixture(scope="module", params=["mini-llava", "mini-qwen"])
def model(request: pytest.FixtureRequest) -> LMM:
    return LMM.load(find_card(Registry(), request.param, {}))


@pytest.fixture(scope="module")
def llava() -> LMM:
    return LMM.load(find_card(Registry(), "mini-llava", {}))


@pytest.fixture(autouse=True)
def datasets_of_their_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def planned(tasks: Path, *settings: str, name: str = "colours") -> ToolkitTask:
    request = Request(methods=("lora",), tasks=(f"lm-eval:{name}",), settings=(f"lm-eval.path={tasks}", *settings))
    (task,) = make_plan(request).tasks
    assert isinstance(task, ToolkitTask)
    return task


def evaluate(task: ToolkitTask, model: LMM, folder: Path) -> Evaluation:
    return task.evaluate(model, folder / "answers", lambda done, total: None)


def by_itself(model: LMM, tasks: Path, *, template: bool = True, batch_size: int = 1) -> Mapping[str, Any]:
    """Return what lm-eval says of the model without us, with the least that it needs to take a loaded processor."""
    from lm_eval import simple_evaluate
    from lm_eval.models.hf_vlms import HFMultimodalLM
    from lm_eval.tasks import TaskManager

    class Given(HFMultimodalLM):  # type: ignore[misc]
        def _create_tokenizer(self, pretrained: Any, tokenizer: Any, **options: Any) -> None:
            self.processor, self.tokenizer = tokenizer, tokenizer.tokenizer

    lm = Given(pretrained=model.model, tokenizer=model.processor, backend="causal", batch_size=batch_size)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate(
        model=lm, tasks=["colours"], task_manager=manager, apply_chat_template=template, bootstrap_iters=1000
    )
    assert found is not None
    return dict(found)


def answers_of(found: Mapping[str, Any]) -> list[str]:
    return [sample["filtered_resps"][0] for sample in found["samples"]["colours"]]


def test_answers_and_figures_are_lm_evals_own(model: LMM, tasks: Path, tmp_path: Path) -> None:
    found, theirs = evaluate(planned(tasks), model, tmp_path), by_itself(model, tasks)
    assert [row["prediction"] for row in found.rows] == answers_of(theirs)
    headline, results = found.scores["lm-eval:colours"], theirs["results"]["colours"]
    assert headline.value == pytest.approx(100 * results["exact_match,none"])
    assert headline.high - headline.value == pytest.approx(196 * results["exact_match_stderr,none"])
    assert headline.n == ASKED
    assert found.facts["version"] == 2.0


def test_without_the_chat_template_too(llava: LMM, tasks: Path, tmp_path: Path) -> None:
    found = evaluate(planned(tasks, "lm-eval.chat_template=false"), llava, tmp_path)
    assert [row["prediction"] for row in found.rows] == answers_of(by_itself(llava, tasks, template=False))
    assert "ASSISTANT" not in found.rows[0]["text"]


def test_the_model_is_asked_as_everywhere_else(llava: LMM, tasks: Path, questions: Questions, tmp_path: Path) -> None:
    found = evaluate(planned(tasks), llava, tmp_path)
    prompts = [(text, (tmp_path / "pictures" / f"{number}.png",)) for number, (text, _, _) in enumerate(questions)]
    said = llava.generate(prompts, max_new_tokens=8)
    assert [row["prediction"].strip() for row in found.rows] == said
    assert found.scores["exact_match"].value > 50  # it knows colours
    assert len(set(said)) > 1


def test_an_oracles_score_comes_out_as_computed_by_hand(
    llava: LMM, tasks: Path, questions: Questions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.hf_vlms import HFMultimodalLM

    right = [1, 1, 0, 1, 0, 1, 0]
    said = {
        picture.tobytes(): answer if correct else f"not {answer}"
        for (_, picture, answer), correct in zip(questions, right, strict=True)
    }
    monkeypatch.setattr(
        HFMultimodalLM, "generate_until",
        lambda self, requests, disable_tqdm=False: [
            said[request.args[2]["visual"][0].convert("RGB").tobytes()] for request in requests
        ],
    )  # fmt: skip
    found = evaluate(planned(tasks), llava, tmp_path)
    assert [row["correct"] for row in found.rows] == right
    assert found.scores["exact_match"].value == pytest.approx(100 * 4 / 7)
    deviation = (4 / 7 * 3 / 7 * 7 / 6 / 7) ** 0.5  # of a mean of seven, by the sample variance
    assert found.scores["exact_match"].high == pytest.approx(100 * (4 / 7 + 1.96 * deviation))


def test_pictures_are_padded_as_the_card_says(llava: LMM, questions: Questions, tmp_path: Path) -> None:
    """A wide picture is answered as the square that one pads it to by hand, other than lm-eval alone answers it."""
    llava = LMM(llava.model, llava.processor, replace(llava.card, image_padding="square"))
    wide, padded = [], []
    colour = tuple(int(255 * part) for part in llava.processor.image_processor.image_mean)
    for text, picture, answer in questions:
        strip = picture.resize((64, 24))
        square = Image.new("RGB", (64, 64), colour)
        square.paste(strip, (0, 20))
        wide.append((text, strip, answer))
        padded.append((text, square, answer))
    tasks, squares = write_task(tmp_path / "wide", wide), write_task(tmp_path / "square", padded)
    found = [row["prediction"] for row in evaluate(planned(tasks), llava, tmp_path).rows]
    assert found == answers_of(by_itself(llava, squares))
    assert found != answers_of(by_itself(llava, tasks))


def test_a_stopped_evaluation_asks_the_rest(
    llava: LMM, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.hf_vlms import HFMultimodalLM

    class StoppedError(Exception):
        """Stands for the end of the process."""

    task, asked = planned(tasks), []
    small = LMM(llava.model, llava.processor, replace(llava.card, evaluation_batch_size=2))
    real = HFMultimodalLM.generate_until

    def counted(self: Any, requests: list[Any], disable_tqdm: bool = False) -> Any:
        asked.append(len(requests))
        if len(asked) == 3:
            raise StoppedError
        return real(self, requests, disable_tqdm)

    whole = evaluate(task, small, tmp_path / "whole")
    monkeypatch.setattr(HFMultimodalLM, "generate_until", counted)
    with pytest.raises(StoppedError):
        evaluate(task, small, tmp_path / "stopped")
    again = evaluate(task, small, tmp_path / "stopped")
    assert asked == [2, 2, 2, 2, 1]  # the third batch was lost, and nothing else is asked again
    assert again.scores == whole.scores
    assert again.rows == whole.rows


def test_a_limit_draws_the_same_questions_each_time(llava: LMM, tasks: Path, tmp_path: Path) -> None:
    ids = [
        [row["id"] for row in evaluate(planned(tasks, "lm-eval.limit=3"), llava, tmp_path / name).rows]
        for name in ("one", "two")
    ]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"output": "multiple_choice", "more": 'doc_to_choice: ["red", "blue"]', "metric": "acc"},
            "lm-eval:colours scores answers about pictures by their likelihood .output_type multiple_choice., which",
        ),
        ({"more": f"doc_to_audio: [image]\n{WRITTEN}"}, "lm-eval:colours plays sounds"),
        ({"more": f"unsafe_code: true\n{WRITTEN}"}, "runs Python code that the model writes"),
        ({"metric": "no_such_metric"}, "lm-eval:colours cannot be read: "),
    ],
)
def test_what_cannot_be_asked_is_said_before_a_model_loads(
    tmp_path: Path, questions: Questions, changes: dict[str, str], sentence: str
) -> None:
    from kore_bench.bench import prepare

    tasks = write_task(tmp_path, questions, **changes)
    request = Request(methods=("lora",), tasks=("lm-eval:colours",), settings=(f"lm-eval.path={tasks}",))
    with pytest.raises(UserError, match=sentence):
        prepare(request, tmp_path / "run")


def test_a_group_is_one_task_of_several_with_pictures_or_not(llava: LMM, tasks: Path, tmp_path: Path) -> None:
    (tasks / "both.yaml").write_text(
        "group: both\ntask: [colours, mini_facts]\naggregate_metric_list:\n"
        "  - {metric: exact_match, aggregation: mean, weight_by_size: false, filter_list: none}\n"
    )
    found = evaluate(planned(tasks, "lm-eval.limit=8", name="both"), llava, tmp_path)
    assert found.scores["lm-eval:both"].n == 8
    assert {row["id"].rpartition("-")[0] for row in found.rows} == {"colours"}  # the headline's metric is theirs

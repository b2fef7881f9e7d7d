"""lm-eval on the loaded model: its figures are lm-eval's own, local files and settings count, mistakes are named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.lmm import LMM
from kore_bench.plan import Request, find_card, make_plan
from kore_bench.registry import Registry
from kore_bench.results import RunFolder, read_lines
from kore_bench.task import Evaluation, ToolkitTask

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'kore-bench[lm-eval]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of lm-eval and of what it imports
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # its cache of answers is closed by the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LOCAL = """\
task: local_yes
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: generate_until
test_split: test
doc_to_text: "USER: {{{{question}}}} ASSISTANT:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["</s>"], max_gen_toks: 8}}
metric_list: [{{metric: exact_match}}]
metadata: {{version: 3.0}}
"""


@pytest.fixture(scope="module")
def model() -> LMM:
    return LMM.load(find_card(Registry(), "mini-llava", {}))


@pytest.fixture
def local(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "Is red a color?", "answer": "yes"}\n{"question": "Is red a color?", "answer": "none of these"}\n'
    )
    (folder / "local_yes.yaml").write_text(LOCAL.format(data=tmp_path / "rows.jsonl"))
    return folder


def planned(name: str, *settings: str) -> ToolkitTask:
    (task,) = make_plan(Request(methods=("lora",), tasks=(f"lm-eval:{name}",), settings=settings)).tasks
    assert isinstance(task, ToolkitTask)
    return task


def evaluate(task: ToolkitTask, model: LMM, folder: Path) -> Evaluation:
    return task.evaluate(model, folder / "answers", lambda done, total: None)


def by_itself(model: LMM, name: str, **options: Any) -> dict[str, Any]:
    """Return what lm-eval says of the model without us."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from kore_bench.mini import LM_EVAL_TASKS

    lm = HFLM(pretrained=model.model, tokenizer=model.tokenizer, backend="causal", batch_size=1)
    manager = TaskManager(include_path=str(LM_EVAL_TASKS), include_defaults=False)
    found = simple_evaluate(model=lm, tasks=[name], task_manager=manager, bootstrap_iters=1000, **options)
    assert found is not None
    return dict(found["results"][name])


def test_multiple_choice_is_lm_evals_own_figure_with_its_standard_error(model: LMM, tmp_path: Path) -> None:
    found = evaluate(planned("mini_facts", "lm-eval.limit=60"), model, tmp_path)
    asked = sorted(int(row["id"].rpartition("-")[2]) for row in found.rows)
    theirs = by_itself(model, "mini_facts", samples={"mini_facts": asked})
    headline = found.scores["lm-eval:mini_facts"]
    assert next(iter(found.scores)) == "lm-eval:mini_facts"
    assert headline == found.scores["acc"]
    assert headline.value == pytest.approx(100 * theirs["acc,none"])
    assert headline.high - headline.value == pytest.approx(196 * theirs["acc_stderr,none"])
    assert headline.n == len(asked) == 60
    assert asked != list(range(60))  # drawn from all of them, not the first
    assert headline.higher_is_better
    assert found.facts["metric"] == "acc"
    assert str(found.facts["version"]) == "1.0"


def test_rows_say_which_choice_was_taken_and_average_to_the_figure(model: LMM, tmp_path: Path) -> None:
    found = evaluate(planned("mini_facts", "lm-eval.limit=40"), model, tmp_path)
    assert len({row["id"] for row in found.rows}) == 40
    assert all((row["prediction"] == row["answer"]) == (row["correct"] == 1.0) for row in found.rows)
    share = sum(row["correct"] for row in found.rows) / len(found.rows)
    assert 100 * share == pytest.approx(found.scores["acc"].value)


def test_the_base_knows_its_world_in_words_alone(model: LMM, tmp_path: Path) -> None:
    chance = 25.0
    assert evaluate(planned("mini_facts"), model, tmp_path).scores["acc"].low > chance


def test_perplexity_is_lm_evals_own_and_has_no_rows(model: LMM, tmp_path: Path) -> None:
    found = evaluate(planned("mini_paragraphs"), model, tmp_path)
    theirs = by_itself(model, "mini_paragraphs")
    assert found.scores["lm-eval:mini_paragraphs"].value == pytest.approx(theirs["word_perplexity,none"], rel=1e-3)
    assert math.isfinite(found.scores["word_perplexity"].value)
    assert not any(score.higher_is_better for score in found.scores.values())
    assert found.rows == ()


def test_a_task_of_ones_own_in_a_local_folder(model: LMM, local: Path, tmp_path: Path) -> None:
    found = evaluate(planned("local_yes", f"lm-eval.path={local}"), model, tmp_path)
    assert found.scores["lm-eval:local_yes"].value in {0.0, 50.0}
    assert [row["answer"] for row in found.rows] == ["yes", "none of these"]
    assert str(found.facts["version"]) == "3.0"


def test_an_edited_task_file_makes_another_key(local: Path) -> None:
    task = planned("local_yes", f"lm-eval.path={local}")
    before = task.key()
    (local / "local_yes.yaml").write_text((local / "local_yes.yaml").read_text() + "# edited\n")
    assert task.key() != before
    assert planned("local_yes", f"lm-eval.path={local}", "lm-eval.limit=5").key() != task.key()


def test_answers_already_given_are_not_computed_again(
    model: LMM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = planned("mini_facts", "lm-eval.limit=20")
    first = evaluate(task, model, tmp_path)
    monkeypatch.setattr(model.model, "forward", lambda *args, **kwargs: pytest.fail("the model was asked again"))
    assert evaluate(task, model, tmp_path).scores == first.scores


@pytest.mark.usefixtures("in_process")
def test_a_run_scores_its_cells_and_keeps_the_answers(tmp_path: Path) -> None:
    from kore_bench.bench import execute, prepare

    request = Request(
        methods=("lora",), tasks=("lm-eval:mini_facts",), settings=("train.steps=1", "lm-eval.limit=12")
    )  # fmt: skip
    plan, cells = prepare(request, tmp_path / "run")
    base = [cell for cell in cells if cell.method == "base"]
    run = execute(plan, base, tmp_path / "run", jobs=1, rerun="never", listen=lambda event: None)
    record = RunFolder(tmp_path / "run").read(base[0].name)
    assert record is not None
    assert record.status == "done"
    assert record.scores["lm-eval:mini_facts"]["acc"].n == 12
    assert record.diagnostics["lm-eval:mini_facts/metric"] == "acc"
    folder = run.cell(base[0].name) / "predictions"
    assert [file.name for file in folder.iterdir()] == ["lm-eval:mini_facts.jsonl"]
    assert len(list(read_lines(folder / "lm-eval:mini_facts.jsonl"))) == 12


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("mini_fact", (), "no task 'mini_fact' .names like it: mini_facts"),
        ("mini_facts", ("lm-eval.path=nowhere",), "--lm-eval-path nowhere: there is no such folder"),
        ("mini_facts", ("lm-eval.limit=-1",), "at least 0"),
        ("mini_facts", ("lm-eval.limits=3",), "limit"),
    ],
)
def test_mistakes_are_named_before_a_model_loads(
    name: str, settings: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    from kore_bench.bench import prepare

    request = Request(methods=("lora",), tasks=(f"lm-eval:{name}",), settings=settings)
    with pytest.raises(UserError, match=sentence):
        prepare(request, tmp_path / "run")

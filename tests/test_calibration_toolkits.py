"""Calibration on toolkits' tasks: which rows, their answers and pictures, shares, what is seen again, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore_bench.calibration import draw_held_out, draw_old, plan_knowledge, seen_questions
from kore_bench.errors import UserError
from kore_bench.plan import Plan, Request, make_plan, preflight

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'kore-bench[lm-eval]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of lm-eval and of what it imports
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHOICE = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{{files}}}}}
{splits}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list: [{{metric: acc}}]
"""

WRITTEN = """\
task: empty
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
"""


@pytest.fixture(autouse=True)
def datasets_of_their_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Return a folder of tasks: ``asked`` with a test split alone, ``split`` with a training split too, ``empty``."""
    rows = [{"question": f"what is {n}?", "choices": ["none", f"{n}"], "label": 1} for n in range(40)]
    test, train = write_rows(tmp_path / "test.jsonl", rows), write_rows(tmp_path / "train.jsonl", rows[:10])
    silent = write_rows(tmp_path / "silent.jsonl", [{"question": "and?", "answer": ""}])
    folder = tmp_path / "tasks"
    folder.mkdir()
    splits = "test_split: test"
    (folder / "asked.yaml").write_text(CHOICE.format(name="asked", files=f"test: {test}", splits=splits))
    (folder / "split.yaml").write_text(
        CHOICE.format(name="split", files=f"test: {test}, train: {train}", splits=f"{splits}\ntraining_split: train")
    )
    (folder / "empty.yaml").write_text(WRITTEN.format(file=silent))
    return folder


def planned(
    small_world: Path, folder: Path, calibration: str, *, methods: tuple[str, ...] = ("kore-null",), **more: Any
) -> Plan:
    settings = (f"old.calibration={calibration}", f"lm-eval.path={folder}", *more.pop("settings", ()))
    return make_plan(Request(methods=methods, data=str(small_world), settings=settings, **more))


def test_samples_are_questions_with_their_right_answers(small_world: Path, tasks: Path, tmp_path: Path) -> None:
    plan = planned(small_world, tasks, "lm-eval:asked:6")
    drawn = draw_old(preflight(plan, tmp_path / "run"), plan.old, 0)
    assert len(drawn) == len({sample.id for sample in drawn}) == 6
    for sample in drawn:
        (turn,) = sample.turns
        assert turn.question == f"what is {turn.answer}?"
        assert sample.images == ()
    assert draw_old(plan_knowledge(plan), plan.old, 0) == drawn != draw_old(plan_knowledge(plan), plan.old, 1)


def test_several_sources_give_their_shares(small_world: Path, tasks: Path, tmp_path: Path) -> None:
    plan = planned(small_world, tasks, f"lm-eval:asked:3,retention:4,lm-eval:mini_facts:5,{small_world}:2")
    assert plan.old.samples == 14
    knowledge = preflight(plan, tmp_path / "run")
    drawn = draw_old(knowledge, plan.old, 0)
    sources = [sample.source for sample in drawn]
    assert sources.count("lm-eval:asked") == 3
    assert sources.count("lm-eval:mini_facts") == 5
    assert len(drawn) == 14
    held_out = draw_held_out(knowledge, drawn, 0)
    assert held_out
    assert not {sample.id for sample in held_out} & {sample.id for sample in drawn}


def test_a_training_split_is_taken_before_what_is_asked(small_world: Path, tasks: Path, tmp_path: Path) -> None:
    plan = planned(small_world, tasks, "lm-eval:split:8", tasks=("lm-eval:split",))
    knowledge = preflight(plan, tmp_path / "run")
    drawn = draw_old(knowledge, plan.old, 0)
    assert {sample.source for sample in drawn} == {"lm-eval:split (train split)"}
    assert all(int(sample.turns[0].answer) < 10 for sample in drawn)  # rows of the training file
    assert seen_questions(plan, knowledge, drawn) == {}


def test_questions_that_the_run_asks_are_counted(small_world: Path, tasks: Path, tmp_path: Path) -> None:
    plan = planned(
        small_world, tasks, "lm-eval:asked:6,retention:4", tasks=("lm-eval:asked", "retention", "adaptation")
    )
    knowledge = preflight(plan, tmp_path / "run")
    drawn = draw_old(knowledge, plan.old, 0)
    assert seen_questions(plan, knowledge, drawn) == {"lm-eval:asked": 6, "retention": 4}
    assert seen_questions(plan, knowledge, drawn[:2]) == {"lm-eval:asked": 2}
    assert seen_questions(plan, knowledge, []) == {}


def test_replay_may_train_on_a_toolkits_task_that_is_not_asked(small_world: Path, tasks: Path, tmp_path: Path) -> None:
    preflight(planned(small_world, tasks, "lm-eval:asked:8", methods=("replay",)), tmp_path / "run")
    preflight(
        planned(small_world, tasks, "lm-eval:split:8", methods=("replay",), tasks=("lm-eval:split",)), tmp_path / "run"
    )
    with pytest.raises(UserError, match="--calibration lm-eval:asked would let it train on answers that a task asks"):
        preflight(
            planned(small_world, tasks, "lm-eval:asked:8", methods=("replay",), tasks=("lm-eval:asked",)),
            tmp_path / "run",
        )


def test_pictures_are_files_of_their_content(small_world: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "tasks"
    data.mkdir()
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(data / f"{number}.png")
    rows = [{"file_name": f"{n}.png", "question": f"<image> which of {n}?", "answer": f"{n}"} for n in range(4)]
    write_rows(data / "metadata.jsonl", rows)
    (folder / "seen.yaml").write_text(
        f"task: seen\ndataset_path: imagefolder\ndataset_kwargs: {{data_dir: {data}}}\ntest_split: train\n"
        "output_type: generate_until\ndoc_to_image: [image]\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
    )
    plan = planned(small_world, folder, "lm-eval:seen:4")
    drawn = draw_old(preflight(plan, tmp_path / "run"), plan.old, 0)
    assert len({sample.images for sample in drawn}) == 4
    for sample in drawn:
        with Image.open(sample.images[0]) as picture:
            assert picture.getpixel((0, 0)) == (int(sample.turns[0].answer), 0, 0)
        assert sample.turns[0].question == f"which of {sample.turns[0].answer}?"


@pytest.mark.parametrize(
    ("calibration", "sentence"),
    [
        ("lm-eval:askd", "lm-eval has no task 'askd' .names like it: asked"),
        (
            "lm-eval:empty:4",
            "--calibration lm-eval:empty holds no samples",
        ),
        ("lm-eval:asked:41", "lm-eval:asked has 40 samples, not 41"),
        ("lm-eval:asked", "lm-eval:asked has 40 samples, not 256"),
        ("lm-eval", "lm-eval is neither a file, a folder nor a task"),
        ("lm-evla:asked", "lm-evla:asked is neither a file, a folder nor a task"),
        ("lm-eval:asked:3,lm-eval:asked:4", "names lm-eval:asked twice"),
    ],
)
def test_what_cannot_calibrate_is_said(
    small_world: Path, tasks: Path, tmp_path: Path, calibration: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        preflight(planned(small_world, tasks, calibration, tasks=("lm-eval:asked",)), tmp_path / "run")


@pytest.mark.usefixtures("in_process")
def test_a_run_says_in_its_records_what_was_seen(small_world: Path, tasks: Path, tmp_path: Path) -> None:
    from kore_bench.bench import execute, prepare

    request = Request(
        methods=("kore-null", "lora"), data=str(small_world), tasks=("lm-eval:asked",),
        settings=("old.calibration=lm-eval:asked:6", f"lm-eval.path={tasks}", "train.steps=1", "kore-null.rank=4"),
    )  # fmt: skip
    plan, cells = prepare(request, tmp_path / "run")
    records = execute(plan, cells, tmp_path / "run", jobs=1, rerun="never", listen=lambda event: None).records()
    notes = {record.method: record.tasks["lm-eval:asked"].note for record in records}
    assert notes == {
        "base": "", "in-context": "", "lora": "", "kore-null": "6 of its questions are among the old samples that the method read",
    }  # fmt: skip

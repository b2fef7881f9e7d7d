"""VLMEvalKit's twelve benchmarks on made-up files in its own formats: scores by hand, mistakes, limits, resuming."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Knowledge
from kore_bench.judge import JudgeError, JudgeSettings
from kore_bench.lmm import LMM
from kore_bench.plan import Request, find_card
from kore_bench.registry import Registry
from kore_bench.task import Evaluation, ToolkitTask
from kore_bench.vlmevalkit import read_questions, samples, toolkit

files: Any = importlib.import_module("vlmevalkit_files")
judges: Any = importlib.import_module("judge_server")

if importlib.util.find_spec("vlmeval") is None:
    pytest.skip("VLMEvalKit is not installed (docs/toolkits.md says how)", allow_module_level=True)

EMPTY = Knowledge(root=Path("folder"), digest="", items=(), questions=())
JUDGED = {"mia-bench", "mmdu", "mathvista", "mathvision"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("LMUData")
    files.write_all(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMUData", str(folder))
        toolkit("", "tests").close()
        yield folder
    toolkit("", "tests").close()


@dataclass
class Oracle:
    """Answers what it was told to, in batches of two, and keeps what it was asked."""

    answers: Mapping[str, str]
    asked: list[str]

    def generate(self, prompts: Sequence[Any], *, given: Mapping[int, str], keep: Any, **options: Any) -> list[str]:
        texts = dict(given)
        for begin in range(0, len(prompts), 2):
            batch = {
                index: self._answer(prompts[index][0]) for index in range(begin, len(prompts))[:2] if index not in given
            }
            texts |= batch
            keep(batch)
        return [texts[index] for index in range(len(prompts))]

    def _answer(self, dialogue: Sequence[Mapping[str, Any]]) -> str:
        text = "".join(part.get("text", "") for part in dialogue[-1]["content"])
        self.asked.append(text)
        return str(files.answer_to(self.answers, text))


def task(name: str, **changes: Any) -> ToolkitTask:
    found: ToolkitTask = Registry().find("tasks", name)
    return replace(found, **changes)


def evaluate(found: ToolkitTask, model: Any, folder: Path) -> Evaluation:
    return found.evaluate(cast(LMM, model), folder / "one.answers-0", lambda done, total: None)


def judge_of(made: Any) -> Any:
    """Return the script of a judge server that replies as the file says."""

    def reply(number: int, body: Mapping[str, Any]) -> Any:
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        return judges.Answer("hello" if text == "hello" else files.answer_to(made.replies, text))

    return reply


@pytest.mark.parametrize("name", files.MAKERS)
def test_an_oracle_gets_the_score_by_hand(name: str, data: Path, tmp_path: Path, cache: Path) -> None:
    made = files.MAKERS[name][1]()
    with judges.serving(judge_of(made)) as server:
        changes = (
            {"judge": "loop", "judge_settings": JudgeSettings(name="loop", url=server.url)} if name in JUDGED else {}
        )
        found = evaluate(task(name, **changes), Oracle(made.answers, []), tmp_path)
    headline = next(iter(found.scores.values()))
    assert headline.value == pytest.approx(made.score, abs=1e-9)
    assert headline.low <= headline.value <= headline.high
    assert headline.low < headline.high or name == "mia-bench"  # which leaves out a reply: no mean of all
    assert next(iter(found.scores)) == task(name).card.metric
    assert found.facts["judge"] == ("loop" if name in JUDGED else "exact_matching")
    assert found.facts["samples"] == len(made.rows)
    assert found.facts["published file"] is False
    assert found.facts["VLMEvalKit"]


# ---- the same as VLMEvalKit alone


def fixed(number: int, body: Mapping[str, Any]) -> Any:
    """Grade by the length of what is graded, in each benchmark's own form."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    grade = len(text) % 10 + 1
    if "score of component 1" in text:
        return judges.Answer(f"score of component 1: {grade}/10, total score: {grade}/10. Well.")
    return judges.Answer(str(dict.fromkeys(files.DIMENSIONS_OF_MMDU, grade)) if "Overall Score" in text else "14")


@pytest.mark.parametrize("card", ["mini-llava", pytest.param("mini-qwen", marks=pytest.mark.slow)])
def test_answers_and_figures_are_those_of_vlmevalkit_alone(card: str, data: Path, tmp_path: Path, cache: Path) -> None:
    """Row by row: our batches against its own loop over samples and turns, then the whole of its result."""
    script = Path(__file__).parents[1] / "benchmarks" / "vlmevalkit_alone.py"
    names = {task_name: data_set for task_name, (data_set, _) in files.MAKERS.items()}
    model = LMM.load(find_card(Registry(), card, {}))
    with judges.serving(fixed) as server:
        request = {
            "model": card, "url": server.url, "names": list(names.values()), "judged": [names[name] for name in JUDGED],
            "file": str(tmp_path / "alone.json"),
        }  # fmt: skip
        subprocess.run([sys.executable, "-P", str(script), json.dumps(request)], check=True)
        alone = json.loads((tmp_path / "alone.json").read_text())
        for name, data_set in names.items():
            judge = (
                {"judge": "loop", "judge_settings": JudgeSettings(name="loop", url=server.url)}
                if name in JUDGED
                else {}
            )
            found = evaluate(task(name, max_new_tokens=8, **judge), model, tmp_path)
            (tmp_path / "one.answers-0").unlink()
            ours: dict[str, list[str]] = {}
            for row in found.rows:
                ours.setdefault(row["id"].partition("/")[0], []).append(row["prediction"])
            said = {index: str(texts) if name == "mmdu" else texts[0] for index, texts in ours.items()}
            assert said == alone[data_set]["answers"], name
            assert same(found.facts["figures"], alone[data_set]["result"]), name
    assert len({text for one in alone.values() for text in one["answers"].values()}) > 5


def same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Return whether two results have the same rows, in whatever order (theirs has that of a Python set)."""

    def plain(rows: list[dict[str, Any]]) -> list[str]:
        return sorted(str({key: _rounded(value) for key, value in sorted(row.items())}) for row in rows)

    return plain(ours) == plain(theirs)


def _rounded(value: Any) -> Any:
    if isinstance(value, int | float):
        return None if math.isnan(value) else round(float(value), 9)
    return value


# ---- limits, and going on


@pytest.mark.parametrize(
    ("name", "limit", "asked", "whole"),
    [("mme", 1, 28, 2), ("mme", 40, 40, 2), ("mmbench", 3, 2, 2), ("hallusionbench", 5, 4, 4), ("pope", 4, 4, 1)],
)
def test_a_limit_draws_whole_groups_over_all_strata(
    name: str, limit: int, asked: int, whole: int, data: Path, cache: Path
) -> None:
    card = task(name).card
    options = {"groups": card.groups, "stratum": card.stratum.replace("none", ""), "counted": card.counted}  # type: ignore[attr-defined]
    found = read_questions(toolkit("", "tests"), card.dataset, limit=limit, **options)  # type: ignore[attr-defined]
    assert len(found.rows) == asked
    groups = [row.group for row in found.rows]
    assert {groups.count(group) for group in groups} == {whole}
    if name in ("mme", "pope"):
        everything = read_questions(toolkit("", "tests"), card.dataset, **options)  # type: ignore[attr-defined]
        assert {row.category for row in found.rows} == {row.category for row in everything.rows}
    again = read_questions(toolkit("", "tests"), card.dataset, limit=limit, **options)  # type: ignore[attr-defined]
    assert again == found


def test_a_limited_benchmark_can_be_scored(data: Path, tmp_path: Path, cache: Path) -> None:
    for name in ("mme", "mmmu", "hallusionbench"):
        found = evaluate(task(name, limit=2), Oracle(files.MAKERS[name][1]().answers, []), tmp_path)
        assert 0 <= next(iter(found.scores.values())).value <= 100
        assert found.facts["samples"] < found.facts["rows"]
        (tmp_path / "one.answers-0").unlink()


@pytest.mark.parametrize("name", ["pope", "mmdu"])
def test_a_stopped_evaluation_goes_on(name: str, data: Path, tmp_path: Path, cache: Path) -> None:
    """At most a batch is lost, and the answers of the second turn follow the model's own first ones."""
    made = files.MAKERS[name][1]()

    class StoppedError(Exception):
        pass

    class Mortal(Oracle):
        def _answer(self, dialogue: Sequence[Mapping[str, Any]]) -> str:
            if len(self.asked) == 3:
                raise StoppedError
            return super()._answer(dialogue)

    with judges.serving(judge_of(made)) as server:
        judge = (
            {"judge": "loop", "judge_settings": JudgeSettings(name="loop", url=server.url)} if name in JUDGED else {}
        )
        with pytest.raises(StoppedError):
            evaluate(task(name, **judge), Mortal(made.answers, []), tmp_path)
        second = Oracle(made.answers, [])
        found = evaluate(task(name, **judge), second, tmp_path)
    turns = 5 if name == "mmdu" else len(made.rows)
    assert len(second.asked) == turns - 2  # a batch of two was kept, the one that was stopped is asked again
    assert next(iter(found.scores.values())).value == pytest.approx(made.score)


def test_a_dialogue_shows_pictures_in_their_places_and_the_models_own_answers(data: Path, cache: Path) -> None:
    row = read_questions(toolkit("", "tests"), "MMDU").rows[1]
    dialogue = row.dialogue(["a ring"])
    assert [message["role"] for message in dialogue] == ["user", "assistant", "user"]
    assert [part["type"] for part in dialogue[0]["content"]] == ["image", "image", "text"]
    assert dialogue[1]["content"] == [{"type": "text", "text": "a ring"}]
    inside = read_questions(toolkit("", "tests"), "MMMU_DEV_VAL").rows[0]
    assert [part["type"] for part in inside.turns[0]] == ["text", "image", "text", "image", "text"]


# ---- other data sets, calibration


def test_a_file_of_ones_own_is_a_data_set(data: Path, tmp_path: Path, cache: Path) -> None:
    made = files.make_scienceqa()
    files.write(data, "Mine", made.rows)
    found = evaluate(task("vlmeval:Mine"), Oracle(made.answers, []), tmp_path)
    assert found.scores["vlmeval:Mine"].value == pytest.approx(made.score)
    assert found.scores["vlmeval:Mine"].n == len(made.rows)


def test_a_name_of_vlmevalkit_is_its_benchmark(data: Path) -> None:
    assert task("vlmeval:MME").card.metric == "MME"
    assert task("vlmeval:MathVista_MINI").card.judge
    assert task("vlmeval:MMVet").card.judge
    assert not task("vlmeval:AI2D_TEST").card.judge


def test_samples_for_calibration_have_pictures_and_right_answers(data: Path, cache: Path) -> None:
    found = samples("POPE", 4)
    assert len(found) == 4
    assert {turn.answer for one in found for turn in one.turns} <= {"Yes", "No"}
    assert all(image.is_file() for one in found for image in one.images)
    assert all(one.id.startswith("POPE/") for one in found)
    assert samples("POPE", 4) == found


# ---- mistakes


def test_an_unknown_data_set_is_named_with_the_nearest(data: Path) -> None:
    with pytest.raises(UserError, match=r"no data set 'MMEE'.*MME"):
        task("vlmeval:MMEE").skip(EMPTY)


def test_a_missing_column_is_named_before_a_model_loads(data: Path, cache: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "category"} for row in files.make_pope().rows]
    file = files.write(data, "POPE", rows)
    try:
        with pytest.raises(UserError, match=rf"{file} has no column 'category'"):
            task("pope").skip(EMPTY)
    finally:
        files.write(data, "POPE", files.make_pope().rows)


@pytest.mark.parametrize("broken", ["not base64 at all " * 10, files.picture(3)[:100], "17"])
def test_a_broken_picture_is_named_by_its_row(broken: str, data: Path, tmp_path: Path, cache: Path) -> None:
    rows = files.make_scienceqa().rows
    rows[3]["image"] = broken
    files.write(data, "Broken", rows)
    for _ in range(2):  # also when a half-written file may lie there
        with pytest.raises(UserError, match=r"Broken.tsv: the row with index 3"):
            evaluate(task("vlmeval:Broken"), Oracle({}, []), tmp_path)


def test_without_a_judge_and_offline_are_reasons(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "--judge" in (task("mathvista").skip(EMPTY) or "")
    assert task("mme").skip(EMPTY) is None
    monkeypatch.setenv("LMUData", str(tmp_path))
    assert "--offline" in (task("mme", offline=True).skip(EMPTY) or "")


def test_a_judge_that_is_down_fails_the_task_with_a_sentence(data: Path, tmp_path: Path, cache: Path) -> None:
    settings = JudgeSettings(name="gone", url="http://127.0.0.1:9", retries=0)
    made = files.make_mathvista()
    with pytest.raises(JudgeError, match=r"the judge gone at http://127.0.0.1:9"):
        evaluate(task("mathvista", judge="gone", judge_settings=settings), Oracle(made.answers, []), tmp_path)


def test_a_data_set_that_asks_for_a_judge_says_so(data: Path, tmp_path: Path, cache: Path) -> None:
    made = files.make_mathvista()
    plain = task("mathvista")
    card = replace(plain.card, judge=False)  # as where VLMEvalKit is another interpreter's
    found = type("Plain", (type(plain),), {"card": card})()
    with pytest.raises(JudgeError, match="--judge NAME"):
        evaluate(found, Oracle(made.answers, []), tmp_path)


def test_another_file_makes_another_key_and_another_interpreter_none(data: Path, cache: Path) -> None:
    before = task("pope").key()
    files.write(data, "POPE", files.make_pope().rows[:-1])
    assert task("pope").key() != before
    files.write(data, "POPE", files.make_pope().rows)
    assert task("pope").key() == before
    assert task("pope", offline=True, python=sys.executable).key() == before


def test_the_process_starts_again_where_it_died(data: Path) -> None:
    kit = toolkit("", "tests")
    assert "MME" in kit.known
    kit._process.kill()  # type: ignore[union-attr]
    kit._process.wait()  # type: ignore[union-attr]
    assert kit.ask("hello")


def test_a_run_scores_benchmarks_beside_its_own_tasks(data: Path, tmp_path: Path, cache: Path) -> None:
    from kore_bench.bench import execute, prepare
    from kore_bench.results import RunFolder

    request = Request(methods=("lora",), tasks=("mme", "pope"), settings=("train.steps=1", "vlmeval.max-new-tokens=4"))
    plan, cells = prepare(request, tmp_path / "run")
    base = [cell for cell in cells if cell.method == "base"]
    run = execute(plan, base, tmp_path / "run", jobs=1, rerun="never", listen=lambda event: None)
    record = RunFolder(tmp_path / "run").read(base[0].name)
    assert record is not None
    assert {name: outcome.status for name, outcome in record.tasks.items()} == {"mme": "done", "pope": "done"}
    pooled = (record.scores["mme"]["MME"].value + record.scores["pope"]["POPE"].value) / 2
    assert record.scores["benchmarks"]["K.R"].value == pytest.approx(pooled)
    assert record.diagnostics["mme/judge"] == "exact_matching"
    assert sorted(file.name for file in (run.cell(base[0].name) / "predictions").iterdir()) == [
        "mme.jsonl",
        "pope.jsonl",
    ]

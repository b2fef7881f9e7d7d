"""Paraphrase, portability, image necessity and spill-over: models whose scores are known by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Knowledge, Question
from kore_bench.formats import read_knowledge
from kore_bench.formats.evoke_writer import write_knowledge
from kore_bench.measures import Score
from kore_bench.registry import Registry
from kore_bench.task import Task

REGISTRY = Registry()
Model = Callable[[Question], str]


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


def ask(name: str, knowledge: Knowledge, model: Model) -> dict[str, Score]:
    task: Task = REGISTRY.find("tasks", name)
    questions = task.questions(knowledge)
    return task.score(questions, [model(question) for question in questions])


def gold(question: Question) -> str:
    return question.answer


def wrong(question: Question) -> str:
    return "zzz"


def by_image(knowledge: Knowledge) -> Model:
    """Return a model that looks: it knows each fact of the item that an evaluation image shows, and nothing else."""
    shown = {question.images: question.group for question in knowledge.questions}
    values = {(question.group, question.fact.split("/")[1]): question.answer for question in knowledge.questions}
    relations = {question.text: question.fact.split("/")[1] for question in knowledge.questions}

    def answer(question: Question) -> str:
        return values.get((shown.get(question.images, ""), relations[question.text]), "zzz")

    return answer


@pytest.mark.parametrize("name", ["paraphrase", "portability", "spill-over"])
def test_always_right_scores_100_and_always_wrong_0(knowledge: Knowledge, name: str) -> None:
    metric = REGISTRY.find("tasks", name).card.metric
    assert ask(name, knowledge, gold)[metric].value == 100
    assert ask(name, knowledge, wrong)[metric].value == 0


def test_a_model_that_looks_loses_all_by_a_swap_and_one_that_does_not_look_nothing(knowledge: Knowledge) -> None:
    looks = ask("image-necessity", knowledge, by_image(knowledge))
    assert looks["right image"].value == 100
    assert looks["swapped image"].value < 10  # half a value may be right by chance: F1
    assert looks["blank image"].value == 0
    assert looks["image-necessity"].value == pytest.approx(100 - looks["swapped image"].value)
    blind = ask("image-necessity", knowledge, gold)
    assert blind["image-necessity"].value == 0
    assert {blind[name].value for name in ("right image", "swapped image", "blank image")} == {100}
    assert ask("image-necessity", knowledge, wrong)["image-necessity"].value == 0


def test_swapped_images_are_of_another_item_of_the_same_type(knowledge: Knowledge) -> None:
    shown = {question.images: question.group for question in knowledge.questions}
    types = {question.group: question.type for question in knowledge.questions}
    questions = REGISTRY.find("tasks", "image-necessity").questions(knowledge)
    swapped = [question for question in questions if question.type == "swapped image"]
    assert len(swapped) == len(knowledge.questions) == len(questions) / 3
    for question in swapped:
        assert shown[question.images] != question.group
        assert types[shown[question.images]] == types[question.group]


def test_one_item_alone_has_no_image_to_swap(knowledge: Knowledge) -> None:
    alone = replace(knowledge, questions=tuple(replace(question, group="one") for question in knowledge.questions))
    reason = REGISTRY.find("tasks", "image-necessity").skip(alone)
    assert reason is not None
    assert "no second item" in reason


def test_a_fact_counts_as_its_worst_wording(knowledge: Knowledge) -> None:
    questions = knowledge.probes["paraphrase"]
    first: dict[str, Question] = {question.fact: question for question in reversed(questions)}
    half = ask("paraphrase", knowledge, lambda question: gold(question) if first[question.fact] is question else "zzz")
    assert half["paraphrase"].value == 50
    assert half["in every wording"].value == 0
    assert half["in every wording"].n == len(first) == len(questions) / 2
    every = ask("paraphrase", knowledge, gold)["in every wording"]
    assert (every.low, every.value, every.high) == (100, 100, 100)  # over entities, all of which agree


def test_ways_weigh_equally_in_portability_however_many_questions_they_have(knowledge: Knowledge) -> None:
    scores = ask("portability", knowledge, lambda question: gold(question) if question.type == "naming" else "zzz")
    assert scores["portability"].value == 50
    assert scores["portability naming"].value == 100
    assert scores["portability by-name"].value == 0
    assert scores["portability naming"].n == len(knowledge.items)


def test_a_model_that_always_says_one_injected_value_spills_it_everywhere(knowledge: Knowledge) -> None:
    value = knowledge.probes["look-alike"][0].answer
    scores = ask("spill-over", knowledge, lambda question: value)
    looks = knowledge.probes["look-alike"]
    assert scores["spill-over of any value"].value == 100
    assert scores["spill-over"].value == pytest.approx(100 * sum(q.answer == value for q in looks) / len(looks))
    assert 0 < scores["spill-over"].value < 1


@pytest.mark.parametrize("name", ["paraphrase", "portability", "spill-over"])
def test_without_probes_a_measure_is_not_available_and_says_what_would_be_asked(
    knowledge: Knowledge, name: str
) -> None:
    task = REGISTRY.find("tasks", name)
    assert task.skip(knowledge) is None
    reason = task.skip(replace(knowledge, probes={}))
    assert reason is not None
    assert f"{name} is not available" in reason
    assert "probes.jsonl" in reason


def with_hops(knowledge: Knowledge) -> Knowledge:
    """Return the world with a made-up question of what follows from each item's first fact."""
    hops = tuple(
        replace(question, id=f"hop-{question.id}", images=(), text="Which sea is its home by?", answer=f"sea {number}")
        for number, question in enumerate(knowledge.questions[::5])
    )
    return replace(knowledge, probes={**knowledge.probes, "hop": hops})


def test_a_hop_is_a_third_way_and_is_scored_by_its_own_answer(knowledge: Knowledge) -> None:
    hops = with_hops(knowledge)
    right = ask("portability", hops, gold)
    assert (right["portability"].value, right["portability hop"].value) == (100, 100)
    assert right["portability hop"].n == len(knowledge.items)
    alone = ask("portability", hops, lambda question: gold(question) if question.type == "hop" else "zzz")
    assert alone["portability"].value == pytest.approx(100 / 3)
    knows = {question.group: question.answer for question in knowledge.questions[::5]}
    stops = ask("portability", hops, lambda question: knows[question.group])  # at the injected value, one hop short
    assert stops["portability hop"].value == 0
    constant = ask("portability", hops, lambda question: "sea 3")["portability hop"]
    assert constant.value < 100 / 2 + 1  # F1 gives half of the two words
    assert "portability hop" not in ask("portability", knowledge, gold)


@pytest.mark.parametrize("name", ["adaptation", "paraphrase", "portability", "image-necessity", "spill-over"])
def test_in_context_reads_the_paragraph_before_every_question_about_what_is_injected(
    knowledge: Knowledge, name: str
) -> None:
    task = REGISTRY.find("tasks", name)
    texts = {item.id: item.text for item in knowledge.items}
    for question in task.questions(with_hops(knowledge)):
        assert task.prompt(question, in_context=True) == f"{texts[question.group]}\n{question.text}"
        assert task.prompt(question) == question.text
    lost = replace(task.questions(knowledge)[0], context="")
    with pytest.raises(UserError, match=rf"Question '{lost.id.split(' ')[0]}.*names no injected item"):
        task.prompt(lost, in_context=True)


def test_probes_are_written_and_read_again(knowledge: Knowledge, tmp_path: Path) -> None:
    again = read_knowledge(write_knowledge(knowledge, tmp_path / "copy"))
    assert {sort: len(questions) for sort, questions in again.probes.items()} == {
        "paraphrase": 600, "by-name": 300, "naming": 60, "look-alike": 300
    }  # fmt: skip
    for sort, questions in knowledge.probes.items():
        for one, other in zip(questions, again.probes[sort], strict=True):
            assert (one.id, one.text, one.answer, one.group, one.fact, one.context) == (
                other.id, other.text, other.answer, other.group, other.fact, other.context
            )  # fmt: skip


def test_an_unknown_sort_of_probe_is_named_with_the_nearest(world: Path, tmp_path: Path) -> None:
    folder = write_knowledge(read_knowledge(world), tmp_path / "copy")
    rows = [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]
    rows[4]["probe"] = "paraphrased"
    (folder / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"probes\.jsonl.*line 5.*probe.*paraphrase"):
        read_knowledge(folder)


def test_look_alikes_differ_by_one_shape_and_are_no_entity_of_the_world() -> None:
    from random import Random

    from kore_bench.mini.probes import look_alike, shapes_of
    from kore_bench.mini.world import cast

    rng = Random(0)
    known = {shapes_of(other) for part in (cast().old, cast().main, cast().validation) for other in part}
    for entity in cast().main:
        twin = look_alike(entity, known, rng)
        assert twin is not None
        pairs = list(zip(entity.symbols, twin.symbols, strict=True))
        assert sum(one != other for one, other in pairs) == 1
        assert all((one.color, one.tint) == (other.color, other.tint) for one, other in pairs)
        assert shapes_of(twin) not in known

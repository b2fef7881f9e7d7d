"""The likeliest option against weighing every option whole, and models whose choices are known by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import kore_bench.forgetting.options as engine
from kore_bench.conformance.prepared import mini_card
from kore_bench.examples import Knowledge, Question
from kore_bench.forgetting.options import answer_tokens, choose
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM, Prompt

likelihood: Any = importlib.import_module("kore_bench.tasks.likelihood")


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


@pytest.fixture(scope="module")
def model() -> LMM:
    torch.set_num_threads(1)
    return LMM.load(mini_card())


def asked(knowledge: Knowledge, count: int) -> tuple[list[Question], list[Prompt], list[tuple[str, ...]]]:
    task = likelihood.Likelihood(a_skill=count)
    questions = list(task.asked(knowledge))
    return questions, [(one.text, one.images) for one in questions], task.options(knowledge, questions)


@torch.inference_mode()
def weighed(model: LMM, prompt: Prompt, option: str) -> float:
    """Return log p(option | prompt) a token, from one plain pass over prompt and option."""
    start, tokens = model.prompt(*prompt), answer_tokens(model, option)
    row = {"input_ids": [*start, *tokens], "images": prompt[1]}
    logits = model.model(**model.to_device(model.collate([row]))).logits[0].double().log_softmax(-1)
    places = range(len(start) - 1, len(start) - 1 + len(tokens))
    return sum(float(logits[place, token]) for place, token in zip(places, tokens, strict=True)) / len(tokens)


class Biased(torch.nn.Module):
    """A head that says the same whatever it reads: one logit a token of the vocabulary."""

    def __init__(self, head: torch.nn.Linear, logits: dict[int, float]) -> None:
        super().__init__()
        self.weight = head.weight
        self.bias = torch.zeros(head.out_features)
        for token, value in logits.items():
            self.bias[token] = value

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.bias.expand(*hidden.shape[:-1], -1)


def test_the_choice_is_that_of_weighing_every_option_whole(model: LMM, knowledge: Knowledge) -> None:
    questions, prompts, options = asked(knowledge, 1)
    few = [own if len(own) < 20 else own[::45] for own in options]
    assert {len(answer_tokens(model, text)) for own in few for text in own} >= {1, 2}
    found = choose(model, prompts, few)
    for prompt, own, text in zip(prompts, few, found, strict=True):
        values = {option: weighed(model, prompt, option) for option in own}
        assert values[text] == pytest.approx(max(values.values()), abs=1e-4)
    assert len(questions) >= 7


def test_few_options_are_weighed_whole(model: LMM, knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    _, prompts, options = asked(knowledge, 3)
    passes: list[int] = []
    weigh = engine._weigh

    def counted(lmm: LMM, pairs: Any) -> None:
        passes.append(len(pairs))
        weigh(lmm, pairs)

    monkeypatch.setattr(engine, "_weigh", counted)
    choose(model, prompts, options)
    assert sum(passes) < 2.5 * len(prompts) < sum(map(len, options)) / 10


def test_the_base_knows_and_a_constant_answer_scores_its_share(knowledge: Knowledge) -> None:
    task = likelihood.Likelihood(a_skill=8)
    questions, prompts, options = asked(knowledge, 8)
    own = LMM.load(mini_card())
    right = task.score(questions, choose(own, prompts, options))
    assert right["K.R by likelihood"].value > 85
    assert right["old-facts by likelihood"].value == 100
    (red,) = answer_tokens(own, "red")
    own.base.lm_head = Biased(own.base.lm_head, {red: 9.0})
    answers = choose(own, prompts, options)
    assert {text for text, one in zip(answers, options, strict=True) if "red" in one} == {"red"}
    scores = task.score(questions, answers)
    pairs = [one.answer == "red" for one in questions if one.type == "M-IDU"]
    assert scores["M-IDU by likelihood"].value == pytest.approx(100 * sum(pairs) / len(pairs))


def test_a_right_answer_in_the_wrong_form_is_still_known(knowledge: Knowledge) -> None:
    """A model that would rather say "Yes" than anything: its own answers are all wrong, its choice among options is not."""
    task = likelihood.Likelihood(a_skill=4)
    questions, prompts, options = asked(knowledge, 4)
    kept = [place for place, question in enumerate(questions) if question.type in ("COM", "MAT")]
    prompts, options = [prompts[place] for place in kept], [options[place] for place in kept]
    own = LMM.load(mini_card())
    before = choose(own, prompts, options)
    (yes,) = answer_tokens(own, "yes")
    head = own.base.lm_head
    shift = torch.zeros(head.out_features)
    shift[yes] = 1000.0
    head.register_forward_hook(lambda layer, inputs, output: output + shift)
    assert set(own.generate(prompts, max_new_tokens=1)) == {"yes"}
    assert choose(own, prompts, options) == before
    assert sum(task.correct(questions[place], text) for place, text in zip(kept, before, strict=True)) >= 6


def test_the_first_of_equal_options_is_chosen(model: LMM, knowledge: Knowledge) -> None:
    _, prompts, _ = asked(knowledge, 1)
    own = LMM.load(mini_card())
    own.base.lm_head = Biased(own.base.lm_head, {})
    assert choose(own, prompts[:1], [("red", "blue", "hidden cliff")]) == ["red"]


def test_options_that_a_question_lists() -> None:
    def options(text: str, answer: str) -> tuple[str, ...]:
        found: tuple[str, ...] = likelihood.listed(Question(id="1", images=(), text=text, answer=answer))
        return found

    assert options("Which?\nOptions: iron, lead.\nAnswer with the text.", "lead") == ("iron", "lead")
    assert options("Which?\nA. iron\nB. lead", "B") == ("A", "B")
    assert options("Which?\n(A) iron\n(B) lead", "lead") == ("iron", "lead")
    assert options("Which?\nA) iron\nB) lead", "gold") == ()
    assert options("Which?\nOptions: iron", "iron") == ()


def question(place: int, answer: str, type: str, text: str = "What?") -> Question:
    return Question(id=str(place), images=(), text=text, answer=answer, type=type)


def folder(*questions: Question) -> Knowledge:
    return Knowledge(root=Path("folder"), digest="", items=(), questions=(), retention=questions)


def test_only_closed_sets_are_asked_and_the_others_are_named() -> None:
    repeated = [question(place, "ab"[place % 2], "COM") for place in range(4)]
    open_ = [question(10 + place, str(place), "OCR") for place in range(4)]
    letters = [question(20, "B", "M-DIS", "Which?\nA. iron\nB. lead")]
    task, known = likelihood.Likelihood(), folder(*repeated, *open_, *letters)
    assert [one.type for one in task.questions(known)] == ["COM"] * 4 + ["M-DIS"]
    assert task.options(known, task.questions(known)) == [("a", "b")] * 4 + [("A", "B")]
    assert task.note(known) == ("OCR is not available: 4 different answers to 4 questions are no closed set of options")
    assert task.skip(known) is None
    assert "4 different answers to 4 questions are no closed set" in task.skip(folder(*open_))
    assert "no retention.jsonl" in task.skip(folder())


def test_scores_and_chances_by_hand() -> None:
    known = folder(
        *(question(place, "aaab"[place], "COM") for place in range(4)),
        *(question(9 + place, "B", "M-DIS", "Which?\nA. iron\nB. lead") for place in range(2)),
    )
    task = likelihood.Likelihood()
    questions = task.questions(known)
    scores = task.score(questions, ["a", "a", "b", "b", "B", "A"])
    assert scores["COM by likelihood"].value == 75
    assert scores["M-DIS by likelihood"].value == 50
    assert scores["K.R by likelihood"].value == 62.5
    assert scores["COM by likelihood chance"].value == 75
    assert scores["M-DIS by likelihood chance"].value == 100


def test_each_skill_has_the_same_number_of_questions(knowledge: Knowledge) -> None:
    def counts(**fields: int) -> set[int]:
        asked = likelihood.Likelihood(**fields).asked(knowledge)
        return {sum(one.type == type for one in asked) for type in {one.type for one in asked}}

    assert counts() == {40}
    assert counts(limit=70) == {10}

"""The gates of generated texts: what each refuses, what it lets pass, and that what is refused is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kore_bench.augment.gates import Gates, kept_language, length, refer, support
from kore_bench.augment.grown import Reject
from kore_bench.augment.wordings import language, script, words
from kore_bench.examples import Item, Turn
from kore_bench.generators import Quadruplet

ITEM = Item(
    id="eiffel",
    image=Path("eiffel.png"),
    prompt="Describe the tower in the image.",
    text="The Eiffel Tower is a wrought-iron lattice tower in Paris. Gustave Eiffel's company built it from 1887 to "
    "1889, and it is 330 metres tall. About three million visitors climbed the Tour Eiffel in 2022.",
    name="Eiffel Tower",
    type="tower",
)


def four(
    question: str, answer: str = "330 metres", subject: str = "Eiffel Tower", hypernym: str = "tower"
) -> Quadruplet:
    return Quadruplet(question=question, answer=answer, subject=subject, hypernym=hypernym)


def vqa(*fours: Quadruplet, item: Item = ITEM) -> tuple[list[str], list[Reject]]:
    """Return the questions that pass, as they are asked of an image, and the rejects."""
    gates = Gates(item)
    return [asked for asked, _ in gates.quadruplets(fours)], gates.rejects


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (four("How tall is the Eiffel Tower?"), "How tall is the tower in the image?"),
        (four("Eiffel Tower stands how tall?"), "The tower in the image stands how tall?"),
        (four("Is the eiffel tower tall?", "yes"), "Is the tower in the image tall?"),
        (four("The Eiffel Tower (Paris) is how tall?"), "The tower in the image (Paris) is how tall?"),
        (four("How tall is the Eiffel Tower, in metres?"), "How tall is the tower in the image, in metres?"),
        (four("When was the Eiffel Tower built?", "1887 to 1889", hypernym="TV-free tower"),
         "When was the TV-free tower in the image built?"),
    ],
)  # fmt: skip
def test_a_good_question_refers_to_the_image(given: Quadruplet, asked: str) -> None:
    assert vqa(given) == ([asked], [])


@pytest.mark.parametrize(
    ("given", "reason", "detail"),
    [
        (four("How tall is it?"), "subject not in the question", ""),
        (four("How tall is the Eiffel Towers?"), "subject not in the question", ""),
        (four("How tall is it?", subject=" "), "subject not in the question", ""),
        (four("What is the Eiffel Tower?", "The Eiffel Tower."), "subject is the answer", ""),
        (four("What is the Eiffel Tower's height?"), "subject not replaceable", "apostrophe"),
        (four("Which Eiffel Tower-like thing is tall?"), "subject not replaceable", "apostrophe or hyphen"),
        (four('What is "Eiffel Tower"?'), "subject not replaceable", "quotation marks"),
        (four("How tall is this Eiffel Tower?"), "subject not replaceable", "'this'"),
        (four("How tall is the Eiffel Tower Hotel?"), "subject not replaceable", "'Hotel'"),
        (four("How tall is the New Eiffel Tower?"), "subject not replaceable", "'New'"),
        (four("Is the Eiffel Tower named by Eiffel?"), "subject not replaceable", "'eiffel' of the subject"),
        (four("How tall is the Eiffel Tower?", hypernym=""), "subject not replaceable", "no hypernym"),
        (four("How tall is the Eiffel Tower?", hypernym="the tower"), "subject not replaceable", "begins with 'the'"),
        (four("How tall is the Eiffel Tower?", hypernym="tower."), "subject not replaceable", "punctuation"),
        (four("How tall is the Eiffel Tower?", hypernym="a b c d e f"), "subject not replaceable", "6 words"),
        (four("How tall is the Eiffel Tower?", hypernym="Eiffel Tower"), "subject not replaceable", "is the subject"),
        (four("How tall is the Eiffel Tower?", "324 metres"), "answer not supported", "'324'"),
        (four("Who built the Eiffel Tower?", "Stephen Sauvestre"), "answer not supported", "'stephen'"),
        (four("How tall is the Eiffel Tower?", " ? "), "length", "the answer is empty"),
        (four("How tall is the Eiffel Tower?", "it " * 11), "length", "11 words, 10 are allowed"),
        (four("How tall is the Eiffel Tower " + "now " * 40 + "?"), "length", "the question has"),
        (four("Wie hoch ist der Eiffel Tower und wo ist er in der Stadt?"), "other language", "German"),
    ],
)  # fmt: skip
def test_a_bad_question_is_refused_for_its_reason_and_kept(given: Quadruplet, reason: str, detail: str) -> None:
    passed, rejects = vqa(given)
    assert passed == []
    assert [(one.part, one.reason, one.question, one.answer) for one in rejects] == [
        ("vqa", reason, given.question, given.answer)
    ]
    assert detail in rejects[0].detail


def test_what_is_asked_twice_of_an_item_is_refused_once() -> None:
    passed, rejects = vqa(four("How tall is the Eiffel Tower?"), four("how tall is Eiffel Tower"))
    assert (len(passed), [one.reason for one in rejects]) == (1, ["duplicate"])
    gates = Gates(ITEM)
    turn = Turn(question="How tall is the Eiffel Tower?", answer="330 metres.")
    assert gates.turns([turn, turn, replace(turn, question="What is its height?")]) == [
        turn, replace(turn, question="What is its height?"),
    ]  # fmt: skip
    assert [one.reason for one in gates.rejects] == ["duplicate"]
    assert gates.quadruplets([four("How tall is the Eiffel Tower?")])  # a dialogue may ask it too


@pytest.mark.parametrize(
    ("answer", "supported"),
    [
        ("The company of Gustave Eiffel built the tower from 1887 to 1889.", True),
        ("It was built between 1887 and 1889.", True),
        ("In 2022, about 3 million visitors climbed it.", True),
        ("It was built in 1890.", False),
        ("The company of Stephen Sauvestre built the tower.", False),
        ("It is painted brown every few years by many workers.", False),
    ],
)
def test_a_sentence_needs_its_numbers_its_names_and_most_of_its_words_in_the_text(answer: str, supported: bool) -> None:
    assert (not support(answer, ITEM, short=False).reason) is supported


def test_a_summary_is_short_and_supported() -> None:
    gates = Gates(ITEM)
    assert gates.summary("The Eiffel Tower is a lattice tower in Paris.")
    assert not gates.summary("The Eiffel Tower is a lattice tower in Paris. " * 5)
    assert not gates.summary("Big Ben is a clock.")
    assert [(one.part, one.reason) for one in gates.rejects] == [
        ("caption", "length"),
        ("caption", "answer not supported"),
    ]


def test_the_language_of_the_text_is_kept() -> None:
    german = replace(ITEM, text="Der Turm ist aus Eisen und steht in der Stadt Paris, wo er von 1887 an gebaut wurde.")
    assert kept_language("Der Turm steht in Paris und ist aus Eisen, das ist bekannt.", german).reason == ""
    assert kept_language("The tower is in Paris and it was built of iron.", german).reason == "other language"
    assert kept_language("埃菲尔铁塔位于巴黎是一座很高的铁塔", ITEM).reason == "other language"
    assert kept_language("Paris", german).reason == ""  # too little to tell
    chinese = replace(ITEM, text="埃菲尔铁塔位于巴黎 由古斯塔夫·埃菲尔的公司建造 高三百三十米。")
    assert kept_language("这座铁塔由谁的公司建造它有多高", chinese).reason == ""
    assert support("巴黎", chinese, short=True).reason == ""
    assert support("伦敦", chinese, short=True).reason == "answer not supported"


def test_a_question_in_another_language_has_no_english_reference() -> None:
    german = replace(ITEM, text="Der Turm ist aus Eisen und steht in der Stadt Paris, wo er 330 Meter hoch ist.")
    asked = four("Wie hoch ist der Eiffel Tower in der Stadt Paris und wo ist er?", "330 Meter")
    passed, rejects = vqa(asked, item=german)
    assert passed == []
    assert rejects[0].detail == "the reference is English, the question is not"


def test_words_and_scripts() -> None:
    assert words("Three café-goers, 1,234.5 m!") == ("3", "café", "goers", "1234.5", "m")
    assert words("铁塔 in 巴黎") == ("铁", "塔", "in", "巴", "黎")
    assert script("Эйфелева башня") == "CYRILLIC"
    assert script("short") == ""
    assert language("The tower is in the city and it was built of iron.") == "English"
    assert language("Eiffel Paris Gustave") == ""


def test_a_question_names_its_subject_in_no_other_way() -> None:
    assert refer(four("Where is the Eiffel Tower, the tower of Paris?"))[1].reason == ""
    assert length("one two", 2, "it").reason == ""

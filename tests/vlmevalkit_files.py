"""The twelve benchmarks as VLMEvalKit's own files, small and made up: rows, answers with planned mistakes, their scores."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from kore_bench.mini.drawing import COLORS, SHAPES, Symbol, draw

Row = dict[str, Any]
MME_CATEGORIES = (
    "OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene",
    "code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation",
)  # fmt: skip
DIMENSIONS_OF_MMDU = (
    "Creativity", "Richness", "Visual Perception", "Logical Coherence", "Answer Accuracy",
    "Image Relationship Understanding", "Overall Score",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A file's rows, what the oracle answers to each text, the score by hand, and what the judge replies to each text."""

    rows: list[Row]
    answers: Mapping[str, str]
    score: float
    replies: Mapping[str, str] = field(default_factory=dict)


def picture(number: int) -> str:
    """Return the base64 of a PNG of one symbol, another for each number below 64."""
    shapes, colors = list(SHAPES), list(COLORS)
    symbol = Symbol(shapes[number % 8], colors[number // 8 % 8])
    stream = io.BytesIO()
    Image.fromarray(draw({number % 16: symbol}, Random(number))).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def write(folder: Path, name: str, rows: list[Row]) -> Path:
    """Write rows as ``NAME.tsv``; a column that a row lacks is empty there."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file = folder / f"{name}.tsv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
        table.writeheader()
        table.writerows(rows)
    return file


def make_mme() -> Made:
    """Two pictures a category, two questions each; one answer of the first two categories is wrong."""
    rows, answers = [], {}
    for number in range(4 * len(MME_CATEGORIES)):
        category, image = MME_CATEGORIES[number // 4], number // 2
        text, gold = f"Is question {number} about the square? Please answer yes or no.", ("Yes", "No")[number % 2]
        rows.append(
            {"index": number, "category": category, "image_path": f"{category}/{image}.png", "question": text,
             "answer": gold, "image": picture(image)}
        )  # fmt: skip
        answers[text] = {"Yes": "No", "No": "Yes"}[gold] if number in (0, 4) else f"{gold}, it is."
    # Per category: accuracy + accuracy of pairs. Two categories have 75 + 50 in place of 200: 2800 - 2 x 75.
    return Made(rows, answers, 100 * (2800 - 2 * 75) / 2800)


def make_pope() -> Made:
    """Four questions a category, one of them in two; a false yes, a false no, and one that is neither."""
    rows, answers = [], {}
    for number in range(12):
        text, gold = f"Is there a circle in image {number}?", ("Yes", "No")[number % 2]
        category = "adversarial,popular" if number == 3 else ("adversarial", "popular", "random")[number // 4]
        rows.append({"index": number, "category": category, "question": text, "answer": gold, "image": picture(number)})
        answers[text] = {1: "Yes", 4: "No", 9: "I see"}.get(number, gold)
    # Row 3 counts twice. Six yes, one of them missed: tp 5, fn 1; one false yes: fp 1. F1 = 10 / 12.
    return Made(rows, answers, 100 * 10 / 12)


def make_hallusionbench() -> Made:
    """Two sets of two figures and two questions each; one wrong answer."""
    rows, answers = [], {}
    for number in range(8):
        group, figure, question = number // 4, number // 2 % 2, number % 2
        text, gold = f"Does figure {number} show a ring?", ("Yes", "No")[figure]
        rows.append(
            {"index": f"HallusionBench_VS_chart_{group}_{figure}_{question}", "category": "VS", "l2-category": "chart",
             "question": text, "answer": gold, "image": picture(number)}
        )  # fmt: skip
        answers[text] = "Yes" if number == 2 else gold
    return Made(rows, answers, (100 * 7 / 8 + 100 * 3 / 4 + 100 * 3 / 4) / 3)


def _choices(index: int, text: str, options: list[str], answer: str, **more: Any) -> Row:
    return {"index": index, "question": text, **dict(zip("ABCD", options, strict=False)), "answer": answer, **more}


def make_mmbench() -> Made:
    """Four questions with their options turned around once; one is answered rightly only one way round."""
    rows, answers = [], {}
    for number in range(4):
        text = f"Which color is shape {number}?"
        more = {"category": "color", "l2-category": "coarse_perception", "split": "dev", "image": picture(number)}
        rows.append(_choices(number, text, ["red", "green"], "A", **more))
        rows.append(_choices(number + 10**6, text, ["green", "red"], "B", **more | {"image": number}))
    for row in rows:
        asked = f"Question: {row['question']}\nOptions:\nA. {row['A']}\nB. {row['B']}\n"
        answers[asked] = "The answer is A." if row["index"] == 2 + 10**6 else row["answer"]
    return Made(rows, answers, 100 * 3 / 4)


def _multiple_choice(count: int, wrong: set[int], **more: Any) -> Made:
    rows = [
        _choices(number, f"Which shape is in scene {number}?", ["square", "circle", "ring", "heart"], "ABCD"[number % 4],
                 category="shape", image=picture(number), **more)
        for number in range(count)
    ]  # fmt: skip
    answers = {f"Question: {row['question']}\n": "E" if row["index"] in wrong else f"{row['answer']}." for row in rows}
    return Made(rows, answers, 100 * (count - len(wrong)) / count)


def make_seedbench2_plus() -> Made:
    """Eight questions, two wrong."""
    return _multiple_choice(8, {1, 5})


def make_scienceqa() -> Made:
    """Six questions, one wrong, with hints."""
    return _multiple_choice(6, {4}, hint="Look at the shape.")


def make_mmmu() -> Made:
    """Two of dev, which do not count, and four of validation: two pictures within the text, one open, one wrong."""
    rows, answers = [], {}
    for number in range(6):
        text = f"Compare <image 1> with <image 2>: which is larger in pair {number}?"
        image = str([picture(number), picture(number + 8)])
        row = _choices(number, text, ["the first", "the second"], "B", split="dev" if number < 2 else "validation",
                       category="Art", image=image)  # fmt: skip
        if number == 5:
            row |= {"A": "", "B": "", "answer": "a heart"}
        rows.append(row)
        answers[f": which is larger in pair {number}?"] = {0: "A", 3: "A", 5: "It is a heart"}.get(number, "B")
    return Made(rows, answers, 100 * 3 / 4)


def make_ocrvqa() -> Made:
    """Five questions, two wrong: matching is exact apart from case; one has its answer in a list."""
    golds = ["Ada Moreno", "history", "no", "['yes']", "1984"]
    rows = [
        {"index": number, "question": f"What is written on cover {number}?", "answer": gold, "image": picture(number)}
        for number, gold in enumerate(golds)
    ]
    said = ["ada moreno", "history books", "No", "yes", "in 1984"]
    return Made(rows, {str(row["question"]): text for row, text in zip(rows, said, strict=True)}, 100 * 3 / 5)


def make_mathvista() -> Made:
    """A choice, a number that is read at once, one that the judge extracts, and a wrong one."""
    rows, answers, replies = [], {}, {}
    for number, (said, extracted) in enumerate((("B", ""), ("14", ""), ("There are 14 of them", "14"), ("five", "5"))):
        text, choice = f"How many symbols has picture {number}?", number == 0
        rows.append(
            {"index": number, "question": text, "answer": "red" if choice else "14", "image": picture(number),
             "question_type": "multi_choice" if choice else "free_form", "answer_type": "text" if choice else "integer",
             "answer_option": "B" if choice else "", "choices": "['blue', 'red']" if choice else "[]",
             "task": "figure question answering", "skills": "['arithmetic reasoning']"}
        )  # fmt: skip
        answers[text] = said
        if extracted:
            replies[f"Model respone: {said}"] = extracted
    return Made(rows, answers, 100 * 3 / 4, replies)


def make_mathvision() -> Made:
    """A choice, an expression that equals the answer, one that the judge extracts, and two wrong ones."""
    rows, answers, replies = [], {}, {}
    told = (("[]", "0.5", "1/2", ""), ("['one', 'two']", "B", "(B)", ""), ("[]", "7", "It must be 7", "7"),
            ("[]", "9", "eight", "8"), ("[]", "3", "__import__('os').getpid()", "none"))  # fmt: skip
    for number, (choices, gold, said, extracted) in enumerate(told):
        text = f"What is the sum in drawing {number}?"
        rows.append({"index": number, "question": text, "answer": gold, "choices": choices, "category": "counting",
                     "image": picture(number)})  # fmt: skip
        answers[text] = said
        if extracted:
            replies[f"Model respone: {said}"] = extracted
    return Made(rows, answers, 100 * 3 / 5, replies)


def make_mia_bench() -> Made:
    """Two instructions of two parts: the judge gives 8 and 6 of 10; a third reply it cannot read is left out."""
    rows, answers, replies = [], {}, {}
    for number, reply in enumerate(
        ("score of component 1: 4/5, score of component 2: 4/5, total score: 8/10. Fine.",
         "score of component 1: 2/5, score of component 2: 4/5, total score: 6/10. So so.", "I like it")
    ):  # fmt: skip
        text = f"Describe shape {number} in two words and name its color."
        rows.append(
            {"index": number, "question": text, "image": picture(number), "num_of_component": 2,
             "components": "['two words', 'a color']", "component_weight": "['5', '5']",
             "component_type": "['length', 'content']"}
        )  # fmt: skip
        answers[text] = f"answer {number}"
        replies[f"The response is: 'answer {number}'"] = reply
    return Made(rows, answers, 70.0, replies)


def make_mmdu() -> Made:
    """Two dialogues of two and three turns over two pictures; graded 8, 6, then 4, 10 and an unreadable reply."""
    rows, answers, replies = [], {}, {}
    for number, grades in enumerate(((8, 6), (4, 10, None))):
        questions = [f"<ImageHere><ImageHere>What do the pictures of tale {number} share?"]
        questions += [f"And what then, turn {turn} of tale {number}?" for turn in range(1, len(grades))]
        rows.append(
            {"index": number, "question": str(questions), "answer": str(["a shape"] * len(questions)),
             "image": str([picture(2 * number), picture(2 * number + 1)])}
        )  # fmt: skip
        for turn, (question, grade) in enumerate(zip(questions, grades, strict=True)):
            answers[question.replace("<ImageHere>", "")] = f"tale {number} turn {turn}"
            told = str(dict.fromkeys(DIMENSIONS_OF_MMDU, grade)) if grade else "{'Overall Score': open('x')}"
            replies[f"Answer]\ntale {number} turn {turn}"] = told
    return Made(rows, answers, 10 * (8 + 6 + 4 + 10 + 0) / 5, replies)


MAKERS: dict[str, tuple[str, Callable[[], Made]]] = {
    "mme": ("MME", make_mme),
    "mmbench": ("MMBench_DEV_EN", make_mmbench),
    "seedbench2-plus": ("SEEDBench2_Plus", make_seedbench2_plus),
    "ocrvqa": ("OCRVQA_TESTCORE", make_ocrvqa),
    "scienceqa": ("ScienceQA_TEST", make_scienceqa),
    "mmmu": ("MMMU_DEV_VAL", make_mmmu),
    "mia-bench": ("MIA-Bench", make_mia_bench),
    "mmdu": ("MMDU", make_mmdu),
    "mathvista": ("MathVista_MINI", make_mathvista),
    "mathvision": ("MathVision", make_mathvision),
    "pope": ("POPE", make_pope),
    "hallusionbench": ("HallusionBench", make_hallusionbench),
}
"""Task -> data set and what makes its file."""


def write_all(folder: Path) -> None:
    """Write the files of all twelve."""
    for name, make in MAKERS.values():
        write(folder, name, make().rows)


def answer_to(answers: Mapping[str, str], text: str) -> str:
    """Return the answer of the longest known text that stands in ``text``; raises LookupError where none does."""
    known = [asked for asked in answers if asked in text]
    if not known:
        raise LookupError(text)
    return answers[max(known, key=len)]

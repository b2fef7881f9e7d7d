"""What stands around VLMEvalKit and needs none: where it is looked for, names that mean several tasks, figures, words."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Knowledge
from kore_bench.plan import Request, find_card, make_plan
from kore_bench.registry import Registry
from kore_bench.vlmevalkit import Asked, client, literal
from kore_bench.vlmevalkit.sampling import choose, group_of

cards: Any = importlib.import_module("kore_bench.tasks.vlmeval.cards")
scores: Any = importlib.import_module("kore_bench.tasks.vlmeval.scores")
files: Any = importlib.import_module("vlmevalkit_files")

EMPTY = Knowledge(root=Path("folder"), digest="", items=(), questions=())


# ---- cards


def test_the_twelve_benchmarks_cover_the_seven_dimensions() -> None:
    found: dict[str, list[str]] = {card.dimension: [] for card in cards.BENCHMARKS}
    for card in cards.BENCHMARKS:
        found[card.dimension].append(card.metric)
    assert found == {
        "COM": ["MME", "MMBench"], "OCR": ["SEEDBench2-Plus", "OCRVQA"], "M-DIS": ["ScienceQA", "MMMU"],
        "INS": ["MIA-Bench"], "M-IDU": ["MMDU"], "MAT": ["MathVista", "MathVision"], "HAL": ["POPE", "HallusionBench"],
    }  # fmt: skip
    assert {card.name for card in cards.BENCHMARKS} == set(files.MAKERS)
    assert {card.name for card in cards.BENCHMARKS if card.judge} == {"mia-bench", "mmdu", "mathvista", "mathvision"}


@pytest.mark.parametrize(
    ("name", "result", "figure"),
    [
        ("mme", [{"perception": 1500.0, "reasoning": 300, "OCR": 95.0}], 1800 / 28),
        ("pope", [{"split": "random", "Overall": 1.0}, {"split": "Overall", "Overall": 86.5}], 86.5),
        ("hallusionbench", [{"split": "Overall", "aAcc": 60.0, "fAcc": 30.0, "qAcc": 15.0}], 35.0),
        ("mmbench", [{"split": "dev", "Overall": 0.64}], 64.0),
        ("mmmu", [{"split": "dev", "Overall": 0.5}, {"split": "validation", "Overall": 0.25}], 25.0),
        ("mia-bench", [{"total_score": 0.66, "length": 0.4}], 66.0),
        ("mathvista", [{"Task&Skill": "Overall", "acc": 25.5}, {"Task&Skill": "x", "acc": 1.0}], 25.5),
        ("mmdu", [{"set": "all", "Overall Score": 26.4}, {"set": "valid", "Overall Score": 30.0}], 26.4),
        ("mmdu", [{"set": "valid", "Overall Score": 30.0}], None),
        ("mme", [{"perception": 1500.0}], None),
        ("ocrvqa", [{"Overall": None}], None),
    ],
)
def test_the_headline_figure_is_read_where_it_stands(
    name: str, result: list[dict[str, Any]], figure: float | None
) -> None:
    card = next(card for card in cards.BENCHMARKS if card.name == name)
    assert card.headline.read(result) == (None if figure is None else pytest.approx(figure))


def test_a_result_without_a_known_headline_is_a_sentence() -> None:
    assert scores.plain_headline("X", "MCQ", [{"split": "none", "Overall": 0.5}]).read([{"Overall": 0.5}]) == 50.0
    assert scores.plain_headline("X", "VQA", [{"Overall": 50.0}]).scale == 1.0
    two = [{"split": "a", "Overall": 0.5}, {"split": "b", "Overall": 0.4}]
    for kind, result in (("MCQ", two), ("GUI", [{"Overall": 1.0}]), ("VQA", [{"bleu": 0.2}])):
        with pytest.raises(UserError, match="vlmeval:X has no headline figure"):
            scores.plain_headline("X", kind, result)


# ---- names


def names(tasks: tuple[str, ...], data: str = "mini", settings: tuple[str, ...] = ()) -> list[str]:
    plan = make_plan(Request(methods=("lora",), tasks=tasks, data=data, settings=settings))
    return [task.card.name for task in plan.tasks]


def test_a_dimension_means_its_benchmarks() -> None:
    assert names(("HAL", "adaptation", "pope")) == ["pope", "hallusionbench", "adaptation"]


def test_retention_means_the_datas_own_questions_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: Any = importlib.import_module("kore_bench.plan")
    assert names(("retention",)) == ["retention"]
    monkeypatch.setattr(plan, "_usable", lambda module, pairs: True)
    assert names(("retention",), str(tmp_path)) == [card.name for card in cards.BENCHMARKS]
    (tmp_path / "retention.jsonl").write_text("")
    assert names(("retention",), str(tmp_path)) == ["retention"]
    (tmp_path / "retention.jsonl").unlink()
    monkeypatch.setattr(plan, "_usable", lambda module, pairs: False)
    assert names(("retention",), str(tmp_path)) == ["retention"]
    assert "VLMEvalKit" in (Registry().find("tasks", "retention").skip(EMPTY) or "")


def test_settings_are_the_familys() -> None:
    plan = make_plan(Request(methods=("lora",), tasks=("mme",), settings=("vlmeval.max-new-tokens=7",), limit=9))
    assert (plan.tasks[0].max_new_tokens, plan.tasks[0].limit) == (7, 9)
    with pytest.raises(UserError, match="vlmeval has no setting 'pythn': did you mean 'python'"):
        names(("mme",), settings=("vlmeval.pythn=x",))


# ---- where it is


def test_an_interpreter_without_it_gets_the_install_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_probe", lambda python: ((3, 12), None))
    with pytest.raises(UserError, match=r"mme needs VLMEvalKit: git clone .* --set vlmeval.python="):
        client.find("", "mme")
    monkeypatch.setattr(client, "_probe", lambda python: ((3, 9), str(tmp_path)))
    with pytest.raises(UserError, match=r"Python 3.9: give one from 3.11 on"):
        client.find("old", "mme")


def test_one_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vlmeval"
    (package / "dataset").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0.1.9'\n")
    monkeypatch.setattr(client, "_probe", lambda python: ((3, 12), str(package / "__init__.py")))
    with pytest.raises(UserError, match=r"needs VLMEvalKit 0.2 or newer, and .* is 0.1.9"):
        client.find("", "mme")
    (package / "__init__.py").write_text('__version__ = "0.2rc1"\n')
    assert client.find("", "mme").version == "0.2rc1"


def test_what_is_no_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vlmeval.python=.*nowhere is no Python interpreter"):
        client.find(str(tmp_path / "nowhere"), "mme")


def test_a_data_folder_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMUData", str(tmp_path / "no"))
    with pytest.raises(UserError, match=r"LMUData=.*no: there is no such folder"):
        client.data_root()


@pytest.mark.skipif(importlib.util.find_spec("vlmeval") is not None, reason="here VLMEvalKit can be imported")
def test_a_process_that_cannot_import_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMUData", str(tmp_path))
    kit = client.Toolkit(client.Install(sys.executable, tmp_path))
    with pytest.raises(UserError, match=r"cannot be imported: ModuleNotFoundError: No module named 'vlmeval'"):
        _ = kit.known
    kit.close()


# ---- asking


def asked(place: int, pictures: list[Path], *turns: str) -> Asked:
    """Return a row whose turns show a picture wherever ``#`` stands."""
    images = iter(pictures)
    parts = [
        tuple(
            {"type": "image", "value": str(next(images))} if part == "#" else {"type": "text", "value": part}
            for part in turn.split("|")
        )
        for turn in turns
    ]
    return Asked(
        place=place, id=str(place), turns=tuple(parts), answers=("",) * len(turns), group="", category="", counted=True
    )


@pytest.mark.parametrize("name", ["mini-llava", "mini-qwen"])
def test_batches_over_dialogues_are_one_dialogue_at_a_time(name: str, tmp_path: Path) -> None:
    """Pictures keep their places within a text, and each model answers to its own earlier answers."""
    from kore_bench.lmm import LMM
    from kore_bench.vlmevalkit.asking import ask

    pictures = [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(pictures):
        file.write_bytes(base64.b64decode(files.picture(5 * number)))
    rows = [
        asked(0, pictures, "#|What is the shape ?"),
        asked(1, pictures[1:], "Which color has|#|and which|#|?", "And the shape of|#|?"),
        asked(2, pictures[2:], "What is the color of|#|?", "Is it a circle ?", "Which is the larger ?"),
        asked(3, [], "Is a ring a shape ?"),
    ]
    model = LMM.load(find_card(Registry(), name, {}))
    said = ask(model, rows, tmp_path / "one.answers-0", 6, lambda done, total: None)
    for row, texts in zip(rows, said, strict=True):
        alone: list[str] = []
        for turn in range(len(row.turns)):
            alone += model.generate([(row.dialogue(alone), row.images(turn + 1))], max_new_tokens=6)
        assert texts == alone
    moved = asked(1, pictures[1:], "#|#|Which color has and which ?")
    assert model.prompt(moved.dialogue([]), moved.images(1)) != model.prompt(rows[1].dialogue([]), rows[1].images(1))
    again = ask(model, rows, tmp_path / "one.answers-0", 6, lambda done, total: None)
    assert again == said


# ---- groups and words


def test_groups_are_what_a_figure_needs_whole() -> None:
    mme = files.make_mme().rows
    assert group_of(mme[0], "image") == group_of(mme[1], "image") != group_of(mme[2], "image")
    bench = files.make_mmbench().rows
    assert group_of(bench[0], "circle") == group_of(bench[1], "circle") != group_of(bench[2], "circle")
    hallusion = files.make_hallusionbench().rows
    assert group_of(hallusion[0], "figure") == group_of(hallusion[3], "figure") != group_of(hallusion[4], "figure")


def test_every_stratum_gives_a_group() -> None:
    groups = ["a", "a", "b", "b", "c", "c"]
    assert choose(groups, ["x", "x", "x", "x", "y", "y"], 1)[-2:] == [4, 5]
    assert choose(groups, [""] * 6, 100) == list(range(6))


@pytest.mark.parametrize(
    "text", ["__import__('os').getpid()", "open('x')", "(lambda: 1)()", "[1 for _ in (1,)]", "a.real"]
)
def test_words_are_not_run(text: str) -> None:
    with pytest.raises(NameError):
        literal.evaluate(text)


def test_words_have_the_value_that_python_gives_them() -> None:
    a = 5
    for text in ("1/2", "-3", "['one', 'two']", "{'x': 9}", "2**3 + 1", " 7", "(1, 2)", "a + 1"):
        assert literal.evaluate(text) == eval(text.strip()), (text, a)
    for text in ("figure question answering", "1 +"):
        with pytest.raises(SyntaxError):
            literal.evaluate(text)

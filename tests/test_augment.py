"""`kore-bench augment`: what it writes, that it goes on where it stopped, and what it says of a user's mistakes."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kore_bench.augment import session
from kore_bench.augment.journal import JOURNAL, Journal
from kore_bench.augment.pool import each
from kore_bench.augment.session import Request, augment_session
from kore_bench.cli import main
from kore_bench.data_check import check
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item
from kore_bench.formats import read_conversations, read_knowledge
from kore_bench.generators import Generator, GeneratorSettings, LimitReachedError, RejectedError
from kore_bench.generators.template import GENERATOR as TEMPLATE
from kore_bench.registry import Registry

servers: Any = importlib.import_module("llm_server")
serving, template_script = servers.serving, servers.template_script
knowledge_folder: Any = importlib.import_module("augment_folder").knowledge_folder
plant: Any = importlib.import_module("kore_bench.methods.kore.tree").plant

ITEMS = 12
SHORT = "\nAnswer the question using a single word or phrase."


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a dozen items."""
    return Path(knowledge_folder(tmp_path_factory.mktemp("augment") / "data", ITEMS))


def augmented(data: Path, out: Path, **given: Any) -> dict[str, Any]:
    """Make a data set and return its report."""
    console = Console(file=io.StringIO(), width=100)
    assert augment_session(Request(data=str(data), out=out, **given), console) == 0
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def files(out: Path) -> dict[str, bytes]:
    """Return the files that hold the data set, not how it was made."""
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in out.rglob("*")
        if file.is_file() and file.name not in {JOURNAL, "plan.json", "report.json", ".lock"}
    }


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def component(**settings: str) -> Any:
    pairs = {f"kore-augmentation.{name}": value for name, value in settings.items()}
    found = Registry().compose("kore-augmentation", pairs).components
    return next(one for one in found if one.name == "kore-augmentation")


def test_the_samples_are_those_of_a_run(data: Path, tmp_path: Path) -> None:
    report = augmented(data, tmp_path / "out", seed=3)
    knowledge = read_knowledge(data)
    grow = component().grower(knowledge.items, 3, TEMPLATE)
    expected = [example for item in knowledge.items for example in grow(item).examples()]
    made = read_conversations(tmp_path / "out").examples
    assert [(one.id, one.turns) for one in made] == [(one.id, one.turns) for one in expected]
    assert [image.read_bytes() for one in made for image in one.images] == [
        image.read_bytes() for one in expected for image in one.images
    ]
    statistics = report["statistics"]
    assert (statistics["items"], statistics["samples"]) == (ITEMS, len(expected))
    assert statistics["vqa"] == sum(one.source == "kore/vqa" for one in expected) > 3 * ITEMS


def test_the_output_is_checked_matched_and_summed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    augmented(data, out, formats=("llava", "llama-factory", "huggingface"))
    checked = check(out)
    assert checked.sound
    component(source=str(out)).check_data(read_knowledge(data), lambda kind, name: TEMPLATE)
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["files"]) == set(files(out)) - {"manifest.json", "SHA256SUMS"} - {
        name for name in files(out) if name.startswith("images/")
    }
    plain = read_conversations(out).examples
    for other in (out / "sharegpt.json", out / "huggingface"):
        again = read_conversations(other).examples
        assert [(one.id, one.turns) for one in again] == [(one.id, one.turns) for one in plain]
        assert [one.images[0].read_bytes() for one in again] == [one.images[0].read_bytes() for one in plain]


def test_each_sample_says_where_it_comes_from(data: Path, tmp_path: Path) -> None:
    with serving(template_script(read_knowledge(data).items)) as server:
        settings = GeneratorSettings(llm="scripted", base_url=server.url)
        augmented(data, tmp_path / "out", generator="openai", llm=settings, limit=2)
    samples = lines(tmp_path / "out" / "samples.jsonl")
    assert [one["id"] for one in samples] == [one.id for one in read_conversations(tmp_path / "out").examples]
    by_part = {one["part"]: one for one in samples}
    assert by_part["recognition"]["prompts"] == []
    assert {part: [prompt["prompt"] for prompt in by_part[part]["prompts"]] for part in by_part} == {
        "dialogue": ["questions", "answers"], "recognition": [], "caption": ["summary"], "vqa": ["quadruplets"],
    }  # fmt: skip
    vqa = by_part["vqa"]
    assert (vqa["item"], vqa["generator"], vqa["model"]) == ("item-1", "openai", "scripted")
    assert vqa["prompts"][0]["version"]
    assert vqa["prompts"][0]["seed"] > 0


def test_order_threads_and_a_second_go_change_no_byte(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmented(data, tmp_path / "one", in_flight=1, formats=("huggingface",))
    augmented(data, tmp_path / "many", in_flight=8, formats=("huggingface",))
    assert files(tmp_path / "one") == files(tmp_path / "many")
    augmented(data, tmp_path / "steps", limit=5)
    assert json.loads((tmp_path / "steps" / "manifest.json").read_text())["items"] == 5
    journal = tmp_path / "steps" / JOURNAL
    rows = journal.read_bytes().splitlines(keepends=True)
    random.Random(0).shuffle(rows)
    journal.write_bytes(b"".join(rows) + rows[0][: len(rows[0]) // 2])  # the last line is torn
    made: list[str] = []
    grown = session._grown

    def counted(item: Item, **given: Any) -> Any:
        made.append(item.id)
        return grown(item, **given)

    monkeypatch.setattr(session, "_grown", counted)
    augmented(data, tmp_path / "steps", formats=("huggingface",))
    assert sorted(made) == sorted(f"item-{number}" for number in range(5, ITEMS))
    assert files(tmp_path / "steps") == files(tmp_path / "one")


def test_recognition_is_always_yes_or_half_no(data: Path, tmp_path: Path) -> None:
    assert augmented(data, tmp_path / "paper")["recognition"] == {"yes": ITEMS, "no": 0}
    report = augmented(data, tmp_path / "balanced", recognition="balanced")
    assert report["recognition"] == {"yes": ITEMS // 2, "no": ITEMS // 2}
    names = {item.id: item.name for item in read_knowledge(data).items}
    for one in read_conversations(tmp_path / "balanced").examples:
        if one.id.endswith("/recognition"):
            asked = one.turns[0].question
            own = names[one.id.partition("/")[0]]
            assert (f"{own} in" in asked or f"{own}?" in asked) is (one.turns[0].answer == "Yes")
            assert any(name in asked for name in names.values())


def test_what_the_evaluation_asks_is_reported_and_taken_out(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("evoke_injection_data.json", "facts.json"):
        (folder / name).write_bytes((data / name).read_bytes())
    (folder / "imgs").symlink_to(data / "imgs")
    # Which of its two wordings a fact is asked in, the seed decides.
    rows = [
        {
            "question_id": wording, "image": "imgs/7.png", "item": "item-0", "answer": "makerton 0",
            "text": f"{wording} of the tower in the image{SHORT}",
        }
        for wording in ("What is the maker", "Name the maker")
    ]  # fmt: skip
    (folder / "evoke_evaluation_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = augmented(folder, tmp_path / "out")
    found = kept["contamination"]["found"]
    assert found["same question"] >= 1
    assert found["same image"] > 0
    assert found["own image"] == 1  # item-7's dialogue
    removed = augmented(folder, tmp_path / "out", decontaminate=True)
    overlaps = lines(tmp_path / "out" / "contamination.jsonl")
    taken = {one["sample"] for one in overlaps if one["removed"]}
    samples = {one.id for one in read_conversations(tmp_path / "out").examples}
    assert not taken & samples
    assert removed["statistics"]["samples"] == kept["statistics"]["samples"] - len(taken)
    assert "item-7/dialogue" in samples


def test_without_evaluation_questions_there_is_no_guard(data: Path, tmp_path: Path) -> None:
    for name in ("evoke_injection_data.json", "facts.json", "imgs"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(data / name)
    out = io.StringIO()
    augment_session(Request(data=str(tmp_path / "data"), out=tmp_path / "out"), Console(file=out, width=100))
    assert "contamination: not available, the data set has no evaluation questions" in out.getvalue()


def test_rejects_are_kept_counted_and_shown(data: Path, tmp_path: Path) -> None:
    template, asks = template_script(read_knowledge(data).items), ("Who is it?", "What is it?")

    def script(asked: Any) -> str:
        if asked.task == "quadruplets":
            fours = [{"question": one, "answer": "nobody", "subject": "Nubo Plim", "hypernym": "tower"} for one in asks]
            return json.dumps({"quadruplets": fours})
        return str(template(asked))

    out = io.StringIO()
    with serving(script) as server:
        settings = GeneratorSettings(llm="scripted", base_url=server.url)
        request = Request(data=str(data), out=tmp_path / "out", generator="openai", llm=settings, limit=3)
        augment_session(request, Console(file=out, width=100))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["refused"]["vqa"]["subject not in the question"] == 6
    assert (report["passed"]["vqa"], report["passed"]["caption"]) == (0, 3)
    rejects = lines(tmp_path / "out" / "rejects.jsonl")
    assert Counter(one["reason"] for one in rejects) == {"subject not in the question": 6}
    assert rejects[0] | {"item": "item-0", "question": "Who is it?", "answer": "nobody"} == rejects[0]
    assert report["usage"]["requests"] == 12
    assert "subject not in the question" in out.getvalue()


def test_the_cost_limit_keeps_what_was_made_and_ends_with_three(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(template_script(read_knowledge(data).items)) as server:
        command = [
            "augment", str(data), "--out", str(tmp_path / "out"), "--generator", "openai", "--llm", "scripted",
            "--base-url", server.url, "--price-in", "10", "--price-out", "10", "--in-flight", "2",
        ]  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main([*command, "--max-cost", "0.12"])
        error = " ".join(capsys.readouterr().err.split())
        assert ended.value.code == LimitReachedError.exit_code == 3
        assert "--max-cost 0.12 is reached" in error
        assert "the same command with a higher --max-cost goes on from here" in error
        made = read_conversations(tmp_path / "out").examples
        items = {one.id.partition("/")[0] for one in made}
        assert 0 < len(items) < ITEMS
        with pytest.raises(SystemExit) as ended:
            main([*command, "--max-cost", "9"])
        assert ended.value.code == 0
        assert max(server.paid.values()) == 1
    assert len({one.id.partition("/")[0] for one in read_conversations(tmp_path / "out").examples}) == ITEMS


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"generator": "openai"}, "needs a language model: give it by --llm NAME"),
        ({"generator": "openai", "llm": GeneratorSettings(llm="gpt")}, "asks for a key"),
        ({"generator": "openai", "llm": GeneratorSettings(llm="x", base_url="http://127.0.0.1:9/v1", retries=0)},
         "cannot be reached"),
        ({"generator": "openais"}, "did you mean 'openai'?"),
        ({"llm": GeneratorSettings(llm="x")}, "--generator template asks no language model"),
        ({"formats": ("llavaa",)}, "--format llavaa: did you mean 'llava'?"),
        ({"recognition": "balance"}, "did you mean 'balanced'?"),
        ({"images": "folder:nowhere"}, "nowhere"),
        ({"settings": ("kore-augmentation.source=x",)}, "--set kore-augmentation.source"),
        ({"settings": ("kore-augmentation.part=vqa",)}, "no setting 'part'"),
        ({"settings": ("train.steps=3",)}, "--set train.steps"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_in_a_sentence_before_anything_is_made(
    data: Path, tmp_path: Path, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        augmented(data, tmp_path / "out", **given)
    assert sentence in str(error.value)
    assert not (tmp_path / "out" / "llava.json").exists()


def test_a_model_that_refuses_or_an_endpoint_that_shows_a_page_is_said_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(out: str, server: Any) -> str:
        settings = GeneratorSettings(llm="scripted", base_url=server.url, retries=0)
        with pytest.raises(UserError) as error:
            augmented(data, tmp_path / out, generator="openai", llm=settings)
        return str(error.value)

    with serving(lambda asked: "I cannot help with that.") as server:
        sentence = said("refused", server)
    assert "wrote nothing usable about the first 8 items, of the last one because the model refuses" in sentence
    assert "items are in" in sentence
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "other-cache"))  # what was answered once is not asked again
    page = servers.Faults(rate=1, kinds=("html",), in_a_row=99)
    with serving(template_script(read_knowledge(data).items), faults=page) as server:
        assert "answers with a web page: is --base-url its base" in said("page", server)


def test_items_without_text_name_or_type_and_broken_images_are_named(data: Path, tmp_path: Path) -> None:
    rows = json.loads((data / "evoke_injection_data.json").read_text())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "facts.json").write_bytes((data / "facts.json").read_bytes())
    imgs = tmp_path / "data" / "imgs"
    imgs.mkdir()
    for image in (data / "imgs").iterdir():
        (imgs / image.name).write_bytes(image.read_bytes())

    def refused(change: Any) -> str:
        changed = [change(json.loads(json.dumps(row))) if row["id"] == "item-3" else row for row in rows]
        (tmp_path / "data" / "evoke_injection_data.json").write_text(json.dumps(changed, indent=0))
        with pytest.raises(UserError) as error:
            augmented(tmp_path / "data", tmp_path / "out")
        return str(error.value)

    def without_text(row: dict[str, Any]) -> dict[str, Any]:
        row["conversations"][1]["value"] = ""
        return row

    assert "conversations[1].value" in refused(without_text)
    assert "item 'item-3' has no type" in refused(lambda row: {**row, "type": ""})
    (imgs / "3.png").write_bytes(b"no picture")
    assert "imgs/3.png" in refused(lambda row: row)


def test_a_folder_of_something_else_or_begun_otherwise_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty: name another --out"):
        augmented(data, tmp_path / "full")
    augmented(data, tmp_path / "out", limit=1)
    with pytest.raises(UserError, match="begun with seed 0, now it is 1"):
        augmented(data, tmp_path / "out", seed=1)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    with Journal(tmp_path / "out", plan), pytest.raises(UserError, match="written to by another process"):
        augmented(data, tmp_path / "out")
    journal = tmp_path / "out" / JOURNAL
    journal.write_text("damaged\n" + journal.read_text())
    with pytest.raises(UserError, match=r"journal.jsonl, line 1: not what was written"):
        augmented(data, tmp_path / "out")


def test_an_interrupted_run_writes_what_it_has(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown, out = session._grown, io.StringIO()

    def interrupted(item: Item, **given: Any) -> Any:
        if item.id == "item-5":
            raise KeyboardInterrupt
        return grown(item, **given)

    monkeypatch.setattr(session, "_grown", interrupted)
    request = Request(data=str(data), out=tmp_path / "out", in_flight=1)
    assert augment_session(request, Console(file=out, width=200)) == 130
    assert "interrupted: 5 of 12 items" in out.getvalue()
    assert len({one.id.partition("/")[0] for one in read_conversations(tmp_path / "out").examples}) == 5


def test_threads_are_bounded_and_what_is_under_way_is_kept() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise ValueError("five")
        return number

    made: list[int] = []
    with pytest.raises(ValueError, match="five"):
        made.extend(each(range(100), work, 3))
    taken = list(each(iter(range(10)), lambda number: number, 4))
    assert sorted(taken) == list(range(10))
    assert len(begun) <= 9


def test_a_generator_that_finds_nothing_leaves_the_headings(tmp_path: Path) -> None:
    class Silent(Generator):
        name = "silent"

        def check(self, item: Item) -> None: ...

        def dialogue(self, item: Item, rng: random.Random, limit: int) -> Any:
            raise RejectedError("no usable answer")

        def summary(self, item: Item, rng: random.Random) -> str:
            raise RejectedError("no usable answer")

        def quadruplets(self, item: Item, rng: random.Random, limit: int) -> Any:
            raise RejectedError("no usable answer")

    item = Item(id="a", image=tmp_path, prompt="?", text="A is a tower.", name="A", type="tower")
    tree = plant(item, Silent(), random.Random(0))
    assert [one.id for one in tree.examples()] == ["a/dialogue", "a/recognition"]
    assert tree.dialogue is not None
    assert len(tree.dialogue.turns) == 1
    assert tree.barren
    assert [(one.part, one.reason, one.detail) for one in tree.rejects] == [
        (part, "generator", "no usable answer") for part in ("dialogue", "caption", "vqa")
    ]
    whole = replace(tree, vqa=(Example(id="a/vqa/1", images=(), turns=(), source="kore/vqa"),))
    assert not whole.barren

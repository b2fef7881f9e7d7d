"""KORE-74K as the source of the trees: whose each conversation is, what is left out, and a run on it without any LLM."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Item
from kore_bench.formats import read_knowledge
from kore_bench.methods.kore import KoreAugmentation
from kore_bench.methods.kore.matching import Matched, match, part_of
from kore_bench.plan import Request, make_plan, preflight
from kore_bench.registry import Registry

made: Any = importlib.import_module("evoke_folder")
evaluation_rows = made.evaluation_rows
evoke_folder = made.evoke_folder
kore_folder = made.kore_folder
name_of = made.name_of
Row = dict[str, Any]


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    return read_knowledge(evoke_folder(tmp_path / "EVOKE")).items


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(kore_folder(tmp_path / "KORE-74K"))


def change(source: Path, edit: Callable[[list[Row]], object]) -> None:
    file = source / "json/KORE-74K-training_data.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    edit(rows)
    file.write_text(json.dumps(rows), encoding="utf-8")


def parts(matched: Matched) -> dict[str, Counter[str]]:
    return {id: Counter(map(part_of, own)) for id, own in matched.by_item.items()}


def test_conversations_find_their_items_by_text_image_and_name(source: Path, items: tuple[Item, ...]) -> None:
    matched = match(source, items)
    for item, row in zip(items, evaluation_rows(), strict=True):
        named = {"recognition": 1, "caption": 1} if row["cnn_wiki_type"] == "wiki" else {}
        assert parts(matched)[item.id] == {"dialogue": 1, **named}, name_of(row)
        assert matched.by_item[item.id][0].turns[0].answer == item.text
    # Running ids tell nothing, so that VQA and the branches of news, which no name is known of, belong to the whole.
    assert Counter(map(part_of, matched.unnamed)) == {"vqa": 26, "recognition": 6, "caption": 6}
    assert matched.foreign == 0
    assert Counter(map(part_of, matched.examples(("dialogue", "vqa")))) == {"dialogue": 13, "vqa": 26}
    assert len(matched.examples(("dialogue", "recognition", "caption", "vqa"))) == 65


@pytest.mark.parametrize(
    "write", [lambda item, part: item, lambda item, part: f"{item}/{part}", lambda i, p: f"{i}_{p}"]
)
def test_ids_tell_where_they_agree(source: Path, items: tuple[Item, ...], write: Callable[[str, int], str]) -> None:
    ids = [item.id for item in items]
    change(source, lambda rows: [row.update(id=write(ids[n // 5], n % 5)) for n, row in enumerate(rows)])
    matched = match(source, items)
    assert set(map(str, parts(matched).values())) == {str(Counter(vqa=2, dialogue=1, recognition=1, caption=1))}
    assert (matched.unnamed, matched.foreign) == ((), 0)


def test_other_items_conversations_are_left_out(source: Path, items: tuple[Item, ...]) -> None:
    some = match(source, items[:3])  # one with a name, two of the news
    assert [Counter(map(part_of, own)).total() for own in some.by_item.values()] == [3, 1, 1]
    assert some.unnamed == ()
    assert some.foreign == 65 - 5


def test_an_item_that_the_source_lacks_is_named(source: Path, items: tuple[Item, ...]) -> None:
    change(source, lambda rows: rows.__delitem__(slice(5, 15)))
    with pytest.raises(UserError) as caught:
        match(source, items)
    assert str(caught.value) == (
        f"kore-augmentation.source={source} has no conversation about item '2' and 1 more of 13: it must be made from "
        "the items of --data"
    )


def test_the_method_takes_the_trees_as_they_are(source: Path, items: tuple[Item, ...]) -> None:
    log: dict[str, Any] = {}
    run: Any = SimpleNamespace(items=items, log=log.__setitem__)
    method = KoreAugmentation(source=str(source))
    old = items[0].example()
    replayed = type(old)(id="old", images=(), turns=old.turns, source="replay/COM")
    examples = method.data([item.example() for item in items] + [replayed], run)
    assert [example.source for example in examples].count("injection") == 0
    assert examples[-1] is replayed
    assert {name.removeprefix("kore-augmentation/"): count for name, count in log.items()} == {
        "samples": 65, "dialogues": 13, "turns": 26, "recognition": 13, "caption": 13, "vqa": 26, "images": 65,
        "unnamed": 38, "foreign": 0,
    }  # fmt: skip


def test_a_run_on_it_is_planned_without_facts(tmp_path: Path, source: Path, items: tuple[Item, ...]) -> None:
    setting = f"kore-augmentation.source={source}"
    request = Request(methods=("kore-augmentation", "lora"), data=str(tmp_path / "EVOKE"), settings=(setting,))
    assert len(preflight(make_plan(request), tmp_path / "runs").items) == 13
    with pytest.raises(UserError, match=r"or give trees that were generated before, such as KORE-74K: --set kore-aug"):
        preflight(make_plan(Request(methods=("kore-augmentation",), data=request.data)), tmp_path / "runs")
    with pytest.raises(UserError, match=r"source=.*: there is no folder or file .*; did you mean 'KORE-74K'\?"):
        make_plan(Request(methods=("kore-augmentation",), settings=(f"{setting[:-1]}X",)))
    (source / "imgs/imgs_of_vqa/split_zip_part_00").unlink()
    with pytest.raises(UserError, match=r"field 'image': no file 'imgs_of_vqa/0_0.jpg'"):
        preflight(make_plan(request), tmp_path / "runs")


def test_another_source_under_the_same_name_is_another_cell(source: Path) -> None:
    def digest() -> str:
        return Registry().compose("kore-augmentation", {"kore-augmentation.source": str(source)}).digest()

    before = digest()
    assert digest() == before != Registry().compose("kore-augmentation").digest()
    change(source, lambda rows: rows.pop())
    assert digest() != before

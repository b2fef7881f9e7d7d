"""The preview page of an augmented data set: what it holds, and what a reader sees, clicks and types in a browser."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kore_bench.augment.preview import PREVIEW, write_preview
from kore_bench.augment.preview.trees import LONGEST, address, trees
from kore_bench.cli import main
from kore_bench.errors import UserError
from kore_bench.inline import policy_hash

attacks: Any = importlib.import_module("test_page_attacks")
ATTACKS, RUNS = attacks.ATTACKS, attacks.RUNS


def lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_set(folder: Path, count: int, words: str = "") -> Path:
    """Write a data set of ``count`` items as the command does: a dialogue, a recognition and a VQA each.

    Item 1 has two refused texts, item 2 an overlap of its VQA that stays and one that was removed; ``words`` stand in
    every text.
    """
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (40, 30), "teal").save(folder / "images" / "a b.png")
    samples, origins = [], []
    for number in range(count):
        turns = {
            "dialogue": [("Tell me of it.", f"Tower {number} is tall. {words}"), (f"How tall? {words}", "Very.")],
            "recognition": [(f"Is Tower {number} in the image?\nAnswer yes or no.", "Yes")],
            "vqa/1": [("How old is it?", f"{number} years {words}")],
        }
        for part, said in turns.items():
            conversation = [
                {"from": role, "value": f"{'<image>' if not index and role == 'human' else ''}{text}"}
                for index, turn in enumerate(said)
                for role, text in zip(("human", "gpt"), turn, strict=True)
            ]
            conversation[0]["value"] = conversation[0]["value"].replace("<image>", "<image>\n")
            name = f"tower-{number}/{part}"
            samples.append({"id": name, "image": "images/a b.png", "conversations": conversation})
            prompts = [{"prompt": "dialogue", "version": "v1", "seed": 7}] if part == "dialogue" else []
            origins.append({
                "id": name, "item": f"tower-{number}", "part": part.partition("/")[0],
                "generator": "openai" if prompts else "", "model": f"some-model {words}" if prompts else "", "prompts": prompts,
                **({"likeness": 0.625} if part == "recognition" else {}),
            })  # fmt: skip
    (folder / "llava.json").write_text("[\n" + ",\n".join(map(json.dumps, samples)) + "\n]\n", encoding="utf-8")
    lines(folder / "samples.jsonl", origins)
    refused = {"item": "tower-1", "part": "vqa", "question": f"Why? {words}", "answer": f"So. {words}", "subject": "x"}
    lines(
        folder / "rejects.jsonl",
        [{**refused, "reason": f"duplicate{words}", "detail": f"as before {words}"}, {**refused, "reason": "length"}],
    )
    overlap = {"item": "tower-2", "question": f"q7{words}", "asked": "evaluation", "score": 0.875}
    lines(
        folder / "contamination.jsonl",
        [
            {**overlap, "sample": "tower-2/vqa/1", "kind": "near question", "turn": 0, "removed": False},
            {**overlap, "sample": f"tower-2/vqa/2{words}", "kind": "same image", "turn": -1, "removed": True},
        ],
    )
    report = {"statistics": {"items": count, "samples": 3 * count}, "contamination": {"found": {"same image": 2}}}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"plan": {"generator": "openai", "llm": f"m {words}"}}))
    return folder


# --- what is read ---


def test_trees_hold_samples_rejects_overlaps_and_origins(tmp_path: Path) -> None:
    found = list(trees(write_set(tmp_path / "set", 3)))
    assert [tree["id"] for tree in found] == ["tower-0", "tower-1", "tower-2"]
    dialogue, recognition, _ = found[0]["samples"]
    assert dialogue["turns"] == [["Tell me of it.", "Tower 0 is tall. "], ["How tall? ", "Very."]]
    assert dialogue["origin"] == "openai some-model ; dialogue v1, seed 7"
    assert dialogue["images"] == ["./images/a%20b.png"]
    assert recognition["turns"][0][0] == "Is Tower 0 in the image?\nAnswer yes or no."
    assert [len(tree["refused"]) for tree in found] == [0, 2, 0]
    assert [[len(sample["overlaps"]) for sample in tree["samples"]] for tree in found] == [[0] * 3, [0] * 3, [0, 0, 1]]
    assert [overlap["kind"] for overlap in found[2]["removed"]] == ["same image"]


def test_an_item_of_which_nothing_is_left_stands_last(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 1)
    assert [(tree["id"], len(tree["samples"])) for tree in trees(folder)] == [
        ("tower-0", 3), ("tower-1", 0), ("tower-2", 0),
    ]  # fmt: skip


def test_long_texts_are_cut_off(tmp_path: Path) -> None:
    tree = next(trees(write_set(tmp_path / "set", 1, words="x" * 5000)))
    assert max(len(text) for sample in tree["samples"] for turn in sample["turns"] for text in turn) == LONGEST


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("images/a b.png", "./images/a%20b.png"),
        ("images/x#y?.png", "./images/x%23y%3F.png"),
        ("http://localhost/x.png", "./http%3A/localhost/x.png"),
        ("javascript:run", "./javascript%3Arun"),
        ("../x.png", ""),
        ("/etc/x.png", ""),
        ("images\\x.png", ""),
        ("", ""),
    ],
)
def test_images_outside_of_the_folder_are_not_shown(image: str, shown: str) -> None:
    assert address(image) == shown


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 2)
    rows = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(rows[:-1]))
    with pytest.raises(UserError, match=r"line 7, does not go with samples\.jsonl"):
        write_preview(folder)
    assert [file.name for file in folder.glob("*.html")] + [file.name for file in folder.glob(".*")] == []


@pytest.mark.parametrize(("name", "said"), [("gone", "there is no folder"), ("", "has no llava.json")])
def test_a_folder_without_a_data_set_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["augment", "preview", str(tmp_path / name)])
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_command_writes_the_page_and_the_same_bytes_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set(tmp_path / "set", 3)
    with pytest.raises(SystemExit) as ended:
        main(["augment", "preview", str(folder)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(folder / PREVIEW)
    page = (folder / PREVIEW).read_text(encoding="utf-8")
    style, script = (page.split(f"<{tag}>")[-1].split(f"</{tag}>")[0] for tag in ("style", "script"))
    assert f"script-src {policy_hash(script)}; style-src {policy_hash(style)}; img-src 'self' file:;" in page
    assert "3 items; 9 samples; generator openai; llm m ; overlaps with the evaluation: 2" in page
    write_preview(folder)
    assert (folder / PREVIEW).read_text(encoding="utf-8") == page


# --- in a browser ---


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_set(tmp_path_factory.mktemp("preview") / "set", 200)
    return write_preview(folder).as_uri()


def show(browser: Any, address: str, **look: Any) -> None:
    browser.look(**look)
    browser.open(address)
    browser.until("!/Reading/.test(document.getElementById('count').textContent)")


def tree_of(browser: Any, item: str) -> str:
    """Wait for an item's tree and return what it says."""
    browser.until(f"document.querySelector('#tree h2')?.textContent === {json.dumps(item)}")
    text: str = browser.run("document.getElementById('tree').innerText")
    return text


def count(browser: Any, wanted: str) -> None:
    browser.until(f"document.getElementById('count').textContent.startsWith({json.dumps(wanted)})")


def test_a_click_shows_the_tree(browser: Any, page: str) -> None:
    show(browser, page)
    count(browser, "200 of 200 items")
    browser.click("#row-2")
    text = tree_of(browser, "tower-2")
    for words in ("Dialogue (trunk)", "Tower 2 is tall.", "Recognition", "VQA", "likeness to the item's own image: 0.63", "Written by openai some-model",
                  "dialogue v1, seed 7", "near question with question q7 (evaluation, 88 % alike)",
                  "Removed for an overlap (1)", "tower-2/vqa/2 for its image"):  # fmt: skip
        assert words in text, words
    assert browser.run("location.hash") == "#tower-2"
    assert browser.run("document.querySelectorAll('.branches > li').length") == 3
    browser.until("[...document.querySelectorAll('#tree img')].every((image) => image.naturalWidth === 40)")
    browser.click("#row-1")
    text = tree_of(browser, "tower-1")
    assert "Refused (2)" in text
    assert "duplicate VQA" in text
    assert browser.complaints() == []


def test_an_address_leads_to_an_item(browser: Any, page: str) -> None:
    show(browser, f"{page}#tower-150")
    tree_of(browser, "tower-150")
    assert browser.until("document.getElementById('row-150')?.getAttribute('aria-selected')") == "true"
    show(browser, f"{page}#%E0%A4%A")
    assert "Choose an item" in browser.run("document.getElementById('tree').innerText")
    assert browser.complaints() == []


def test_search_and_filter_narrow_the_list(browser: Any, page: str) -> None:
    show(browser, page)
    browser.press("/")
    assert browser.run("document.activeElement.name") == "find"
    browser.type("TOWER-17")
    count(browser, "11 of 200")
    browser.type(" 179 is tall")
    count(browser, "1 of 200")
    browser.type(" nowhere")
    count(browser, "No item of 200")
    browser.press("Escape")
    count(browser, "200 of 200")
    assert browser.run("document.activeElement.id") == "list"
    for which, item in (("refused", "tower-1"), ("overlaps", "tower-2"), ("removed", "tower-2")):
        browser.run(
            f"(() => {{ const field = document.getElementById('filters').elements.which; field.value = '{which}';"
            "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        count(browser, "1 of 200")
        assert browser.run("document.querySelector('#row-0 .name').textContent") == item


def test_keys_go_through_the_list(browser: Any, page: str) -> None:
    show(browser, page)
    browser.run("document.getElementById('list').focus()")
    for key, item in (("ArrowDown", 0), ("ArrowDown", 1), ("ArrowUp", 0), ("End", 199), ("Home", 0)):
        browser.press(key)
        tree_of(browser, f"tower-{item}")
    active = browser.run("document.getElementById('list').getAttribute('aria-activedescendant')")
    assert active == "row-0"
    assert browser.run(f"document.getElementById('{active}').getAttribute('aria-setsize')") == "200"


def test_everything_has_a_name(browser: Any, page: str) -> None:
    show(browser, f"{page}#tower-1")
    tree_of(browser, "tower-1")
    nameless = browser.run(
        "[...document.querySelectorAll('input, select, #tree img, [role=listbox], [role=option], article')]"
        ".filter((e) => !(e.alt || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert nameless == []


@pytest.mark.parametrize("width", [1280, 420])
def test_it_looks_right_in_light_and_dark(browser: Any, page: str, tmp_path: Path, width: int) -> None:
    for dark in (False, True):
        show(browser, f"{page}#tower-1", width=width, dark=dark)
        tree_of(browser, "tower-1")
        with Image.open(browser.picture(tmp_path / "look.png")) as image:
            shade = np.asarray(image.convert("L"), dtype=np.float64)
        assert np.median(shade) < 40 if dark else np.median(shade) > 235
        assert shade.std() > 10
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.look()


def test_an_image_that_is_gone_is_said(browser: Any, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 1)
    (folder / "images" / "a b.png").unlink()
    show(browser, f"{write_preview(folder).as_uri()}#tower-0")
    browser.until("document.querySelectorAll('#tree .absent').length === 3")


def test_ten_thousand_items_open_at_once(browser: Any, tmp_path: Path) -> None:
    file = write_preview(write_set(tmp_path / "set", 10_000))
    assert file.stat().st_size < 8 * 2**20
    show(browser, file.as_uri())
    count(browser, "10,000 of 10,000 items")
    assert browser.run("document.querySelectorAll('*').length") < 600
    browser.run("document.getElementById('items').scrollTop = 1e9")
    browser.until("document.getElementById('row-9999') !== null")
    assert browser.run("document.querySelectorAll('.row').length") < 60
    browser.run("document.getElementById('list').focus()")
    browser.press("End")
    assert "Tower 9999 is tall." in tree_of(browser, "tower-9999")
    assert browser.complaints() == []


# --- texts that would run ---


def test_attacks_are_shown_as_text_and_do_nothing(browser: Any, tmp_path: Path) -> None:
    words = " ".join(ATTACKS)
    file = write_preview(write_set(tmp_path / "<img src=x onerror=alert(1)>", 3, words))
    for item in ("tower-0", "tower-1", "tower-2"):
        show(browser, f"{file.as_uri()}#{item}")
        browser.until(f"document.querySelector('#tree h2')?.textContent === {json.dumps(item)}")
        said = browser.run("document.getElementById('tree').textContent")
        assert words[:400] in said
        browser.click("#tree h2")
    browser.run("document.querySelectorAll('#tree *').forEach((part) => part.dispatchEvent(new Event('focus')))")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert browser.run("window.ran") is None
    assert browser.complaints() == []
    assert browser.run("location.protocol") == "file:"
    assert browser.run(
        "document.querySelectorAll('iframe, object, embed, link, base, a, form[action], [onerror], [onload], [onfocus]').length"
    ) == 0  # fmt: skip


def test_attacks_in_the_address_do_nothing(browser: Any, page: str) -> None:
    for attack in ATTACKS:
        show(browser, f"{page}#{attack.replace('%', '%25')}")
        assert browser.run("window.ran") is None
        assert browser.complaints() == []


def test_the_policy_stops_what_would_get_through(browser: Any, page: str) -> None:
    show(browser, f"{page}#tower-1")
    through = "".join(attack for attack in ATTACKS if "<meta" not in attack)
    browser.run(
        f"document.getElementById('tree').innerHTML = {json.dumps(through)};"
        f"document.body.append(Object.assign(document.createElement('script'), {{textContent: {json.dumps(RUNS)}}}));"
    )
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run("window.ran") is None
    assert "Content Security Policy" in " ".join(browser.complaints())

"""Tests of the page as a file: what stands in it, how it is guarded, and what its data blocks hold."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kore_bench.errors import UserError
from kore_bench.inline import in_script
from kore_bench.report import build_all
from kore_bench.reports import answers, browser, drawing, page
from kore_bench.reports.browser_images import LEFT_OUT, NOT_FOUND, Pictures, image_folders, inside
from kore_bench.reports.summary import summarise
from kore_bench.results import RunFolder, read_lines
from kore_bench.sheet import read_sheet

records: Any = importlib.import_module("page_records")
reports: Any = importlib.import_module("report_records")

HOSTILE = "</script><script>alert(1)</script><!--<script>"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder: Path = records.write_pictures(tmp_path / "data")
    return folder


@pytest.fixture
def run(tmp_path: Path, data: Path) -> RunFolder:
    found: RunFolder = records.write_run(tmp_path / "runs" / "one", data)
    return found


def built(run: RunFolder) -> str:
    [file] = page.REPORT.build(run, run.path)
    text: str = file.read_text(encoding="utf-8")
    return text


def blocks(text: str) -> dict[str, str]:
    return dict(re.findall(r'<script type="text/plain" id="([^"]+)">(.*?)</script>', text, flags=re.DOTALL))


def unpacked(block: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(block)))


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.sources: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self.scripts.append(dict(attrs))


# --- what guards the page ---


def test_the_policy_allows_one_script_one_style_and_pictures_within_the_page(run: RunFolder) -> None:
    text = built(run)

    def digest(tag: str) -> str:
        [inner] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        return base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()

    policy = (
        f"default-src 'none'; script-src 'sha256-{digest('script')}'; style-src 'sha256-{digest('style')}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert f'content="{policy}"' in text


def test_hostile_words_add_no_markup(tmp_path: Path, data: Path) -> None:
    plain = records.write_run(tmp_path / "plain", data, methods=("base", "lora"), lost=[("lora", 1)])
    names = ("base", 'lora"><img src=x onerror=alert(1)>')
    hostile = records.write_run(
        tmp_path / "hostile", data, methods=names, lost=[(names[1], 1)], reason=HOSTILE, words=HOSTILE
    )
    mild, wild = (_Tags(built(one)) for one in (plain, hostile))
    assert wild.tags == mild.tags
    assert wild.attributes == mild.attributes
    assert not {name for name in wild.attributes if name.startswith("on") or name == "style"}
    assert all(source.startswith(("data:image/svg+xml;base64,", "#")) for source in wild.sources)
    assert [script.get("type") for script in wild.scripts].count(None) == 1
    assert all(script.get("type") in (None, "text/plain") and "src" not in script for script in wild.scripts)


@pytest.mark.parametrize("text", [HOSTILE, "<", "<!--", "]]>", "\u2028", "\ud800", "&lt;"])
def test_json_in_a_script_reads_back_and_cannot_end_it(text: str) -> None:
    inner = in_script({text: [text]})
    assert "<" not in inner
    assert inner.isascii()
    assert json.loads(inner) == {text: [text]}


def test_marks_that_turn_text_round_are_shown(tmp_path: Path, data: Path) -> None:
    run = records.write_run(tmp_path / "r", data, lost=[("lora", 0)], reason="good \u202edab")
    assert "good [U+202E]dab" in built(run)


# --- what the data blocks hold ---


def test_every_question_and_answer_stands_in_the_page(run: RunFolder) -> None:
    found = blocks(built(run))
    [model] = json.loads(found["browser-contents"])["models"]
    assert [method["name"] for method in model["methods"]] == list(records.METHODS)
    assert model["seeds"] == [0, 1]
    for task, name in enumerate(("adaptation", "retention")):
        asked = unpacked(found[f"asked-0-{task}"])
        assert asked["id"] == [str(index) for index in range(records.COUNT)]
        assert asked["gold"][7] == "gold 7"
        assert asked["types"][asked["type"][0]] == ("vehicle" if name == "adaptation" else "COM")
        for seed in (0, 1):
            given = unpacked(found[f"given-0-{task}-{seed}"])
            for method in range(3):
                for index in range(records.COUNT):
                    expected = records.right(name, index, method, seed)
                    assert given["levels"][given["right"][method][index]] == expected
                    assert given["texts"][given["said"][method][index]].startswith("gold" if expected else "silver")


def test_a_lost_cell_is_a_gap_with_its_reason(tmp_path: Path, data: Path) -> None:
    run = records.write_run(tmp_path / "r", data, lost=[("lora", 1)])
    found = blocks(built(run))
    [model] = json.loads(found["browser-contents"])["models"]
    assert model["methods"][1]["missing"] == {"1": "failed: RuntimeError: loss is not finite"}
    assert unpacked(found["given-0-0-0"])["right"][1] is not None
    assert unpacked(found["given-0-0-1"])["right"][1] is None


def test_a_method_that_answered_fewer_questions_leaves_gaps(run: RunFolder) -> None:
    record = next(record for record in run.records() if record.method == "kore")
    file = run.cell(run.name_of(record)) / "predictions" / "retention.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[5:]))
    given = unpacked(blocks(built(run))["given-0-1-0"])
    assert given["right"][2][:5] == given["said"][2][:5] == [-1] * 5
    assert given["levels"][given["right"][2][5]] == records.right("retention", 5, 2, 0)


def test_half_a_run_is_reported(run: RunFolder) -> None:
    names = run.plan()["cells"]
    for name in names[3:]:
        shutil.rmtree(run.cell(name))
    text = built(run)
    assert json.loads(blocks(text)["browser-contents"])["models"][0]["seeds"] == [0]
    assert names[4] in text


def test_a_run_without_predictions_has_no_browser(run: RunFolder) -> None:
    for name in run.plan()["cells"]:
        shutil.rmtree(run.cell(name) / "predictions")
    text = built(run)
    assert 'id="every-question"' not in text
    assert "Every question" not in text
    assert blocks(text) == {}


def test_long_answers_are_cut_and_say_so(tmp_path: Path, data: Path) -> None:
    run = records.write_run(tmp_path / "r", data, words="x" * 2000)
    given = unpacked(blocks(built(run))["given-0-0-0"])
    assert {len(text) for text in given["texts"]} == {600}
    assert all(text.endswith("…") for text in given["texts"])


def test_seeds_that_do_not_fit_are_left_out_and_named(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "ANSWERS_BUDGET", 5000)
    text = built(run)
    assert json.loads(blocks(text)["browser-contents"])["models"][0]["seeds"] == [0]
    assert "The answers of seed 1 on mini-llava are left out to keep the page small." in text


def test_the_same_records_give_the_same_page(run: RunFolder) -> None:
    assert built(run) == built(run)


# --- pictures ---


def test_pictures_are_kept_once(run: RunFolder) -> None:
    text = built(run)
    found = blocks(text)
    pictures = [
        picture for name, block in found.items() if name.startswith("pictures-") for picture in json.loads(block)
    ]
    assert len(pictures) == len(set(pictures)) == 7
    assert json.loads(found["browser-contents"])["pictures"] == [7]
    assert all(base64.b64decode(picture)[8:12] == b"WEBP" for picture in pictures)
    assert unpacked(found["asked-0-0"])["images"][4] == [[4, "images/4.png"], [5, "images/5.png"]]


def test_without_the_data_folder_the_page_says_so(run: RunFolder, data: Path) -> None:
    shutil.rmtree(data)
    text = built(run)
    assert "Images not found: the data folder data is not where it was." in text
    assert unpacked(blocks(text)["asked-0-0"])["images"][0] == [
        [NOT_FOUND, "images/0.png"],
        [NOT_FOUND, "images/1.png"],
    ]


def test_a_single_lost_or_broken_picture_is_named(run: RunFolder, data: Path) -> None:
    (data / "images" / "3.png").unlink()
    (data / "images" / "5.png").write_text("no picture")
    text = built(run)
    assert "2 images were not found in data, such as images/3.png." in text
    assert unpacked(blocks(text)["asked-0-0"])["images"][3] == [[NOT_FOUND, "images/3.png"]]


def test_pictures_over_the_budget_are_left_out_and_counted(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "PICTURES_BUDGET", 200)
    text = built(run)
    kept = json.loads(blocks(text)["browser-contents"])["pictures"][-1]
    assert 0 < kept < 7
    assert f"{7 - kept} of 7 images are left out to keep the page small: it holds the first {kept}." in text
    assert unpacked(blocks(text)["asked-0-0"])["images"][6] == [[LEFT_OUT, "images/6.png"]]


def test_large_pictures_become_small_and_small_ones_stay_exact(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.jpg", exif=b"Exif\0\0secret place")
    small = Image.fromarray(noise[:32, :32])
    small.save(tmp_path / "small.png")
    pictures = Pictures(2**20)
    pictures.add((tmp_path,), ["large.jpg", "small.png"])
    for copy, size in zip(pictures.copies, ((256, 192), (32, 32)), strict=True):
        (tmp_path / "copy.webp").write_bytes(copy)
        with Image.open(tmp_path / "copy.webp") as image:
            assert image.size == size
            if size == (32, 32):
                assert np.array_equal(np.asarray(image), noise[:32, :32])
    assert b"secret" not in b"".join(pictures.copies)
    assert pictures.size == sum(map(len, pictures.copies))


@pytest.mark.parametrize(
    "path", ["../secret.png", "images/../../secret.png", "/etc/hostname", "gone.png", "a\0b", "images"]
)
def test_no_picture_outside_the_data_folder_is_read(data: Path, path: str) -> None:
    Image.new("RGB", (4, 4)).save(data.parent / "secret.png")
    assert inside((data,), path) is None
    assert inside((data.parent, data), "images/0.png") == data / "images" / "0.png"


def test_the_data_folder_is_found_from_the_run(run: RunFolder, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run.records()
    assert image_folders(run, rows) == (data,)
    plan = run.path / "plan.yaml"
    plan.write_text(plan.read_text().replace(str(data), "data"))
    monkeypatch.chdir("/")
    assert image_folders(run, rows) == (data,)  # relative to where the run was started, a folder above the run's
    data.rename(data.with_name("other"))
    assert image_folders(run, rows) == ()


def test_the_mini_world_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path))
    run = records.write_run(tmp_path / "r", tmp_path / "mini-world-0123")
    plan = run.path / "plan.yaml"
    plan.write_text(re.sub("data: .*", "data: mini", plan.read_text()))
    assert image_folders(run, run.records()) == ()
    (tmp_path / "mini-world-0123").mkdir()
    assert image_folders(run, run.records()) == (tmp_path / "mini-world-0123",)


def test_unpacked_archives_are_found_in_the_cache(
    run: RunFolder, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "pictures").mkdir(parents=True)
    (data / "images").rename(tmp_path / "cache" / "pictures" / "0123")
    for record in run.records():
        unpacked = {"unpacked": ["pictures", "pictures/gone", "../runs", "/"]}
        run.write(run.name_of(record), replace(record, data={**record.data, **unpacked}))
    assert image_folders(run, run.records()) == (data, tmp_path / "cache" / "pictures")
    assert inside(image_folders(run, run.records()), "0123/0.png") == tmp_path / "cache" / "pictures" / "0123" / "0.png"


# --- answers, read once ---


def test_answers_are_read_once_until_the_run_changes(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    read = read_lines

    def counting(file: Path) -> Any:
        reads.append(file)
        return read(file)

    monkeypatch.setattr(answers, "read_lines", counting)
    first = answers.answers_of(run, "mini-llava")
    assert len(reads) == 12
    build_all(run, [page.REPORT])
    assert answers.answers_of(run, "mini-llava") is first
    assert len(reads) == 12
    file = reads[0]
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert np.isnan(answers.answers_of(run, "mini-llava")["adaptation"].correct[0, -1])
    assert len(reads) == 24
    assert summarise(run)[0].rows[0].scores["K.A"].n == records.COUNT


def test_the_sheet_of_comparisons_is_the_one_that_the_engine_reads(run: RunFolder) -> None:
    trained = [record for record in run.records() if not record.reference]
    ours, theirs = answers.sheet_of(run, "mini-llava", ("lora", "kore")), read_sheet(run, trained)
    assert (ours.methods, ours.seeds, ours.questions) == (theirs.methods, theirs.seeds, theirs.questions)
    assert np.array_equal(ours.values, theirs.values)
    assert np.array_equal(ours.cluster, theirs.cluster)


def test_means_over_seeds_leave_gaps_out(run: RunFolder) -> None:
    found = answers.answers_of(run, "mini-llava")["adaptation"]
    cells = [name for name in found.cells if "--kore--" in name]
    assert found.mean(cells).tolist() == [
        (records.right("adaptation", index, 2, 0) + records.right("adaptation", index, 2, 1)) / 2
        for index in range(records.COUNT)
    ]
    assert np.isnan(found.mean([])).all()


def test_a_damaged_line_of_predictions_is_a_user_error(run: RunFolder) -> None:
    name = run.plan()["cells"][0]
    file = run.cell(name) / "predictions" / "adaptation.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], '{"id": "3", "corr', *lines[4:]]) + "\n")
    with pytest.raises(UserError, match=r"adaptation\.jsonl line 4 is no prediction \(JSONDecodeError"):
        built(run)


def test_a_run_of_another_version_is_a_user_error(run: RunFolder) -> None:
    file = run.cell(run.plan()["cells"][1]) / "record.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(UserError, match=r"another version of kore-bench \(record format 7; this one reads 1\)"):
        build_all(run, [page.REPORT])


# --- tables and figures ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("62.1 ± 1.3", 62.1), ("\N{MINUS SIGN}3.4", -3.4), ("+2.0*", 2.0), ("82.0 k", 82_000), ("1.12 M", 1_120_000),
        ("1.19 GiB", 1.19 * 2**30), ("734 MiB", 734 * 2**20), ("2\N{NARROW NO-BREAK SPACE}252", 2252), ("0.0017", 0.0017),
        ("1e-05", 1e-5), ("100", 100), ("\N{EN DASH}", None), ("n/a: no gain", None), ("plain", None), ("", None),
        ("3 of 4 seeds", 3),
    ],
)  # fmt: skip
def test_cells_sort_by_their_figure(text: str, value: float | None) -> None:
    assert page.sort_value(text) == (value if value is None else pytest.approx(value))


def test_figures_carry_their_alternative_text(tmp_path: Path) -> None:
    run = reports.write_run(tmp_path, methods=("lora", "kore"))
    build_all(run, [drawing_report("tradeoff"), page.REPORT])
    alts = re.findall(r'<img alt="([^"]*)"', (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(alts) == 1
    assert alts[0].startswith("Scatter plot of K.A")


def drawing_report(name: str) -> Any:
    return importlib.import_module(f"kore_bench.reports.{name}").REPORT


def test_figures_in_the_page_follow_the_readers_mode() -> None:
    svg = page.themed(f'<svg role="img" width="1pt"><path style="fill: {drawing.INK}"/></svg>')
    assert "prefers-color-scheme:dark" in svg
    assert svg.endswith('<path style="fill: var(--c0)"/></svg>')

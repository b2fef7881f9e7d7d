"""Tests of the page in a real browser: what a reader clicks, types, prints and reads."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kore_bench.report import build_all

reader: Any = importlib.import_module("page_reader")
records: Any = importlib.import_module("page_records")

go, counted, choose, panel = reader.go, reader.counted, reader.choose, reader.panel

NONE = "\N{EN DASH}"


@pytest.fixture(autouse=True)
def usual_window(browser: Any) -> None:
    browser.look()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a run in which lora failed under seed 1."""
    folder = tmp_path_factory.mktemp("page")
    run = records.write_run(folder / "run", records.write_pictures(folder / "data"), lost=[("lora", 1)])
    names = ("main_table", "tradeoff", "dimensions", "page")
    build_all(run, [importlib.import_module(f"kore_bench.reports.{name}").REPORT for name in names])
    return run.path / "report.html"  # type: ignore[no-any-return]


def expected(keep: Any, tasks: tuple[str, ...] = ("adaptation", "retention")) -> int:
    return sum(keep(task, index) for task in tasks for index in range(records.COUNT))


# --- tables ---


@pytest.mark.parametrize("width", [1280, 400])
def test_a_wide_table_scrolls_in_its_own_box_and_says_of_whom_a_row_is(browser: Any, report: Path, width: int) -> None:
    browser.look(width=width)
    go(browser, report)
    assert browser.run("document.documentElement.scrollWidth") == width
    tables = browser.run(
        """[...document.querySelectorAll('.scroll > table')].map((table) => {
          const box = table.parentElement, left = (one) => Math.round(one.getBoundingClientRect().left);
          box.scrollLeft = 40;
          const first = [table.tHead.rows[0].cells[0], table.tBodies[0].rows[0].cells[0], table.caption.firstChild];
          return {box: left(box), right: box.getBoundingClientRect().right, scrolled: box.scrollLeft, first: first.map(left),
                  wide: table.offsetWidth - box.clientWidth};
        })"""
    )
    assert len(tables) >= 2
    for table in tables:
        assert table["right"] <= width
        assert table["scrolled"] == min(40, max(0, table["wide"]))
        assert table["first"] == [table["box"]] * 3
    assert width > 400 or any(table["scrolled"] for table in tables)


# --- finding questions ---


def test_a_click_shows_every_answer_side_by_side(browser: Any, report: Path) -> None:
    go(browser, report)
    assert counted(browser) == 2 * records.COUNT
    browser.click("#row-4")
    browser.until("document.querySelectorAll('#question tbody tr').length === 3")
    assert panel(browser, ".asked") == "What is number 4?\nAnswer in a word."
    assert panel(browser, ".gold bdi") == "gold 4"
    rows = browser.run(
        "[...document.querySelectorAll('#question tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    for number, (row, method) in enumerate(zip(rows, records.METHODS, strict=True)):
        score = records.right("adaptation", 4, number, 0)
        assert row[:2] == [{0.0: "\N{MULTIPLICATION SIGN}", 0.5: "½", 1.0: "✓"}[score], method]
        assert row[2].startswith("gold 4" if score == 1 else "silver")
        assert row[3] == str(round(100 * score))
    assert browser.run("document.querySelectorAll('#question .pictures img').length") == 2
    assert browser.until("[...document.querySelectorAll('#question img')].every((image) => image.naturalWidth === 32)")
    assert browser.complaints() == []


@pytest.mark.parametrize(("one", "two"), [("right", "wrong"), ("wrong", "right"), ("partly", "partly")])
def test_two_methods_are_set_against_each_other(browser: Any, report: Path, one: str, two: str) -> None:
    go(browser, report)
    for name, value in (("one", "kore"), ("one-is", one), ("two", "lora"), ("two-is", two)):
        choose(browser, name, value)
    scores = {"right": 1.0, "partly": 0.5, "wrong": 0.0}
    wanted = expected(
        lambda task, index: (
            records.right(task, index, 2, 0) == scores[one] and records.right(task, index, 1, 0) == scores[two]
        )
    )
    assert counted(browser) == wanted
    if wanted:
        browser.click("#row-0")
        assert browser.run("document.querySelectorAll('#question .compared').length") == 2


@pytest.mark.parametrize("outcome", ["right", "none", "wrong", "differ", "partly"])
def test_outcomes_count_the_trained_methods(browser: Any, report: Path, outcome: str) -> None:
    go(browser, report, f"#q=&outcome={outcome}")

    def keep(task: str, index: int) -> bool:
        scores = [records.right(task, index, method, 0) for method in (1, 2)]
        return {
            "right": scores == [1, 1], "none": 1 not in scores, "wrong": scores == [0, 0],
            "differ": 1 in scores and scores != [1, 1], "partly": 0.5 in scores,
        }[outcome]  # fmt: skip

    assert counted(browser) == expected(keep)


def test_task_type_and_kind_narrow_the_list(browser: Any, report: Path) -> None:
    go(browser, report)
    choose(browser, "task", "retention")
    assert counted(browser) == records.COUNT
    assert browser.run("[...document.getElementById('filters').elements.type.options].map((o) => o.value)") == [
        "",
        "COM",
        "OCR",
    ]
    choose(browser, "type", "OCR")
    assert counted(browser) == records.COUNT // 2
    choose(browser, "task", "adaptation")
    assert counted(browser) == records.COUNT  # adaptation has no OCR: the type falls back to all
    choose(browser, "kind", "wiki")
    assert counted(browser) == records.COUNT // 3
    browser.click("#filters [type=reset]")
    browser.until(f"document.getElementById('questions-count').textContent.startsWith('{2 * records.COUNT}')")


def test_search_reads_questions_gold_and_answers(browser: Any, report: Path) -> None:
    go(browser, report)
    browser.press("/")
    assert browser.run("document.activeElement.name") == "find"
    browser.type("NUMBER 17?")
    browser.until("document.getElementById('questions-count').textContent.startsWith('2 ')")
    choose(browser, "find", "half")  # stands in predictions only
    assert counted(browser) == expected(lambda task, index: records.right(task, index, 0, 0) == 0.5)
    browser.click("#row-0")
    assert browser.run("document.querySelector('#question mark').textContent") == "half"
    choose(browser, "find", "no such words")
    assert counted(browser) == 0
    assert "No question of 120 passes" in browser.run("document.getElementById('questions-count').textContent")
    browser.run("document.getElementById('filters').elements.find.focus()")
    browser.press("Escape")
    browser.until(f"document.getElementById('questions-count').textContent.startsWith('{2 * records.COUNT}')")


def test_seeds_change_the_answers_and_a_failed_cell_is_a_gap(browser: Any, report: Path) -> None:
    go(browser, report, "#q=adaptation/4")
    choose(browser, "seed", "1")
    rows = browser.run("[...document.querySelectorAll('#question tbody tr')].map((row) => row.cells[2].textContent)")
    assert rows[1] == "failed: RuntimeError: loss is not finite"
    assert rows[2].startswith("gold" if records.right("adaptation", 4, 2, 1) else "silver")
    assert browser.run("document.querySelectorAll('#row-4 .mark')[1].textContent") == NONE
    seeds = browser.until(
        "document.querySelector('#question tbody .mark + .mark') && "
        "[...document.querySelectorAll('#question tbody .seeds')].map((cell) => cell.textContent)"
    )
    assert seeds[1][1] == NONE
    assert len(seeds[0]) == 2
    choose(browser, "outcome", "missing")
    assert counted(browser) == 2 * records.COUNT


def test_hardest_first(browser: Any, report: Path) -> None:
    go(browser, report, "#q=&order=hard&task=adaptation")
    shown = browser.run(
        "[...document.querySelectorAll('.row .asked')].map((asked) => Number(asked.textContent.match(/\\d+/)[0]))"
    )
    sums = [sum(records.right("adaptation", index, method, 0) for method in (1, 2)) for index in shown]
    assert sums == sorted(sums)
    assert len(set(sums)) > 1 or sums[0] == 0


# --- addresses ---


def test_an_address_leads_to_a_question_and_back_works(browser: Any, report: Path) -> None:
    go(browser, report, "#q=retention/33&seed=1&task=retention&one=kore")
    assert "number 33" in panel(browser, ".asked")
    assert browser.run("document.querySelector('[aria-selected=true] .asked').textContent") == "What is number 33?"
    fields = browser.run(
        "Object.fromEntries(['seed', 'task', 'one'].map((n) => [n, document.getElementById('filters').elements[n].value]))"
    )
    assert fields == {"seed": "1", "task": "retention", "one": "kore"}
    assert browser.run("Math.abs(document.getElementById('every-question').getBoundingClientRect().top) < innerHeight")
    choose(browser, "task", "")
    browser.run("document.getElementById('questions').scrollTop = 0")
    browser.until("document.getElementById('row-0') !== null")
    browser.click("#row-0")
    browser.until("location.hash.includes('q=adaptation/')")
    browser.run("history.back()")
    browser.until("location.hash.includes('q=retention/33') && !location.hash.includes('task=')")
    browser.until("/number 33/.test(document.querySelector('#question .asked')?.textContent)")
    browser.run("history.back()")
    browser.until("document.getElementById('filters').elements.task.value === 'retention'")
    assert browser.complaints() == []


def test_an_address_that_leads_nowhere_says_so(browser: Any, report: Path) -> None:
    go(browser, report, "#q=retention/gone&task=nothing&seed=9&one=nobody")
    assert "There is no question retention/gone." in browser.run(
        "document.getElementById('questions-count').textContent"
    )
    assert counted(browser) == 2 * records.COUNT
    assert "Choose a question" in panel(browser)


def test_a_section_of_the_page_is_no_state_of_the_browser(browser: Any, report: Path) -> None:
    go(browser, report, "#q=adaptation/5")
    browser.run("location.hash = 'settings-and-versions'")
    browser.run("new Promise((done) => setTimeout(done, 60))")
    assert "number 5" in panel(browser, ".asked")


def test_before_it_is_seen_nothing_is_unpacked(browser: Any, report: Path) -> None:
    browser.look(height=300)
    browser.open(report.as_uri())
    assert browser.run("document.querySelectorAll('.row').length") == 0
    browser.run("document.getElementById('every-question').scrollIntoView()")
    browser.until("document.querySelectorAll('.row').length > 0")


# --- the keyboard, and a screen reader ---


def test_keys_go_through_the_list(browser: Any, report: Path) -> None:
    go(browser, report)
    browser.run("document.getElementById('questions-list').focus()")
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    browser.press("ArrowUp")
    assert "number 0" in panel(browser, ".asked")
    browser.press("End")
    assert f"number {records.COUNT - 1}" in panel(browser, ".asked")
    row = browser.run(
        "document.getElementById(document.getElementById('questions-list').getAttribute('aria-activedescendant')).outerHTML"
    )
    assert f'aria-posinset="{2 * records.COUNT}"' in row
    assert f'aria-setsize="{2 * records.COUNT}"' in row
    assert 'aria-selected="true"' in row
    browser.until("location.hash === '#q=retention/59'")
    browser.press("Home")
    assert "number 0" in panel(browser, ".asked")


def test_buttons_step_through_the_list(browser: Any, report: Path) -> None:
    go(browser, report, "#q=adaptation/0")
    assert browser.run("document.querySelector('#question .steps button').disabled")
    browser.click("#question .steps button:last-child")
    assert "number 1" in panel(browser, ".asked")


def test_only_rows_in_sight_are_in_the_document(browser: Any, report: Path) -> None:
    go(browser, report)
    assert browser.run("document.querySelectorAll('.row').length") < 40
    browser.run("document.getElementById('questions').scrollTop = 1e9")
    browser.until(f"document.getElementById('row-{2 * records.COUNT - 1}') !== null")
    assert browser.run("document.getElementById('row-0') === null")


def test_everything_has_a_name(browser: Any, report: Path) -> None:
    go(browser, report, "#q=adaptation/4")
    nameless = browser.run(
        "[...document.querySelectorAll('button, select, input, figure img, #question img, [role=img], [role=listbox], [role=option]')]"
        ".filter((e) => !(e.alt || e.ariaLabel || e.textContent.trim() && e.tagName === 'BUTTON' || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert nameless == []


# --- tables ---


def test_tables_sort_by_a_click(browser: Any, report: Path) -> None:
    browser.open(report.as_uri())

    def column() -> list[str]:
        rows: list[str] = browser.run(
            "[...document.querySelector('table.sortable').tBodies[0].rows].map((row) => row.cells[2].firstChild.textContent)"
        )
        return rows

    def state() -> str | None:
        found: str | None = browser.run(
            "document.querySelector('table.sortable').tHead.rows[0].cells[2].getAttribute('aria-sort')"
        )
        return found

    original = column()
    figures = sorted((float(text.split()[0]) for text in original if text[0].isdigit()), reverse=True)
    button = "table.sortable thead th:nth-child(3) button"
    for wanted, order in (("descending", figures), ("ascending", figures[::-1])):
        browser.click(button)
        assert state() == wanted
        assert [float(text.split()[0]) for text in column() if text[0].isdigit()] == order
    browser.click(button)
    assert state() is None
    assert column() == original


# --- looks ---


def shade(browser: Any, file: Path) -> Any:
    with Image.open(browser.picture(file)) as image:
        return np.asarray(image.convert("L"), dtype=np.float64)


@pytest.mark.parametrize("width", [1280, 420])
def test_it_looks_right_in_light_and_dark(browser: Any, report: Path, tmp_path: Path, width: int) -> None:
    for dark in (False, True):
        browser.look(width=width, dark=dark)
        browser.open(report.as_uri())
        figure = shade(browser, tmp_path / "top.png")
        go(browser, report, "#q=adaptation/4")
        rows = shade(browser, tmp_path / "rows.png")
        for picture in (figure, rows):
            assert np.median(picture) < 40 if dark else np.median(picture) > 235
            assert picture.std() > 10
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_marks_differ_by_sign_and_by_lightness(browser: Any, report: Path) -> None:
    for dark in (False, True):
        browser.look(dark=dark)
        go(browser, report, "#q=adaptation/9")
        looks = browser.run(
            "['right', 'partly', 'wrong'].map((kind) => { const mark = document.querySelector(`.legend .${kind}`);"
            "const style = getComputedStyle(mark); return [mark.textContent, style.backgroundColor, style.color]; })"
        )
        assert len({sign for sign, _, _ in looks}) == 3
        for _, ground, ink in looks:
            one, other = sorted(map(_luminance, (ground, ink)))
            assert (other + 0.05) / (one + 0.05) > 3.5


def _luminance(colour: str) -> float:
    """Return the relative luminance of ``rgb(...)`` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_print_shows_the_chosen_question_and_no_controls(browser: Any, report: Path) -> None:
    visible = "[...document.querySelectorAll('%s')].filter((e) => e.checkVisibility()).length"
    go(browser, report)
    browser.look(media="print")
    assert browser.run(visible % "#every-question") == 0
    browser.look()
    browser.click("#row-4")
    browser.look(media="print")
    assert browser.run(visible % "#question tbody tr") == 3
    assert browser.run(visible % "#questions, #filters, nav, .steps") == 0


def test_without_scripts_the_rest_is_there(browser: Any, report: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=report.as_uri())
        browser.until("document.readyState === 'complete'")
        assert "needs JavaScript" in browser.run("document.querySelector('#every-question').innerText")
        assert browser.run("document.querySelectorAll('table tbody tr').length") > 3
        assert browser.run("document.querySelectorAll('.browser[hidden]').length") == 1
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_an_old_browser_is_told(browser: Any, report: Path) -> None:
    added = browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.DecompressionStream")
    try:
        browser.open(report.as_uri() + "#q=adaptation/4")
        assert "too old" in browser.run("document.getElementById('questions-count').textContent")
        assert browser.complaints() == []
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])

"""Tests in a real browser that what a model, a method or an address says is shown as text and never runs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from kore_bench.report import build_all
from kore_bench.results import RunFolder

reader: Any = importlib.import_module("page_reader")
records: Any = importlib.import_module("page_records")

go, counted, choose = reader.go, reader.counted, reader.choose
RUNS = "window.ran = (window.ran ?? 0) + 1"
ATTACKS = (
    f"<script>{RUNS}</script>",
    f"</script><script>{RUNS}</script>",
    f"</ScRiPt ><script>{RUNS}//",
    f"<!--<script>{RUNS}</script>-->",
    f"<img src=x onerror='{RUNS}'>",
    f"<svg onload='{RUNS}'><animate onbegin='{RUNS}'>",
    f'<a href="javascript:{RUNS}">click</a> javascript:{RUNS}',
    f'<iframe srcdoc="<script>parent.{RUNS}</script>"></iframe>',
    '"><style>*{display:none}</style><link rel=stylesheet href=http://localhost/x.css><img src=http://localhost/x.png>',
    f"' autofocus onfocus='{RUNS}' x='",
    "<meta http-equiv=refresh content='0;url=http://localhost/'><base href=http://localhost/><form action=http://localhost/>",
    f"${{{RUNS}}} {{{{constructor.constructor('{RUNS}')()}}}} `{RUNS}`",
    "\u202eright to left\u202c \u2066isolated \u200f",
    "]]> &lt;script&gt; &#60;script&#62; \\u003cscript\\u003e \u2028 \u2029",
)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run in which every text of a model, a method and a data folder is an attack."""
    folder = tmp_path_factory.mktemp("attacked")
    names = ("base", *ATTACKS[:6])
    run: RunFolder = records.write_run(
        folder / "run", records.write_pictures(folder / "data"), methods=[name[:100] for name in names],
        lost=[(names[1], 1)], reason=" ".join(ATTACKS), words=" ".join(ATTACKS),
    )  # fmt: skip
    build_all(
        run,
        [importlib.import_module(f"kore_bench.reports.{name}").REPORT for name in ("main_table", "tradeoff", "page")],
    )
    return run


def test_attacks_are_shown_as_text_and_do_nothing(browser: Any, attacked: RunFolder) -> None:
    go(browser, attacked.path / "report.html")
    for row in (0, 3, 9):
        browser.click(f"#row-{row}")
        said = browser.run(
            "[...document.querySelectorAll('#question tbody tr')].map((row) => row.cells[2].textContent)"
        )
        words = " ".join(ATTACKS)
        assert all(words[:400] in text and text.endswith("…") for text in said)
    choose(browser, "find", "<script>")
    assert counted(browser) == 2 * records.COUNT
    choose(browser, "seed", "1")
    choose(browser, "one", browser.run("document.getElementById('filters').elements.one.options[2].value"))
    assert browser.run("document.querySelector('#question mark').textContent") == "<script>"
    for selector in ("#questions-head .column", "#question td", "#every-question"):
        browser.click(selector)
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert browser.run("window.ran") is None
    assert browser.complaints() == []
    assert browser.run("location.protocol") == "file:"
    assert (
        browser.run(
            "document.querySelectorAll('iframe, object, embed, link, base, form[action], [onerror], [onload], [onfocus]').length"
        )
        == 0
    )


def test_attacks_in_the_address_do_nothing(browser: Any, attacked: RunFolder) -> None:
    for attack in ATTACKS:
        fields = "&".join(
            f"{name}={attack.replace('&', '%26').replace('#', '%23')}"
            for name in ("q", "find", "one", "task", "__proto__")
        )
        browser.open(f"{(attacked.path / 'report.html').as_uri()}#{fields}")
        browser.until("!/Reading/.test(document.getElementById('questions-count').textContent)")
        assert browser.run("window.ran") is None
        assert browser.complaints() == []


def test_the_policy_stops_what_would_get_through(browser: Any, tmp_path: Path) -> None:
    """The second wall: were an answer to become markup, the browser would still run nothing and load nothing.

    No policy stops a ``<meta>`` that leads elsewhere: that one is left to the first wall.
    """
    run = records.write_run(tmp_path / "run", records.write_pictures(tmp_path / "data"))
    build_all(run, [importlib.import_module("kore_bench.reports.page").REPORT])
    go(browser, run.path / "report.html")
    attacks = "".join(attack for attack in ATTACKS if "<meta" not in attack)
    browser.run(
        f"document.querySelector('#question').innerHTML = {json.dumps(attacks)};"
        f"document.body.append(Object.assign(document.createElement('script'), {{textContent: {json.dumps(RUNS)}}}));"
        f"document.body.setAttribute('onclick', {json.dumps(RUNS)}); document.body.click();"
    )
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run("window.ran") is None
    refused = " ".join(browser.complaints())
    assert "Content Security Policy" in refused
    happened = [(event["method"], event["params"]) for event in browser.events]
    asked = {
        what["requestId"] for method, what in happened
        if method == "Network.requestWillBeSent" and what["request"]["url"].startswith("http")
    }  # fmt: skip
    stopped = {what["requestId"] for _, what in happened if what.get("blockedReason") == "csp"}
    assert asked <= stopped

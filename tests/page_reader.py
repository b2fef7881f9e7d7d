"""What a reader does with the page, for tests in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def go(browser: Any, report: Path, address: str = "#q=") -> None:
    browser.open(report.as_uri() + address)
    browser.until(
        "document.querySelectorAll('.row').length > 0 || /No question/.test(document.querySelector('[role=status]').textContent)"
    )


def counted(browser: Any) -> int:
    text = browser.run("document.getElementById('questions-count').textContent")
    return int(text.split()[0].replace(",", "")) if text[0].isdigit() else 0


def choose(browser: Any, name: str, value: str) -> None:
    browser.run(
        f"(() => {{ const field = document.getElementById('filters').elements[{json.dumps(name)}];"
        f"field.value = {json.dumps(value)}; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )
    browser.run("new Promise((done) => setTimeout(done, 20))")


def panel(browser: Any, selector: str = "") -> str:
    text: str = browser.run(f"document.querySelector('#question {selector}')?.textContent ?? ''")
    return text

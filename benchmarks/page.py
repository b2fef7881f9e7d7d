"""How fast the page is in headless Chromium: until it is seen, and until a filter of 10,000 x 12 answers is drawn."""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kore_bench.registry import Registry
from kore_bench.report import build_all
from kore_bench.results import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
chromium: Any = importlib.import_module("chromium")
report: Any = importlib.import_module("report")

FILTERS = (
    {"one": "kore", "one-is": "right", "two": "lora", "two-is": "wrong"},
    {"one": "", "two": "", "outcome": "none"},
    {"outcome": "differ", "order": "hard"},
    {"outcome": "", "order": "", "task": "retention"},
    {"type": "OCR"},
    {"task": "", "type": "", "find": "amber ridge"},
    {"find": "1"},
    {"find": "", "order": "split"},
)
"""What is chosen, one after the other; a search goes through every question, gold answer and prediction."""

_APPLY = """
(async () => {
  const fields = document.getElementById('filters').elements, begin = performance.now();
  for (const [name, value] of Object.entries(WANTED)) {
    fields[name].value = value;
    fields[name].dispatchEvent(new Event('input', { bubbles: true }));
  }
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [performance.now() - begin, document.getElementById('questions-count').textContent];
})()
"""


def first_view(browser: Any, page: Path, repetitions: int) -> dict[str, float]:
    """Return the medians in ms: first paint of the page, its load event, the first rows of a question's address."""
    found: dict[str, list[float]] = {"first contentful paint": [], "loaded": [], "question by its address": []}
    for _ in range(repetitions):
        browser.open(page.as_uri())
        browser.until("performance.getEntriesByName('first-contentful-paint').length")
        found["first contentful paint"].append(
            browser.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )
        found["loaded"].append(browser.until("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        begin = time.perf_counter()
        browser.open(f"{page.as_uri()}#q=")
        browser.until("document.querySelectorAll('.row').length > 0")
        found["question by its address"].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in found.items()}


def filters(browser: Any, page: Path, repetitions: int) -> dict[str, list[float]]:
    """Return filter -> the times of the repetitions in ms, from the choice to the drawn list."""
    browser.open(f"{page.as_uri()}#q=")
    browser.until("document.querySelectorAll('.row').length > 0")
    times: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for wanted in FILTERS:
            spent, counted = browser.run(_APPLY.replace("WANTED", json.dumps(wanted)))
            name = f"{' '.join(f'{key}={value}' for key, value in wanted.items() if value)}: {counted}"
            times.setdefault(name, []).append(spent)
    return times


def main() -> None:
    """Print the medians of a run's page (--run), or the figures of a synthetic one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", type=Path, help="a run folder whose report.html stands; else a synthetic run is written"
    )
    parser.add_argument("--methods", type=int, default=12, help="of the synthetic run")
    parser.add_argument("--questions", type=int, default=10_000, help="of the synthetic run")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    found = chromium.find()
    if found is None:
        sys.exit("there is no chromium on this machine")
    with tempfile.TemporaryDirectory() as folder, chromium.Chromium(found) as browser:
        run = RunFolder(arguments.run) if arguments.run else RunFolder(Path(folder) / "run")
        if not arguments.run:
            report.write_run(run.path, methods=arguments.methods, seeds=1, questions=arguments.questions)
            build_all(run, [Registry().find("reports", "page")])
        page = (run.path / "report.html").resolve()
        print(f"{page.name}: {page.stat().st_size / 2**20:.1f} MiB")
        for name, value in first_view(browser, page, arguments.repetitions).items():
            print(f"{name:28} {value:7.0f} ms")
        for name, values in filters(browser, page, arguments.repetitions).items():
            print(f"{name:76} median {statistics.median(values):4.0f} ms, slowest {max(values):4.0f} ms")


if __name__ == "__main__":
    main()

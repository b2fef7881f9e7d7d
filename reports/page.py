"""report.html: one self-contained page with everything: nothing loaded, one script and one style of known hashes."""

from __future__ import annotations

import base64
import re
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from kore_bench.inline import as_text, policy_hash
from kore_bench.report import Report
from kore_bench.results import RunFolder, write_text

from .browser import HEADING, browser
from .content import DATA, Block, Bullets, Heading, Paragraph, Shown, content, title_of
from .drawing import GRID, INK, MUTED, PAPER
from .summary import summarise
from .tabular import Cell, Table

_DARK = {INK: "#e6e8eb", MUTED: "#a3acb9", GRID: "#3a414b", PAPER: "#15181c"}
"""What figures take for their colours of text, lines and ground in dark mode: those of page.css."""

_SCRIPTS = ("data", "state", "filters", "list", "question", "browser", "tables")
_MARKS = {"": "{}", "best": "<b>{}</b>", "next": '<b class="next">{}</b>', "aside": "<i>{}</i>"}
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "MiB": 2.0**20, "GiB": 2.0**30}
_FIGURE = re.compile(r"([+\N{MINUS SIGN}-]?\d[\d\s,]*(?:\.\d+)?(?:e[+-]?\d+)?)\s*(k|M|G|MiB|GiB)?(?![\w.])")


def render(block: Block) -> str:
    """Return one block in HTML; everything that comes from records is escaped."""
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{_text(text)}</h2>'
        case Paragraph(text, lead):
            return f"<p>{f'<b>{_text(lead)}</b> ' if lead else ''}{_text(text)}</p>"
        case Bullets(items):
            lines = (f"<li>{f'<b>{_text(term)}</b>: ' if term else ''}{_text(text)}</li>" for term, text in items)
            return "<ul>\n" + "\n".join(lines) + "\n</ul>"
        case Shown(file, alt, caption):
            svg = base64.b64encode(themed(file.read_text(encoding="utf-8")).encode()).decode()
            image = f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{svg}">'
            words = f"<figcaption>{_text(caption)}</figcaption>"
            return f'<figure><div class="scroll" tabindex="0">{image}</div>{words}</figure>'
        case table:
            return _table(table)


def themed(svg: str) -> str:
    """Return a figure whose colours of text, lines and ground follow the reader's light or dark mode."""
    for index, colour in enumerate(_DARK):
        svg = svg.replace(colour, f"var(--c{index})")
    light = "".join(f"--c{index}:{colour};" for index, colour in enumerate(_DARK))
    dark = "".join(f"--c{index}:{colour};" for index, colour in enumerate(_DARK.values()))
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[0] + style, svg, count=1)


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``report.html``."""
    blocks = content(run, folder)
    middle = blocks.index(Heading(DATA))
    halves = (blocks[:middle], blocks[middle:])
    questions = browser(run)
    body = ["\n".join(map(render, halves[0])), questions, "\n".join(map(render, halves[1]))]
    before, after = ([block.text for block in part if isinstance(block, Heading)] for part in halves)
    titles = [*before, *([HEADING] if questions else []), *after]
    style, script = _template("page.css"), _script()
    page = Template(_template("page.html")).substitute(
        title=_text(title_of(run)),
        lead=_text(_lead(run)),
        style=style,
        script=script,
        style_hash=policy_hash(style),
        script_hash=policy_hash(script),
        contents="\n".join(f'<li><a href="#{_anchor(text)}">{_text(text)}</a></li>' for text in titles),
        body="\n".join(body),
    )
    file = folder / "report.html"
    write_text(file, page)
    return [file]


def sort_value(text: str) -> float | None:
    """Return the figure that a cell's text begins with (``62.1 ± 1.3``, ``82.0 k``, ``1.19 GiB``), None for another."""
    found = _FIGURE.match(text)
    if found is None:
        return None
    digits = re.sub(r"[\s,]", "", found[1]).replace("\N{MINUS SIGN}", "-")
    return float(digits) * _UNITS[found[2] or ""]


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _script() -> str:
    """Return the page's script: the parts in order, in a scope of their own."""
    parts = "\n".join(_template(f"{name}.js") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\nstartTables();\nstartBrowser();\n}})();\n'


def _lead(run: RunFolder) -> str:
    plan = run.plan()
    parts = [
        f"{summary.model}: {len([row for row in summary.rows if not row.reference])} methods, "
        f"{len(summary.seeds)} seed{'' if len(summary.seeds) == 1 else 's'}"
        for summary in summarise(run)
    ]
    return "; ".join(parts) + (f"; {plan['budget']}" if "budget" in plan else "")


def _text(text: str) -> str:
    """Return escaped text: percent signs stay with their figures, marks that turn the direction of text are shown."""
    return as_text(text).replace(" %", "&nbsp;%")


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _table(table: Table) -> str:
    def tag(index: int, cell: Cell) -> str:
        text = _MARKS[cell.mark].format(_text(cell.text)) + (f"<small>{_text(cell.note)}</small>" if cell.note else "")
        if index == 0:
            return f'<th scope="row">{text}</th>'
        if table.header[index] in table.words:
            return f'<td class="word{" wide" if len(cell.text) > 60 else ""}">{text}</td>'
        value = sort_value(cell.text)
        return f"<td>{text}</td>" if value is None else f'<td data-value="{value:.10g}">{text}</td>'

    head = "".join(
        f'<th scope="col"{" class=word" if name in table.words else ""}>{_text(name)}</th>' for name in table.header
    )
    rows = "\n".join(
        f"<tr{' class=part' if number in table.parts else ''}>{''.join(map(tag, range(len(row)), row))}</tr>"
        for number, row in enumerate(table.rows)
    )
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll" tabindex="0"><table class="sortable"><caption><span>{_text(table.title)}</span></caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>{notes}"
    )


REPORT = Report(name="page", title="The whole report as one page", kind="page", build=build)

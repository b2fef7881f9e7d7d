"""report.html: one self-contained page with everything: no script, nothing loaded, light and dark."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from kore_bench.report import Report
from kore_bench.results import RunFolder, write_text

from .content import Block, Bullets, Heading, Paragraph, Shown, content, title_of
from .drawing import GRID, INK, MUTED, PAPER
from .summary import summarise
from .tabular import Cell, Table

_DARK = {INK: "#e6e8eb", MUTED: "#a3acb9", GRID: "#3a414b", PAPER: "#15181c"}
"""What figures take for their colours of text, lines and ground in dark mode: those of page.css."""


def render(block: Block) -> str:
    """Return one block in HTML; everything that comes from records is escaped."""
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{escape(text)}</h2>'
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
    templates = resources.files(__package__) / "templates"
    style = (templates / "page.css").read_text(encoding="utf-8")
    page = Template((templates / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title_of(run)),
        lead=escape(_lead(run)),
        style=style,
        hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        contents="\n".join(
            f'<li><a href="#{_anchor(block.text)}">{escape(block.text)}</a></li>'
            for block in blocks
            if isinstance(block, Heading)
        ),
        body="\n".join(map(render, blocks)),
    )
    file = folder / "report.html"
    write_text(file, page)
    return [file]


def _lead(run: RunFolder) -> str:
    plan = run.plan()
    parts = [
        f"{summary.model}: {len([row for row in summary.rows if not row.reference])} methods, "
        f"{len(summary.seeds)} seed{'' if len(summary.seeds) == 1 else 's'}"
        for summary in summarise(run)
    ]
    return "; ".join(parts) + (f"; {plan['budget']}" if "budget" in plan else "")


def _text(text: str) -> str:
    """Return escaped text whose percent signs stay with their figures."""
    return escape(text).replace(" %", "&nbsp;%")


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _table(table: Table) -> str:
    def tag(index: int, cell: Cell) -> str:
        text = escape(cell.text) + (f"<small>{escape(cell.note)}</small>" if cell.note else "")
        if index == 0:
            return f'<th scope="row">{text}</th>'
        word = table.header[index] in table.words
        kind = "word wide" if word and len(cell.text) > 60 else "word" if word else ""
        return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"

    head = "".join(
        f'<th scope="col"{" class=word" if name in table.words else ""}>{escape(name)}</th>' for name in table.header
    )
    rows = "\n".join(f"<tr>{''.join(tag(index, cell) for index, cell in enumerate(row))}</tr>" for row in table.rows)
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{escape(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>{notes}"
    )


REPORT = Report(name="page", title="The whole report as one page", kind="page", build=build)

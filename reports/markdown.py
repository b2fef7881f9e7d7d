"""report.md: the whole report as Markdown, with links to the figures and tables beside it."""

from __future__ import annotations

from pathlib import Path

from kore_bench.report import Report
from kore_bench.results import RunFolder, write_text

from .content import Block, Bullets, Heading, Paragraph, Shown, content, title_of
from .tabular import escape_markdown, markdown_table


def render(block: Block) -> str:
    """Return one block in Markdown; everything that comes from records is escaped."""
    match block:
        case Heading(text):
            return f"## {escape_markdown(text)}\n"
        case Paragraph(text, lead):
            return (f"**{escape_markdown(lead)}** " if lead else "") + f"{escape_markdown(text)}\n"
        case Bullets(items):
            lines = (
                f"**{escape_markdown(term)}**: {escape_markdown(text)}" if term else escape_markdown(text)
                for term, text in items
            )
            return "\n".join(f"- {line}" for line in lines) + "\n"
        case Shown(file, alt, caption):
            image = f"![{escape_markdown(alt)}](figures/{file.name})"
            return f"{image}\n\n{escape_markdown(caption)}\n"
        case table:
            return markdown_table(table)


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``report.md``."""
    tables = ", ".join(f"[{file.name}](tables/{file.name})" for file in sorted((folder / "tables").glob("*.csv")))
    parts = [f"# {escape_markdown(title_of(run))}\n", *map(render, content(run, folder))]
    if tables:
        parts.append(f"## Full figures\n\n{tables}\n")
    file = folder / "report.md"
    write_text(file, "\n".join(parts))
    return [file]


REPORT = Report(name="markdown", title="The whole report as Markdown", kind="page", build=build)

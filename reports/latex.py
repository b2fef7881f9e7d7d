"""Tables in LaTeX: booktabs rules, figures lined up, as wide as their place allows, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .tabular import Cell, Table, one_line

_ESCAPES = {
    **{mark: f"\\{mark}" for mark in "{}$&#%_"},
    **{mark: f"{{{mark}}}" for mark in "[]*"},  # after \\ a bracket or a star at a line's start would be its argument
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": r"\textendash{}",
    "…": r"\ldots{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
}
_MARKS = {"": "{}", "best": r"\textbf{{{}}}", "next": r"\underline{{{}}}", "aside": r"\textit{{{}}}"}
_SPREAD = " ± "
_FEW = 6
"""Tables of more columns have their spreads below the figures instead of beside them, and span a page's columns."""

_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Makes a table that is too wide for its place smaller, and leaves others alone."""


def latex_table(table: Table) -> str:
    """Return the table as a float for a document that loads booktabs and graphicx, with a caption and a label.

    The caption holds title and notes. A spread beside its figure has a column of its own, so that figures line up;
    small print stands in a line below.
    """
    few = len(table.header) <= _FEW
    rows = table.rows if few else [(name, *map(_stacked, figures)) for name, *figures in table.rows]
    words = [index == 0 or name in table.words for index, name in enumerate(table.header)]
    double = [not word and any(_SPREAD in row[index].text for row in rows) for index, word in enumerate(words)]
    columns = "".join("l" if word else r"r@{\,}l" if two else "r" for word, two in zip(words, double, strict=True))
    heads = [_across(latex(name), "c", two) for name, two in zip(table.header, double, strict=True)]
    label = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-")
    float_ = "table" if few else "table*"
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        rf"\begin{{{float_}}}",
        r"\centering",
        rf"\caption{{{' '.join(map(_sentence, (table.title, *table.notes)))}}}",
        rf"\label{{tab:{label}}}",
        r"\smallskip",
        _FITTED,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(heads),
        r"\midrule",
    ]
    for index, row in enumerate(rows):
        lines += [_separator(table, rows, index)] if index else []
        lines += _lines(row, double)
    lines += [r"\bottomrule", r"\end{tabular}}", rf"\end{{{float_}}}"]
    return "\n".join(line for line in lines if line) + "\n"


def latex(text: str) -> str:
    """Return ``text`` so that LaTeX sets it as it is, on one line."""
    escaped = "".join(_ESCAPES.get(mark, mark) for mark in one_line(text))
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would become a dash


def _sentence(text: str) -> str:
    return latex(text if text.endswith(".") else f"{text}.")


def _stacked(cell: Cell) -> Cell:
    """Return the cell with its spread as small print."""
    value, _, spread = cell.text.partition(_SPREAD)
    notes = (f"± {spread}" if spread else "", cell.note)
    return cell._replace(text=value, note=" ".join(filter(None, notes)))


def _separator(table: Table, rows: Sequence[tuple[Cell, ...]], index: int) -> str:
    """Return what stands before a row: a rule at a part's start, some space after a row of several lines."""
    if index in table.parts:
        return r"\midrule"
    name, *figures = rows[index - 1]
    several = name.mark == "aside" or any(cell.note for cell in figures)
    return r"\addlinespace" if several and rows[index][0].mark != "aside" else ""


def _lines(row: tuple[Cell, ...], double: Sequence[bool]) -> list[str]:
    """Return the lines of one row: its figures, and below them what stands in small print."""
    name, *figures = row
    first = _MARKS[name.mark].format(latex(name.text))
    first += rf" {{\scriptsize ({latex(name.note)})}}" if name.note else ""
    pairs = list(zip(figures, double[1:], strict=True))
    lines = [_row([first, *(_figure(cell, two) for cell, two in pairs)])]
    if any(cell.note for cell in figures):
        small = (rf"\scriptsize {latex(cell.note)}" if cell.note else "" for cell in figures)
        lines.append(_row(["", *(_across(note, "r", two) for note, two in zip(small, double[1:], strict=True))]))
    return lines


def _figure(cell: Cell, two: bool) -> str:
    value, _, spread = cell.text.partition(_SPREAD)
    text = _MARKS[cell.mark].format(latex(value))
    if not two:
        return text
    return rf"{text} & " + (rf"\scriptsize $\pm$\,{latex(spread)}" if spread else "")


def _across(text: str, side: str, two: bool) -> str:
    return rf"\multicolumn{{2}}{{{side}}}{{{text}}}" if two else text


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells).rstrip() + r" \\"

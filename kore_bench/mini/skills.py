"""Questions of the seven retention dimensions: the settings that they are asked about, and how each is posed."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from . import language
from .drawing import COLORS, DIGITS, GLYPHS, GRID, SHAPES, Cells, Symbol

SKILLS = ("COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL")


class Query(NamedTuple):
    """A question, its instruction line included, and its answer."""

    question: str
    answer: str


class Kind(NamedTuple):
    """One kind of question: its dimension, its name, the setting it is asked about, how many answers it can have.

    Pre-training practises every kind. Those that a model of this size does not learn to answer are not ``asked``: a
    skill that is not there cannot be forgotten.
    """

    skill: str
    name: str
    setting: str
    answers: int
    asked: bool = True


KINDS = (
    Kind("COM", "color", "sparse", 8),
    Kind("COM", "shape", "sparse", 8, asked=False),
    Kind("COM", "corner", "sparse", 8),
    Kind("OCR", "text", "text", 1000),
    *(Kind("M-DIS", name, "single", 8) for name in language.DISCIPLINES),
    *(Kind("INS", name, "single", 8 ** sum(slot in answer for slot in ("{color}", "{shape}")))
      for name, (_, answer) in language.INS.items()),
    Kind("M-IDU", "color", "pair", 8),
    Kind("M-IDU", "shape", "pair", 8),
    Kind("M-IDU", "find", "pair", 2, asked=False),
    Kind("HAL", "same", "pair", 2),
    Kind("MAT", "total", "dense", 8),
    Kind("MAT", "color", "dense", 4, asked=False),
    Kind("MAT", "sum", "numbers", 8),
    Kind("MAT", "larger", "numbers", 8),
    Kind("HAL", "color", "sparse", 2, asked=False),
    Kind("HAL", "name", "old entity", 2, asked=False),
)  # fmt: skip


def _scatter(symbols: list[Symbol], rng: Random) -> Cells:
    return dict(zip(sorted(rng.sample(range(GRID * GRID), len(symbols))), symbols, strict=True))


def _row(glyphs: list[str], rng: Random) -> Cells:
    start = GRID * rng.randrange(GRID) + rng.randint(0, GRID - len(glyphs))
    color = rng.choice(list(COLORS))
    return {start + i: Symbol(glyph, color) for i, glyph in enumerate(glyphs)}


def _single(rng: Random) -> Cells:
    return _scatter([Symbol(rng.choice(SHAPES), rng.choice(list(COLORS)))], rng)


def scene(setting: str, rng: Random) -> list[Cells]:
    """Draw up the images of a setting: one, or two for ``pair``.

    ``sparse`` is two to five objects that share neither shape nor colour; ``dense`` one to eight out of few shapes
    and colours; ``single`` one object; ``text`` two to four glyphs in a row; ``numbers`` two unequal digits.
    """
    if setting == "sparse":
        count = rng.randint(2, 5)
        shapes, colors = rng.sample(SHAPES, count), rng.sample(list(COLORS), count)
        symbols = [Symbol(*pair) for pair in zip(shapes, colors, strict=True)]
        return [_scatter(symbols, rng)]
    if setting == "dense":
        shapes, colors = rng.sample(SHAPES, 2), rng.sample(list(COLORS), rng.randint(2, 3))
        return [_scatter([Symbol(rng.choice(shapes), rng.choice(colors)) for _ in range(rng.randint(1, 8))], rng)]
    if setting == "text":
        return [_row(rng.choices(GLYPHS, k=rng.randint(2, 4)), rng)]
    if setting == "numbers":
        total = rng.randint(2, 9)
        smaller = rng.randint(0, (total - 1) // 2)
        return [_row(rng.sample([DIGITS[smaller], DIGITS[total - smaller]], 2), rng)]
    if setting == "single":
        return [_single(rng)]
    first, second = _single(rng), _single(rng)
    if rng.random() < 0.5:
        second = {place: symbol._replace(color=_only(first).color) for place, symbol in second.items()}
    return [first, second]


def _only(cells: Cells) -> Symbol:
    return next(iter(cells.values()))


def pose(kind: Kind, images: list[Cells], rng: Random) -> Query | None:
    """Ask one question of ``kind`` about the images of its setting; None where they do not allow it."""
    symbols = list(images[0].values())
    if kind.skill == "COM":
        return _pose_com(kind.name, images[0], rng)
    if kind.skill == "OCR":
        return Query(rng.choice(language.OCR), " ".join(symbol.name for symbol in symbols))
    if kind.skill == "M-DIS":
        return _pose_discipline(kind.name, symbols[0], rng)
    if kind.skill == "INS":
        question, answer = language.INS[kind.name]
        return Query(question, answer.format(color=symbols[0].color, shape=symbols[0].name))
    if kind.setting == "pair":
        return _pose_pair(kind.name, symbols[0], _only(images[1]), rng)
    if kind.skill == "MAT":
        return _pose_count(kind.name, symbols, rng)
    present = sorted({symbol.color for symbol in symbols})
    answer = rng.choice(("yes", "no"))
    color = rng.choice(present if answer == "yes" else [color for color in COLORS if color not in present])
    return Query(f"{language.HAL.format(color=color)}\n{language.YES_NO}", answer)


def _pose_com(name: str, cells: Cells, rng: Random) -> Query | None:
    symbol = rng.choice(list(cells.values()))
    if name == "corner":
        corners = [(corner, cells[place]) for corner, place in language.CORNERS.items() if place in cells]
        if not corners:
            return None
        corner, symbol = rng.choice(corners)
        question = language.COM[name].format(corner=corner)
    else:
        question = language.COM[name].format(shape=symbol.name, color=symbol.color)
    return Query(f"{question}\n{language.SHORT}", symbol.color if name == "color" else symbol.name)


def _pose_discipline(name: str, symbol: Symbol, rng: Random) -> Query:
    question, answers = language.DISCIPLINES[name]
    keys = SHAPES if "shape" in question else tuple(COLORS)
    table = dict(zip(keys, answers.split(), strict=True))
    answer = table[symbol.name if "shape" in question else symbol.color]
    options = [answer, *rng.sample([other for other in table.values() if other != answer], 3)]
    rng.shuffle(options)
    return Query(f"{question}\n{language.OPTIONS.format(options=', '.join(options))}", answer)


def _pose_pair(name: str, first: Symbol, second: Symbol, rng: Random) -> Query | None:
    question = language.PAIRS[name]
    if name == "same":
        return Query(f"{question}\n{language.YES_NO}", "yes" if first.color == second.color else "no")
    which = rng.choice(("first", "second"))
    symbol = first if which == "first" else second
    if name == "find":
        return None if first.name == second.name else Query(question.format(shape=symbol.name), which)
    answer = symbol.color if name == "color" else symbol.name
    return Query(f"{question.format(which=which)}\n{language.SHORT}", answer)


def _pose_count(name: str, symbols: list[Symbol], rng: Random) -> Query | None:
    question = language.MAT[name]
    if name == "total":
        answer = len(symbols)
    elif name == "color":
        counts = {color: sum(symbol.color == color for symbol in symbols) for color in COLORS}
        number = rng.choice(sorted({count for count in counts.values() if 0 < count <= 4}) or [0])
        if number == 0:
            return None
        color = rng.choice([color for color, count in counts.items() if count == number])
        question, answer = question.format(color=color), number
    else:
        digits = [int(symbol.name) for symbol in symbols]
        answer = sum(digits) if name == "sum" else max(digits)
    return Query(f"{question}\n{language.SHORT}", str(answer))

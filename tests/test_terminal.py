"""The live table of a run: what it shows at which size, the time left, and the plain lines beside it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from kore_bench.board import Board
from kore_bench.engines import Event, failure
from kore_bench.grid import Cell
from kore_bench.measures import Score
from kore_bench.pace import clock, left_in_words, time_left
from kore_bench.progress import Listener
from kore_bench.results import Cost, Record, RunFolder

METHODS = ("base", "in-context", "full", "lora", "replay+kore-augmentation", "kore-null", "kore")


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def cells(seeds: int = 1, methods: tuple[str, ...] = METHODS, rates: tuple[float, ...] = (0.0,)) -> list[Cell]:
    return [
        Cell(model="m", method=method, seed=seed, key=f"{method}{seed}{rate}".ljust(10, "0"), learning_rate=rate)
        for method in methods
        for seed in range(seeds)
        for rate in rates
    ]


def record(cell: Cell, ka: float = 40.0, kr: float = 90.0, seconds: float = 41.0) -> Record:
    def score(value: float) -> Score:
        return Score(value=value, low=value - 2, high=value + 2, n=300)

    return Record(
        key=cell.key,
        model=cell.model,
        method=cell.method,
        seed=cell.seed,
        status="done",
        reference=cell.reference,
        scores={"adaptation": {"K.A": score(ka)}, "retention": {"K.R": score(kr)}},
        cost=Cost(seconds={"train": seconds}),
    )


def draw(board: Board, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, legacy_windows=False)
    console.print(board)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def row(lines: list[str], name: str) -> str:
    return " ".join(next(line for line in lines if line.split(" ")[0] == name).split())


def test_the_table_fills_in() -> None:
    now, every = Clock(), cells()
    board = Board(every, {every[0].name: record(every[0], 4.3, 97.4, 13.0)}, now=now)
    lines = draw(board)
    assert row(lines, "method") == "method K.A K.R Avg status"
    assert row(lines, "base") == "base 4.3 97.4 50.9 done, 0:13"
    assert row(lines, "lora") == "lora waiting"
    assert "starting" in lines[-1]

    board.update(Event("start", every[3]))
    board.update(Event("phase", every[3], "train", 75, 150))
    now.time += 50
    lines = draw(board)
    assert row(lines, "lora") == "lora train"
    bar = next(line for line in lines if "75/150" in line)
    assert bar.startswith("lora ")
    assert bar.split()[-1] == "0:50"

    board.update(Event("end", every[3], record=record(every[3], 16.3, 81.7)))
    board.update(Event("start", every[4]))
    board.update(Event("end", every[4], record=failure(every[4], "RuntimeError: loss is not finite")))
    lines = draw(board)
    assert row(lines, "lora") == "lora 16.3 81.7 49.0 done, 0:50"
    assert re.fullmatch(
        r"replay\+kore-augmentation failed: RuntimeError: loss is ?…", row(lines, "replay+kore-augmentation")
    )
    assert lines[-1].startswith("3 of 7 cells ")
    assert "75/150" not in "".join(lines)


def test_seeds_share_a_row_with_their_mean() -> None:
    every = cells(seeds=3, methods=("base", "lora"))
    board = Board(every, {cell.name: record(cell, 4.0) for cell in every[:3]}, now=Clock())
    for cell in every[3:]:
        board.update(Event("start", cell))
    board.update(Event("end", every[3], record=record(every[3], 10.0)))
    board.update(Event("end", every[4], record=record(every[4], 20.0)))
    lines = draw(board)
    assert row(lines, "base") == "base 4.0 90.0 47.0 3 of 3"
    assert row(lines, "lora") == "lora 15.0 90.0 52.5 2 of 3, 1 running"
    assert any(line.startswith("lora@2 ") for line in lines)


def test_a_tuning_shows_the_best_trial() -> None:
    every = cells(methods=("lora",), rates=(0.001, 0.01, 0.1))
    board = Board(every, {}, best=True, now=Clock())
    for cell, ka in zip(every, (10.0, 30.0, 20.0), strict=True):
        board.update(Event("start", cell))
        board.update(Event("end", cell, record=record(cell, ka)) if ka != 20.0 else Event("phase", cell, "train", 1, 2))
    lines = draw(board)
    assert row(lines, "lora") == "lora 30.0 90.0 60.0 2 of 3, 1 running"
    assert any(line.startswith("lora, rate 0.1 ") for line in lines)


def busy(seeds: int = 2) -> Board:
    every = cells(seeds=seeds)
    board = Board(every, {}, now=Clock())
    for cell in every[: 4 * seeds]:
        board.update(Event("start", cell))
        board.update(Event("end", cell, record=record(cell)))
    for cell in every[4 * seeds : 4 * seeds + 2]:
        board.update(Event("start", cell))
        board.update(Event("phase", cell, "evaluate", 1200, 2100))
    return board


@pytest.mark.parametrize("width", [200, 80, 60, 57, 50, 40, 30, 20, 10])
@pytest.mark.parametrize("height", [24, 12, 9, 6, 4, 2, 1])
def test_it_fits_every_terminal(width: int, height: int) -> None:
    lines = draw(busy(), width, height)
    assert 1 <= len(lines) <= max(1, height - 1)
    assert all(cell_len(line) <= width - 2 for line in lines)  # room for the ^C that a terminal writes
    assert "8 of 14" in lines[-1] or width < 30
    if height >= 9:
        assert any(line.startswith("replay"[: width // 3]) for line in lines)  # what runs is seen in a short window


def test_what_does_not_fit_is_counted() -> None:
    lines = draw(busy(), 80, 10)
    assert "and 4 more" in lines
    assert not any(line.startswith("base") for line in lines)
    assert any(line.startswith("replay+kore-augmentation  ") for line in lines)


@pytest.mark.parametrize(
    ("taken", "spent", "jobs", "left"),
    [
        ({}, {"lora0": 5.0}, 1, None),  # nothing tells
        ({"base0": 10.0}, {"lora0": 0.0}, 1, None),  # the base does not tell how long training takes
        ({"lora0": 40.0}, {"lora1": 10.0}, 1, 30.0),  # its own method
        ({"lora0": 40.0, "kore0": 60.0}, {"full0": 0.0}, 1, 50.0),  # all that train
        ({"lora0": 40.0}, {"lora1": 10.0, "full0": 0.0}, 2, 40.0),  # not before the longest
        ({"lora0": 40.0}, {"lora1": 0.0, "full0": 0.0, "kore0": 0.0}, 2, 60.0),
        ({"lora0": 40.0}, {"lora1": 90.0}, 1, 0.0),  # slower than expected
        ({"lora0": 40.0}, {}, 1, 0.0),
    ],
)
def test_time_left_is_told_by_finished_cells(
    taken: dict[str, float], spent: dict[str, float], jobs: int, left: float | None
) -> None:
    every = {f"{cell.method}{cell.seed}": cell for cell in cells(seeds=2)}
    assert time_left(every, taken, spent, jobs) == left


def test_the_board_says_how_long_it_takes() -> None:
    now, every = Clock(), cells(methods=("lora", "kore", "full"))
    board = Board(every, {}, now=now)
    board.update(Event("start", every[0]))
    now.time += 300
    assert "left" not in draw(board)[-1]
    board.update(Event("end", every[0], record=record(every[0])))
    board.update(Event("start", every[1]))
    now.time += 60
    assert "9 min left" in draw(board)[-1]


def test_times_in_words() -> None:
    assert [left_in_words(seconds) for seconds in (None, 0.0, 3.0, 41.0, 70.0, 3000.0, 12_000.0)] == [
        "", "", "10 s left", "50 s left", "1 min left", "50 min left", "3 h 20 left",
    ]  # fmt: skip
    assert [clock(seconds) for seconds in (0.4, 61.0, 725.9, 12_003.0)] == ["0:00", "1:01", "12:05", "3:20:03"]


def follow(console: Console, folder: Path, *, interrupt: bool) -> None:
    every = cells(methods=("base", "lora"))
    run = RunFolder(folder)
    run.write(every[0].name, record(every[0], 4.3))
    with Listener(console, run, every, every[1:]) as listen:
        listen(Event("start", every[1]))
        listen(Event("phase", every[1], "train", 3, 6))
        if interrupt:
            raise KeyboardInterrupt
        listen(Event("end", every[1], record=record(every[1], 16.3)))


def test_no_terminal_gets_plain_lines(tmp_path: Path) -> None:
    text = io.StringIO()
    follow(Console(file=text, width=80), tmp_path, interrupt=False)
    assert text.getvalue() == "start  lora, seed 0\n[1/1] lora, seed 0: K.A 16.3, K.R 90.0 (0 s)\n"


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    text = io.StringIO()
    follow(Console(file=text, width=80, force_terminal=True), tmp_path, interrupt=False)
    assert "\x1b" not in text.getvalue()
    assert "[1/1] lora" in text.getvalue()


def terminal() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=80, height=24, force_terminal=True, color_system=None, _environ={}), text


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows after ``text``, whose control codes are those of Rich's live display."""
    lines, place = [""], 0
    for sign in re.findall(r"\x1b\[[?\d]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if sign == "\n":
            place += 1
            lines += [""] * (place + 1 - len(lines))
        elif sign == "\x1b[2K":
            lines[place] = ""
        elif sign.endswith("A"):
            place -= int(sign[2:-1])
        elif not sign.startswith(("\r", "\x1b[?25")):
            lines[place] = sign.rstrip()
    return [line for line in lines if line]


def test_a_terminal_gets_a_table_that_goes(tmp_path: Path) -> None:
    console, text = terminal()
    follow(console, tmp_path, interrupt=False)
    assert "base" in text.getvalue()
    assert screen(text.getvalue()) == []


def test_an_interrupted_table_stays(tmp_path: Path) -> None:
    console, text = terminal()
    with pytest.raises(KeyboardInterrupt):
        follow(console, tmp_path, interrupt=True)
    lines = screen(text.getvalue())
    assert row(lines, "base") == "base 4.3 90.0 47.1 done, 0:41"
    assert lines[-2].split()[:2] == ["lora", "train"]
    assert lines[-1].startswith("1 of 2 cells ")

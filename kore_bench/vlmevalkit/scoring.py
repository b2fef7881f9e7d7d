"""Inside the scoring process: VLMEvalKit's own evaluation of answers, its result, and how right each answer was."""

from __future__ import annotations

import ast
import importlib
import math
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kore_bench.judge import FAILED, Judge, JudgeError, JudgeSettings
from kore_bench.vlmevalkit import literal
from kore_bench.vlmevalkit.datasets import Found
from kore_bench.vlmevalkit.sampling import CIRCLE

EXACT = "exact_matching"
_LONGEST_CELL = 32767  # characters that a cell of a spreadsheet holds
_THREADS = 4
_EVALUATING = (
    "vlmeval.smp.misc", "vlmeval.dataset.miabench", "vlmeval.dataset.utils.mathv", "vlmeval.dataset.utils.mathvista",
    "vlmeval.dataset.utils.mmdu", "vlmeval.dataset.utils.vqa_eval",
)  # fmt: skip
"""Modules that call ``eval`` on data, answers or a judge's replies."""
_RIGHT = ("score", "hit", "eval_score")
"""Columns in which VLMEvalKit's intermediate tables say how right an answer was."""


def score(
    found: Found, places: list[int], predictions: list[Any], folder: Path, judge: dict[str, Any] | None
) -> dict[str, Any]:
    """Return VLMEvalKit's result of the answers to the rows at ``places``, as rows of plain values.

    ``predictions`` are texts, or a list of them for each dialogue. ``folder`` is empty; ``judge`` holds the fields of
    `JudgeSettings`. ``right`` gives how right each answer was (0 to 1; a list for each dialogue), None where VLMEvalKit
    does not say. Raises JudgeError where the judge cannot be asked, or is wanted and not there.
    """
    table = found.data.iloc[places].copy()
    table["prediction"] = predictions
    table = table.drop(columns=[name for name in ("image",) if name in table])
    file = _write(table, folder, found.name)
    grader = Judge(JudgeSettings(**judge), _readers().get(found.name)) if judge else None
    if grader and not grader.working():
        grader.check()
        raise JudgeError(f"the judge {grader.settings.name} does not answer a greeting")
    name = re.sub(r"[^\w.-]+", "-", grader.settings.name) if grader else EXACT
    _prepare(grader)
    result = found.dataset.evaluate(str(file), model=name, nproc=_THREADS)
    if grader:
        grader.check()
    return {
        "result": _plain(result), "right": _rightness(found, list(table["index"]), folder, file),
        "judge": grader.counts() if grader else {},
    }  # fmt: skip


def _write(table: Any, folder: Path, name: str) -> Path:
    """Write the answers as VLMEvalKit itself does: a spreadsheet, or a table of tabs where a cell is too long for it."""
    from vlmeval.smp import dump

    longest = max((len(str(value)) for column in table.columns for value in table[column]), default=0)
    ending = "xlsx" if longest <= _LONGEST_CELL else "tsv"
    os.environ["PRED_FORMAT"] = ending
    os.environ.pop("EVAL_FORMAT", None)
    file = folder / f"answers_{name}.{ending}"
    dump(table, str(file))
    return file


def _prepare(grader: Judge | None) -> None:
    """Put our judge in the place of theirs, literals in the place of `eval`, and no pool of processes into OCRVQA's way."""

    def build_judge(**options: Any) -> Judge:
        if grader is None:
            raise JudgeError("this data set is scored by a judge: give one by --judge NAME (docs/toolkits.md)")
        tokens = int(options.get("max_tokens", grader.settings.max_tokens))
        return replace(grader, settings=replace(grader.settings, max_tokens=tokens))

    for name in _EVALUATING:
        importlib.import_module(name).eval = literal.evaluate  # type: ignore[attr-defined]
    serial = SimpleNamespace(Pool=lambda processes=None: SimpleNamespace(map=_listed, close=lambda: None))
    importlib.import_module("vlmeval.dataset.image_vqa").mp = serial  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):
        if name.startswith("vlmeval.") and hasattr(module, "build_judge"):
            module.build_judge = build_judge  # type: ignore[attr-defined]


def _listed(function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    return [function(value) for value in values]


def _plain(result: Any) -> list[dict[str, Any]]:
    """Return a result, a table or a dictionary, as rows of texts and numbers; raises TypeError for anything else."""
    if hasattr(result, "to_dict") and hasattr(result, "columns"):
        rows = result.to_dict("records")
    elif isinstance(result, dict):
        rows = [result]
    else:
        raise TypeError(f"VLMEvalKit's result is a {type(result).__name__}, neither a table nor a dictionary")
    return [{str(key): _value(value) for key, value in row.items()} for row in rows]


def _value(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)


# ---- how right each answer was


def _rightness(found: Found, indices: list[Any], folder: Path, answers: Path) -> list[Any]:
    if found.name == "MMDU":
        return _dialogues(indices, folder)
    right: dict[str, float] = {}
    for table in _tables(folder, answers):
        right |= _of_table(table)
    circular = found.rule("row") == "circle"
    keys = [str(int(index) % CIRCLE) if circular else str(index) for index in indices]
    return [right.get(key) for key in keys]


def _tables(folder: Path, answers: Path) -> Iterable[Any]:
    from vlmeval.smp import load

    for file in sorted(folder.iterdir()):
        if file.suffix == answers.suffix and file != answers:
            yield load(str(file))


def _of_table(table: Any) -> dict[str, float]:
    """Return what one of VLMEvalKit's intermediate tables says of each row, by its index."""
    if "index" not in table:
        return {}
    column = next((name for name in _RIGHT if name in table), "")
    if column:
        values = [float(value) for value in table[column]]
    elif "score_raw" in table:
        values = [total_score(str(reply)) or 0.0 for reply in table["score_raw"]]
    elif {"res", "log"} <= set(table.columns):
        module = "mathvista" if "skills" in table else "mathv"
        check = importlib.import_module(f"vlmeval.dataset.utils.{module}").post_check
        values = [float(bool(check(table.iloc[place], prefetch=False))) for place in range(len(table))]
    else:
        return {}
    return dict(zip((str(index) for index in table["index"]), values, strict=True))


def _dialogues(indices: list[Any], folder: Path) -> list[Any]:
    """Return each turn's overall grade of each dialogue of MMDU."""
    file = next(file for file in sorted(folder.glob("*.pkl")))
    with file.open("rb") as stream:
        graded = pickle.load(stream)
    return [[_grade(value) for value in graded[index]["res"].get("Overall Score", [])] for index in indices]


def _grade(value: Any) -> float:
    try:
        return min(max(int(value), 0), 10) / 10
    except (TypeError, ValueError):
        return 0.0


# ---- what a benchmark can read of a judge's reply


def total_score(reply: str) -> float | None:
    """Return MIA-Bench's total score in a judge's reply, None for a reply that it cannot read, and so leaves out."""
    from vlmeval.dataset.miabench import process_rawscore

    try:
        return float(process_rawscore([str(place) for place in range(reply.count(","))], reply)["total_score"])
    except (ArithmeticError, LookupError, ValueError, UnboundLocalError):
        return None


def reads_instruction(reply: str) -> bool:
    """Return whether MIA-Bench finds its scores in a judge's reply."""
    return total_score(reply) is not None


def reads_dialogue(reply: str) -> bool:
    """Return whether MMDU finds its dictionary, one of literals, in a judge's reply."""
    try:
        found = ast.literal_eval(reply[reply.find("{") : reply.rfind("}") + 1])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return isinstance(found, dict) and "Overall Score" in found


def reads_answer(reply: str) -> bool:
    """Return whether a reply holds an extracted answer."""
    return bool(reply.strip()) and reply != FAILED


def _readers() -> dict[str, Callable[[str], bool]]:
    return {
        "MIA-Bench": reads_instruction, "MMDU": reads_dialogue, "MathVista_MINI": reads_answer, "MathVision": reads_answer,
    }  # fmt: skip

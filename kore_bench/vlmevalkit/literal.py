"""Python literals and arithmetic in place of ``eval``, which VLMEvalKit calls on models' and judges' words."""

from __future__ import annotations

import ast
import sys
from typing import Any

_HARMLESS = (
    ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.BinOp, ast.operator,
    ast.unaryop, ast.expr_context, ast.Name,
)  # fmt: skip


def evaluate(text: str) -> Any:
    """Return the value of literals and arithmetic; raises SyntaxError as `eval` does, NameError for all beyond them.

    The caller's own numbers can be named, as within `eval`: MathVision's comparison counts on it where a model answers
    "a".
    """
    tree = ast.parse(text.strip(" \t"), mode="eval")
    if any(not isinstance(node, _HARMLESS) for node in ast.walk(tree)):
        raise NameError(f"{text!r} is more than a literal or arithmetic")
    numbers = {
        name: value for name, value in sys._getframe(1).f_locals.items() if isinstance(value, bool | int | float)
    }
    return eval(compile(tree, "<words>", "eval"), {"__builtins__": {}}, numbers)

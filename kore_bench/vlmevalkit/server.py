"""The scoring process: one JSON request a line in, one JSON reply a line out; whatever VLMEvalKit prints goes to stderr."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kore_bench.errors import UserError
from kore_bench.judge import JudgeError
from kore_bench.vlmevalkit import datasets, scoring


def serve() -> None:
    """Answer requests until the other side is gone."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        replies.write(json.dumps(_reply(request)) + "\n")
        replies.flush()


def _reply(request: dict[str, Any]) -> dict[str, Any]:
    """Return what a request gives as ``value``, the user's ``mistake``, what the ``judge`` failed at, or a ``failure``."""
    try:
        return {"value": _COMMANDS[request.pop("do")](**request)}
    except UserError as error:
        return {"mistake": str(error)}
    except JudgeError as error:
        return {"judge": str(error)}
    except Exception as error:  # noqa: BLE001 (whatever VLMEvalKit raises is the other side's to tell)
        traceback.print_exc()
        return {"failure": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _hello() -> dict[str, dict[str, Any]]:
    return datasets.names()


def _questions(
    *, name: str, file: str, columns: list[str], groups: str, stratum: str, counted: dict[str, str], limit: int,
    offline: bool,
) -> dict[str, Any]:  # fmt: skip
    """Write the questions of a data set to ``file`` as JSON lines and return what is known of the set."""
    found = datasets.build(name, columns, offline=offline)
    places = found.chosen(groups, stratum, counted, limit)
    rule = found.rule(groups)
    with Path(file).open("w", encoding="utf-8") as lines:
        lines.writelines(
            json.dumps({"place": place, **found.question(place, rule, counted)}, ensure_ascii=False) + "\n"
            for place in places
        )
    return {"rows": len(found.data), "kind": found.kind, "file": found.file}


def _score(
    *, name: str, places: list[int], predictions: list[Any], folder: str, judge: dict[str, Any] | None
) -> dict[str, Any]:
    return scoring.score(datasets.kept(name), places, predictions, Path(folder), judge)


_COMMANDS: dict[str, Callable[..., Any]] = {"hello": _hello, "questions": _questions, "score": _score}

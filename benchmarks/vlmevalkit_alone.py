"""Run by its path: VLMEvalKit's own inference, one sample at a time, and its own evaluation, with our model inside."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import vlmeval.dataset.image_mt
import vlmeval.dataset.image_vqa
import vlmeval.dataset.miabench
from vlmeval.dataset import DATASET_CLASSES, build_dataset
from vlmeval.inference import infer_data_job
from vlmeval.inference_mt import infer_data_job_mt
from vlmeval.smp import get_pred_file_path, load
from vlmeval.vlm.base import BaseModel

from kore_bench.lmm import LMM
from kore_bench.plan import find_card
from kore_bench.registry import Registry

TOKENS = 8


class One(BaseModel):  # type: ignore[misc]
    """Our model as VLMEvalKit wants one: it answers one message, or the last turn of one dialogue."""

    INTERLEAVE = True
    is_api = False
    allowed_types = ("text", "image")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = LMM.load(find_card(Registry(), name, {}))

    def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        """Return the answer to one message."""
        return self.chat_inner([{"role": "user", "content": message}], dataset)

    def chat_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """Return the answer to the last turn of a dialogue."""
        turns, images = [], []
        for turn in message:
            content = []
            for part in turn["content"]:
                if part["type"] == "image":
                    images.append(Path(part["value"]))
                    content.append({"type": "image"})
                else:
                    content.append({"type": "text", "text": part["value"]})
            turns.append({"role": turn["role"], "content": content})
        return self.model.generate([(turns, images)], max_new_tokens=TOKENS, batch_size=1)[0]


class LoopJudge:
    """A judge on this machine, in place of VLMEvalKit's."""

    def __init__(self, url: str) -> None:
        self.url = url

    def working(self) -> bool:
        """Return that it works."""
        return True

    def generate(self, message: Any, **options: Any) -> str:
        """Return its reply to the texts of a message."""
        parts = [message] if isinstance(message, str) else [part["value"] for part in message if part["type"] == "text"]
        body = json.dumps({"messages": [{"role": "user", "content": "\n".join(parts)}]}).encode()
        with urllib.request.urlopen(f"{self.url}/chat/completions", body) as reply:
            return str(json.load(reply)["choices"][0]["message"]["content"])


def run(model: One, name: str, url: str) -> dict[str, Any]:
    """Return VLMEvalKit's answers by index, its result as rows, and the seconds that the answers took."""
    for kind in (kind for kind in DATASET_CLASSES if name in kind.supported_datasets()):
        kind.DATASET_MD5 = {key: value for key, value in kind.DATASET_MD5.items() if key != name}
    dataset = build_dataset(name)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        infer = infer_data_job_mt if dataset.TYPE == "MT" else infer_data_job
        infer(model, folder, "one", dataset)
        seconds = time.perf_counter() - begin
        file = get_pred_file_path(folder, "one", name)
        table = load(file)
        result = dataset.evaluate(file, model="loop" if url else "exact_matching", nproc=1)
    rows = [result] if isinstance(result, dict) else result.to_dict("records")
    said = table["prediction"].fillna("")  # a spreadsheet has no empty text
    answers = {str(index): str(text) for index, text in zip(table["index"], said, strict=True)}
    return {"answers": answers, "result": rows, "seconds": seconds}


def main() -> None:
    """Write what `run` gives for every data set of the request to its file, as JSON."""
    request = json.loads(sys.argv[1])
    model = One(request["model"])
    judge = LoopJudge(request["url"])
    for module in (vlmeval.dataset.image_mt, vlmeval.dataset.image_vqa, vlmeval.dataset.miabench):
        module.build_judge = lambda **options: judge
    found = {name: run(model, name, request["url"] if name in request["judged"] else "") for name in request["names"]}
    Path(request["file"]).write_text(json.dumps(found, default=float), encoding="utf-8")
    os._exit(0)  # OCRVQA's pool of processes is never closed


if __name__ == "__main__":
    main()

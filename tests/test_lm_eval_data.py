"""Where lm-eval's data come from: the cache first, a download only after it was announced, none with --offline."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.formats import read_knowledge
from kore_bench.plan import Request, make_plan
from kore_bench.task import ToolkitTask

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'kore-bench[lm-eval]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of lm-eval and of what it imports
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

REMOTE = """\
task: {name}
dataset_path: somebody/{name}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
"""


class Hub:
    """Stands for `datasets.load_dataset`: ``kept`` are the data sets in the cache, ``there`` those of the hub."""

    def __init__(self, there: tuple[str, ...], kept: tuple[str, ...] = ()) -> None:
        self.there, self.kept, self.asked = there, set(kept), list[str]()

    def load(self, path: str, name: str | None = None, **options: Any) -> Any:
        import datasets

        if path not in self.kept:
            if datasets.config.HF_HUB_OFFLINE:
                raise ConnectionError(f"Couldn't reach '{path}' on the Hub (OfflineModeIsEnabled)")
            self.asked.append(path)
            if path not in self.there:
                raise ConnectionError(f"Couldn't reach '{path}' on the Hub (LocalEntryNotFoundError)")
            self.kept.add(path)
        return datasets.DatasetDict({"test": datasets.Dataset.from_list([{"question": "and?", "answer": "yes"}])})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hub]:
    """Return ``hub(there, kept)``, which puts itself between lm-eval and the network."""

    def made(*given: tuple[str, ...]) -> Hub:
        stand_in = Hub(*given)
        monkeypatch.setattr("datasets.load_dataset", stand_in.load)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        return stand_in

    return made


def planned(tmp_path: Path, name: str, *, offline: bool = False) -> ToolkitTask:
    (tmp_path / f"{name}.yaml").write_text(REMOTE.format(name=name))
    settings = (f"lm-eval.path={tmp_path}",)
    (task,) = make_plan(
        Request(methods=("lora",), tasks=(f"lm-eval:{name}",), settings=settings, offline=offline)
    ).tasks
    assert isinstance(task, ToolkitTask)
    return task


def test_a_download_is_announced_before_it_is_made(
    hub: Callable[..., Hub], small_world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in, task = hub(("somebody/far",)), planned(tmp_path, "far")
    with caplog.at_level(logging.WARNING, "kore_bench"):
        assert task.skip(read_knowledge(small_world)) is None
    assert stand_in.asked == ["somebody/far"]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("kore_bench")] == [
        "lm-eval:far: downloading its data, somebody/far, into the Hugging Face cache"
    ]


def test_what_is_in_the_cache_is_not_asked_of_the_hub(
    hub: Callable[..., Hub], small_world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in = hub((), ("somebody/near",))
    for offline in (False, True):
        assert planned(tmp_path, "near", offline=offline).skip(read_knowledge(small_world)) is None
    assert stand_in.asked == []
    assert not [record for record in caplog.records if record.name.startswith("kore_bench")]


def test_offline_skips_the_task_and_says_what_is_missing(
    hub: Callable[..., Hub], small_world: Path, tmp_path: Path
) -> None:
    stand_in, task = hub(("somebody/away",)), planned(tmp_path, "away", offline=True)
    assert task.skip(read_knowledge(small_world)) == (
        "lm-eval:away needs somebody/away, which is not in the Hugging Face cache, and --offline forbids to download it"
    )
    with pytest.raises(UserError, match="lm-eval:away needs somebody/away"):
        task.samples(4)
    assert stand_in.asked == []


def test_a_failed_download_is_a_sentence(hub: Callable[..., Hub], small_world: Path, tmp_path: Path) -> None:
    hub(())
    with pytest.raises(UserError, match=r"lm-eval:gone needs somebody/gone.* cannot be downloaded: ConnectionError"):
        planned(tmp_path, "gone").skip(read_knowledge(small_world))


def test_offline_is_no_part_of_the_key_and_leaves_no_trace(
    hub: Callable[..., Hub], small_world: Path, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    hub((), ("somebody/kept",))
    before = dict(os.environ), huggingface_hub.constants.HF_HUB_OFFLINE
    offline, online = planned(tmp_path, "kept", offline=True), planned(tmp_path, "kept")
    offline.skip(read_knowledge(small_world))
    assert offline.key() == online.key()
    assert (dict(os.environ), huggingface_hub.constants.HF_HUB_OFFLINE) == before


def test_the_sets_are_names_of_several_tasks() -> None:
    request = Request(methods=("lora",), tasks=("language", "mini-language", "lm-eval:mini_facts"))
    assert [task.card.name for task in make_plan(request).tasks] == [
        "lm-eval:wikitext", "lm-eval:arc_easy", "lm-eval:hellaswag", "lm-eval:piqa", "lm-eval:winogrande",
        "lm-eval:mini_facts", "lm-eval:mini_paragraphs",
    ]  # fmt: skip

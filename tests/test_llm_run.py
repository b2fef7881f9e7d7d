"""Runs whose methods write with a language model: what is asked of `--llm`, cell keys, and what training data come."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kore_bench.bench import check_same_run, describe, workload
from kore_bench.component import AdapterSpec, Budget
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.generators import GeneratorSettings
from kore_bench.grid import Cell, list_cells
from kore_bench.plan import Request, make_plan
from kore_bench.registry import Registry
from kore_bench.results import RunFolder
from kore_bench.runner import CellRun

pytest.importorskip("openai", reason="the openai generator asks through the package openai")
pytest.importorskip("pydantic", reason="answers are checked by pydantic")
servers: Any = importlib.import_module("llm_server")

TREES = "kore-augmentation.generator=openai"


@pytest.fixture(autouse=True)
def _own_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    writer: Any = importlib.import_module("kore_bench.generators.llm.writer")
    monkeypatch.setattr(writer, "cache_folder", lambda: tmp_path / "answers")


@pytest.fixture(scope="module")
def knowledge(small_world: Path) -> Knowledge:
    return read_knowledge(small_world)


@pytest.fixture
def server(knowledge: Knowledge) -> Iterator[Any]:
    with servers.serving(servers.template_script(knowledge.items)) as state:
        yield state


def asking(server: Any, *settings: str, **given: Any) -> Request:
    standard: dict[str, Any] = {"methods": ("kore-augmentation",), "tasks": ("adaptation",), "llm": "scripted"}
    return Request(**{**standard, "base_url": server.url, "settings": (TREES, *settings), **given})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"llm": ""}, "--base-url needs --llm NAME: what the endpoint calls the model"),
        (
            {"llm": "", "base_url": ""},
            "kore-augmentation.generator=openai needs a language model: give it by --llm NAME",
        ),
        ({"settings": ()}, "--llm scripted: no method writes with a language model"),
        ({"base_url": ""}, "--llm scripted without --base-url is OpenAI's, which asks for a key: set OPENAI_API_KEY"),
        ({"base_url": "localhost"}, "--base-url localhost is no address"),
        (
            {"base_url": "https://a.example/v1", "offline": True},
            "--offline forbids the language model at https://a.example",
        ),
        ({"settings": (TREES, "generator.retry=1")}, "generator has no setting 'retry': did you mean 'retries'?"),
        ({"settings": (TREES, "generator.timeout=0")}, "must be above 0"),
        ({"settings": ("generator.retries=1",), "llm": "", "base_url": ""}, "--set generator.retries needs --llm NAME"),
        ({"methods": ("augment-text-aware",), "settings": ("augment-text-aware.generator=openei",)}, "'openei'"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_asked(given: dict[str, Any], sentence: str, server: Any) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(asking(server, **given))
    assert sentence in str(caught.value)
    assert not server.seen


def cell_keys(request: Request, knowledge: Knowledge) -> dict[str, str]:
    return {cell.method: cell.key for cell in list_cells(make_plan(request), knowledge)}


def test_the_model_belongs_to_the_cells_that_it_writes_for_and_the_address_does_not(
    server: Any, knowledge: Knowledge
) -> None:
    def keys(**given: Any) -> dict[str, str]:
        return cell_keys(asking(server, methods=("kore-augmentation", "lora"), **given), knowledge)

    first, other = keys(), keys(llm="another")
    assert first["lora"] == other["lora"]
    assert first["kore-augmentation"] != other["kore-augmentation"]
    assert keys(base_url="http://localhost:1/v1") == first
    assert keys(settings=(TREES, "generator.retries=1", "generator.in_flight=2")) == first
    assert keys(settings=(TREES, "generator.attempts=1"))["kore-augmentation"] != first["kore-augmentation"]
    template = Request(methods=("kore-augmentation", "lora"), tasks=("adaptation",))
    assert cell_keys(template, knowledge)["lora"] == first["lora"]


def test_a_run_goes_on_with_the_same_model_at_another_address_only(server: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(describe(make_plan(asking(server))) | {"cells": []}))
    check_same_run(run, make_plan(asking(server, "generator.retries=1", base_url="http://localhost:1/v1")))
    with pytest.raises(UserError, match="a run with llm 'scripted', not 'another'"):
        check_same_run(run, make_plan(asking(server, llm="another")))


def test_the_endpoint_is_asked_for_only_where_a_cell_is_left(server: Any, tmp_path: Path) -> None:
    plan = make_plan(asking(server, base_url="http://127.0.0.1:9/v1", methods=("kore-augmentation", "lora")))
    cells = [Cell(model="mini-llava", method=method, seed=0, key="k") for method in ("lora", "kore-augmentation")]
    workload(plan, tmp_path, cells[:1], rerun="never", jobs=1)
    with pytest.raises(UserError, match=r"the language model scripted at http://127\.0\.0\.1:9/v1 cannot be reached"):
        workload(plan, tmp_path, cells, rerun="never", jobs=1)


def training_data(
    items: tuple[Item, ...], method: str, settings: GeneratorSettings, **fields: str
) -> tuple[list[Example], CellRun]:
    """Return the training data after every `data` hook of a method that writes with the openai generator."""
    registry = Registry((), settings)
    given = {f"{method}.{name}": value for name, value in {"generator": "openai", **fields}.items()}
    run = CellRun(
        seed=0, items=items, calibration=(), held_out=(), budget=Budget(steps=1, epochs=0, batch_size=1),
        spec=AdapterSpec(kind="lora"), train_projector=False, base={}, embed=lambda images: np.eye(len(images)),
        registry=registry,
    )  # fmt: skip
    examples = [item.example() for item in items]
    for component in registry.compose(method, given).components:
        examples = component.data(examples, run)
    return examples, run


def settings_at(server: Any, **given: Any) -> GeneratorSettings:
    return GeneratorSettings(llm="scripted", base_url=server.url, **given)


@pytest.mark.parametrize("in_flight", [1, 8])
def test_texts_are_rewritten_by_a_language_model(in_flight: int, server: Any, knowledge: Knowledge) -> None:
    given = settings_at(server, in_flight=in_flight, price_out=1.0)
    examples, run = training_data(knowledge.items, "augment-text-aware", given, copies="3")
    copies = [example for example in examples if example.source == "augment-text-aware"]
    assert [copy.id for copy in copies] == [
        f"{item.id}/augment-text-aware-{n}" for item in knowledge.items for n in (1, 2, 3)
    ]
    assert len({copy.turns[0].answer for copy in copies}) > 2 * len(knowledge.items)
    found = {name.partition("/")[2]: value for name, value in run.diagnostics.items()}
    assert found["copies"] == found["llm requests"] == len(copies)
    assert found["llm cost"] == pytest.approx(found["llm tokens_out"] / 1e6)
    again, _ = training_data(knowledge.items, "augment-text-aware", given, copies="3")
    assert again == examples
    assert len(server.seen) == len(copies)


def test_rejected_copies_are_left_out_and_counted(server: Any, knowledge: Knowledge) -> None:
    script, refused = server.script, knowledge.items[1].text.strip()
    server.script = lambda asked: "I'm sorry, I can't." if asked.text == refused else script(asked)
    examples, run = training_data(knowledge.items, "augment-text-aware", settings_at(server), copies="2")
    counts = Counter(example.id.partition("/")[0] for example in examples)
    assert counts == {item.id: 1 if item is knowledge.items[1] else 3 for item in knowledge.items}
    assert run.diagnostics["augment-text-aware/llm rejects"] == 2


def test_trees_are_grown_by_a_language_model(server: Any, knowledge: Knowledge) -> None:
    _, run = training_data(knowledge.items, "kore-augmentation", settings_at(server))
    assert run.diagnostics["kore-augmentation/dialogues"] == len(knowledge.items)
    assert Counter(asked.task for asked in server.seen) == dict.fromkeys(
        ("questions", "answers", "summary", "quadruplets"), len(knowledge.items)
    )
    assert run.diagnostics["kore-augmentation/vqa"] > len(knowledge.items)
    assert run.diagnostics["kore-augmentation/llm requests"] == 4 * len(knowledge.items)


def test_where_a_model_refuses_everything_styles_stay_as_they_were(server: Any, knowledge: Knowledge) -> None:
    server.script = lambda asked: "As an AI, I must decline."
    examples, run = training_data(knowledge.items, "sefe", settings_at(server), share="1.0")
    assert examples == [item.example() for item in knowledge.items]
    assert run.diagnostics["sefe/brief"] == 0


def test_an_item_without_text_is_named_before_anything_is_asked(server: Any, knowledge: Knowledge) -> None:
    registry = Registry((), settings_at(server))
    component = registry.compose("augment-text-aware", {"augment-text-aware.generator": "openai"}).components[-1]
    items = (*knowledge.items[:1], replace(knowledge.items[1], text=" "))
    with pytest.raises(UserError, match=f"augment-text-aware: .* the text of item {items[1].id}, which has none"):
        component.check_data(replace(knowledge, items=items), registry.find)
    assert not server.seen

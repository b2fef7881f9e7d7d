"""Requests made into plans, the preflight, and the keys of cells."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kore_bench.bench import check_same_run, write_plan
from kore_bench.errors import UserError
from kore_bench.formats import read_knowledge
from kore_bench.grid import Cell, list_cells, tuning_conditions
from kore_bench.plan import Request, make_plan, preflight
from kore_bench.results import RunFolder


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(methods=("kor",)), "unknown method 'kor': did you mean 'kore'?"),
        (Request(model="mini-lava"), "unknown model 'mini-lava': did you mean 'mini-llava'?"),
        (Request(tasks=("adaption",)), "unknown task 'adaption': did you mean 'adaptation'?"),
        (Request(tasks=()), "--tasks is empty"),
        (Request(methods=()), "--methods is empty"),
        (Request(methods=("lora", "lora")), "--methods names lora twice"),
        (Request(settings=("train.step=3",)), "train has no setting 'step': did you mean 'steps'?"),
        (Request(settings=("train.steps=-3",)), "train.steps=-3 must not be negative"),
        (Request(settings=("train.steps=0", "train.epochs=0")), "train.steps and train.epochs are both 0"),
        (Request(settings=("train.projector=maybe",)), "train.projector=maybe is not one of frozen, train"),
        (Request(settings=("train.learning_rate=fast",)), "train.learning_rate=fast must be a number"),
        (Request(settings=("train.warmup=2",)), "train.warmup=2.0 is a share of the steps"),
        (Request(settings=("old.samples=0",)), "--set old.samples=0 must be at least 1"),
        (Request(settings=("steps",)), "--set steps must have the form name.field=value"),
        (Request(settings=("lora.rank=4", "lora.rank=8")), "--set lora.rank is given twice"),
        (Request(methods=("lora",), settings=("ewc.strength=1",)), "no chosen method or task has a part 'ewc'"),
        (Request(methods=("replay",), settings=("replay.ratio=0",)), "replay.ratio=0.0 must be above 0"),
        (Request(tuning="nowhere.json"), "--tuning nowhere.json: there is no such file"),
        (Request(plugins=("nowhere.py",)), "--plugin nowhere.py: there is no such file"),
    ],
)
def test_wrong_requests_are_refused_in_a_sentence(request_: Request, message: str) -> None:
    with pytest.raises(UserError) as error:
        make_plan(request_)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_epochs_replace_the_cards_steps() -> None:
    assert make_plan(Request(settings=("train.epochs=2",))).train.budget == "2 epochs x 16 examples"


@pytest.mark.parametrize("text", ["{", "{}", '[{"method": "lora"}]'])
def test_a_file_that_is_no_tuning_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match="--tuning"):
        make_plan(Request(tuning=str(tmp_path / "t.json")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("kore-null.rank=0",), r"kore-null\.rank=0 is out of range: .* ranks 1 to 128"),
        (("kore-null.rank=129",), r"kore-null\.rank=129 is out of range"),
        (("lora.rank=1000",), r"lora\.rank=1000 is out of range"),
    ],
)
def test_ranks_are_checked_before_any_weight_loads(
    world: Path, tmp_path: Path, settings: tuple[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        preflight(make_plan(Request(methods=("kore", "lora"), settings=settings)), tmp_path)


def test_what_a_method_needs_of_the_data_is_checked_first(small_world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(small_world, folder)
    (folder / "old.json").unlink()
    with pytest.raises(UserError, match=r"ewc reads samples of old knowledge, and .* has no old\.json"):
        preflight(make_plan(Request(methods=("ewc",), data=str(folder))), tmp_path)
    (folder / "facts.json").unlink()
    with pytest.raises(UserError, match=r"template generator needs facts\.json"):
        preflight(make_plan(Request(methods=("kore-augmentation",), data=str(folder))), tmp_path)
    (folder / "evoke_injection_data.json").write_text("[\n{]")
    with pytest.raises(UserError, match=r"evoke_injection_data\.json, line 2"):
        preflight(make_plan(Request(methods=("lora",), data=str(folder))), tmp_path)


def cells(world: Path, request_: Request) -> list[Cell]:
    return list_cells(make_plan(replace(request_, data=str(world))), read_knowledge(world))


def test_the_grid_is_references_and_methods_by_seed(small_world: Path) -> None:
    found = cells(small_world, Request(methods=("lora", "kore"), seeds=(0, 1)))
    assert [(cell.method, cell.seed) for cell in found] == [
        ("base", 0), ("base", 1), ("in-context", 0), ("in-context", 1),
        ("lora", 0), ("lora", 1), ("kore", 0), ("kore", 1),
    ]  # fmt: skip
    assert len({cell.key for cell in found}) == len(found)


def test_a_key_holds_what_can_change_a_figure(small_world: Path, tmp_path: Path) -> None:
    def key(*settings: str, tuning: str = "") -> str:
        return cells(small_world, Request(methods=("lora",), settings=settings, tuning=tuning))[-1].key

    assert key() == key()
    assert (
        len({key(), key("train.steps=7"), key("lora.rank=3"), key("old.samples=9"), key("train.learning_rate=1")}) == 5
    )
    entry = {
        "method": "lora", "model": "mini-llava", "budget": "150 steps x 16 examples",
        "chosen": {"learning_rate": 0.123, "settings": {}}, "trials": [],
        "conditions": tuning_conditions(make_plan(Request(data=str(small_world)))),
    }  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps([entry]))
    tuned = cells(small_world, Request(methods=("lora",), tuning=str(tmp_path / "t.json")))[-1]
    assert (tuned.learning_rate, tuned.tuned) == (0.123, "tuned")
    given = cells(
        small_world, Request(methods=("lora",), tuning=str(tmp_path / "t.json"), settings=("train.learning_rate=0.5",))
    )[-1]
    assert (given.learning_rate, given.tuned) == (0.5, "given")
    other = cells(small_world, Request(methods=("lora",), tuning=str(tmp_path / "t.json"), settings=("lora.rank=3",)))[
        -1
    ]
    assert other.tuned == "tuned at other settings"
    schedule = cells(
        small_world, Request(methods=("lora",), tuning=str(tmp_path / "t.json"), settings=("train.schedule=linear",))
    )[-1]
    assert schedule.tuned == "tuned at other settings"
    budget = cells(
        small_world, Request(methods=("lora",), tuning=str(tmp_path / "t.json"), settings=("train.steps=3",))
    )[-1]
    assert budget.tuned == "untuned"


def test_a_run_of_an_earlier_version_goes_on_under_the_defaults_of_what_it_did_not_know(tmp_path: Path) -> None:
    plan = make_plan(Request(methods=("lora",), seeds=(0,)))
    run = RunFolder(tmp_path)
    write_plan(run, plan, [])
    old = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    del old["old"]["calibration"]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(old))
    check_same_run(run, plan)
    check_same_run(run, make_plan(Request(methods=("lora", "ewc"), seeds=(0, 1))))
    with pytest.raises(UserError, match=r"a run with settings \[\], not \['old\.samples=16'\]: give this one another"):
        check_same_run(run, make_plan(Request(methods=("lora",), settings=("old.samples=16",))))

"""Variants of methods and sweeps: their names, what wins, their cells and looks, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import kore_bench
from kore_bench.cli import main
from kore_bench.errors import UserError
from kore_bench.formats import read_knowledge
from kore_bench.grid import Cell, list_cells
from kore_bench.plan import Request, make_plan, preflight
from kore_bench.registry import Composition, Registry
from kore_bench.reports.drawing import look
from kore_bench.variants import expand, method_of, split_variant

REGISTRY = Registry()


def compose(name: str, **settings: str) -> Composition:
    return REGISTRY.compose(name, {option.replace("__", "."): value for option, value in settings.items()})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("kore:rank=64", "kore:rank=64"),
        ("kore:kore-null.rank=064", "kore:rank=64"),
        ("kore:lora.rank=8", "kore:lora.rank=8"),
        ("kore-null:freeze-a=False", "kore-null:freeze_a=false"),
        ("kore:rank=match:lora@4:freeze_a=false", "kore:rank=match:lora@4:freeze_a=false"),
        ("kore-augmentation:parts=dialogue+vqa", "kore-augmentation:parts=dialogue+vqa"),
        ("ewc+kore:strength=2", "ewc+kore:strength=2.0"),
        ("lora:rank=4", "lora:rank=4"),
        ("kore:rank=auto", "kore"),
        ("kore:freeze_a=true:rank=3", "kore:rank=3"),
        ("ewc:strength=0.01", "ewc:strength=0.01"),  # tuning may choose another for plain ewc
    ],
)
def test_a_variant_has_one_short_name(given: str, name: str) -> None:
    assert compose(given).name == name
    assert compose(name).settings() == compose(given).settings()


def test_a_variants_own_settings_have_the_last_word() -> None:
    composed = compose("kore:rank=3", **{"kore-null__rank": "5", "kore-augmentation__turns": "2"})
    assert composed.settings()["kore-null"]["rank"] == 3
    assert composed.settings()["kore-augmentation"]["turns"] == 2
    assert compose("kore:rank=5", **{"kore-null__rank": "5"}).name == "kore"
    assert compose("kore-augmentation:parts=dialogue+vqa").settings()["kore-augmentation"]["parts"] == (
        "dialogue",
        "vqa",
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kore:64", "kore:64: '64' must have the form FIELD=VALUE, such as kore:rank=64"),
        ("kore:rnk=3", "kore:rnk=3: no part has a setting 'rnk': did you mean 'rank'?"),
        ("kore:kore-nul.rank=3", "it has no part 'kore-nul': did you mean 'kore-null'?"),
        ("kore:kore-null.rnk=3", "kore-null has no setting 'rnk': did you mean 'rank'?"),
        ("kore:rank=", "kore:rank=: rank has no value"),
        ("kore:rank=2:rank=3", "kore:rank=2:rank=3: rank is given twice"),
        ("kore:rank=2:kore-null.rank=3", "kore-null.rank is given twice"),
        ("kore-augmentation:source=a/b", "'a/b' cannot stand in a method's name: use --set kore-augmentation.source=a/b"),
        ("ewc+l2-sp:strength=1", "several parts have strength: write ewc.strength or l2-sp.strength"),
        ("kore-null:freeze_a=maybe", "kore-null.freeze_a=maybe must be true or false"),
        ("kor:rank=3", "unknown method 'kor': did you mean 'kore'?"),
    ],
)  # fmt: skip
def test_wrong_variants_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        make_plan(Request(methods=(name,)))
    assert message in str(error.value)


def test_a_sweep_makes_a_row_of_every_value_and_of_every_combination() -> None:
    methods = ("lora", "kore", "kore-null:rank=5")
    swept = expand(methods, ("kore-null.rank=3,auto", "kore-null.freeze-a=true,false"), REGISTRY)
    names = [method.name for method in make_plan(Request(methods=swept)).methods]
    assert names == [
        "lora", "kore:rank=3", "kore:rank=3:freeze_a=false", "kore", "kore:freeze_a=false",
        "kore-null:rank=5", "kore-null:rank=5:freeze_a=false",
    ]  # fmt: skip
    assert expand(methods, (), REGISTRY) == methods


def test_python_sweeps_as_the_command_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    def prepare(request: Request, folder: Path) -> None:
        asked.append(request)
        raise UserError("enough")

    monkeypatch.setattr("kore_bench.api.prepare", prepare)
    with pytest.raises(UserError, match="enough"):
        kore_bench.run(
            "kore-augmentation", sweeps={"kore-augmentation.parts": ["vqa", ["dialogue", "vqa"]]}, quiet=True
        )
    assert asked[0].methods == expand(("kore-augmentation",), ("kore-augmentation.parts=vqa,dialogue+vqa",), REGISTRY)


def test_each_part_of_a_tree_can_be_swept() -> None:
    swept = expand(("kore-augmentation",), ("kore-augmentation.parts=dialogue,caption,dialogue+vqa",), REGISTRY)
    parts = [method.settings()["kore-augmentation"]["parts"] for method in make_plan(Request(methods=swept)).methods]
    assert parts == [("dialogue",), ("caption",), ("dialogue", "vqa")]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("rank=3", "--sweep rank=3 must have the form part.field=V,V, such as kore-null.rank=64,128"),
        ("kore-null.rank=3,", "must have the form part.field=V,V"),
        ("kore-null.rank", "must have the form part.field=V,V"),
        ("kore-null.rnk=2,3", "--sweep kore-null.rnk: kore-null has no setting 'rnk': did you mean 'rank'?"),
        ("kore-nul.rank=2,3", "--sweep kore-nul.rank: no chosen method has a part 'kore-nul': did you mean 'kore-null'?"),
        ("train.steps=3,4", "no chosen method has a part 'train'"),
        ("kore-null.rank=3,3", "--sweep kore-null.rank=3,3 names 3 twice"),
        ("kore-null.freeze_a=true,True", "--methods names kore twice"),
    ],
)  # fmt: skip
def test_wrong_sweeps_are_refused(sweep: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["run", "--methods", "kore", "--sweep", sweep, "--dry-run"])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_a_swept_rank_is_checked_against_the_layers(small_world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"kore-null\.rank=129 is out of range: .* allows ranks 1 to 128"):
        preflight(make_plan(Request(methods=("kore", "kore:rank=129"))), tmp_path)


def cells(world: Path, *methods: str, tuning: str = "", settings: tuple[str, ...] = ()) -> list[Cell]:
    request = Request(methods=methods, data=str(world), tuning=tuning, settings=settings)
    return [cell for cell in list_cells(make_plan(request), read_knowledge(world)) if not cell.reference]


def test_variants_have_cells_of_their_own(small_world: Path) -> None:
    found = cells(small_world, "kore", "kore:rank=3", "kore:rank=4")
    assert [cell.method for cell in found] == ["kore", "kore:rank=3", "kore:rank=4"]
    assert len({cell.key for cell in found}) == 3
    assert cells(small_world, "kore:kore-null.rank=3")[0].key == found[1].key
    assert cells(small_world, "kore")[0].key == cells(small_world, "kore:rank=auto")[0].key


def test_a_variant_takes_its_methods_rate_and_says_so(small_world: Path, tmp_path: Path) -> None:
    shipped = {cell.method: cell for cell in cells(small_world, "kore", "kore:rank=3", "ewc", "ewc:strength=7")}
    assert shipped["kore:rank=3"].learning_rate == shipped["kore"].learning_rate
    assert shipped["kore:rank=3"].tuned == "tuned at other settings"
    entry = {
        "method": "ewc", "model": "mini-llava", "budget": "150 steps x 16 examples", "trials": [], "conditions": {},
        "chosen": {"learning_rate": 0.5, "settings": {"ewc.strength": 3.0}},
    }  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps([entry]))
    plan = make_plan(Request(methods=("ewc", "ewc:strength=7"), tuning=str(tmp_path / "t.json"), data=str(small_world)))
    strengths = []
    for cell in cells(small_world, "ewc", "ewc:strength=7", tuning=str(tmp_path / "t.json")):
        assert cell.learning_rate == 0.5
        strengths.append(plan.method(cell.method, cell.settings).settings()["ewc"]["strength"])
    assert strengths == [3.0, 7.0]
    assert plan.tuned("ewc:strength=7") is plan.tuned("ewc")


def test_names_are_taken_apart() -> None:
    assert split_variant("ewc+kore:rank=match:lora@4") == ("ewc+kore", {"rank": "match:lora@4"})
    assert (method_of("kore:rank=3"), method_of("ewc+kore")) == ("kore", "ewc+kore")


def test_variants_look_like_their_method_and_apart_from_each_other() -> None:
    looks = [look(name) for name in ("kore", "kore:rank=3", "kore:rank=4")]
    assert len({one.colour for one in looks}) == 1
    assert looks[0].marker != looks[1].marker


def test_the_command_line_and_a_config_sweep_alike(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = []
    Path("list.yaml").write_text("sweep:\n- kore-null.rank=3,4\n")
    Path("pairs.yaml").write_text("sweep: {kore-null.rank: '3,4'}\n")
    base = ["run", "--methods", "lora,kore-null", "--data", str(small_world), "--dry-run"]
    for more in (["--sweep", "kore-null.rank=3,4"], ["--config", "list.yaml"], ["--config", "pairs.yaml"]):
        with pytest.raises(SystemExit):
            main([*base, *more])
        shown.append(capsys.readouterr().out)
    assert "kore-null:rank=3, seed 0" in shown[0]
    assert shown[0] == shown[1] == shown[2]

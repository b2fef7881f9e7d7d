"""`kore-bench analyze`: points that are scored once, the choice of layers and sets, what is written, and its errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from kore_bench import co_svd
from kore_bench.analysis import CovarianceMaps, Point, Removals
from kore_bench.cli import main
from kore_bench.co_svd import Surgery, least_components, removals
from kore_bench.covariance_maps import choose_layers, compare
from kore_bench.errors import UserError
from kore_bench.evaluation import Evaluator
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.models.mini_llava import CARD

LAYERS = [f"model.layers.{block}.{leaf}" for block in range(4) for leaf in ("self_attn.q_proj", "mlp.down_proj")]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["analyze", *arguments])
    return int(exit_.value.code or 0)


@pytest.fixture(scope="module")
def model() -> LMM:
    return LMM.load(CARD)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that the folder of every evaluation is added to."""
    folders: list[str] = []
    evaluate = Evaluator.evaluate

    def counted(self: Evaluator, *arguments: Any) -> Any:
        folders.append(self.folder.name.split("--")[0])
        return evaluate(self, *arguments)

    monkeypatch.setattr(Evaluator, "evaluate", counted)
    return folders


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


# ---- removing components


def test_a_model_loses_components_and_gets_them_back(model: LMM, small_world: Path, own_cache: Path) -> None:
    samples = [item.example() for item in read_knowledge(small_world).items]
    found = least_components(model, samples, 40, lambda done, total: None)
    before = {name: layer.weight.detach().clone() for name, layer in model.linears().items()}
    surgery = Surgery(model, found)
    surgery.remove("co-svd", 40)
    for name, layer in model.linears().items():
        rank = int(torch.linalg.matrix_rank(layer.weight.detach().double(), rtol=1e-5))
        assert rank == min(layer.weight.shape) - 40
        assert found[f"{name}/co-svd/change"][-1] < found[f"{name}/svd/change"][-1]
    changes = [surgery.change(name, 40) for name in ("co-svd", "asvd", "svd")]
    assert changes == sorted(changes)
    surgery.remove("", 0)
    assert surgery.change("", 0) == 0
    assert all(torch.equal(layer.weight, before[name]) for name, layer in model.linears().items())


def test_points_are_scored_once_and_go_on(
    small_world: Path, tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", str(small_world), "--tasks", "retention", "--limit", "14", "--samples", "8")
    command = ("co-svd", *options, "--runs", str(tmp_path), "--name", "look")
    assert call(*command, "--remove", "64") == 0
    assert asked == ["base-0", "svd-64", "asvd-64", "co-svd-64"]
    shown = capsys.readouterr().out
    assert "4 points, 0 scored already" in shown
    assert "CO-SVD without 64: retention K.R " in shown
    folder = tmp_path / "look"
    before = (folder / "tables" / "co-svd.csv").read_text()
    assert call(*command, "--remove", "64") == 0
    assert len(asked) == 4
    assert "4 points, 4 scored already" in capsys.readouterr().out
    assert (folder / "tables" / "co-svd.csv").read_text() == before
    record = Removals.read(folder / "co-svd.json")
    lost = folder / "points" / record.points[2] / "point.json"
    lost.write_text(lost.read_text()[:-40])
    assert call(*command, "--remove", "16,64") == 0
    assert asked[4:] == ["svd-16", "asvd-16", "co-svd-16", "asvd-64"]
    _check_written(folder)


def _check_written(folder: Path) -> None:
    record = Removals.read(folder / "co-svd.json")
    assert (record.samples, record.components, record.metrics) == (8, 128, {"retention": "K.R"})
    lines = [row for row in rows(folder / "tables" / "co-svd.csv") if row["measure"] == "K.R"]
    assert [(row["decomposition"], row["removed"]) for row in lines] == [
        ("untouched", "0"), *((name, count) for count in ("16", "64") for name in ("svd", "asvd", "co-svd")),
    ]  # fmt: skip
    assert {row["n"] for row in lines} == {"14"}
    assert float(lines[0]["change of old outputs"]) == 0
    by_name = {(row["decomposition"], row["removed"]): float(row["change of old outputs"]) for row in lines}
    assert by_name["co-svd", "64"] < by_name["svd", "64"]
    assert by_name["svd", "16"] < by_name["svd", "64"]
    value = Point.read(folder / "points" / record.points[0] / "point.json").scores["retention"]["K.R"].value
    markdown, latex = ((folder / "tables" / f"co-svd.{ending}").read_text() for ending in ("md", "tex"))
    assert f"| 0 | {value:.1f} (n 14) | {value:.1f} (n 14) | {value:.1f} (n 14) |" in markdown
    assert r"\toprule" in latex
    assert "plain SVD & ASVD & CO-SVD" in latex
    assert [file.name for file in sorted((folder / "figures").iterdir())] == ["co-svd.pdf", "co-svd.png", "co-svd.svg"]


def test_a_task_that_fails_fails_the_command_and_is_asked_again(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", str(small_world), "--tasks", "retention", "--limit", "7", "--samples", "8", "--remove", "64")
    command = ("co-svd", *options, "--runs", str(tmp_path))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no words")

    with monkeypatch.context() as patch:
        patch.setattr(LMM, "generate", broken)
        assert call(*command) == 1
    assert "ASVD without 64: retention: RuntimeError: no words" in capsys.readouterr().out
    assert not list(tmp_path.rglob("point.json"))
    assert call(*command) == 0
    assert len(list(tmp_path.rglob("point.json"))) == 4


def test_the_default_numbers_are_parts_of_the_narrowest_layer() -> None:
    assert removals("", {"a": (128, 352), "b": (352, 128)}) == ((16, 32, 64, 96), 128)
    assert removals("", {"a": (4096, 4096)})[0] == (512, 1024, 2048, 3072)
    assert removals(" 9, 3", {"a": (10, 20), "b": (40, 12)}) == ((3, 9), 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--remove", "16,200"), "q_proj has 128 components: remove 128 at most"),
        (("--remove", "many"), "'many' is no number of components"),
        (("--remove", "0"), "'0' is no number of components"),
        (("--remove", "8,8"), "--remove 8,8 names 8 twice"),
        (("--tasks", "retentoin"), "did you mean 'retention'?"),
        (("--calibration", "nowhere.json"), "--calibration nowhere.json is neither"),
        (("--samples", "1"), "1 sample to calibrate on says next to nothing"),
        (("--set", "kore-null.rank=3"), "has a part 'kore-null'"),
    ],
)
def test_co_svd_says_what_is_amiss(
    small_world: Path, tmp_path: Path, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(LMM, "load", lambda *_: pytest.fail("a model was loaded"))
    assert call("co-svd", "--data", str(small_world), "--runs", str(tmp_path), *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


# ---- covariances of several sets


def test_layers_are_chosen_by_the_end_of_their_names() -> None:
    assert choose_layers(["2.mlp.down_proj"], LAYERS) == ["model.layers.2.mlp.down_proj"]
    assert choose_layers(["q_proj"], LAYERS) == LAYERS[::2]
    assert choose_layers([LAYERS[3], "0.self_attn.q_proj"], LAYERS) == [LAYERS[0], LAYERS[3]]
    assert choose_layers([], LAYERS) == [name for name in LAYERS if ".1." not in name]
    with pytest.raises(UserError, match=r"--layers 2\.mlp\.down_prj.*did you mean '2\.mlp\.down_proj'"):
        choose_layers(["2.mlp.down_prj"], LAYERS)


def test_a_set_is_like_itself_and_its_own_halves(model: LMM, small_world: Path, own_cache: Path) -> None:
    old = read_knowledge(small_world).old
    (one, pool), (_, others) = list(old.items())[:2]
    layers = choose_layers(["0.self_attn.q_proj", "3.mlp.down_proj"], list(model.linears()))
    sets = {one: pool[:12], "again": pool[:12], "half": pool[12:24], "other": others[:12]}
    blocks: list[int] = []
    found = compare(model, sets, layers, blocks.append)
    assert blocks == [0, 3]
    for layer in layers:
        cosine = found[f"{layer}/cosines"]
        assert cosine.diagonal().tolist() == pytest.approx([1] * 4)
        assert cosine[0, 1] == pytest.approx(1)
        assert cosine[0, 3] < cosine[0, 2] < 1
        assert torch.equal(found[f"{layer}/maps"][0], found[f"{layer}/maps"][1])
    assert found["tokens"][0] == found["tokens"][1]


def test_the_covariance_command_writes_maps_and_likeness(
    small_world: Path, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--layers", "0.self_attn.q_proj,3.mlp.down_proj", "--samples", "6", "--runs", str(tmp_path))
    assert call("covariance", "--data", str(small_world), *options) == 0
    knowledge = read_knowledge(small_world)
    shown = capsys.readouterr().out
    names = [*knowledge.old, "injection"]
    assert all(f"{name} (n 6)" in shown for name in names)
    folder = tmp_path / "mini-llava-covariance"
    record = CovarianceMaps.read(folder / "covariance.json")
    assert list(record.samples) == names
    likeness = rows(folder / "tables" / "covariance-similarity.csv")
    assert len(likeness) == 3 * len(names) ** 2  # two layers and their mean
    assert all(float(row["cosine"]) == pytest.approx(1) for row in likeness if row["set"] == row["other"])
    maps = rows(folder / "tables" / "covariance-maps.csv")
    assert len(maps) == 2 * len(names) * 32
    assert [*maps[0]][:5] == ["layer", "set", "n", "tokens", "row"]
    for stem in ("covariance-maps", "covariance-similarity"):
        for ending in ("png", "pdf", "svg"):
            assert (folder / "figures" / f"{stem}.{ending}").stat().st_size > 1000


def test_sets_may_be_tasks_and_files(small_world: Path, tmp_path: Path, own_cache: Path) -> None:
    file = small_world / "evoke_injection_data.json"
    options = ("--sets", f"retention,{file}", "--layers", "0.mlp.down_proj", "--samples", "4", "--runs", str(tmp_path))
    assert call("covariance", "--data", str(small_world), *options) == 0
    record = json.loads((tmp_path / "mini-llava-covariance" / "covariance.json").read_text())
    assert record["samples"] == {"retention": 4, "evoke_injection_data.json": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "9.mlp.down_proj"), "--layers 9.mlp.down_proj: no linear layer ends so: did you mean"),
        (("--sets", "injecton,retention"), "--sets injecton is no skill, task or path: did you mean 'injection'?"),
        (("--sets", "injection"), "a comparison needs two sets, and here is injection"),
    ],
)
def test_covariance_says_what_is_amiss(
    small_world: Path, tmp_path: Path, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(LMM, "load", lambda *_: pytest.fail("a model was loaded"))
    assert call("covariance", "--data", str(small_world), "--runs", str(tmp_path), *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


# ---- what is on disk


def test_records_of_another_version_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "co-svd.json"
    with pytest.raises(UserError, match="is not there"):
        Removals.read(file)
    for text in ("{", "[]", '{"format": 99}', '{"format": 1, "model": "m"}'):
        file.write_text(text)
        with pytest.raises(UserError, match="was not written by this version"):
            Removals.read(file)


def test_the_group_shows_its_commands() -> None:
    from kore_bench.cli import app

    shown = CliRunner().invoke(app, ["analyze", "--help"]).output
    assert "co-svd" in shown
    assert "covariance" in shown
    assert co_svd.FILE == "co-svd.json"

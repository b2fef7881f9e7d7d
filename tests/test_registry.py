"""Finding by name, mixtures, and settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kore_bench.component import AdapterSpec, Defaults, fold, resolve_rank
from kore_bench.errors import UserError
from kore_bench.registry import Registry

REGISTRY = Registry()
LAYERS = {"a.q_proj": (8, 8), "a.up_proj": (24, 8), "a.down_proj": (8, 24)}
PLUGIN = '''
from dataclasses import dataclass
from kore_bench.component import Component, Method

@dataclass(frozen=True, kw_only=True)
class Weigh(Component):
    """Penalises the logits' size."""

    name = "weigh"
    strength: float = 0.5

METHOD = Method(name="weigh", summary="s", source="none", components=(Weigh(),))
'''


def names(method: str) -> list[str]:
    return [component.name for component in REGISTRY.compose(method).components]


def test_named_methods_bring_lora_as_their_default_adapter() -> None:
    assert names("kore") == ["lora", "kore-augmentation", "kore-null"]
    assert names("ewc") == ["lora", "ewc"]


def test_an_explicit_adapter_replaces_the_default() -> None:
    assert names("full+ewc") == ["full", "ewc"]
    assert names("ewc+full") == ["full", "ewc"]


def test_the_order_of_a_mixture_is_kept() -> None:
    assert names("replay+kore-augmentation") == ["lora", "replay", "kore-augmentation"]
    assert names("kore-augmentation+replay") == ["lora", "kore-augmentation", "replay"]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("lor", "unknown method 'lor': did you mean 'lora'?"),
        ("lora+full", "lora+full has two adapters (lora and full): keep one"),
        ("kore+kore-null", "kore+kore-null names kore-null twice: leave one out"),
        ("ewc+", "ewc+: something is missing beside a +: write mixtures as ewc+kore-null"),
    ],
)
def test_impossible_mixtures_are_refused(method: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        REGISTRY.compose(method)
    assert message in str(error.value)


@pytest.mark.parametrize("method", ["full+kore-null", "kore-null+frozen-random"])
def test_components_that_cannot_share_an_adapter_are_refused(method: str) -> None:
    components = REGISTRY.compose(method).components
    with pytest.raises(UserError, match=r"needs a low-rank adapter|both initialise"):
        fold(components, LAYERS, Defaults(rank=2))


def test_kore_null_shapes_the_adapter_before_it_is_built() -> None:
    spec = fold(REGISTRY.compose("kore").components, LAYERS, Defaults(rank=4))
    # match: 4 x (sum of in + out = 80) / (sum of out = 40) = 8
    assert spec == AdapterSpec(kind="lora", rank=8, alpha=8.0, initialiser="kore-null", freeze_a=True)


def test_ranks_match_the_papers_budget() -> None:
    width, hidden = 4096, 11008
    block = dict.fromkeys("qkvo", (width, width)) | {
        "g": (hidden, width),
        "u": (hidden, width),
        "d": (width, hidden),
    }
    layers = {f"{index}.{name}": shape for index in range(32) for name, shape in block.items()}
    assert resolve_rank("auto", "kore-null.rank", layers, Defaults(rank=128), freeze_a=True) == 235


@pytest.mark.parametrize("rank", [0, -3, 9, "matchlora", "match:lora@x"])
def test_wrong_ranks_are_refused(rank: int | str) -> None:
    with pytest.raises(UserError, match=r"kore-null\.rank"):
        resolve_rank(rank, "kore-null.rank", LAYERS, Defaults(rank=4), freeze_a=True)


def test_settings_reach_their_component_only() -> None:
    composed = REGISTRY.compose("kore", {"kore-null.rank": "6", "kore-augmentation.turns": "2", "ewc.strength": "1"})
    assert composed.settings()["kore-null"]["rank"] == 6
    assert composed.settings()["kore-augmentation"]["turns"] == 2
    assert composed.settings()["lora"]["rank"] == "auto"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("kore-null.rnk", "6"), "--set kore-null.rnk: kore-null has no setting 'rnk': did you mean 'rank'?"),
        (("kore-null.freeze-a", "maybe"), "--set kore-null.freeze-a=maybe must be true or false"),
        (("kore-augmentation.turns", "x"), "--set kore-augmentation.turns=x must be a whole number"),
        (("kore-augmentation.parts", "trunk"), "unknown part 'trunk'"),
        (("kore-augmentation.generator", "gpt"), "kore-augmentation: unknown generator 'gpt': available"),
    ],
)
def test_wrong_settings_are_refused(setting: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        REGISTRY.compose("kore", dict([setting]))
    assert message in str(error.value)


def test_a_plugin_file_adds_a_method(tmp_path: Path) -> None:
    file = tmp_path / "weigh.py"
    file.write_text(PLUGIN)
    composed = Registry((file,)).compose("weigh+replay", {"weigh.strength": "2"})
    assert composed.settings()["weigh"] == {"strength": 2.0}
    assert file in composed.sources


def test_a_source_edit_changes_the_digest(tmp_path: Path) -> None:
    first, second = tmp_path / "one.py", tmp_path / "two.py"
    first.write_text(PLUGIN)
    second.write_text(PLUGIN.replace("0.5", "0.25"))
    assert Registry((first,)).compose("weigh").digest() != Registry((second,)).compose("weigh").digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError"),
        (PLUGIN.replace('name="weigh"', 'name="lora"'), "defines 'lora' again"),
    ],
)
def test_bad_plugins_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(UserError, match=str(file)) as error:
        Registry((file,)).all("methods")
    assert message in str(error.value)


def test_help_and_lists_import_no_torch() -> None:
    code = (
        "import sys\n"
        "from kore_bench.listing import listing\n"
        "from kore_bench.registry import KINDS, Registry\n"
        "for kind in KINDS: listing(Registry(), kind)\n"
        "listing(Registry(), 'methods', 'ewc+kore')\n"
        "import kore_bench.cli\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

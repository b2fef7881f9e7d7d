"""O-LoRA: the old rows and the penalty by hand, what training with it gives, and adapters of an earlier stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kore_bench.component import Defaults, fold
from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.errors import UserError
from kore_bench.lmm import layer_shapes
from kore_bench.registry import Registry

Prepare = Callable[..., Prepared]


def test_the_old_rows_are_the_main_directions_of_old_inputs(prepare: Prepare) -> None:
    prepared = prepare("olora")
    layer: Any
    name, layer = list(prepared.model.lora_layers().items())[3]
    seen: list[np.ndarray] = []
    hook = layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].numpy()))
    for example in prepared.run.calibration:  # one by one: no padding
        batch = next(prepared.model.batches([example], 1))
        batch.pop("labels")
        with torch.no_grad():
            prepared.model.model(**batch)
    hook.remove()
    x = np.concatenate([rows[0] for rows in seen]).astype(np.float64)
    rank = prepared.run.spec.rank
    main = np.linalg.svd(x, full_matrices=False)[2][:rank]
    old = prepared.state("olora")["old"][name].double().numpy()
    assert old.shape == main.shape
    cosines = np.linalg.svd(old @ main.T)[1]  # of the angles between the two subspaces
    assert cosines.min() > 1 - 1e-3


def test_the_penalty_is_the_sum_of_absolute_inner_products(prepare: Prepare) -> None:
    prepared = prepare("olora", {"olora.strength": "0.3", "olora.norm-strength": "0.1"})
    total, terms, norms = 0.0, 0, 0.0
    with torch.no_grad():
        for layer in prepared.model.lora_layers():
            prepared.model.factors(layer)[1].normal_()
    for layer, old in prepared.state("olora")["old"].items():
        a, b = (factor.detach().double().numpy() for factor in prepared.model.factors(layer))
        for row in old.double().numpy():
            for new in a:
                total += abs(float(row @ new))
                terms += 1
        norms += float(np.sqrt((a**2).sum()) + np.sqrt((b**2).sum()))
    penalty: Any = prepared.component("olora").penalty(prepared.model, {}, None, prepared.run)
    assert float(penalty.detach()) == pytest.approx(0.3 * 4096 * total / terms + 0.1 * norms, rel=1e-4)
    torch.autograd.backward(penalty)
    assert all(prepared.model.factors(layer)[0].grad is not None for layer in prepared.model.lora_layers())


def test_training_with_it_turns_a_away_from_the_old_rows(prepare: Prepare) -> None:
    from kore_bench.methods.olora import mean_cosine

    found = {}
    for strength in ("0", "0.5"):
        prepared = prepare("olora", {"olora.strength": strength})
        old = {layer: rows.clone() for layer, rows in prepared.state("olora")["old"].items()}
        start = mean_cosine(prepared.model, old)
        prepared.train(steps=10, rate=5e-3)
        found[strength] = mean_cosine(prepared.model, old) / start
        assert all(torch.equal(rows, prepared.state("olora")["old"][layer]) for layer, rows in old.items())
        prepared.component("olora").finish(prepared.model, prepared.run)
        logged = prepared.run.diagnostics["olora/cosine to the old rows, mean"]
        assert logged == pytest.approx(found[strength] * start)
    assert found["0.5"] < 0.7 * found["0"]


# ---- an earlier stage


@pytest.fixture(scope="module")
def earlier(prepare: Prepare, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a trained LoRA."""
    prepared = prepare("lora")
    prepared.train(steps=3, rate=5e-3)
    folder = tmp_path_factory.mktemp("earlier")
    prepared.model.save(folder)
    return folder


def test_an_earlier_adapter_gives_its_own_rows_and_reads_no_old_sample(prepare: Prepare, earlier: Path) -> None:
    prepared = prepare("olora", {"olora.old": str(earlier)})
    assert not prepared.component("olora").uses_old_samples()
    stored = load_file(earlier / "adapter_model.safetensors")
    for layer, rows in prepared.state("olora")["old"].items():
        assert torch.equal(rows, stored[f"base_model.model.{layer}.lora_A.weight"])
    same = Registry().compose("olora", {"olora.old": str(earlier)})
    assert same.digest() != Registry().compose("olora").digest()


def refusal(method: str, settings: dict[str, str]) -> str:
    card = mini_card()
    with pytest.raises(UserError) as error:
        fold(Registry().compose(method, settings).components, layer_shapes(card), Defaults(rank=card.rank))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_work_is_refused_before_anything_loads(earlier: Path, tmp_path: Path) -> None:
    assert "olora turns the rows of A, and kore-null freezes them" in refusal("olora+kore-null", {})
    assert refusal("kore-null+olora", {}) == refusal("olora+kore-null", {})
    assert "olora needs a low-rank adapter, full has none" in refusal("olora+full", {})
    assert "olora.strength=-1.0 must not be negative" in refusal("olora", {"olora.strength": "-1"})
    assert "there is no adapter_model.safetensors" in refusal("olora", {"olora.old": str(tmp_path)})
    tensors = load_file(earlier / "adapter_model.safetensors")
    name = next(iter(tensors))
    file = tmp_path / "adapter_model.safetensors"
    save_file({**tensors, name: torch.zeros(2, 3)}, file)
    assert "it is of another model" in refusal("olora", {"olora.old": str(tmp_path)})
    save_file({"base_model.model.other.lora_A.weight": torch.zeros(2, 3)}, file)
    assert "it has no factors of model.language_model" in refusal("olora", {"olora.old": str(tmp_path)})
    file.write_bytes(b"no tensors")
    assert "cannot be read" in refusal("olora", {"olora.old": str(tmp_path)})

"""EVA: LoRA whose A starts at the principal directions of each layer's inputs on the new data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import AdapterSpec, Component, Defaults, Layers, Method, Run, check_peft
from kore_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from kore_bench.examples import Example
    from kore_bench.lmm import LMM
    from kore_bench.statistics import Inputs


@dataclass(frozen=True, kw_only=True)
class EVA(Component):
    """A = the top right-singular vectors of each layer's inputs on the *new* data, B = 0; both factors are trained.

    Paischer et al. 2024, arXiv 2410.07170, section 3. PEFT writes them (`initialize_lora_eva_weights`); they are found
    here, exactly and one block at a time, as eigenvectors of X^T X over the answers' tokens of ``samples`` examples,
    evenly spaced (0: all). PEFT's own search reads batches until no direction turns any more, and on small data never
    ends, for a direction that comes back with its sign changed counts as turned; it also centres X, where the paper's
    theorem is about X itself. Rank, scale and dropout are LoRA's (``lora.rank`` and so on).

    ``rho``: up to rho times the rank are found in every layer, and as many as the ranks sum up to are given to the layers
    where they explain most, a layer's scale following its rank. 1 leaves all layers at the rank, so that as many
    parameters are trained as by LoRA; the paper's and PEFT's is 2, for which an estimate counts equal ranks.
    """

    name = "eva"
    rho: float = 1.0
    samples: int = 256

    def check(self) -> None:
        """Refuse what EVA has no meaning for, and a PEFT that has no EVA."""
        check_peft(self.name, "0.14")
        if not self.rho >= 1:
            raise UserError(f"eva.rho={self.rho} must be at least 1 (1 keeps all ranks equal, 2 is the paper's)")
        if self.samples < 0:
            raise UserError(f"eva.samples={self.samples} must not be negative (0 reads all examples)")

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start; the narrowest layer must hold as many directions as may be given to it."""
        widest, limit = self._widest(spec.rank), min(min(sides) for sides in layers.values())
        if widest > limit:
            raise UserError(
                f"eva.rho={self.rho} may give a layer rank {widest}, and the smallest holds {limit}: use at most "
                f"{limit // spec.rank}, or a smaller lora.rank"
            )
        return spec.claim(self)

    def measure(self, model: LMM, run: Run) -> None:
        """Find the directions of every layer, or take them from the cache."""
        from kore_bench.spectra import samples_digest

        step = -(-len(run.examples) // self.samples) if self.samples else 1
        examples, widest = run.examples[::step], self._widest(run.spec.rank)
        layers = list(run.spec.adapted(model.linears()))
        key = {"statistic": "eva", "samples": samples_digest(examples), "widest": widest, "layers": layers}
        found = run.cache(key, lambda: directions(model, examples, layers, widest))
        ranks = allot({layer: found[f"{layer}/explained"].tolist() for layer in layers}, run.spec.rank * len(layers))
        run.state(self)["A"] = {layer: found[f"{layer}/directions"][: ranks[layer]] for layer in layers}
        run.log("eva/rank, smallest", min(ranks.values()))
        run.log("eva/rank, largest", max(ranks.values()))

    def adapt(self, model: LMM, run: Run) -> None:
        """Let PEFT write A, and where ranks differ make the layers anew; a layer without any is the base's."""
        import torch
        from peft import EvaConfig, initialize_lora_eva_weights

        found = run.state(self).pop("A")
        named = {f"base_model.model.{layer}": a.to(model.device) for layer, a in found.items()}
        config = model.model.peft_config["default"]
        config.init_lora_weights, config.eva_config = "eva", EvaConfig(rho=self.rho)
        with torch.random.fork_rng(devices=[]):
            initialize_lora_eva_weights(model.model, eva_state_dict=named)
        config.init_lora_weights, config.eva_config = True, None  # what is saved is an ordinary LoRA

    def _widest(self, rank: int) -> int:
        return round(self.rho * rank)


def directions(model: LMM, examples: Sequence[Example], layers: Sequence[str], count: int) -> dict[str, torch.Tensor]:
    """Return ``<layer>/directions`` ``[count, n]`` and ``<layer>/explained`` ``[count]``, the most explaining first.

    Rows are orthonormal, float32; their shares are of the energy of the inputs at the answers' tokens.
    """
    from kore_bench.chat import IGNORED
    from kore_bench.spectrum import eigenpairs
    from kore_bench.statistics import collect

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        """Put the answers' tokens, which are to be counted, where padding would stand."""
        for batch in model.batches(examples):
            answers = (batch.pop("labels") != IGNORED).long()
            yield {**batch, "attention_mask": answers, "seen": batch["attention_mask"]}

    def forward(batch: Mapping[str, torch.Tensor]) -> None:
        rest = {name: value for name, value in batch.items() if name != "seen"}
        model.model(**{**rest, "attention_mask": batch["seen"]}, use_cache=False)

    def top(inputs: Inputs) -> dict[str, torch.Tensor]:
        values, vectors = eigenpairs(inputs.covariance, count, largest=True)
        explained = values[-count:].flip(0) / values.sum()
        return {"directions": vectors.T.flip(0).float().cpu(), "explained": explained.cpu()}

    linears = {layer: linear for layer, linear in model.linears().items() if layer in layers}
    found = collect(model.model, model.blocks(), linears, batches(), top, run=forward)
    return {f"{layer}/{part}": value for layer, parts in found.items() for part, value in parts.items()}


def allot(explained: Mapping[str, Sequence[float]], budget: int) -> dict[str, int]:
    """Return the rank of each layer: how many of the ``budget`` most explaining directions of all layers are its own."""
    shares = sorted(((share, layer) for layer, own in explained.items() for share in own), key=lambda pair: -pair[0])
    counts = Counter(layer for _, layer in shares[:budget])
    return {layer: counts[layer] for layer in explained}


METHOD = Method(
    name="eva",
    summary="LoRA whose A starts at the principal directions of the new data's activations",
    source="Paischer et al. 2024, arXiv 2410.07170; PEFT's initialize_lora_eva_weights",
    components=(EVA(),),
)

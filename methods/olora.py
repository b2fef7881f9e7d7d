"""O-LoRA: the new adapter's directions are held orthogonal to an old subspace of each layer's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore_bench.component import AdapterSpec, Component, Layers, Method, Needs, Run
from kore_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM
    from kore_bench.statistics import Counting, Inputs

ORIGINAL = 64 * 8 * 8
"""Inner products in the paper's sum: one old task, r = 8, on the query and value layers of Llama-7B's 32 blocks."""


@dataclass(frozen=True, kw_only=True)
class OLoRA(Component):
    """Penalty strength sum_layers |A_old A^T| + norm_strength sum (||A|| + ||B||) (Wang et al. 2023, section 3.2).

    ``strength`` is the paper's lambda_1; its sum is a plain one, of which r = 128 on every layer makes 3.6 million
    terms and the paper's setting 4096. So it is the mean here, times 4096: a lambda means in any model what it means
    there. ``norm_strength`` is the published code's lambda_2 (norms are not squared), off by default as in its first
    task.

    With one stage there is no old adapter, and O-LoRA would be LoRA. ``old`` = "" takes as A_old the eigenvectors of
    the largest eigenvalues of each layer's old inputs (X X^T over the old samples), as many as the rank: where the
    base's own adapter would have its rows, and comparable with KORE, which works in the opposite subspace. ``old`` =
    a folder of an earlier stage's PEFT adapter takes its A; as the paper keeps that adapter active and frozen, the
    model must be the merged one (`kore-bench export --merge`).

    The absolute values are those of the authors' code; their paper squares the inner products. Otherwise their work is
    followed where the code that KORE's baselines come from (MCITlib) differs: there A_old is not frozen in the penalty,
    and the old adapter takes no part in training. They adapt queries and values alone, at a constant rate; here every
    linear layer, at the run's.
    """

    name = "olora"
    strength: float = 0.5
    norm_strength: float = 0.0
    old: str = ""

    def check(self) -> None:
        """Refuse negative strengths, and an old adapter that is not there."""
        for name in ("strength", "norm_strength"):
            if not getattr(self, name) >= 0:
                raise UserError(f"olora.{name}={getattr(self, name)} must not be negative")
        self.files()

    def files(self) -> tuple[Path, ...]:
        """Return the old adapter's file."""
        from kore_bench.earlier import adapter_file

        return (adapter_file("olora.old", self.old),) if self.old else ()

    def check_spec(self, spec: AdapterSpec, layers: Layers) -> None:
        """Refuse an adapter whose A is not trained, and an old one of another model."""
        from kore_bench.earlier import check_adapter

        if spec.kind != "lora":
            raise UserError("olora needs a low-rank adapter, full has none: use lora+olora")
        spec.check_plain(self)
        if spec.freeze_a:
            raise UserError(f"olora turns the rows of A, and {spec.initialiser} freezes them: keep one of them")
        if self.old:
            check_adapter("olora.old", self.old, layers)

    def measure(self, model: LMM, run: Run) -> None:
        """Find A_old of every layer."""
        if self.old:
            from kore_bench.earlier import read_factors

            shapes = {name: (linear.out_features, linear.in_features) for name, linear in model.linears().items()}
            factors = read_factors(self.old, run.spec.adapted(shapes))
            run.state(self)["old"] = {layer: a for layer, (a, _) in factors.items()}
            return
        from kore_bench.spectra import by_block
        from kore_bench.spectrum import eigenpairs

        rank = run.spec.rank

        def top(inputs: Inputs) -> dict[str, torch.Tensor]:
            rows = eigenpairs(inputs.covariance, rank, largest=True)[1].T.float().contiguous()
            return dict.fromkeys(inputs.names, rows)

        key = {"statistic": "top rows", "examples": [example.id for example in run.calibration], "rank": rank}
        run.state(self)["old"] = by_block(model, run.calibration, top, self.counting(model), key, run.cache)

    def start(self, model: LMM, run: Run) -> None:
        """Keep what the adapter needs of A_old on the model's device."""
        old = run.state(self)["old"]
        run.state(self)["old"] = {layer: old[layer].to(model.device) for layer in model.lora_layers()}

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor:
        """Return the penalty on all adapted layers."""
        old = run.state(self)["old"]
        factors = {layer: model.factors(layer) for layer in old}
        terms = sum(len(old[layer]) * len(a) for layer, (a, _) in factors.items())
        total: Any = sum((old[layer] @ a.T).abs().sum() for layer, (a, _) in factors.items())
        penalty: torch.Tensor = self.strength * ORIGINAL * total / terms
        if self.norm_strength:
            penalty = penalty + self.norm_strength * sum(a.norm() + b.norm() for a, b in factors.values())
        return penalty

    def finish(self, model: LMM, run: Run) -> None:
        """Put into the record how orthogonal the adapter has become."""
        run.log("olora/cosine to the old rows, mean", mean_cosine(model, run.state(self)["old"]))

    def uses_old_samples(self) -> bool:
        """The covariance reads old samples; an earlier adapter needs none."""
        return not self.old

    def counting(self, model: LMM) -> Counting:
        """Every token counts once."""
        from kore_bench.statistics import Counting

        return Counting()

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """The covariances of the old samples, and A_old."""
        width = sum(width for _, width in spec.adapted(layers).values())
        return Needs(covariance=not self.old, kept=4 * spec.rank * width)


def mean_cosine(model: LMM, old: Mapping[str, torch.Tensor]) -> float:
    """Return the mean |cos| between the rows of A and the old rows, over all pairs and layers."""
    import torch
    from torch.nn.functional import normalize

    cosines = [
        (normalize(rows) @ normalize(model.factors(layer)[0].detach().float()).T).abs().mean()
        for layer, rows in old.items()
    ]
    return float(torch.stack(cosines).mean())


METHOD = Method(
    name="olora",
    summary="LoRA with A held orthogonal to the main directions of old inputs, or to an earlier adapter",
    source="O-LoRA, Wang et al. 2023, arXiv 2310.14152; the old subspace from old samples",
    components=(OLoRA(),),
    tunes={"olora.strength": (0.05, 5.0)},
)

"""CorDA, knowledge-preserved mode: LoRA that starts at the components of each weight that old inputs need least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kore_bench.component import AdapterSpec, Component, Defaults, Layers, Method, Needs, Run, check_peft

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM
    from kore_bench.statistics import Inputs


@dataclass(frozen=True, kw_only=True)
class CorDA(Component):
    """B = U_r S_r^(1/2) and A = S_r^(1/2) V_r^T C^-1 of the SVD W0 C = U S V^T, its r smallest values; W0 - B A is frozen.

    Yang et al. 2024, arXiv 2406.05223, eqs. 2 to 5, in the knowledge-preserved mode: C is the covariance of the old
    samples' inputs, and both factors are trained. PEFT's decomposition and start are used
    (``init_lora_weights="corda"``); C comes from this engine, block by block and without padding, where PEFT holds
    those of all layers at once and reads one sample at a time. As in the authors' code, and not in the paper, each
    sample's inputs are divided by |max x|, C is the mean over samples, and its diagonal is damped by 0.01 of its mean,
    doubled until its inverse is good. The scale of C decides between A and B alone: B A = U_r U_r^T W0. PEFT decomposes
    in float32, so that where W0 C has a condition of 1e7 its smallest components are good to some parts in a hundred.

    Scale 1 and no dropout; the rank is LoRA's (``lora.rank``). The authors calibrate on 256 windows of NQ-open's text,
    here on the run's old samples (``--calibration`` names others).
    """

    name = "corda"

    def check(self) -> None:
        """Refuse a PEFT that has no CorDA."""
        check_peft(self.name, "0.15")

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start in the residual form."""
        from peft.tuners.lora.config import CordaConfig

        options = {**spec.options, "init_lora_weights": "corda", "corda_config": CordaConfig(corda_method="kpm")}
        return spec.claim(self, alpha=float(spec.rank), dropout=0.0, residual=True, options=options)

    def measure(self, model: LMM, run: Run) -> None:
        """Decompose every weight, and leave the result on its layer, where PEFT's start looks for it."""
        from peft.tuners.lora.corda import CordaEigens

        found = decompositions(model, run)
        for layer, linear in run.spec.adapted(model.linears()).items():
            values, left, right = (found[f"{layer}/{part}"].to(linear.weight.device) for part in "SUV")
            linear.eigens = CordaEigens(S_WC=values, U_WC=left, V_WC=right)  # type: ignore[assignment]

    def adapt(self, model: LMM, run: Run) -> None:
        """Keep the factors that PEFT wrote, so that what is saved loads onto the clean base."""
        model.keep_start()

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """The covariances of the old samples."""
        return Needs(covariance=True)

    def uses_old_samples(self) -> bool:
        """The covariance reads old samples."""
        return True


def decompositions(model: LMM, run: Run) -> Mapping[str, torch.Tensor]:
    """Return ``<layer>/S`` ``[r]``, ``<layer>/U`` ``[m, r]`` and ``<layer>/V`` ``[n, r]`` of every layer, float32.

    PEFT's own decomposition of W0 C, of which the ``rank`` smallest values are kept.
    """
    from peft import LoraConfig
    from peft.tuners.lora.corda import collect_eigens_for_layer

    from kore_bench.spectra import by_block, samples_digest
    from kore_bench.statistics import Counting

    counting = Counting(faithful=True)
    linears, rank, samples = run.spec.adapted(model.linears()), run.spec.rank, len(run.calibration)

    def smallest(inputs: Inputs) -> dict[str, torch.Tensor]:
        kept = {}
        for layer in set(inputs.names) & set(linears):
            linear = linears[layer]
            linear.covariance_matrix = (inputs.covariance / samples).to(linear.weight.device)
            eigens = collect_eigens_for_layer(linear, LoraConfig())
            del linear.covariance_matrix
            kept[f"{layer}/S"] = eigens.S_WC[-rank:].clone()
            kept[f"{layer}/U"] = eigens.U_WC[:, -rank:].clone()
            kept[f"{layer}/V"] = eigens.V_WC[:, -rank:].contiguous()
        return kept

    key = {
        "statistic": "corda", "samples": samples_digest(run.calibration), "counting": asdict(counting), "rank": rank,
        "layers": list(linears),
    }  # fmt: skip
    return by_block(model, run.calibration, smallest, counting, key, run.cache)


METHOD = Method(
    name="corda",
    summary="LoRA started at the components of the weights that old inputs need least",
    source="Yang et al. 2024, arXiv 2406.05223, knowledge-preserved mode; PEFT's init_lora_weights=corda",
    components=(CorDA(),),
)

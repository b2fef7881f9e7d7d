"""PiSSA: LoRA that starts at the principal singular components of each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import AdapterSpec, Component, Defaults, Layers, Method, Run, check_peft
from kore_bench.errors import UserError

if TYPE_CHECKING:
    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class PiSSA(Component):
    """A = S_r^(1/2) V_r^T and B = U_r S_r^(1/2) of W0 = U S V^T, the r largest singular values; W0 - B A stays frozen.

    Meng et al. 2024, arXiv 2404.02948, eqs. 2 to 4; PEFT's ``init_lora_weights="pissa"``. Scale 1 (alpha = rank) and
    no dropout, as in the paper; the rank is LoRA's (``lora.rank``). ``iterations``: 0 takes the exact SVD, a number the
    randomised one with so many power iterations (the paper: 4 to 16), which is faster on large models.
    """

    name = "pissa"
    iterations: int = 0

    def check(self) -> None:
        """Refuse a negative number of iterations, and a PEFT that has no PiSSA."""
        check_peft(self.name, "0.10")
        if self.iterations < 0:
            raise UserError(
                f"pissa.iterations={self.iterations} must not be negative: 0 takes the exact SVD, 16 a fast one"
            )

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start in the residual form."""
        start = f"pissa_niter_{self.iterations}" if self.iterations else "pissa"
        options = {**spec.options, "init_lora_weights": start}
        return spec.claim(self, alpha=float(spec.rank), dropout=0.0, residual=True, options=options)

    def adapt(self, model: LMM, run: Run) -> None:
        """Keep the factors that PEFT wrote, so that what is saved loads onto the clean base."""
        model.keep_start()


METHOD = Method(
    name="pissa",
    summary="LoRA started at the largest singular components of the weights",
    source="Meng et al. 2024, arXiv 2404.02948; PEFT's init_lora_weights=pissa",
    components=(PiSSA(),),
)

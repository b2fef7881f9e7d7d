"""LoRA-Null: LoRA that starts in the null space of old activations; both factors train (v1), or B alone (v2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import AdapterSpec, Component, Defaults, Layers, Method, Needs, Run, resolve_rank

if TYPE_CHECKING:
    from kore_bench.lmm import LMM
    from kore_bench.statistics import Counting


@dataclass(frozen=True, kw_only=True)
class _Null(Component):
    """Reads the covariances of old inputs and finds both starting factors of every layer."""

    faithful: bool = False

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """The covariances of the old samples."""
        return Needs(covariance=True)

    def uses_old_samples(self) -> bool:
        """The covariance reads old samples."""
        return True

    def counting(self, model: LMM) -> Counting:
        """Return how tokens count in C."""
        from kore_bench.statistics import Counting

        return Counting(faithful=self.faithful)

    def measure(self, model: LMM, run: Run) -> None:
        """Find the null space of every distinct input, and the part of each weight within it."""
        from kore_bench.spectra import spectra
        from kore_bench.subspace import factors_within

        rank, state = run.spec.rank, run.state(self)
        found = spectra(model, run.calibration, self.counting(model), rank)
        state["A"], state["B"] = {}, {}
        for layer, linear in run.spec.adapted(model.linears()).items():
            state["A"][layer], state["B"][layer] = factors_within(linear.weight, found[layer].vectors[:, :rank])


@dataclass(frozen=True, kw_only=True)
class LoRANull(_Null):
    """B A = W0 U U^T at the start, U the r directions in which old inputs have the least energy; A and B are trained.

    Tang et al. 2025, arXiv 2503.02659 (v1): C = X^T X over the old samples' inputs, U its last r singular vectors,
    A = S^(1/2) V^T and B = P S^(1/2) of the SVD of W0 U U^T = P S V^T; W0 - B A is frozen. Scale 1, no dropout. The
    rank is LoRA's (``lora.rank``). Where A trains, nothing holds it in the null space.

    ``faithful`` divides each sample's inputs by |max x| before C, as the authors' code does and the paper does not say;
    false follows the paper. The authors calibrate on 256 windows of NQ-open's text, here on the run's old samples
    (``--calibration`` names others).
    """

    name = "lora-null"

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start in the residual form."""
        return spec.claim(self, alpha=float(spec.rank), dropout=0.0, residual=True)

    def adapt(self, model: LMM, run: Run) -> None:
        """Write both factors, and take them out of the base weight."""
        a, b = run.state(self).pop("A"), run.state(self).pop("B")
        for layer in model.lora_layers():
            model.set_factors(layer, a[layer], b[layer], freeze_a=False)
        model.keep_start()


@dataclass(frozen=True, kw_only=True)
class LoRANullV2(_Null):
    """LoRA-Null with A frozen in the null space of old inputs; only B is trained (Tang et al. 2025, arXiv 2503.02659).

    With A frozen and no weight decay, training B from zero on W0 is training it from P S^(1/2) on W0 - B A: the start
    and every step are the same, so that is done. KORE's constraint is this, calibrated on multimodal samples: on equal
    samples and rank the two differ in rounding alone, which a test shows.

    ``rank``: a number, ``match:lora@R`` for the rank with as many trained parameters as LoRA of rank R, or ``auto`` for
    the model card's LoRA rank matched so (the paper keeps LoRA's). ``faithful``: as in lora-null.
    """

    name = "lora-null-v2"
    rank: int | str = "auto"

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start with A frozen; W0 U has no more singular values than its smaller side."""
        option = f"{self.name}.rank"
        rank = resolve_rank(self.rank, option, layers, defaults, freeze_a=True)
        resolve_rank(rank, option, layers, defaults, freeze_a=False)
        return spec.claim(self, rank=rank, alpha=float(rank), dropout=0.0, freeze_a=True)

    def adapt(self, model: LMM, run: Run) -> None:
        """Write A, B zero, and freeze A."""
        run.state(self).pop("B")
        a = run.state(self).pop("A")
        for layer in model.lora_layers():
            model.set_factors(layer, a[layer], None, freeze_a=True)


V1 = Method(
    name="lora-null",
    summary="LoRA started in the null space of old activations; both factors are trained",
    source="Tang et al. 2025, arXiv 2503.02659, v1",
    components=(LoRANull(),),
)
V2 = Method(
    name="lora-null-v2",
    summary="LoRA with A frozen in the null space of old activations; only B is trained",
    source="Tang et al. 2025, arXiv 2503.02659, v2",
    components=(LoRANullV2(),),
)

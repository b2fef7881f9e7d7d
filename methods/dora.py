"""DoRA: a low-rank change of each weight's direction, and a trained magnitude for each of its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kore_bench.component import AdapterSpec, Component, Defaults, Layers, Method, Needs, check_peft

FORM = "DoRA"


@dataclass(frozen=True, kw_only=True)
class DoRA(Component):
    """W = m (W0 + s B A) / ||W0 + s B A||, norms and magnitudes m by row (Liu et al. 2024, arXiv 2402.09353, eq. 5).

    PEFT's ``use_dora``, whole: m starts at the norms of W0, so that the outputs are the base's; A, B and m are trained,
    and no gradient flows through the norm (section 4.3). The paper says columns where PEFT and the authors' code, whose
    weights are stored as ``[out, in]``, have rows. Rank, scale and dropout are LoRA's (``lora.rank`` and so on), and
    the projector is trained as for LoRA. Under dropout PEFT forms W0 x again from what dropout has left, in training
    alone.
    """

    name = "dora"

    def check(self) -> None:
        """Refuse a PEFT that has no DoRA."""
        check_peft(self.name, "0.9")

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter: magnitudes stand for one start of the factors, and no other form may replace theirs."""
        claimed = spec.claim(self, options={**spec.options, "use_dora": True})
        return replace(claimed, form=FORM, extra=spec.extra + sum(out for out, _ in layers.values()))

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """PEFT forms B A ``[m, n]`` of one layer at a time, from the identity ``[n, n]``, and two more of its size."""
        return Needs(kept=max(4 * (width * width + 3 * out * width) for out, width in layers.values()))


METHOD = Method(
    name="dora",
    summary="LoRA on the directions of the weights, with a trained magnitude for each row",
    source="Liu et al. 2024, arXiv 2402.09353; PEFT's use_dora",
    components=(DoRA(),),
)

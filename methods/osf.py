"""OSF: the small singular components of each weight are trained, off the subspace of the large ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kore_bench.component import Adapter, AdapterSpec, Defaults, Layers, Method, Needs, Run, check_peft, resolve_rank
from kore_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class OSF(Adapter):
    """Orthogonal subspace fine-tuning of W0 = U S V^T: its r smallest triplets train, the others are preserved.

    Nayak et al. 2025, arXiv 2504.07097; PEFT's ``OSFConfig``. The gradients of U_low and V_low are projected off the
    span of the preserved singular vectors. What is preserved is chosen by W0 alone, no old sample is read, where the
    paper grades layers by how much they change their inputs: here all layers train as many triplets.

    ``rank`` is r: a number, or ``auto`` for the model card's LoRA rank; r (in + out + 1) parameters a layer, LoRA's
    budget but for the singular values (PEFT's ``effective_rank`` is what is left, min(in, out) - r).

    With AdamW, which the paper and PEFT use, the change is *not* orthogonal: the projected gradient is divided element
    by element, which turns it back into the preserved subspace. The record's ``osf/share in the preserved subspace``
    says how much of the change of U_low and V_low (squared norm) lies there after training.
    """

    name = "osf"
    rank: int | str = "auto"

    def check(self) -> None:
        """Refuse a PEFT whose OSF forms every weight anew in every pass (before 0.21)."""
        check_peft(self.name, "0.21")

    def spec(self, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Return an adapter of r triplets a layer; raises UserError where a layer would have none to preserve."""
        rank = resolve_rank(self.rank, "osf.rank", layers, defaults, freeze_a=False)
        largest = min(min(sides) for sides in layers.values()) - 1
        if rank > largest:
            raise UserError(
                f"osf.rank={rank} leaves nothing to preserve: the smallest layer allows ranks 1 to {largest}"
            )
        return AdapterSpec(
            kind=self.kind, rank=rank, alpha=float(rank), initialiser=self.name, form="OSF", extra=rank * len(layers)
        )

    def adapt(self, model: LMM, run: Run) -> None:
        """Insert PEFT's layers; the outputs are the base's."""
        from peft import OSFConfig

        shapes = {name: linear.weight.shape for name, linear in model.linears().items()}
        preserved: dict[str, int | float] = {
            rf"{re.escape(name)}$": min(shape) - run.spec.rank for name, shape in shapes.items()
        }
        model.insert(OSFConfig(rank_pattern=preserved), run.train_projector)

    def finish(self, model: LMM, run: Run) -> None:
        """Log how much of the change of the singular vectors lies in the preserved subspace."""
        from kore_bench.anatomy import block_linears  # takes PEFT along

        inside = total = 0.0
        for layer in block_linears(model.base).values():
            for change, part in changes(layer):
                total += float(change.square().sum())
                inside += float(part.square().sum())
        run.log("osf/share in the preserved subspace", inside / total if total else 0.0)

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """PEFT keeps the starting triplets, and the preserved vectors of a layer's longer side, in float32."""
        kept = 0
        for out, width in layers.values():
            short = min(out, width) - spec.rank
            kept += spec.rank * (out + width + 1) + (max(out, width) * short if out != width else 0)
        return Needs(kept=4 * kept)

    def trainable(self, name: str, spec: AdapterSpec) -> bool:
        """The small triplets, and the projector's copy where it was asked for."""
        return "osf_svd_params" in name or "modules_to_save" in name


def changes(layer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the change of U_low ``[m, r]`` and of V_low^T ``[n, r]`` since the start, each with its preserved part.

    PEFT keeps the preserved vectors of the longer side alone; on the other the rest of the start is their complement.
    """
    now, found = layer.osf_svd_params["default"], []
    for name in ("U", "V"):
        highs = dict(getattr(layer, f"_osf_{name}_high").items())
        start = _columns(name, getattr(layer, f"_osf_{name}_low_init")["default"])
        change = _columns(name, now[f"{name}_low"]) - start
        if "default" in highs:
            high = _columns(name, highs["default"])
            found.append((change, high @ (high.T @ change)))
        else:
            found.append((change, change - start @ (start.T @ change)))
    return found


def _columns(name: str, vectors: torch.Tensor) -> torch.Tensor:
    """Return singular vectors as columns, in float64: those of V lie in rows."""
    own = vectors.detach().double()
    return own.T if name == "V" else own


METHOD = Method(
    name="osf",
    summary="the smallest singular components of the weights are trained, off the subspace of the others",
    source="Nayak et al. 2025, arXiv 2504.07097; PEFT's OSFConfig",
    components=(OSF(),),
)

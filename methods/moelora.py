"""MoELoRA as CoIN has it: each layer's LoRA is split among experts, mixed token by token by a dense softmax router."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore_bench.component import Adapter, AdapterSpec, Defaults, Layers, Method, Run, resolve_rank
from kore_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM


class Experts:
    """What PEFT's layers compute in place of W0 x + s B A x (the interface of its ``LoraVariant``)."""

    @staticmethod
    def forward(
        module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:  # fmt: skip
        """Add the experts' mixture for x ``[..., in]`` to the base layer's result ``[..., out]``."""
        gates = module.lora_router[active_adapter](x).softmax(dim=-1)
        hidden = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x))
        gates = gates.repeat_interleave(hidden.shape[-1] // gates.shape[-1], dim=-1)
        mixed: torch.Tensor = module.lora_B[active_adapter](hidden * gates) * module.scaling[active_adapter]
        return result + mixed

    @staticmethod
    def merge_safe(module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        """Raise UserError: there is no weight to merge."""
        raise UserError("moelora cannot be merged into the base: what its experts add depends on the input")

    merge_unsafe = merge_safe

    def supports_lora_conversion(self) -> bool:
        """Return that no plain LoRA does the same."""
        return False


@dataclass(frozen=True, kw_only=True)
class MoELoRA(Adapter):
    """y = W0 x + (alpha / rank) sum_e g_e(x) B_e A_e x with g(x) = softmax(R x), in every linear layer.

    ``experts`` is E (CoIN: 8); ``rank`` is that of all experts together (``auto``: the model card's), so each has
    rank / E and LoRA's budget is only exceeded by the routers R ``[E, in]``. ``alpha``: 0 takes twice the rank.
    ``dropout`` on the experts' input (not the router's): ``auto`` takes the card's. A is normal with a standard
    deviation of 0.01, B zero, R as PyTorch starts a linear layer.

    Followed is the code of CoIN (Chen et al. 2024, arXiv 2403.08350) and MCITlib, which KORE's baselines come from: no
    top-k choice, no load-balancing and no contrastive loss. MoELoRA of Luo et al. 2024 (arXiv 2402.12851), which KORE
    cites, has all three. Deviation: the sum over experts is one rank-r product with a gated hidden vector, which is
    the same function at a fraction of the kernels. As the change depends on the input, it cannot be merged, and PEFT
    alone, which knows no router, would load the adapter wrongly: it is not exported.
    """

    name = "moelora"
    portable = False
    experts: int = 8
    rank: int | str = "auto"
    alpha: float = 0.0
    dropout: float | str = "auto"

    def check(self) -> None:
        """Refuse fewer than two experts, a dropout outside [0, 1) and a negative scale."""
        if self.experts < 2:
            raise UserError(f"moelora.experts={self.experts} must be at least 2 (one expert is lora)")
        if isinstance(self.dropout, float) and not 0 <= self.dropout < 1:
            raise UserError(f"moelora.dropout={self.dropout} must be at least 0 and below 1")
        if self.alpha < 0:
            raise UserError(f"moelora.alpha={self.alpha} must not be negative")

    def spec(self, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Return a LoRA of the asked rank with a router beside it; refuses a rank that the experts cannot share."""
        rank = resolve_rank(self.rank, "moelora.rank", layers, defaults, freeze_a=False)
        if rank % self.experts:
            whole = max(1, round(rank / self.experts)) * self.experts
            raise UserError(
                f"moelora.rank: {self.experts} experts cannot share a rank of {rank} equally: use {whole}, or another "
                "number of experts (moelora.experts)"
            )
        dropout = self.dropout if isinstance(self.dropout, float) else defaults.dropout
        return AdapterSpec(
            kind=self.kind, rank=rank, alpha=self.alpha or 2 * rank, dropout=dropout, form="routed experts",
            extra=self.experts * sum(width for _, width in layers.values()),
        )  # fmt: skip

    def adapt(self, model: LMM, run: Run) -> None:
        """Insert a LoRA and put a router on each of its layers; all is drawn from this component's own stream."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.rng(self).getrandbits(63))
            model.insert_lora(run.spec, run.train_projector)
            for layer in model.lora_layers():
                torch.nn.init.normal_(model.factors(layer)[0], std=0.01)
            add_routers(model, self.experts)

    def trainable(self, name: str, spec: AdapterSpec) -> bool:
        """Both factors and the routers train; the projector's copy trains where it was asked for."""
        return any(part in name for part in ("lora_A", "lora_B", "lora_router", "modules_to_save"))

    def finish(self, model: LMM, run: Run) -> None:
        """Put into the record how unevenly the routers use their experts."""
        loads = router_loads(model, next(model.batches(run.examples)))
        run.log("moelora/load, largest", float(loads.max()))
        run.log("moelora/load, smallest", float(loads.min()))

    def load(self, model: LMM, folder: Path) -> None:
        """Put a saved adapter with its routers onto the clean base."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        model.load_trained(folder)
        add_routers(model, self.experts)
        set_peft_model_state_dict(model.model, load_file(folder / "adapter_model.safetensors"))


def add_routers(model: LMM, experts: int) -> None:
    """Put a router over ``experts`` equal parts of the rank on every adapted layer, and let it gate the hidden vector."""
    from torch import nn

    from kore_bench.lmm import ADAPTER

    layer: Any
    for layer in model.lora_layers().values():
        weight = layer.lora_A[ADAPTER].weight
        router = nn.Linear(weight.shape[1], experts, bias=False)
        layer.lora_router = nn.ModuleDict({ADAPTER: router.to(weight.device, weight.dtype)})
        layer.lora_variant[ADAPTER] = Experts()


def router_loads(model: LMM, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return each layer's mean gate by expert ``[layers, E]`` over the tokens of a batch; rows sum to 1."""
    import torch

    from kore_bench.lmm import ADAPTER

    found: list[torch.Tensor] = []
    hooks = []
    layer: Any
    mask = batch["attention_mask"].bool()

    def read(module: Any, arguments: Any, scores: torch.Tensor) -> None:
        found.append(scores[mask].float().softmax(dim=-1).mean(dim=0).cpu())

    for layer in model.lora_layers().values():
        hooks.append(layer.lora_router[ADAPTER].register_forward_hook(read))
    with torch.inference_mode():
        model.model(**{name: value for name, value in batch.items() if name != "labels"})
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


METHOD = Method(
    name="moelora",
    summary="LoRA split among experts, mixed token by token by a softmax router; not mergeable",
    source="CoIN, Chen et al. 2024, arXiv 2403.08350 (after Luo et al. 2024, arXiv 2402.12851)",
    components=(MoELoRA(),),
)

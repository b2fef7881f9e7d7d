"""KL to the base on the old samples: a penalty that joins any method."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kore_bench.component import AdapterSpec, Component, Layers, Method, Needs, Run
from kore_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class KL(Component):
    """Penalty strength KL(p_base || p), the mean over answer tokens of old samples drawn at every step.

    The functional form of what weight penalties (`ewc`, `l2-sp`) aim at: on old inputs the model answers as the base.
    ``strength`` is in units of the task loss a nat. ``ratio`` is how many old samples a batch draws for each of its
    new examples (rounded, at least one): 0.25 costs as much as a quarter of a batch, and the base's pass over it.

    No published method is followed to the letter: it is LwF's loss (temperature 1) on replayed inputs, whose labels
    only say which tokens are answers.
    """

    name = "kl"
    strength: float = 1.0
    ratio: float = 0.25

    def check(self) -> None:
        """Refuse a negative strength, and a ratio that is not positive."""
        if not self.strength >= 0:
            raise UserError(f"kl.strength={self.strength} must not be negative")
        if not self.ratio > 0:
            raise UserError(f"kl.ratio={self.ratio} must be above 0 (0.25 draws one old sample to four new ones)")

    def start(self, model: LMM, run: Run) -> None:
        """Keep what it takes to have the base's answers, and the seed of the draws."""
        from kore_bench.distillation import keep_base

        drawn = {"seed": run.rng(self).getrandbits(63), "step": 0, "batch": 0}
        run.state(self).update(base=keep_base(model, run.spec), **drawn)

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor:
        """Return the mean divergence from the base on freshly drawn old samples."""
        from kore_bench.distillation import answer_divergence, base_logits
        from kore_bench.lmm import IGNORED

        samples = self._draw(len(batch["labels"]), run)
        old = next(model.batches(samples, len(samples)))
        labels = old.pop("labels")
        teacher = base_logits(model, run.state(self)["base"], old)
        divergence = answer_divergence(model.model(**old).logits, teacher, labels)
        return self.strength * divergence / (labels[:, 1:] != IGNORED).sum()

    def _draw(self, new: int, run: Run) -> list[Any]:
        """Draw old samples for a batch of ``new`` examples; processes and the batches of a step draw apart."""
        from kore_bench.distributed import rank

        state = run.state(self)
        stream = random.Random(f"{state['seed']}/{state['step']}/{state['batch']}/{rank()}")
        state["batch"] += 1
        return stream.sample(list(run.calibration), min(max(1, round(self.ratio * new)), len(run.calibration)))

    def step(self, model: LMM, run: Run) -> None:
        """Count the step: a training that is taken up again draws what it would have drawn."""
        run.state(self)["step"] += 1
        run.state(self)["batch"] = 0

    def uses_old_samples(self) -> bool:
        """It reads old samples."""
        return True

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """Both models' forward passes over the drawn samples; the student's backward pass, its activations made again."""
        from kore_bench.distillation import kept_bytes

        return Needs(forwards=4 * self.ratio, kept=kept_bytes(spec, layers))


METHOD = Method(
    name="kl",
    summary="LoRA held to the base's own next-token probabilities on old samples",
    source="kore-bench: the loss of LwF (Li and Hoiem 2017) on replayed inputs",
    components=(KL(),),
    tunes={"kl.strength": (0.3, 3.0)},
)

"""Experience replay: a share of old samples is mixed into the new data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from kore_bench.component import Component, Method, Run
from kore_bench.errors import UserError
from kore_bench.examples import Example


@dataclass(frozen=True, kw_only=True)
class Replay(Component):
    """D_train = D_new + sample(D_old), drawn without replacement from the run's old samples.

    ``ratio`` is the share of the *new* set's size that is drawn from old samples (the paper replays 10 %); a share
    that asks for more than there are takes them all and says so in the record.
    """

    name = "replay"
    ratio: float = 0.1

    def check(self) -> None:
        """Refuse a ratio that is not positive."""
        if not self.ratio > 0:
            raise UserError(f"replay.ratio={self.ratio} must be above 0 (0.1 replays one old sample to ten new ones)")

    def data(self, examples: list[Example], run: Run) -> list[Example]:
        """Append the drawn samples; their ids stand in the record."""
        wanted = max(1, round(self.ratio * len(examples)))
        drawn = run.rng(self).sample(list(run.calibration), min(wanted, len(run.calibration)))
        run.log("replay/wanted", wanted)
        run.log("replay/ids", [example.id for example in drawn])
        return examples + [replace(example, source=f"replay/{example.source}") for example in drawn]

    def uses_old_samples(self) -> bool:
        """Replay reads old samples."""
        return True

    def old_samples(self, run: Run) -> Collection[str]:
        """Return the ids of the drawn samples alone."""
        return [example.id for example in run.examples if example.source.startswith("replay/")]


METHOD = Method(
    name="replay",
    summary="LoRA on the new data mixed with a share of old samples",
    source="KORE section 4.1 (arXiv 2510.19316): 10 % random replay",
    components=(Replay(),),
)

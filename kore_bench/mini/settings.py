"""Which entities of the mini world a run injects (``--set world.FIELD=VALUE``): their number, their draws, their looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kore_bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """What is injected into the mini world; as it comes, the main world's 60 entities.

    ``entities`` counts the new ones. ``draws`` = ``seed`` draws others for each seed, so that a spread over seeds
    includes the choice of entities; ``fixed`` gives every seed the same. ``distance`` says how many of its four shapes
    a new entity shares with the old one that is most like it: three and all colours (``near``), at most one
    (``far``), at most two (``any``).
    """

    entities: int = 60
    draws: Literal["fixed", "seed"] = "fixed"
    distance: Literal["any", "near", "far"] = "any"

    @property
    def main(self) -> bool:
        """Whether this is the main world."""
        return self == WorldSettings()

    def draw(self, seed: int) -> int:
        """Return the number of the draw that ``seed`` injects: its own, or 0 where all seeds share one."""
        return seed if self.draws == "seed" else 0

    def check(self) -> None:
        """Raise UserError where there can be no such world; how many looks there are is known when it is drawn."""
        if self.entities < 2:
            raise UserError(f"--set world.entities={self.entities} must be at least 2, to show one for another")

"""What language models were asked, wrote and cost, and the limit on the cost; shared by all threads of a process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kore_bench.generators import GeneratorSettings, LimitReachedError

from .asking import Completion, Request

COUNTED = ("requests", "tokens_in", "tokens_out", "cost", "cached", "retries", "rejects", "uncounted")
_FRAME = 200  # tokens of a chat template and of a schema beside the texts, at most
_MILLION = 1_000_000


class Account:
    """Counts what is used. With ``max_cost`` the cost never passes it: a request is made only where the most that it
    can cost still fits beside what was spent and what requests under way can cost.

    Where a server tells no numbers of tokens, a request is taken to have cost the most it can, and counted as
    ``uncounted``.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        self.settings = settings
        self._used: Counter[str] = Counter()
        self._spent = 0.0
        self._reserved: list[float] = []
        self._settled = threading.Condition()

    def count(self, name: str) -> None:
        """Add one to ``name``."""
        with self._settled:
            self._used[name] += 1

    @contextmanager
    def reserved(self, request: Request) -> Iterator[list[Completion]]:
        """Hold back what a request can cost at most; account for the completions that are put into the list.

        Raises LimitReachedError where that passes the limit although nothing under way could still cost less.
        """
        most = self._price(request.bytes() + _FRAME, request.max_tokens)
        self._hold(most)
        completed: list[Completion] = []
        try:
            yield completed
        finally:
            with self._settled:
                self._reserved.remove(most)
                for completion in completed:
                    self._book(completion, most)
                self._settled.notify_all()

    def usage(self) -> Mapping[str, float]:
        """Return what was used, by the names in `COUNTED`; cost in US dollars."""
        with self._settled:
            return {name: self._spent if name == "cost" else float(self._used[name]) for name in COUNTED}

    def _hold(self, most: float) -> None:
        limit = self.settings.max_cost
        with self._settled:
            while limit and self._spent + sum(self._reserved) + most > limit:
                if not self._reserved:
                    raise LimitReachedError(
                        f"--max-cost {limit:g} is reached: {self._spent:.4f} US dollars are spent, and the next request "
                        f"can cost up to {most:.4f}"
                    )
                self._settled.wait()
            self._reserved.append(most)

    def _book(self, completion: Completion, most: float) -> None:
        self._used["requests"] += 1
        if completion.tokens_in is None or completion.tokens_out is None:
            self._used["uncounted"] += 1
            self._spent += most
            return
        self._used["tokens_in"] += completion.tokens_in
        self._used["tokens_out"] += completion.tokens_out
        self._spent += self._price(completion.tokens_in, completion.tokens_out)

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.settings.price_in + tokens_out * self.settings.price_out) / _MILLION

"""Draws of a million numbers and of a few: what data sets, dropout and initial weights cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jitgrad as jg

COUNT, CALLS = 1_000_000, 200

DRAWS: dict[str, Callable[[Any, int], Any]] = {
    "bits": lambda g, n: g.bits((n,)),
    "uniform": lambda g, n: g.uniform((n,)),
    "uniform, float64": lambda g, n: g.uniform((n,), dtype="float64"),
    "normal": lambda g, n: g.normal((n,)),
    "normal, float64": lambda g, n: g.normal((n,), dtype="float64"),
    "truncated_normal": lambda g, n: g.truncated_normal((n,)),
    "exponential": lambda g, n: g.exponential((n,)),
    "bernoulli": lambda g, n: g.bernoulli(0.5, (n,)),
    "integers": lambda g, n: g.integers(10, shape=(n,)),
    "permutation": lambda g, n: g.permutation(n),
}


class Draws:
    """One generator; the first draw of each kind, which may build its kernel, is not timed."""

    params = list(DRAWS)
    param_names = ["draw"]

    def setup(self, name: str) -> None:
        self.generator = jg.random.Generator(1)
        self.draw = DRAWS[name]
        self.draw(self.generator, COUNT)

    def time_a_million(self, name: str) -> None:
        self.draw(self.generator, COUNT)

    def time_200_draws_of_64(self, name: str) -> None:
        for _ in range(CALLS):
            self.draw(self.generator, 64)

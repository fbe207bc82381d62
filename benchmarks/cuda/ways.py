"""A GPU works while the host goes on: one piece of work timed in three ways."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from benchmarks.worker import Mode

ISSUED, EACH, END = "host time of asking", "waited for at each call", "waited for at the end"
AHEAD = 32                      # calls that are asked for before they are waited for: no queue of a driver is full


def ways(mode: Mode, wait: Callable[[Any], Any]) -> Iterator[Mode]:
    """A mode whose loop waits for nothing, as three: what ``wait`` takes is the loop's last result."""
    numbers = functools.cache(mode.result)       # one state, so the first of the three is checked
    numbers()

    def end(n: int) -> None:
        wait(mode.loop(n))

    def each(n: int) -> None:
        for _ in itertools.repeat(None, n):
            wait(mode.loop(1))

    def issued(n: int) -> float:
        taken = 0.0
        while n > 0:
            start = time.perf_counter()
            out = mode.loop(min(n, AHEAD))
            taken += time.perf_counter() - start
            wait(out)
            n -= AHEAD
        return taken
    for how, loop, clock in ((END, end, None), (EACH, each, None), (ISSUED, end, issued)):
        yield replace(mode, label=f"{how}: {mode.label}", loop=loop, clock=clock, result=numbers)

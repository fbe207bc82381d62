"""What the host does in a replay on a GPU, timed without one: under a driver whose work is nothing.

All is as on a GPU (the machine's matching, the plan, memory, Tensors), but that addresses are only numbers, kernels are
not compiled, and a recorded graph does nothing when it is launched.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

import numpy as np

import jitgrad as jg
from benchmarks.cuda import idle
from benchmarks.cuda import workloads as c
from benchmarks.engine import use_jitgrad as engine
from benchmarks.worker import Mode

LEAST = 0.01                    # seconds of a round


def modes() -> list[tuple[str, Mode]]:
    """What is timed."""
    with jg.device("cuda"):
        x, y = (jg.asarray(np.zeros((16, 16), np.float32)) for _ in range(2))
        training = list(engine.mlp())[1], next(engine.adam())
        square = jg.asarray(c.square())
    add, sums = jg.function(lambda x, y: x * y + x), jg.function(lambda x: c.summed(x, jg, 100))

    def mode(f: Any, *args: Any) -> Mode:
        return engine.replayed("", f, *args, numbers=list)
    return [("x * y + x of two Tensors", mode(add, x, y)),
            ("a step of SGD: an MLP of two layers, 4 Variables", training[0]),
            ("a step of Adam: an MLP of three layers, 6 Variables, their moments", training[1]),
            ("100 sums, one after the other", mode(sums, square))]


def timed(mode: Mode, rounds: int) -> list[float]:
    """Microseconds a call, of every round."""
    mode.loop(100)
    n, start = 100, time.perf_counter()
    mode.loop(n)
    n = max(n, int(n * LEAST / (time.perf_counter() - start)))
    found = []
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        mode.loop(n)
        found.append(1e6 * (time.perf_counter() - start) / n)
    return found


def main(rounds: int) -> None:
    """Print a table."""
    idle.install()
    print("\n### host: a replay on a GPU that does nothing\n\n| function | median us | min us |\n|---|--:|--:|")
    for name, mode in modes():
        found = timed(mode, rounds)
        print(f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} |")

"""PyTorch on the GPU, eager and by torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.cuda import workloads as c
from benchmarks.cuda.ways import ways
from benchmarks.engine import use_torch as engine
from benchmarks.engine.use_torch import COMPILED, called
from benchmarks.libraries import use_torch as here
from benchmarks.libraries.use_torch import VERSION
from benchmarks.worker import Mode

__all__ = ["VERSION", "WORKLOADS"]
SIZES = c.sizes()


def waited(_: Any = None) -> None:
    """All that was asked for is done."""
    torch.cuda.synchronize()


def on_gpu(make: Callable[[], Iterator[Mode]]) -> Iterator[Mode]:
    """Each mode timed in three ways."""
    for mode in make():
        yield from ways(mode, waited)


def sums() -> Iterator[Mode]:
    x = here.there(c.square())

    def f(x: Any) -> Any:
        return c.summed(x, torch, SIZES.sums)
    yield called("eager", f, x, numbers=lambda found: [here.numbers(found)])
    graphed = torch.compile(f, mode="reduce-overhead")
    yield called(f"{COMPILED}, CUDA graphs", graphed, x, numbers=lambda found: [here.numbers(found)])


def matmul() -> Iterator[Mode]:
    x, y = (here.there(a) for a in c.factors(SIZES.side))
    yield called("eager", torch.matmul, x, y,
                 numbers=lambda found: [here.numbers(c.some_rows(found)) / SIZES.side ** 0.5])


MADE: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": engine.mlp, "adam": engine.adam, "chain": lambda: iter(here.chain_value()), "sums": sums,
    "expression": partial(engine.expression, SIZES.points), "matmul": matmul, "matmul-tf32": matmul}
WORKLOADS = {name: partial(on_gpu, make) for name, make in MADE.items()}

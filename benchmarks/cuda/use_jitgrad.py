"""jitgrad: functions recorded before, their arguments and Variables on the GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jitgrad as jg
from benchmarks.cuda import workloads as c
from benchmarks.cuda.ways import END, ways
from benchmarks.engine import use_jitgrad as engine
from benchmarks.engine.use_jitgrad import arrays, replayed
from benchmarks.libraries import use_jitgrad as here
from benchmarks.libraries.use_jitgrad import VERSION
from benchmarks.worker import Mode
from jitgrad.execute.cuda import memory, stream

__all__ = ["VERSION", "WORKLOADS"]
SIZES = c.sizes()
if SIZES.tiny:
    c.shrink()


def waited(_: Any = None) -> None:
    """All that was asked for is done."""
    stream.driver().sync()


def on_gpu(make: Callable[[], Iterator[Mode]]) -> Iterator[Mode]:
    """Modes made where Tensors and Variables are made on the GPU, each timed in three ways."""
    with jg.device("cuda"):
        modes = list(make())
    for mode in modes:
        yield from ways(mode, waited)


def counted(mode: Mode, f: Any) -> Mode:
    """The mode of a function, with the number of its launches."""
    mode.result()
    return replace(mode, nodes=f._impl.entries[0].plan.launches)


def chain() -> Iterator[Mode]:
    from benchmarks import workloads as w
    f = jg.function(jg.value_and_grad(here.chain_total))
    with jg.device("cuda"):
        x = jg.asarray(w.chain_input())
    yield from ways(counted(replayed("function(value_and_grad)", f, x, numbers=arrays), f), waited)


def sums() -> Iterator[Mode]:
    f = jg.function(lambda x: c.summed(x, jg, SIZES.sums))
    with jg.device("cuda"):
        x = jg.asarray(c.square())
    yield from ways(counted(replayed("function", f, x, numbers=lambda found: [found.numpy()]), f), waited)


def expression() -> Iterator[Mode]:
    yield from on_gpu(partial(engine.expression, SIZES.points))
    nbytes = 4 * SIZES.points
    to, source, gpu = memory.empty(nbytes), memory.empty(nbytes), stream.driver()
    gpu.fill(source.base, 0, nbytes)

    def copies(n: int) -> None:
        for _ in itertools.repeat(None, n):
            gpu.copy(to.base, 0, source.base, 0, nbytes)
        gpu.sync()
    yield Mode(f"{END}: {c.COPY}", copies, lambda: [])


def matmul() -> Iterator[Mode]:
    with jg.device("cuda"):
        x, y = (jg.asarray(a) for a in c.factors(SIZES.side))
    f = jg.function(lambda x, y: x @ y)

    def numbers(found: Any) -> list[Any]:
        return [c.some_rows(found).numpy() / SIZES.side ** 0.5]
    yield from ways(replayed("function", f, x, y, numbers=numbers), waited)


WORKLOADS: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": lambda: on_gpu(engine.mlp), "adam": lambda: on_gpu(engine.adam), "chain": chain, "sums": sums,
    "expression": expression, "matmul": matmul, "matmul-tf32": matmul}

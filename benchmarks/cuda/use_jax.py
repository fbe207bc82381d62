"""JAX on the GPU: jitted, the arguments on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import workloads as w
from benchmarks.cuda import workloads as c
from benchmarks.cuda.ways import ways
from benchmarks.engine import use_jax as engine
from benchmarks.engine import workloads as e
from benchmarks.libraries import use_jax as here
from benchmarks.libraries.use_jax import VERSION
from benchmarks.worker import Mode

__all__ = ["VERSION", "WORKLOADS"]
SIZES = c.sizes()


def jitted(label: str, f: Callable[..., Any], *args: Any, numbers: Callable[[Any], list[Any]]) -> Iterator[Mode]:
    """A call with the same arguments; only its last result is kept."""
    def loop(n: int) -> Any:
        for _ in itertools.repeat(None, n - 1):
            f(*args)
        return f(*args)
    return ways(Mode(label, loop, lambda: numbers(f(*args)), recorded=False), jax.block_until_ready)


def mlp() -> Iterator[Mode]:
    for label, options in (("jit(step), donated", {"donate_argnums": 0}), ("jit(step)", {})):
        training = here.Training(jax.jit(here.step, **options), wait=False)
        mode = Mode(label, training.turns, training.result, recorded=False)
        yield from ways(mode, lambda _, training=training: jax.block_until_ready(training.parameters))


def adam() -> Iterator[Mode]:
    """The loss of a step is there when the step is done: a step is one program."""
    yield from ways(engine.deep_training(wait=False), jax.block_until_ready)


def chain() -> Iterator[Mode]:
    yield from jitted("jit(value_and_grad)", jax.jit(jax.value_and_grad(here.total)), jnp.asarray(w.chain_input()),
                      numbers=list)


def sums() -> Iterator[Mode]:
    yield from jitted("jit", jax.jit(lambda x: c.summed(x, jnp, SIZES.sums)), jnp.asarray(c.square()),
                      numbers=lambda found: [found])


def expression() -> Iterator[Mode]:
    yield from jitted("jit(value_and_grad)", jax.jit(jax.value_and_grad(engine.written)),
                      jnp.asarray(e.points(SIZES.points)), numbers=lambda found: e.expression_numbers(*found))


def matmul() -> Iterator[Mode]:
    x, y = (jnp.asarray(a) for a in c.factors(SIZES.side))
    yield from jitted("jit", jax.jit(jnp.matmul), x, y,
                      numbers=lambda found: [c.some_rows(found) / SIZES.side ** 0.5])


WORKLOADS: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": mlp, "adam": adam, "chain": chain, "sums": sums, "expression": expression, "matmul": matmul,
    "matmul-tf32": matmul}

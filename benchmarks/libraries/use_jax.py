"""JAX: jitted, the arguments on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import kernels
from benchmarks import workloads as w
from benchmarks.worker import Mode, measured, over, repeated, with_four, with_pairs

VERSION = jax.__version__


def op() -> list[Mode]:
    a, b = (jnp.asarray(x) for x in w.op_inputs())

    def plain(n: int) -> None:
        out = a
        for _ in itertools.repeat(None, n):
            out = a + b
        out.block_until_ready()
    return [Mode("a + b, not traced", plain, lambda: [a + b], recorded=False)]


def chain() -> list[Mode]:
    x = jnp.asarray(w.chain_input())
    gradient = jax.jit(jax.grad(total))

    def call() -> Any:
        return gradient(x).block_until_ready()
    return [Mode("jit(grad), compiled before", repeated(call), lambda: [call()], recorded=False)]


def total(y: Any) -> Any:
    for _ in range(w.TURNS):
        y = jnp.sin(y) * 1.01 + 0.1
    return y.sum()


def chain_value() -> list[Mode]:
    x = jnp.asarray(w.chain_input())
    both = jax.jit(jax.value_and_grad(total))
    return [Mode("jit(value_and_grad), waited for at each call",
                 repeated(lambda: jax.block_until_ready(both(x))), lambda: both(x), recorded=False),
            Mode("jit(value_and_grad), waited for at the end", waited(repeated(lambda: both(x))), lambda: both(x),
                 recorded=False)]


def waited(loop: Callable[[int], Any]) -> Callable[[int], Any]:
    """The loop, and a wait for its last result."""
    return lambda n: jax.block_until_ready(loop(n))


def entry() -> list[Mode]:
    jitted = jax.jit(w.entry_by_hand)
    modes = []
    for kind, arrays in (("NumPy", w.entry_inputs()), ("own", [jnp.asarray(a) for a in w.entry_inputs()])):
        def call(arrays: Any = arrays) -> Any:
            return jitted(*arrays)

        def waiting(a: Any, b: Any, c: Any, d: Any) -> None:
            jitted(a, b, c, d).block_until_ready()
        modes += [Mode(f"jit, {kind} arrays, waited for at each call", with_four(waiting, *arrays),
                       lambda call=call: [call()], recorded=False),
                  Mode(f"jit, {kind} arrays, waited for at the end", _then(with_four(jitted, *arrays), call),
                       lambda call=call: [call()], recorded=False)]
    return modes


def _then(loop: Callable[[int], Any], last: Callable[[], Any]) -> Callable[[int], Any]:
    """The loop, whose results are dropped, and one more call that is waited for."""
    def both(n: int) -> None:
        loop(n - 1)
        jax.block_until_ready(last())
    return both


def partials() -> list[Mode]:
    both = jax.jit(jax.value_and_grad(lambda w1, w2: 3 * w1**2 + 2 * w1 * w2, argnums=(0, 1)))

    def waiting(w1: float, w2: float) -> None:
        jax.block_until_ready(both(w1, w2))

    def reading(w1: float, w2: float) -> tuple[float, float, float]:
        value, (g1, g2) = both(w1, w2)
        return float(value), float(g1), float(g2)

    def result() -> list[Any]:
        return [[reading(*p) for p in w.pairs()]]
    pairs = w.pairs()
    return [Mode("jit(value_and_grad), waited for at each call", with_pairs(pairs, waiting), result, recorded=False),
            Mode("jit(value_and_grad), waited for at the end", _then(with_pairs(pairs, both), lambda: both(*pairs[0])),
                 result, recorded=False),
            Mode("jit(value_and_grad), read as floats", with_pairs(pairs, reading), result, recorded=False)]


def tutorial() -> list[Mode]:
    w1, w2 = jnp.float32(5.0), jnp.float32(3.0)
    gradient = jax.jit(jax.grad(lambda w1, w2: 3 * w1**2 + 2 * w1 * w2, argnums=(0, 1)))

    def call() -> tuple[float, float]:
        g1, g2 = gradient(w1, w2)
        return float(g1), float(g2)
    return [Mode("jit(grad), compiled before", repeated(call), lambda: [call()], recorded=False)]


def mlp_loss(parameters: list[Any], x: Any, y: Any) -> Any:
    w1, b1, w2, b2 = parameters
    logits = jax.nn.relu(x @ w1 + b1) @ w2 + b2
    picked = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def step(parameters: list[Any], x: Any, y: Any) -> tuple[list[Any], Any]:
    loss, grads = jax.value_and_grad(mlp_loss)(parameters, x, y)
    return [p - w.RATE * g for p, g in zip(parameters, grads, strict=True)], loss


class Training:
    """Parameters that a jitted step replaces."""

    def __init__(self, jitted: Any, wait: bool) -> None:
        self.batches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in w.mlp_batches()]
        self.parameters = [jnp.array(p) for p in w.mlp_parameters()]
        self.jitted = jitted
        self.wait = wait
        self.turns = over(self.batches, self.step)

    def step(self, x: Any, y: Any) -> Any:
        self.parameters, loss = self.jitted(self.parameters, x, y)
        if self.wait:
            jax.block_until_ready(self.parameters)
        return loss

    def loop(self, n: int) -> None:
        self.turns(n)
        jax.block_until_ready(self.parameters)

    def result(self) -> list[Any]:
        for batch in self.batches[:w.CHECKED_STEPS]:
            self.step(*batch)
        return [jnp.copy(p) for p in self.parameters]


def _mode(label: str, wait: bool, **options: Any) -> Mode:
    training = Training(jax.jit(step, **options), wait)
    return Mode(label, training.loop, training.result, recorded=False)


def scanned() -> Mode:
    """All batches in one compiled loop."""
    batches = w.mlp_batches()
    data = tuple(jnp.stack([jnp.asarray(b[i]) for b in batches]) for i in range(2))
    epoch = jax.jit(lambda ps, data: jax.lax.scan(lambda p, b: step(p, *b), ps, data))
    state = [[jnp.asarray(p) for p in w.mlp_parameters()]]

    def loop(n: int) -> None:
        for _ in range(n // w.BATCHES):
            state[0], _ = epoch(state[0], data)
        jax.block_until_ready(state[0])

    def result() -> list[Any]:
        state[0], _ = epoch(state[0], tuple(d[:w.CHECKED_STEPS] for d in data))
        return state[0]
    return Mode(f"jit(scan over {w.BATCHES} batches), {w.SCANNED}", loop, result, recorded=False,
                whole=w.BATCHES)


def mlp() -> list[Mode]:
    return [*mlp_steps(), scanned()]


def mlp_steps() -> Iterator[Mode]:
    yield _mode("jit(step), donated, waited for at each step", True, donate_argnums=0)
    yield _mode("jit(step), donated, waited for at the end", False, donate_argnums=0)
    yield _mode("jit(step), waited for at the end", False)


def kernel(name: str) -> list[Mode]:
    operands = [jnp.asarray(a) for a in kernels.inputs(name)]
    functions = {"copy": jnp.negative, "erf": jax.scipy.special.erf, "pow": jnp.power,
                 "gather": lambda x, i: jnp.take(x, i, mode="clip"),
                 "scatter-add": lambda u, i: jnp.zeros(kernels.MANY, jnp.float32).at[i].add(u)}
    jitted = jax.jit(functions.get(name) or getattr(jnp, name))
    return [measured(lambda: jitted(*operands).block_until_ready(), f"jit({name}), waited for")]


WORKLOADS = {"op": op, "chain": chain, "chain-value": chain_value, "entry": entry, "partials": partials,
             "tutorial": tutorial, "mlp": mlp,
             **{name: partial(kernel, name) for name in kernels.NAMES}}
